"""The reducer's edges: fields that are left out, places that are left out, and bounds."""

import json
from typing import Any

import pytest

from handrail.core.events import Event, MalformedEvent
from handrail.core.fold import Fold

ADDED, DONE = "response.output_item.added", "response.output_item.done"


def event(type_: str, **fields: Any) -> Event:
    """An event as it comes from an upstream."""
    return Event(type_, None, json.dumps({"type": type_, **fields}).encode(), b"")


def output(*parts: Event) -> list[dict[str, Any]]:
    """The items that these events build."""
    fold = Fold()
    for part in parts:
        fold.apply(part)
    return fold.output()


CALLS = [
    ("response.function_call_arguments", "arguments"),
    ("response.mcp_call_arguments", "arguments"),
    ("response.custom_tool_call_input", "input"),
    ("response.code_interpreter_call_code", "code"),
]
PARTS = [
    ("response.output_text", "text", "content"),
    ("response.refusal", "refusal", "content"),
    ("response.reasoning_text", "text", "content"),
    ("response.reasoning_summary_text", "text", "summary"),
]


@pytest.mark.parametrize(("family", "field"), CALLS)
def test_a_done_call_without_its_text_keeps_what_was_streamed(family: str, field: str) -> None:
    deltas = [event(f"{family}.delta", delta=text) for text in "ab"]
    (item,) = output(*deltas, event(f"{family}.done"))
    assert item[field] == "ab"


@pytest.mark.parametrize(("family", "field", "parts"), PARTS)
def test_a_done_part_without_its_text_keeps_what_was_streamed(
    family: str, field: str, parts: str
) -> None:
    deltas = [event(f"{family}.delta", delta=text) for text in "ab"]
    (item,) = output(*deltas, event(f"{family}.done"))
    assert [part[field] for part in item[parts]] == ["ab"]


@pytest.mark.parametrize(("family", "field"), CALLS)
def test_a_done_call_replaces_what_was_streamed(family: str, field: str) -> None:
    (item,) = output(event(f"{family}.delta", delta="a"), event(f"{family}.done", **{field: "b"}))
    assert item[field] == "b"


@pytest.mark.parametrize(("family", "field", "parts"), PARTS)
def test_a_done_part_replaces_what_was_streamed(family: str, field: str, parts: str) -> None:
    (item,) = output(event(f"{family}.delta", delta="a"), event(f"{family}.done", **{field: "b"}))
    assert [part[field] for part in item[parts]] == ["b"]


@pytest.mark.parametrize(("family", "field", "parts"), PARTS)
def test_a_delta_that_says_nothing_adds_nothing(family: str, field: str, parts: str) -> None:
    (item,) = output(event(f"{family}.delta", delta="a"), event(f"{family}.delta"))
    assert [part[field] for part in item[parts]] == ["a"]


@pytest.mark.parametrize(("family", "field", "parts"), PARTS)
def test_a_text_without_a_place_goes_into_the_first_part_of_the_first_item(
    family: str, field: str, parts: str
) -> None:
    places = {"output_index": 0, "content_index": 0, "summary_index": 0}
    deltas = [event(f"{family}.delta", delta="a"), event(f"{family}.delta", delta="b", **places)]
    (item,) = output(*deltas)
    assert [part[field] for part in item[parts]] == ["ab"]


def test_an_item_without_a_type_is_a_message() -> None:
    assert output(event(DONE, item={"id": "msg_1"})) == [{"type": "message", "id": "msg_1"}]


def test_items_that_begin_without_a_place_stand_side_by_side() -> None:
    items = output(*(event(ADDED, item={"id": id_}) for id_ in "abc"))
    assert [item["id"] for item in items] == ["a", "b", "c"]


def test_items_without_a_place_are_finished_in_the_order_in_which_they_began() -> None:
    begun = [event(ADDED, item={"id": id_}) for id_ in "ab"]
    items = output(*begun, event(DONE, item={"id": "a", "status": "completed"}))
    assert [(item["id"], item["status"]) for item in items] == [
        ("a", "completed"),
        ("b", "incomplete"),
    ]


def test_items_stand_in_the_order_of_their_places_however_far_apart() -> None:
    items = output(*(event(ADDED, output_index=at, item={"n": at}) for at in (64, 8, 1)))
    assert [item["n"] for item in items] == [1, 8, 64]


