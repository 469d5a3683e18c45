"""The body of a background response that the upstream itself runs (G6)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core import wire
from handrail.core.profiles import PROFILES
from handrail.core.rewrite import UpstreamRequest, upstream_request, upstream_run_request
from handrail.errors import RequestRejected
from tests.unit.core.generated import KNOWN, UNKNOWN, WILD, spelled

Json = dict[str, Any]


def rewritten(fields: Json, *, profile: str = "openai", **options: Any) -> UpstreamRequest:
    """What becomes of a background create with these fields."""
    body = {"model": "m", "input": "hi", "background": True, **fields}
    request = wire.read_create(json.dumps(body).encode())
    return upstream_run_request(
        request, profile=PROFILES[profile], stream=options.pop("stream", False), **options
    )


def sent(fields: Json, **options: Any) -> Json:
    """The body that goes out."""
    body: Json = json.loads(wire.encode(rewritten(fields, **options).body))
    return body


@pytest.mark.parametrize("store", [{}, {"store": None}, {"store": True}])
@pytest.mark.parametrize("profile", ["openai", "compatible"])
def test_store_and_background_leave_as_true(profile: str, store: Json) -> None:
    body = sent(store, profile=profile)
    assert (body["store"], body["background"], body["stream"]) == (True, True, False)
    told = [step.field for step in rewritten(store, profile=profile).steps]
    assert ("store" in told) is (store.get("store") is not True)


def test_ids_references_and_half_tool_calls_stay_as_they_were_sent() -> None:
    given = [
        {"type": "message", "id": "msg_1", "role": "user", "content": "hi"},
        {"type": "item_reference", "id": "rs_1"},
        {"type": "function_call_output", "call_id": "a", "output": "ok"},
    ]
    assert sent({"input": given})["input"] == given


@pytest.mark.parametrize(
    ("fields", "include"),
    [
        ({}, None),
        ({"include": None}, None),
        ({"include": []}, []),
        ({"include": ["a"]}, ["a"]),
        ({"providerOptions": {"openai": {"include": ["b"]}}}, ["b"]),
        ({"include": ["a"], "providerOptions": {"openai": {"include": ["b"]}}}, ["a"]),
        ({"reasoning": {"effort": "low"}}, None),
    ],
)
def test_include_is_what_was_asked_and_nothing_more(
    fields: Json, include: list[str] | None
) -> None:
    assert sent(fields).get("include") == include


@pytest.mark.parametrize("profile", ["openai", "compatible"])
def test_scheduling_and_the_previous_response_go_along(profile: str) -> None:
    options = {"completion_window": "2h"}
    body = sent({"background_options": options}, profile=profile, continues="resp_1")
    assert (body["background_options"], body["previous_response_id"]) == (options, "resp_1")


def test_a_previous_response_that_nobody_allowed_is_refused() -> None:
    with pytest.raises(RequestRejected) as caught:
        rewritten({"previous_response_id": "resp_1"})
    assert caught.value.fault.param == "previous_response_id"


def test_provider_options_and_a_conversation_stay_here() -> None:
    body = sent({"providerOptions": {"openai": {"serviceTier": "flex"}}, "conversation": None})
    assert not {"providerOptions", "conversation"} & set(body)
    assert body["service_tier"] == "flex"


@pytest.mark.parametrize("stream", [True, False])
def test_a_stream_is_asked_for_when_the_caller_did(stream: bool) -> None:
    body = sent({"stream": stream, "stream_options": {}}, stream=stream)
    assert body["stream"] is stream
    assert ("stream_options" in body) is stream


def test_an_input_that_cannot_be_read_does_not_leave() -> None:
    with pytest.raises(RequestRejected) as caught:
        rewritten({"input": [{"role": "user"}, 5]})
    assert caught.value.fault.param == "input[1]"
    assert "input" not in sent({"input": None}) or sent({"input": None})["input"] is None


@given(spelled(st.fixed_dictionaries({}, optional={"reasoning": WILD}) | KNOWN | UNKNOWN))
def test_rewriting_raises_nothing_but_a_rejection(data: bytes) -> None:
    try:
        request = wire.read_create(data)
        body = upstream_run_request(request, profile=PROFILES["openai"], stream=False).body
    except RequestRejected:
        return
    assert bytes(body["store"]) == bytes(body["background"]) == b"true"


@pytest.mark.parametrize("profile", ["openai", "codex", "compatible"])
def test_a_stateless_call_may_continue_from_what_the_upstream_keeps(profile: str) -> None:
    orphan = {"type": "function_call_output", "call_id": "a", "output": "ok"}
    data = json.dumps({"model": "m", "input": [orphan], "previous_response_id": "resp_1"})
    request = upstream_request(
        wire.read_create(data.encode()),
        profile=PROFILES[profile],
        stream=False,
        continues="resp_1",
    )
    body = json.loads(wire.encode(request.body))
    assert (body["previous_response_id"], body["input"]) == ("resp_1", [orphan])
    assert body["store"] is False
