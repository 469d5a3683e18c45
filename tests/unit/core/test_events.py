"""Events: what is read as one, how they are numbered, and how they go out."""

import json
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent

from handrail.core import events, wire
from handrail.core.events import Event, MalformedEvent
from handrail.core.lifecycle import State
from handrail.core.sse import Frame, parse_frame


def read(data: bytes, *, name: str = "") -> Event:
    """The event of a frame with this data."""
    head = f"event: {name}\n".encode() if name else b""
    event = events.read(parse_frame(head + b"data: " + data + b"\n\n"))
    assert event is not None
    return event


def closing(type_: str, response: Any) -> Event:
    """A closing event around a snapshot."""
    return read(json.dumps({"type": type_, "response": response}).encode())


def test_the_sdk_knows_every_lifecycle_event_but_the_old_ending() -> None:
    union = typing.get_args(typing.get_args(ResponseStreamEvent)[0])
    known = {typing.get_args(model.model_fields["type"].annotation)[0] for model in union}
    assert known - events.LIFECYCLE >= {events.ERROR}
    assert events.LIFECYCLE - known == {"response.done"}


def test_what_a_backend_says_about_its_connection_is_known_by_the_name_it_has_there() -> None:
    assert (events.KEEPALIVE, events.METADATA) == ("keepalive", "response.metadata")


def test_a_stream_is_opened_and_closed_by_the_events_that_carry_a_snapshot() -> None:
    opening = ["response.created", "response.in_progress", "response.queued"]
    closing = ["response.completed", "response.done", "response.failed", "response.incomplete"]
    assert sorted(events.OPENING) == opening
    assert sorted(events.CLOSING) == closing
    assert events.LIFECYCLE == events.OPENING | events.CLOSING


@pytest.mark.parametrize("data", [b"", b"[DONE]"])
def test_comments_and_the_done_marker_are_no_events(data: bytes) -> None:
    assert events.read(Frame("", data, b": hi\n\n")) is None


def test_a_frame_that_names_its_event_goes_out_byte_for_byte() -> None:
    raw = b': hello\nid: 3\nevent: a\ndata: {"type": "a",  "sequence_number": 4}\n\n'
    event = events.read(parse_frame(raw))
    assert event is not None
    assert (event.type, event.number, event.frame) == ("a", 4, raw)


@pytest.mark.parametrize("name", ["", "message", "b"])
def test_a_frame_that_does_not_name_its_event_is_written_with_the_type_of_its_data(
    name: str,
) -> None:
    event = read(b'{"type":"a"}', name=name)
    assert (event.type, event.number) == ("a", None)
    assert event.frame == b'event: a\ndata: {"type":"a"}\n\n'


def test_data_on_several_lines_becomes_one() -> None:
    raw = b'data: {"type":\ndata: "a",\ndata:\ndata: "x":1}\n\n'
    event = events.read(parse_frame(raw))
    assert event is not None
    assert b"\n" not in event.data
    assert json.loads(event.data) == {"type": "a", "x": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"null",
        b"[]",
        b'"a"',
        b"{}",
        b'{"type":null}',
        b'{"type":5}',
        b'{"type":"a","sequence_number":"1"}',
        b'{"type":"a","sequence_number":1.5}',
        b'{"type":"a"} x',
        b'{"type":"a","x":"\xff"}',
        b'{"type":"a","x":"\\ud800"}',
        b'{"type":"a","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
)
def test_data_that_is_no_object_with_a_type_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvent):
        read(data)


def test_what_is_malformed_says_what_was_expected() -> None:
    with pytest.raises(MalformedEvent, match=r"^no event: Expected `str`"):
        read(b'{"type":5}')
    with pytest.raises(MalformedEvent, match=r"^no event: the type is not a word$"):
        read(b'{"type":"a b"}')
    with pytest.raises(MalformedEvent, match=r"^no JSON object: Expected `object`"):
        Event("a", None, b"[]", b"").body()


def test_an_event_too_deep_to_be_read_is_malformed() -> None:
    deep = b'{"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    with pytest.raises(MalformedEvent, match=r"^no JSON object: "):
        Event("a", None, deep, b"").body()


def test_a_number_on_two_lines_is_no_number() -> None:
    with pytest.raises(MalformedEvent):
        events.read(parse_frame(b'data: {"type":"a","sequence_number":1\ndata: 2}\n\n'))


