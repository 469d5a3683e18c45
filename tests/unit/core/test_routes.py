"""Which targets a model goes to, and what is told when several could not take a request."""

from dataclasses import replace

import pytest

from handrail.core.routes import Route, no_route, route, worth_telling
from handrail.errors import Code, HandrailError, RequestRejected, fault

ROUTES = (
    Route(model="gpt-*", targets=("openai", "azure")),
    Route(model="gpt-5*", targets=("never",)),
    Route(model="qwen/[23]", targets=("local",)),
)


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        ("gpt-5", ("openai", "azure")),
        ("GPT-5", ()),
        ("qwen/2", ("local",)),
        ("qwen/4", ()),
        ("", ()),
    ],
)
def test_the_first_route_that_fits_decides(model: str, targets: tuple[str, ...]) -> None:
    assert route(model, ROUTES, None) == targets


def test_a_route_for_everything_takes_requests_that_name_no_model() -> None:
    assert route("", (Route(model="*", targets=("a",)),), None) == ("a",)


@pytest.mark.parametrize(
    ("allowed", "targets"),
    [(("azure", "local"), ("azure",)), (("local",), ()), ((), ())],
)
def test_a_caller_gets_those_of_the_first_route_that_it_may_use(
    allowed: tuple[str, ...], targets: tuple[str, ...]
) -> None:
    assert route("gpt-5", ROUTES, allowed) == targets


def test_what_no_route_leads_to_is_a_model_that_does_not_exist() -> None:
    assert no_route("m").fault.code == Code.MODEL_NOT_FOUND
    missing = no_route("").fault
    assert (missing.status, missing.code, missing.param) == (
        400,
        "missing_required_parameter",
        "model",
    )


def failed(wait: int | None) -> HandrailError:
    return HandrailError(replace(fault(Code.UPSTREAM_STALLED, "late"), retry_after=wait))


def test_who_says_when_to_come_back_is_heard_the_soonest_first() -> None:
    soon, late, silent = failed(2), failed(30), failed(None)
    assert worth_telling([late, soon, silent]) is soon


def test_without_a_time_the_last_one_is_heard() -> None:
    first, last = failed(None), failed(None)
    assert worth_telling([first, last]) is last


def test_that_one_target_could_not_take_the_request_is_told_only_when_none_could() -> None:
    refused, other = (RequestRejected(Code.INVALID_VALUE, "no", param="input") for _ in range(2))
    down = failed(None)
    assert worth_telling([down, refused]) is down
    assert worth_telling([refused, other]) is other