def test_a_text_and_a_refusal_stand_in_one_message_each_in_its_place() -> None:
    (item,) = output(
        event("response.refusal.delta", content_index=1, delta="no"),
        event("response.output_text.delta", content_index=0, delta="well"),
    )
    assert item["content"] == [
        {"type": "output_text", "text": "well", "annotations": []},
        {"type": "refusal", "refusal": "no"},
    ]


def test_a_part_with_annotations_keeps_its_text() -> None:
    note = event("response.output_text.annotation.added", annotation={"n": 1})
    (item,) = output(event("response.output_text.delta", delta="hi"), note)
    part = {"type": "output_text", "text": "hi", "annotations": [{"n": 1}]}
    assert item["content"] == [part]


def test_what_is_no_object_in_a_list_of_parts_is_left_out() -> None:
    item = {"type": "message", "content": [5, {"type": "output_text", "text": "", "n": 1}]}
    (found,) = output(event(ADDED, item=item), event("response.output_text.delta", delta="hi"))
    assert [(part["text"], part["n"]) for part in found["content"]] == [("hi", 1)]


def test_an_item_that_begins_again_is_unfinished_again() -> None:
    item = {"type": "message", "content": []}
    again = [event(kind, output_index=0, item=item) for kind in (DONE, ADDED)]
    (found,) = output(*again, event("response.output_text.delta", delta="more"))
    assert found["status"] == "incomplete"
    assert found["content"][0]["text"] == "more"


@pytest.mark.parametrize("field", ["output_index", "content_index", "summary_index"])
def test_a_place_may_be_a_million_and_not_larger(field: str) -> None:
    kind = "response.reasoning_summary_text.delta"
    (item,) = output(event(kind, delta="x", **{field: 1_000_000}))
    assert item["summary"][0]["text"] == "x"
    with pytest.raises(MalformedEvent):
        output(event(kind, delta="x", **{field: 1_000_001}))


@pytest.mark.parametrize(
    ("type_", "fields"),
    [(ADDED, {"item": 5}), ("response.completed", {"response": {"output": 5}})],
)
def test_a_malformed_event_is_named(type_: str, fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvent, match=f"^{type_}: Expected `"):
        output(event(type_, **fields))


def test_an_item_too_deep_to_be_read_is_malformed() -> None:
    deep = b'{"type":"%b","item":{"x":%b}}' % (ADDED.encode(), b"[" * 5_000 + b"]" * 5_000)
    with pytest.raises(MalformedEvent, match=f"^{ADDED}: "):
        output(Event(ADDED, None, deep, b""))


WHOLE = [
    ("response.output_text", "response.content_part", "output_text", "content"),
    (
        "response.reasoning_summary_text",
        "response.reasoning_summary_part",
        "summary_text",
        "summary",
    ),
]


@pytest.mark.parametrize(("family", "end", "kind", "parts"), WHOLE)
@pytest.mark.parametrize(("said", "text"), [("b", "b"), ("", "a"), (5, "a"), (["b"], "a")])
def test_a_whole_part_that_names_no_place_is_the_first_and_counts_where_it_has_a_text(
    family: str, end: str, kind: str, parts: str, said: object, text: str
) -> None:
    (item,) = output(
        event(f"{family}.delta", delta="a"),
        event(f"{end}.done", part={"type": kind, "text": said}),
    )
    assert [part["text"] for part in item[parts]] == [text]


@pytest.mark.parametrize(("family", "end", "kind", "parts"), WHOLE)
def test_a_whole_part_replaces_what_was_streamed_at_its_own_place(
    family: str, end: str, kind: str, parts: str
) -> None:
    place = f"{parts}_index"
    (item,) = output(
        event(f"{family}.delta", **{place: 0}, delta="a"),
        event(f"{family}.delta", **{place: 1}, delta="x"),
        event(f"{end}.done", **{place: 1}, part={"type": kind, "text": "b"}),
    )
    assert [part["text"] for part in item[parts]] == ["a", "b"]


def test_what_an_unannounced_item_is_is_told_by_its_own_texts() -> None:
    items = output(
        event("response.reasoning_text.delta", output_index=0, delta="r"),
        event("response.output_text.delta", output_index=1, delta="t"),
    )
    assert [item["type"] for item in items] == ["reasoning", "message"]
    assert items[0]["summary"] == []  # the SDK's model of a reasoning item requires one