@pytest.mark.parametrize("end", ["\\n", "\\r", "\\n\\n", "\\r\\n"])
def test_a_type_cannot_break_out_of_its_frame(end: str) -> None:
    data = f'{{"type":"response.x{end}data: forged"}}'.encode()
    try:
        lines = read(data).frame.splitlines()
    except MalformedEvent:
        return
    assert len(lines) == 3


def test_an_event_of_ours_carries_its_type_and_number() -> None:
    event = events.event(events.KEEPALIVE, {"sequence_number": wire.raw(7)})
    assert (event.type, event.number) == ("keepalive", 7)
    assert json.loads(event.data) == {"sequence_number": 7, "type": "keepalive"}
    assert event.frame == b"event: keepalive\ndata: " + event.data + b"\n\n"


def test_an_event_of_ours_may_be_without_a_number() -> None:
    assert events.event("a", {}).number is None


def test_a_lifecycle_event_wraps_a_snapshot() -> None:
    event = events.lifecycle_event(events.CREATED, {"id": wire.raw("resp_1")}, number=0)
    assert json.loads(event.data) == {
        "type": "response.created",
        "response": {"id": "resp_1"},
        "sequence_number": 0,
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            {"response": {"id": "r", "headers": {"OpenAI-Model": "x", "x-a": "1"}}},
            {"response": {"id": "r", "headers": {"x-a": "1"}}},
        ),
        ({"headers": {"x-openai-model": "x"}, "metadata": 1}, {"headers": {}, "metadata": 1}),
        (
            {"sequence_number": 3, "response": {"headers": {"openai-model": "x"}}},
            {"sequence_number": 3, "response": {"headers": {}}},
        ),
        ({"headers": "openai-model"}, {"headers": "openai-model"}),
        ({"headers": {"openai-m\u00f6del": "x"}},) * 2,
        ({"response": {"instructions": "openai-model"}},) * 2,
        ({"response": {"headers": {"x-a": "1"}}},) * 2,
    ],
)
def test_the_model_that_the_upstream_names_among_its_headers_is_not_passed_on(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    given_ = read(json.dumps({"type": "response.created", **before}).encode())
    told = events.without_model_header(given_)
    assert json.loads(told.data) == {"type": "response.created", **after}


@pytest.mark.parametrize("data", [b'{"type" : "a", "headers": {"x-a": 1}}', b'{"type":"a","n": 5}'])
def test_an_event_that_names_no_model_among_its_headers_stays_the_very_same(data: bytes) -> None:
    event = read(data)
    assert events.without_model_header(event) is event


def test_a_name_that_is_written_with_escapes_is_still_that_name() -> None:
    data = b'{"type":"response.created","headers":{"openai\\u002dmodel":"x"}}'
    assert json.loads(events.without_model_header(read(data)).data)["headers"] == {}


def test_an_event_that_has_the_number_already_stays_the_very_same() -> None:
    event = read(b'{"type":"a","sequence_number":3}')
    assert event.numbered(3) is event


@pytest.mark.parametrize("before", ["", ',"sequence_number":9', ',"sequence_number":null'])
def test_an_event_under_another_number_keeps_everything_else_as_it_was(before: str) -> None:
    event = read(f'{{"type":"a","x": 1.50{before}}}'.encode())
    again = event.numbered(3)
    assert (again.type, again.number) == ("a", 3)
    assert bytes(again.body()["x"]) == b"1.50"
    assert json.loads(again.data) == {"type": "a", "x": 1.5, "sequence_number": 3}
    assert read(again.data, name="a") == again


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"a","sequence_number" : 9}',
        b'{"type":"a","sequence_number": 9}',
        b'{"type":"a","sequence_number":-0}',
        b'{"type":"a","sequence_number":9,"x":{"sequence_number":9}}',
        b'{"type":"a","sequence_number":9,"x":"\\u0041"}',
        b'{"type":"a","sequence_number":9,"x":"\\"sequence_number\\":9"}',
        b'{"type":"a","x":{"sequence_number":9}}',
        b'{"type":"a","x":{"sequence_number":8},"sequence_number":9}',
        b'{"type":"a","x":{"sequence_number":8},"\\u0073equence_number":9}',
        b'{"type":"abcdefg1234567890","sequence_number" : 9}',
    ],
)
def test_only_the_events_own_number_changes(data: bytes) -> None:
    again = read(data).numbered(12)
    assert json.loads(again.data) == {**json.loads(data), "sequence_number": 12}
    assert read(data).frame_numbered(12) == again.frame


