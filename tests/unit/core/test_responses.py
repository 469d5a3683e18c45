"""The response object, held against the models of the openai SDK."""

import json
import typing
from typing import Any

import pytest
from hypothesis import given
from msgspec import Raw
from openai.types.responses import Response, ResponseError
from pydantic import ValidationError

from handrail.core import events, responses, wire
from handrail.core.events import Event
from handrail.core.fold import Fold
from handrail.core.lifecycle import State
from handrail.core.policy import Mode, Plan
from handrail.core.responses import RunError
from handrail.core.sse import parse_frame
from handrail.core.wire import Body
from handrail.errors import RequestRejected
from tests.unit.core.generated import KNOWN, UNKNOWN, spelled

Json = dict[str, Any]


def plan(mode: Mode = Mode.BACKGROUND, *, store: bool = True) -> Plan:
    """A plan as `policy` makes it."""
    return Plan(mode=mode, stream=False, store=store, retention_seconds=60, reasons=())


def plain(body: Any) -> Any:
    """Raw values as ordinary ones."""
    return json.loads(wire.encode(body))


def test_a_response_that_the_upstream_never_began_is_one_to_the_sdk() -> None:
    body = plain(responses.unopened(model="m", response_id="resp_1", created_at=1_000))
    response = Response.model_validate(body, strict=True)
    assert (response.id, response.model, response.status) == ("resp_1", "m", "in_progress")
    assert response.created_at == 1_000


def opened(fields: Json | None = None, **options: Any) -> Body:
    """The queued response of a create with these fields."""
    data = json.dumps({"model": "m", **(fields or {})}).encode()
    request = wire.read_create(data)
    return responses.opening(request, plan=plan(**options), response_id="resp_1", created_at=1_000)


def event(type_: str, **fields: Any) -> Event:
    """An event of an upstream."""
    data = json.dumps({"type": type_, **fields}).encode()
    found = events.read(parse_frame(b"data: " + data + b"\n\n"))
    assert found is not None
    return found


def ended(state: State, snapshot: Json | None = None, **options: Any) -> Any:
    """The response at its end, after an upstream has said `snapshot` and one word."""
    fold = Fold()
    fold.apply(event("response.output_text.delta", delta="word"))
    if snapshot is not None:
        fold.apply(event("response.in_progress", response=snapshot))
    base = opened({"metadata": {"a": "b"}, "temperature": 0.5})
    return plain(responses.closed(base, fold=fold, state=state, now=2_000, **options))


def test_the_error_codes_are_the_sdks_own() -> None:
    literal = ResponseError.model_fields["code"].annotation
    assert set(typing.get_args(literal)) == responses.ERROR_CODES


NULLS = [
    "completed_at",
    "error",
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "safety_identifier",
    "usage",
    "user",
]


def test_a_fresh_response_is_valid_to_the_sdk_and_says_what_the_api_would() -> None:
    body = plain(opened())
    Response.model_validate(body)
    assert body == {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_000,
        "status": "queued",
        "background": True,
        "model": "m",
        "output": [],
        "store": True,
        # What the API answers to a create that says nothing about them.
        "metadata": {},
        "parallel_tool_calls": True,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "auto",
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        **dict.fromkeys(NULLS),
    }


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("asked", [True, False, None])
def test_background_and_store_are_those_of_the_plan_and_not_of_the_request(
    mode: Mode, store: bool, asked: bool | None
) -> None:
    body = plain(opened({"background": asked, "store": asked}, mode=mode, store=store))
    assert (body["background"], body["store"]) == (mode.startswith("background"), store)


def test_what_it_goes_on_from_is_echoed_wherever_it_was_named() -> None:
    for named in (
        {"previous_response_id": "resp_0"},
        {"providerOptions": {"openai": {"previousResponseId": "resp_0"}}},
    ):
        assert plain(opened(named))["previous_response_id"] == "resp_0"


def test_what_the_caller_asked_is_echoed_and_what_belongs_to_the_response_is_not() -> None:
    asked = {"instructions": "be brief", "temperature": 0.5, "metadata": {"a": "b"}, "user": "u"}
    foreign = {"id": "x", "object": "x", "status": "x", "output": [1], "error": 1, "usage": 1}
    unknown = {"created_at": 1, "completed_at": 1, "incomplete_details": 1, "new_field": 1}
    body = plain(opened({**asked, **foreign, **unknown, "input": "hi"}))
    assert body == {**plain(opened()), **asked}


@pytest.mark.parametrize("field", ["tools", "reasoning", "temperature", "metadata", "text"])
def test_null_is_answered_with_the_default(field: str) -> None:
    assert plain(opened({field: None})) == plain(opened())


