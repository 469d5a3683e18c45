"""Half-compatible servers' events, completed until the openai SDK's models take them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from handrail.core import responses, wire
from handrail.core.complete import Completer
from handrail.core.events import Event, MalformedEvent, read
from handrail.core.policy import Mode, Plan
from handrail.core.sse import parse_frame
from handrail.core.wire import Body
from tests.unit.core.generated import JSON, ODD_EVENTS

Json = dict[str, Any]
STRICT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def base() -> Body:
    """The response of a create, under way."""
    plan = Plan(mode=Mode.STATELESS, stream=True, store=False, retention_seconds=0, reasons=())
    request = wire.read_create(b'{"model":"m","temperature":0.5}')
    return responses.opening(request, plan=plan, response_id="resp_1", created_at=1)


def of(text: str) -> Event:
    """The event with this text as its data."""
    found = read(parse_frame(f"data: {text}\n\n".encode()))
    assert found is not None
    return found


def event(type_: str, **fields: Any) -> Event:
    """An event of an upstream."""
    return of(json.dumps({"type": type_, **fields}))


def completed(*parts: Event) -> list[Json]:
    """What one completer makes of these events, each valid to the SDK once it is numbered."""
    completer = Completer(base())
    bodies = []
    for number, part in enumerate(parts):
        whole = completer.complete(part).numbered(number)
        STRICT.validate_json(whole.data)
        bodies.append(json.loads(whole.data))
    return bodies


# What llama.cpp's server sends: no numbers, no indexes, no logprobs, three-field snapshots.
MESSAGE: Json = {"type": "message", "id": "msg_1", "status": "in_progress"}
LLAMACPP = [
    event("response.created", response={"id": "a", "object": "response", "status": "in_progress"}),
    event("response.in_progress", response={"id": "a", "object": "response"}),
    event("response.output_item.added", item={**MESSAGE, "content": [], "role": "assistant"}),
    event("response.content_part.added", item_id="msg_1", part={"type": "output_text", "text": ""}),
    event("response.output_text.delta", item_id="msg_1", delta="hi"),
    event("response.output_text.done", item_id="msg_1", text="hi"),
    event(
        "response.content_part.done", item_id="msg_1", part={"type": "output_text", "text": "hi"}
    ),
    event("response.output_item.done", item={**MESSAGE, "content": [{"text": "hi"}]}),
    event(
        "response.completed",
        response={
            "id": "a",
            "status": "completed",
            "output": [{**MESSAGE, "status": "completed", "content": [{"text": "hi"}]}],
            "usage": {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
        },
    ),
]


def test_a_stream_that_lacks_nearly_everything_becomes_valid_to_the_sdk() -> None:
    bodies = completed(*LLAMACPP)
    assert [body["sequence_number"] for body in bodies] == list(range(9))
    assert {body["output_index"] for body in bodies[2:8]} == {0}
    assert {body["content_index"] for body in bodies[3:7]} == {0}
    assert {body["item_id"] for body in bodies[3:7]} == {"msg_1"}
    assert bodies[4]["logprobs"] == bodies[5]["logprobs"] == []
    assert bodies[7]["item"]["content"] == [
        {"type": "output_text", "text": "hi", "annotations": []}
    ]
    assert bodies[8]["response"]["temperature"] == 0.5


def test_what_is_complete_stays_the_very_same() -> None:
    first, second = Completer(base()), Completer(base())
    for part in LLAMACPP:
        whole = first.complete(part)
        assert second.complete(whole) is whole


@pytest.mark.parametrize(
    "type_", ["keepalive", "error", "response.web_search_call.searching", "response.metadata"]
)
def test_an_event_that_no_rule_is_about_stays_the_very_same(type_: str) -> None:
    part = event(type_, x=1)
    assert Completer(base()).complete(part) is part


def test_what_the_server_said_stays_as_it_was_written() -> None:
    text = '{"type":"response.output_text.delta","output_index":7,"content_index":3,"x":1.50}'
    body = Completer(base()).complete(of(text)).body()
    kept = {name: bytes(body[name]) for name in ("output_index", "content_index", "x")}
    assert kept == {"output_index": b"7", "content_index": b"3", "x": b"1.50"}


def test_items_get_their_place_in_the_order_in_which_they_come() -> None:
    added = [
        event("response.output_item.added", item={"type": "function_call", "id": name})
        for name in ("fc_1", "fc_2")
    ]
    delta = "response.function_call_arguments.delta"
    late = [event(delta, item_id=name, delta="{") for name in ("fc_2", "fc_1")]
    bodies = completed(*added, *late, event(delta, delta="}"))
    assert [body["output_index"] for body in bodies] == [0, 1, 1, 0, 1]
    assert bodies[-1]["item_id"] == "fc_2"
    assert "content_index" not in bodies[-1]


def test_parts_get_their_place_in_the_order_in_which_they_open() -> None:
    part = {"type": "output_text"}
    bodies = completed(
        event("response.output_item.added", item=MESSAGE),
        event("response.content_part.added", part=part),
        event("response.output_text.delta", delta="a"),
        event("response.content_part.added", part=part),
        event("response.output_text.delta", delta="b"),
        event("response.content_part.done", part=part),
    )
    assert [body.get("content_index") for body in bodies] == [None, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("type_", "indexes"),
    [
        ("response.content_part.done", {"content_index"}),
        ("response.output_text.done", {"content_index", "logprobs"}),
        ("response.refusal.done", {"content_index"}),
        ("response.reasoning_text.done", {"content_index"}),
        ("response.reasoning_summary_part.done", {"summary_index"}),
        ("response.reasoning_summary_text.done", {"summary_index"}),
        ("response.function_call_arguments.done", set()),
        ("response.custom_tool_call_input.done", set()),
        ("response.mcp_call_arguments.done", set()),
    ],
)
def test_an_event_gets_the_indexes_of_its_kind_and_no_others(type_: str, indexes: set[str]) -> None:
    whole = Completer(base()).complete(event(type_))
    assert set(whole.body()) == {"type", "item_id", "output_index"} | indexes


def test_summary_parts_are_counted_by_themselves() -> None:
    part = {"type": "summary_text", "text": ""}
    bodies = completed(
        event("response.output_item.added", item={"type": "reasoning", "id": "rs_1"}),
        event("response.reasoning_summary_part.added", part=part),
        event("response.reasoning_summary_text.delta", delta="a"),
        event("response.reasoning_summary_part.added", part=part),
        event("response.reasoning_summary_text.delta", delta="b"),
        event("response.reasoning_text.delta", delta="c"),
    )
    assert [body.get("summary_index") for body in bodies] == [None, 0, 0, 1, 1, None]
    assert bodies[5]["content_index"] == 0


@pytest.mark.parametrize(
    ("item", "whole"),
    [
        ({}, {"type": "message", "role": "assistant", "status": "completed", "content": []}),
        ({"type": None, "content": None}, {"type": "message", "content": []}),
        ({"type": "function_call"}, {"arguments": "", "call_id": "", "name": ""}),
        ({"type": "custom_tool_call"}, {"input": "", "call_id": "", "name": ""}),
        ({"type": "reasoning"}, {"type": "reasoning", "summary": []}),
        ({"type": "message", "role": "user", "status": "incomplete"}, {"role": "user"}),
    ],
)
def test_an_item_gets_the_keys_that_its_type_requires(item: Json, whole: Json) -> None:
    found = completed_item(item)
    assert {name: found[name] for name in whole} == whole
    assert found["id"]


def completed_item(item: Json) -> Json:
    """An item after completion."""
    part = event("response.output_item.done", item=item)
    found: Json = json.loads(Completer(base()).complete(part).data)["item"]
    return found


def test_an_item_of_an_unknown_type_gets_an_id_and_nothing_else() -> None:
    assert completed_item({"type": "new_call", "x": 1}) == {
        "type": "new_call",
        "x": 1,
        "id": "item_0",
    }


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        ({}, {"type": "output_text", "text": "", "annotations": []}),
        ({"type": "refusal"}, {"type": "refusal", "refusal": ""}),
        ({"type": "reasoning_text"}, {"type": "reasoning_text", "text": ""}),
        ({"type": "summary_text"}, {"type": "summary_text", "text": ""}),
        ({"type": "summary_text", "text": "x"}, {"type": "summary_text", "text": "x"}),
        ({"type": "new_part"}, {"type": "new_part"}),
    ],
)
def test_a_part_gets_the_keys_that_its_type_requires(part: Json, whole: Json) -> None:
    assert completed_item({"content": [part]})["content"] == [whole]


def test_a_content_part_event_without_a_part_is_left_alone_there() -> None:
    whole = Completer(base()).complete(event("response.content_part.added", part=None))
    assert json.loads(whole.data)["part"] is None


def snapshot(**fields: Any) -> Json:
    """A snapshot after completion, valid to the SDK."""
    raws = {name: wire.raw(value) for name, value in fields.items()}
    whole: Json = json.loads(wire.encode(Completer(base()).response(raws)))
    Response.model_validate(whole)
    return whole


def test_a_snapshot_gets_every_key_and_its_nulls_are_filled_from_the_request() -> None:
    whole = snapshot(id="resp_up", temperature=None, tools=None, model="other")
    assert set(whole) == set(responses.DEFAULTS)
    assert (whole["id"], whole["model"]) == ("resp_up", "other")
    assert (whole["temperature"], whole["tools"]) == (0.5, [])


@pytest.mark.parametrize(
    "usage", [{}, {"input_tokens": None}, {"input_tokens_details": {"cached_tokens": 2}}]
)
def test_the_usage_of_a_snapshot_gets_its_details(usage: Json) -> None:
    found = snapshot(usage=usage)["usage"]
    assert (found["input_tokens"], found["output_tokens"], found["total_tokens"]) == (0, 0, 0)
    cached = usage.get("input_tokens_details", {}).get("cached_tokens", 0)
    assert found["input_tokens_details"] == {"cached_tokens": cached, "cache_write_tokens": 0}
    assert found["output_tokens_details"] == {"reasoning_tokens": 0}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 404, "message": "m"}, ("server_error", "m")),
        ({"code": "rate_limit_exceeded", "message": "m"}, ("rate_limit_exceeded", "m")),
        ({"code": None, "message": None}, ("server_error", "The upstream reported a failure.")),
        ("text", ("server_error", "text")),
    ],
)
def test_the_error_of_a_snapshot_gets_a_code_that_the_sdk_knows(
    error: Any, expected: tuple[str, str]
) -> None:
    found = snapshot(error=error)["error"]
    assert (found["code"], found["message"]) == expected


@pytest.mark.parametrize(
    ("type_", "status", "told"),
    [
        ("response.completed", "incomplete", "response.incomplete"),
        ("response.completed", "failed", "response.failed"),
        ("response.done", "completed", "response.completed"),
        ("response.completed", "completed", "response.completed"),
    ],
)
def test_an_end_is_renamed_to_what_it_means(type_: str, status: str, told: str) -> None:
    whole = Completer(base()).complete(event(type_, response={"status": status}))
    assert whole.type == told
    assert json.loads(whole.data)["type"] == told
    assert whole.frame.startswith(f"event: {told}\n".encode())


def test_an_end_without_a_snapshot_gets_one() -> None:
    (body,) = completed(event("response.completed"))
    assert body["response"]["id"] == "resp_1"


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"response.completed","response":[]}',
        '{"type":"response.completed","response":{"output":5}}',
        '{"type":"response.completed","response":{"output":[1e999]}}',
        '{"type":"response.completed","response":{"usage":{"input_tokens_details":5}}}',
        '{"type":"response.output_item.added"}',
        '{"type":"response.output_item.added","item":{"id":["x"]}}',
        '{"type":"response.output_text.delta","item_id":5}',
        '{"type":"response.content_part.added","item_id":"a","part":1e999}',
    ],
)
def test_content_of_the_wrong_shape_is_malformed(text: str) -> None:
    with pytest.raises(MalformedEvent):
        Completer(base()).complete(of(text))


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"response.completed","response":{"status":5}}',
        '{"type":"response.completed","response":{"usage":[]}}',
        '{"type":"response.completed","response":{"output":["x"]}}',
        '{"type":"response.output_item.added","item":"x"}',
        '{"type":"response.output_item.added","item":null}',
        '{"type":"response.output_item.added","item":{"content":"text"}}',
        '{"type":"response.content_part.added","item_id":"a","part":"x"}',
        '{"type":"response.output_text.delta","sequence_number":null}',
    ],
)
def test_whatever_a_server_sends_is_completed_or_malformed(text: str) -> None:
    assert_completed_or_malformed([text])


@given(st.lists(ODD_EVENTS, max_size=4))
def test_any_events_are_completed_or_malformed(texts: list[str]) -> None:
    assert_completed_or_malformed(texts)


def assert_completed_or_malformed(texts: list[str]) -> None:
    """Nothing but MalformedEvent is raised, and what is completed is an event."""
    completer = Completer(base())
    try:
        whole = [completer.complete(of(text)) for text in texts]
    except MalformedEvent:
        return
    assert all(part.body() for part in whole)


def test_items_of_a_snapshot_without_ids_get_different_ones() -> None:
    items = snapshot(output=[{"type": "message"}, {"type": "message"}])["output"]
    assert items[0]["id"] != items[1]["id"]


def test_an_item_without_an_id_keeps_its_invented_one_to_its_end() -> None:
    kinds = ("response.output_item.added", "response.output_item.done")
    first, last = completed(*(event(kind, item={"type": "message"}) for kind in kinds))
    assert first["item"]["id"] == last["item"]["id"]
    assert first["output_index"] == last["output_index"]


@given(st.dictionaries(st.sampled_from(["temperature", "new", "model", "text"]), JSON))
def test_completing_a_snapshot_twice_changes_nothing(fields: Json) -> None:
    raws = {name: wire.raw(value) for name, value in fields.items()}
    completer = Completer(base())
    once = completer.response(raws)
    assert completer.response(once) == once
    assert set(once) >= set(responses.DEFAULTS)