@pytest.mark.parametrize(
    "layout",
    [
        '{"sequence_number":%s, "type":"a"}',
        '{"type":"a", "x": 1.50 ,"sequence_number":%s }',
        '{"type":"a","x": [{"type":"b"}],"sequence_number":%s}',
    ],
)
@pytest.mark.parametrize(("old", "new"), [(0, 1), (9, 10), (1_234_567_890, 7)])
def test_where_the_number_stands_once_every_other_byte_stays(
    layout: str, old: int, new: int
) -> None:
    wanted = (layout % new).encode()
    event = read((layout % old).encode())
    assert event.numbered(new) == Event("a", new, wanted, b"event: a\ndata: " + wanted + b"\n\n")
    assert event.frame_numbered(new) == event.numbered(new).frame
    assert event.frame_numbered(old) is event.frame


@pytest.mark.parametrize("raw", [b"event:a\ndata:%b\n:\n\n", b"event: a\ndata: %b\nid: 1\n\n"])
def test_a_frame_that_is_laid_out_otherwise_is_numbered_in_its_data(raw: bytes) -> None:
    event = events.read(parse_frame(raw % b'{"type":"a","sequence_number":9}'))
    assert event is not None
    assert event.frame_numbered(3) == b'event: a\ndata: {"type":"a","sequence_number":3}\n\n'


@given(st.integers(0, 2**53), st.integers(0, 2**53))
def test_the_last_number_that_is_given_holds(first: int, second: int) -> None:
    event = read(b'{"type":"a","x":{"y":[1]}}').numbered(first)
    assert event.numbered(second) == read(b'{"type":"a","x":{"y":[1]}}').numbered(second)


@pytest.mark.parametrize("text", [b"{}", b'{"response":null}'])
def test_an_event_without_a_snapshot_has_an_empty_one(text: bytes) -> None:
    assert Event("a", None, text, b"").response() == {}


def test_a_snapshot_that_is_no_object_is_malformed() -> None:
    with pytest.raises(MalformedEvent):
        read(b'{"type":"response.completed","response":[]}').response()


def test_padding_is_left_out_and_everything_else_stays() -> None:
    event = read(b'{"type":"a","sequence_number":4,"delta":"x","obfuscation":"abc"}')
    plain = events.without_obfuscation(event)
    assert json.loads(plain.data) == {"type": "a", "sequence_number": 4, "delta": "x"}
    assert plain.number == 4
    assert b"obfuscation" not in plain.frame


@pytest.mark.parametrize(
    "data", [b'{"type":"a"}', b'{"type":"a","delta":"\\"obfuscation\\"","x":{"obfuscation":1}}']
)
def test_an_event_without_padding_stays_the_very_same(data: bytes) -> None:
    event = read(data)
    assert events.without_obfuscation(event) is event


def test_padding_is_left_out_of_an_event_whose_number_is_null() -> None:
    event = read(b'{"type":"a","sequence_number":null,"obfuscation":"abc"}')
    assert "obfuscation" not in events.without_obfuscation(event).body()


@pytest.mark.parametrize(
    ("type_", "status", "state"),
    [
        ("response.completed", "completed", State.COMPLETED),
        ("response.done", "completed", State.COMPLETED),
        ("response.incomplete", "incomplete", State.INCOMPLETE),
        ("response.failed", "failed", State.FAILED),
        # A cancelled stream has no event type of its own.
        ("response.failed", "cancelled", State.CANCELLED),
        # vLLM: an answer that was cut short ends as completed.
        ("response.completed", "incomplete", State.INCOMPLETE),
        ("response.completed", "failed", State.FAILED),
        ("response.done", "incomplete", State.INCOMPLETE),
        ("response.incomplete", "completed", State.COMPLETED),
        # A status that is no end says nothing.
        ("response.completed", "in_progress", State.COMPLETED),
        ("response.failed", "queued", State.FAILED),
        ("response.incomplete", "whatever", State.INCOMPLETE),
        ("response.incomplete", None, State.INCOMPLETE),
    ],
)
def test_an_end_is_judged_by_its_content_before_its_type(
    type_: str, status: str | None, state: State
) -> None:
    assert events.closing_state(closing(type_, {"status": status})) is state


@pytest.mark.parametrize("type_", sorted(events.CLOSING))
def test_an_end_without_a_snapshot_is_judged_by_its_type(type_: str) -> None:
    wanted = {"response.done": "completed"}.get(type_, type_.removeprefix("response."))
    assert events.closing_state(closing(type_, {})) == wanted
    assert events.closing_state(closing(type_, None)) == wanted


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        read(b'{"type":"a"}').number = 5  # type: ignore[misc]