def test_function_tools_are_echoed_with_the_keys_that_the_sdk_requires() -> None:
    tools = [
        {"type": "function", "name": "f"},
        {"type": "function", "name": "g", "strict": False, "parameters": {"type": "object"}},
        {"type": "web_search"},
        {"name": "typeless"},
    ]
    body = plain(opened({"tools": tools}))
    assert body["tools"] == [
        {"type": "function", "name": "f", "parameters": None, "strict": True},
        tools[1],
        tools[2],
        tools[3],
    ]
    Response.model_validate({**body, "tools": body["tools"][:3]})


def test_a_tool_that_is_no_object_is_named() -> None:
    with pytest.raises(RequestRejected) as caught:
        opened({"tools": [{"type": "web_search"}, "x"]})
    assert caught.value.fault.param == "tools[1]"


@given(spelled(KNOWN), spelled(UNKNOWN))
def test_a_response_is_valid_to_the_sdk_whatever_was_asked(known: bytes, unknown: bytes) -> None:
    request = wire.read_create(json.dumps({**json.loads(unknown), **json.loads(known)}).encode())
    body = responses.opening(request, plan=plan(), response_id="resp_1", created_at=1)
    Response.model_validate(plain(body))
    assert set(body) == set(responses.DEFAULTS)


def test_a_run_under_way_differs_in_its_status_alone() -> None:
    body = opened()
    assert plain(responses.in_progress(body)) == {**plain(body), "status": "in_progress"}
    assert body["status"] == Raw(b'"queued"')


UPSTREAM: Json = {
    "id": "resp_upstream",
    "object": "thing",
    "created_at": 5,
    "status": "in_progress",
    "background": False,
    "store": False,
    "metadata": {"theirs": "x"},
    "model": "m-2026",
    "service_tier": "default",
    "previous_response_id": "resp_theirs",
    "incomplete_details": {"reason": "max_output_tokens"},
    "error": {"code": "server_error", "message": "broken"},
    "usage": {"total_tokens": 3},
    "tool_usage": {"x": 1},
    "headers": {"openai-model": "other"},
    "a_field_of_tomorrow": 1,
}


@pytest.mark.parametrize("state", [s for s in State if s not in (State.QUEUED, State.IN_PROGRESS)])
def test_at_its_end_a_response_is_ours_by_name_and_the_upstreams_by_content(state: State) -> None:
    body = ended(state, UPSTREAM)
    own = {"id": "resp_1", "object": "response", "created_at": 1_000, "background": True}
    assert {name: body[name] for name in own} == own
    assert (body["store"], body["metadata"]) == (True, {"a": "b"})
    assert (body["status"], body["previous_response_id"]) == (state, None)
    assert (body["model"], body["service_tier"]) == ("m-2026", "default")
    assert (body["usage"], body["tool_usage"]) == ({"total_tokens": 3}, {"x": 1})
    assert body["temperature"] == 0.5
    assert body["a_field_of_tomorrow"] == 1
    assert "headers" not in body


@pytest.mark.parametrize("snapshot", [None, {}, {"model": "m"}])
@pytest.mark.parametrize("state", [State.COMPLETED, State.INCOMPLETE, State.FAILED])
def test_every_end_is_valid_to_the_sdk_however_little_was_said(
    state: State, snapshot: Json | None
) -> None:
    body = ended(state, snapshot)
    for item in body["output"]:
        item["id"] = "msg_1"
    Response.model_validate(body)
    assert body["output"][0]["content"][0]["text"] == "word"


def test_a_cancelled_response_has_no_output_no_error_and_no_time_of_completion() -> None:
    body = ended(State.CANCELLED, UPSTREAM, error=RunError(cause="x", message="x"))
    Response.model_validate({**body, "usage": None, "tool_usage": None})
    assert (body["output"], body["error"], body["completed_at"]) == ([], None, None)
    assert body["incomplete_details"] is None


@pytest.mark.parametrize("state", [State.COMPLETED, State.INCOMPLETE, State.FAILED])
def test_only_a_completed_response_says_when(state: State) -> None:
    assert ended(state)["completed_at"] == (2_000 if state is State.COMPLETED else None)


@pytest.mark.parametrize("state", [State.COMPLETED, State.INCOMPLETE, State.FAILED])
def test_error_and_details_stand_only_where_they_belong(state: State) -> None:
    body = ended(state, UPSTREAM)
    assert (body["error"] is not None) is (state is State.FAILED)
    assert (body["incomplete_details"] is not None) is (state is State.INCOMPLETE)


