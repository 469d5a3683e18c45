"""Foreground responses that Handrail keeps: when, for how long, and what is said of it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from handrail.core import wire
from handrail.core.caller_policy import CallerPolicy, StorePolicy, WhenLeft
from handrail.core.policy import Mode, Plan, decide
from handrail.errors import ConfigInvalid, RequestRejected
from tests.guardrails import KEPT_SECONDS, switch_of

KEEP = CallerPolicy(name="ann", store=StorePolicy.KEEP, retention_seconds=KEPT_SECONDS)
GOES_ON = replace(KEEP, when_left=WhenLeft.CONTINUE)


def kept(fields: dict[str, Any], caller: CallerPolicy = KEEP, *, has_store: bool = True) -> Plan:
    """The plan where responses can be kept."""
    request = wire.read_create(json.dumps({"model": "m", **fields}).encode())
    off = switch_of("flag off")  # that is about background alone
    return decide(request, switch=off, caller=caller, has_store=has_store)


def test_a_kept_foreground_response_says_who_keeps_it_and_for_how_long() -> None:
    plan = kept({"store": True})
    assert plan.header() == "mode=kept; store=gateway"
    assert plan.reasons[0].text == (
        "Handrail keeps the response for 4321 s after its end; the upstream keeps nothing."
    )
    assert not plan.outlives_reader


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("caller", [KEEP, GOES_ON])
def test_only_a_stream_goes_on_without_its_reader_and_only_where_that_is_the_rule(
    stream: bool, caller: CallerPolicy
) -> None:
    plan = kept({"store": True, "stream": stream}, caller)
    assert plan.outlives_reader is (stream and caller is GOES_ON)
    assert ("when-left=continue" in plan.header()) is plan.outlives_reader
    told = "The stream goes on when its reader leaves, and can be resumed."
    assert (plan.reasons[-1].text == told) is plan.outlives_reader


@pytest.mark.parametrize("store", [StorePolicy.LOWER, StorePolicy.REFUSE])
def test_a_stream_of_which_nothing_is_kept_cannot_go_on_without_a_reader(
    store: StorePolicy,
) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        CallerPolicy(name="ann", store=store, when_left=WhenLeft.CONTINUE)
    assert str(caught.value) == (
        'callers.ann.when_left: "continue" needs store = "keep" or "keep_all": '
        "what is not kept cannot be read later."
    )


@pytest.mark.parametrize(
    ("fields", "name", "text"),
    [
        ({"store": True}, "store=lowered", "store=true was lowered to false"),
        ({}, "store=false", "The upstream gets store=false"),
    ],
)
def test_a_process_without_a_store_says_that_it_keeps_nothing(
    fields: dict[str, Any], name: str, text: str
) -> None:
    caller = replace(GOES_ON, store=StorePolicy.KEEP_ALL)
    plan = kept({"stream": True, **fields}, caller, has_store=False)
    assert (plan.mode, plan.store, plan.outlives_reader) == (Mode.STATELESS, False, False)
    (reason,) = plan.reasons
    assert reason.name == name
    assert reason.text == f"{text}: nothing is kept in this process; a gateway would keep it."


def test_what_a_kept_response_cannot_have_is_refused_as_for_any() -> None:
    for field in ("conversation", "background_options"):
        with pytest.raises(RequestRejected) as caught:
            kept({"store": True, field: {}})
        assert caught.value.fault.param == field
    assert kept({"store": True, "previous_response_id": "r"}).continues == "r"