def test_a_failure_of_ours_goes_over_that_of_the_upstream() -> None:
    error = RunError(cause="worker_lost", message="The gateway stopped.")
    assert ended(State.FAILED, UPSTREAM, error=error)["error"] == {
        "code": "server_error",
        "message": "The gateway stopped.",
        "type": "worker_lost",
    }


def test_without_one_of_ours_the_upstreams_failure_is_told() -> None:
    assert ended(State.FAILED, UPSTREAM)["error"] == {
        "code": "server_error",
        "message": "broken",
        "type": "upstream_failed",
    }


@pytest.mark.parametrize("code", sorted(responses.ERROR_CODES))
def test_a_code_that_the_sdk_knows_stays(code: str) -> None:
    body = RunError(cause="why", message="m", code=code).body()
    assert body == {"code": code, "message": "m", "type": "why"}
    ResponseError.model_validate(body)


@pytest.mark.parametrize("code", ["insufficient_quota", "context_length_exceeded", "500", ""])
def test_any_other_code_moves_into_the_type(code: str) -> None:
    body = RunError(cause="why", message="m", code=code).body()
    assert body == {"code": "server_error", "message": "m", "type": code}
    with pytest.raises(ValidationError):
        ResponseError.model_validate({**body, "code": code})


SILENT = "The upstream reported a failure without a message."


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "c", "message": "m", "type": "t"}, ("t", "m", "c")),
        ({"message": "m"}, ("upstream_failed", "m", "server_error")),
        ({"code": 500, "message": "m"}, ("upstream_failed", "m", "500")),
        ({}, ("upstream_failed", SILENT, "server_error")),
        (
            {"code": None, "message": None, "type": None},
            ("upstream_failed", SILENT, "server_error"),
        ),
        ("text", ("upstream_failed", SILENT, "server_error")),
        (None, ("upstream_failed", SILENT, "server_error")),
    ],
)
def test_the_error_of_an_upstreams_own_failure_is_read_in_any_form(
    error: Any, expected: tuple[str, str, str]
) -> None:
    found = responses.upstream_error({"error": wire.raw(error)})
    assert (found.cause, found.message, found.code) == expected


def test_a_failure_without_any_error_is_one_all_the_same() -> None:
    assert responses.upstream_error({}).message == SILENT


@pytest.mark.parametrize("text", [b'{"message":"m","n":1e999}', b"[1e999]"])
def test_an_upstreams_error_that_cannot_be_read_is_a_failure_all_the_same(text: bytes) -> None:
    assert responses.upstream_error({"error": Raw(text)}).cause == "upstream_failed"


@pytest.mark.parametrize(
    ("fields", "message", "code"),
    [
        ({"code": "c", "message": "m", "param": None}, "m", "c"),
        ({"error": {"code": "c", "message": "m"}, "message": "outer"}, "m", "c"),
        ({"error": "text", "message": "m"}, "m", "server_error"),
        (
            {"code": None, "message": None},
            "The upstream ended with an error event.",
            "server_error",
        ),
        ({"code": 429, "message": "m"}, "m", "429"),
        ({}, "The upstream ended with an error event.", "server_error"),
    ],
)
def test_an_error_event_is_read_in_its_flat_and_its_nested_form(
    fields: Json, message: str, code: str
) -> None:
    found = responses.error_event(event("error", **fields))
    assert (found.cause, found.message, found.code) == ("upstream_failed", message, code)


def test_an_error_event_that_cannot_be_read_is_malformed_or_an_error_all_the_same() -> None:
    item = events.read(parse_frame(b'data: {"type":"error","message":"m","n":1e999}\n\n'))
    assert item is not None
    try:
        found = responses.error_event(item)
    except events.MalformedEvent:
        return
    assert found.cause == "upstream_failed"


def test_a_key_that_an_upstream_quotes_in_an_error_is_masked_in_every_form() -> None:
    key, mask = "sk-abcdefghijkl", "[redacted]"
    error = RunError(cause=f"of {key}", message=f"not {key}", code=key)
    assert (error.cause, error.message, error.code) == (f"of {mask}", f"not {mask}", mask)
    said = {"error": wire.raw({"code": "c", "message": f"not {key}", "more": [key]})}
    shown = responses.without_secrets({**said, "id": wire.raw("r")})
    assert json.loads(bytes(shown["error"])) == {
        "code": "c",
        "message": f"not {mask}",
        "more": [mask],
    }
    assert bytes(shown["id"]) == b'"r"'


@pytest.mark.parametrize("error", [None, "words", {"message": "it is over"}])
def test_a_response_whose_error_quotes_nothing_stays_the_same(error: object) -> None:
    response = {"id": wire.raw("r"), "error": wire.raw(error)}
    assert responses.without_secrets(response) is response
    assert responses.without_secrets({}) == {}
