"""The reducer: what a stream says so far, whole, cut off, or without its final output."""

import contextlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.core import wire
from handrail.core.events import Event, MalformedEvent, read
from handrail.core.fold import Fold
from handrail.core.lifecycle import State
from handrail.core.sse import parse_frame
from tests.unit.core.generated import ODD_EVENTS

Json = dict[str, Any]


def of(text: str) -> Event:
    """The event with this text as its data."""
    found = read(parse_frame(f"data: {text}\n\n".encode()))
    assert found is not None
    return found


def event(type_: str, **fields: Any) -> Event:
    """An event as it comes from an upstream."""
    return of(json.dumps({"type": type_, **fields}))


def folded(*parts: Event) -> Fold:
    """The fold after these events."""
    fold = Fold()
    for part in parts:
        fold.apply(part)
    return fold


def closing(output: Any, *, type_: str = "response.completed") -> Event:
    """A closing event with this output."""
    return event(type_, response={"id": "resp_1", "output": output})


# --- a whole stream ------------------------------------------------------------------------------


def message(texts: list[list[str]], id_: str) -> tuple[Json, list[Json]]:
    """A finished message of several parts, and the events that build it."""
    parts = [{"type": "output_text", "text": "".join(part), "annotations": []} for part in texts]
    whole = {"type": "message", "id": id_, "role": "assistant", "status": "completed"}
    steps = [
        {"type": "response.output_text.delta", "content_index": at, "delta": delta}
        for at, part in enumerate(texts)
        for delta in part
    ]
    return {**whole, "content": parts}, steps


def call(pieces: list[str], id_: str) -> tuple[Json, list[Json]]:
    """A finished function call, and the events that build it."""
    whole = {"type": "function_call", "id": id_, "call_id": "c", "name": "f", "status": "completed"}
    kind = "response.function_call_arguments"
    steps = [{"type": f"{kind}.delta", "delta": piece} for piece in pieces]
    done = {"type": f"{kind}.done", "arguments": "".join(pieces)}
    return {**whole, "arguments": "".join(pieces)}, [*steps, done]


def reasoning(texts: list[list[str]], id_: str) -> tuple[Json, list[Json]]:
    """A finished reasoning item with a summary, and the events that build it."""
    parts = [{"type": "summary_text", "text": "".join(part)} for part in texts]
    kind = "response.reasoning_summary_text"
    steps = [
        {"type": f"{kind}.delta", "summary_index": at, "delta": delta}
        for at, part in enumerate(texts)
        for delta in part
    ]
    return {"type": "reasoning", "id": id_, "summary": parts}, steps


PIECES = st.lists(st.text(max_size=4), min_size=1, max_size=3)
PARTS = st.lists(PIECES, min_size=1, max_size=3)
Build = Callable[[str], tuple[Json, list[Json]]]
BUILDS: st.SearchStrategy[Build] = st.one_of(
    PARTS.map(lambda texts: partial(message, texts)),
    PIECES.map(lambda pieces: partial(call, pieces)),
    PARTS.map(lambda texts: partial(reasoning, texts)),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Json], list[Event]]:
    """An output, and a stream that says it: items may be interleaved, as the API allows."""
    output: list[Json] = []
    lanes: list[list[Event]] = []
    for index, build in enumerate(draw(st.lists(BUILDS, max_size=4))):
        whole, steps = build(f"item_{index}")
        blank = {"status": "in_progress", "content": [], "summary": []}
        empty = {key: blank.get(key, value) for key, value in whole.items()}
        output.append(whole)
        lane = [event("response.output_item.added", output_index=index, item=empty)]
        lane += [event(output_index=index, type_=step.pop("type"), **step) for step in steps]
        lanes.append([*lane, event("response.output_item.done", output_index=index, item=whole)])
    order = draw(st.permutations([at for at, lane in enumerate(lanes) for _ in lane]))
    iterators = [iter(lane) for lane in lanes]
    return output, [event("response.created", response={}), *(next(iterators[at]) for at in order)]


@given(streams())
def test_a_whole_stream_folds_to_the_output_of_its_terminal_event(
    stream: tuple[list[Json], list[Event]],
) -> None:
    output, parts = stream
    assert folded(*parts, closing(output)).output() == output


@given(streams())
def test_an_end_without_output_folds_to_the_items_that_were_finished(
    stream: tuple[list[Json], list[Event]],
) -> None:
    output, parts = stream
    fold = folded(*parts, closing([]))
    assert fold.output() == output
    assert fold.state is State.COMPLETED


@given(streams())
def test_without_its_finished_items_a_stream_folds_to_the_same_text_marked_incomplete(
    stream: tuple[list[Json], list[Event]],
) -> None:
    output, parts = stream
    unfinished = [part for part in parts if not part.type.endswith("item.done")]
    found = folded(*unfinished).output()
    assert {item.pop("status", None) for item in found} <= {"incomplete", None}
    assert found == [{key: item[key] for key in item if key != "status"} for item in output]


@given(streams(), st.integers(0, 40))
def test_a_stream_cut_anywhere_folds_to_what_was_said_so_far(
    stream: tuple[list[Json], list[Event]], cut: int
) -> None:
    parts = stream[1][:cut]
    fold = folded(*parts)
    said = [json.loads(part.data).get("delta", "") for part in parts]
    text = json.dumps(fold.output(), ensure_ascii=False)
    assert all(json.dumps(piece, ensure_ascii=False)[1:-1] in text for piece in said)
    assert fold.state is None
    assert all(item.get("status") != "in_progress" for item in fold.output())


# --- one event at a time -------------------------------------------------------------------------


def test_before_the_first_event_there_is_nothing() -> None:
    fold = Fold()
    assert (fold.snapshot, fold.output(), fold.state) == ({}, [], None)


def test_later_snapshots_go_over_earlier_ones_and_raise_the_state_only_at_an_end() -> None:
    fold = folded(event("response.created", response={"id": "a", "model": "m"}))
    fold.apply(event("response.in_progress", response={"id": "b"}))
    assert fold.state is None
    assert {name: bytes(value) for name, value in fold.snapshot.items()} == {
        "id": b'"b"',
        "model": b'"m"',
    }


@pytest.mark.parametrize("type_", ["keepalive", "codex.rate_limits", "response.new_thing.delta"])
def test_events_that_build_nothing_change_nothing(type_: str) -> None:
    assert folded(event(type_, delta="x", output_index=0)).output() == []


TEXTS = [
    ("response.output_text", "delta", "text", "content", "output_text"),
    ("response.refusal", "delta", "refusal", "content", "refusal"),
    ("response.reasoning_text", "delta", "text", "content", "reasoning_text"),
    ("response.reasoning_summary_text", "delta", "text", "summary", "summary_text"),
]


@pytest.mark.parametrize(("family", "verb", "field", "parts", "kind"), TEXTS)
def test_deltas_build_the_part_that_their_event_names(
    family: str, verb: str, field: str, parts: str, kind: str
) -> None:
    fold = folded(*(event(f"{family}.{verb}", output_index=0, delta=text) for text in "abc"))
    (item,) = fold.output()
    assert item[parts][0]["type"] == kind
    assert item[parts][0][field] == "abc"
    assert item["type"] == ("reasoning" if "reasoning" in family else "message")
    if item["type"] == "message":
        assert (item["role"], item["status"]) == ("assistant", "incomplete")


@pytest.mark.parametrize(
    ("family", "field"),
    [
        ("response.function_call_arguments", "arguments"),
        ("response.mcp_call_arguments", "arguments"),
        ("response.custom_tool_call_input", "input"),
        ("response.code_interpreter_call_code", "code"),
    ],
)
def test_deltas_of_a_call_go_to_the_item_itself(family: str, field: str) -> None:
    added = event("response.output_item.added", output_index=3, item={"type": "call", field: ""})
    deltas = [event(f"{family}.delta", output_index=3, delta=text) for text in "abc"]
    assert folded(added, *deltas).output() == [
        {"type": "call", field: "abc", "status": "incomplete"}
    ]


@pytest.mark.parametrize(("whole", "text"), [("abX", "abX"), ("", "ab")])
def test_a_done_text_replaces_the_deltas_unless_it_is_blank(whole: str, text: str) -> None:
    deltas = [event("response.output_text.delta", delta=piece) for piece in "ab"]
    fold = folded(*deltas, event("response.output_text.done", text=whole))
    assert fold.output()[0]["content"][0]["text"] == text


@pytest.mark.parametrize(
    ("parts", "part", "text"),
    [
        ("content", {"type": "output_text", "text": "whole"}, "whole"),
        ("content", {"type": "output_text", "text": ""}, "ab"),
        ("content", {"type": "output_text", "text": None}, "ab"),
        ("content", {"type": "output_audio", "text": "whole"}, "ab"),
        ("summary", {"type": "summary_text", "text": "whole"}, "whole"),
    ],
)
def test_a_part_that_is_whole_says_its_text(parts: str, part: Json, text: str) -> None:
    name = {"content": "output_text", "summary": "reasoning_summary_text"}[parts]
    end = {"content": "content_part", "summary": "reasoning_summary_part"}[parts]
    deltas = [event(f"response.{name}.delta", delta=piece) for piece in "ab"]
    assert folded(*deltas, event(f"response.{end}.done", part=part)).output()[0][parts] == [
        folded(event(f"response.{name}.done", text=text)).output()[0][parts][0]
    ]


LATE = [
    event("response.completed", response={"id": "b", "output": []}),
    event("response.failed", response={"id": "b", "error": {"message": "late"}}),
    event("response.output_text.delta", delta="late"),
    event("response.output_item.done", item=None),
]


@pytest.mark.parametrize("late", LATE, ids=lambda late: str(late.type))
def test_nothing_follows_the_first_end(late: Event) -> None:
    fold = folded(closing(None), late)
    assert (bytes(fold.snapshot["id"]), fold.output()) == (b'"resp_1"', [])
    assert fold.state is State.COMPLETED


def test_parts_stand_in_the_order_of_their_index_whenever_they_came() -> None:
    fold = folded(
        event("response.output_text.delta", output_index=1, content_index=1, delta="d"),
        event("response.output_text.delta", output_index=1, content_index=0, delta="c"),
        event("response.output_text.delta", output_index=0, content_index=0, delta="a"),
    )
    texts = [[part["text"] for part in item["content"]] for item in fold.output()]
    assert texts == [["a"], ["c", "d"]]


def test_a_text_goes_into_the_part_that_the_item_has_already() -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "", "logprobs": []}]}
    added = event("response.output_item.added", output_index=0, item=item)
    fold = folded(added, event("response.output_text.delta", delta="hi"))
    assert fold.output()[0]["content"] == [
        {"type": "output_text", "text": "hi", "logprobs": [], "annotations": []}
    ]


def test_annotations_go_to_their_part_and_those_without_one_are_left_out() -> None:
    kind = "response.output_text.annotation.added"
    fold = folded(
        event("response.output_text.delta", delta="hi"),
        event(kind, annotation={"n": 1}),
        event(kind, annotation={"n": 2}, output_index=0, content_index=0),
        event(kind, annotation={"n": 3}, content_index=5),
        event(kind, annotation={"n": 4}, output_index=5),
    )
    (item,) = fold.output()
    assert [note["n"] for note in item["content"][0]["annotations"]] == [1, 2]


@pytest.mark.parametrize(
    ("item", "status"),
    [
        ({"type": "message"}, "incomplete"),
        ({"type": "message", "status": "in_progress"}, "incomplete"),
        ({"type": "message", "status": "completed"}, "completed"),
        ({"type": "function_call", "status": None}, "incomplete"),
        ({"type": "reasoning"}, None),
    ],
)
def test_an_item_that_never_finished_is_incomplete(item: Json, status: str | None) -> None:
    (found,) = folded(event("response.output_item.added", output_index=0, item=item)).output()
    assert found.get("status") == status


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("response.completed", "completed"),
        ("response.done", "completed"),
        ("response.incomplete", "incomplete"),
        ("response.failed", "incomplete"),
    ],
)
def test_an_item_without_its_own_end_shares_that_of_the_response(end: str, status: str) -> None:
    fold = folded(event("response.output_text.delta", delta="x"), closing([], type_=end))
    assert fold.output()[0]["status"] == status


def test_items_without_a_place_are_taken_in_order() -> None:
    done = [event("response.output_item.done", item={"type": "x", "n": n}) for n in range(3)]
    assert [item["n"] for item in folded(*done).output()] == [0, 1, 2]


def test_a_finished_item_is_not_changed_by_what_comes_late() -> None:
    whole = {"type": "message", "content": []}
    fold = folded(
        event("response.output_item.done", output_index=0, item=whole),
        event("response.output_text.delta", output_index=0, delta="late"),
    )
    assert fold.output() == [whole]


@pytest.mark.parametrize(
    ("type_", "state"),
    [
        ("response.completed", State.COMPLETED),
        ("response.incomplete", State.INCOMPLETE),
        ("response.failed", State.FAILED),
        ("response.done", State.COMPLETED),
    ],
)
def test_the_output_of_the_end_replaces_what_was_built(type_: str, state: State) -> None:
    fold = folded(event("response.output_text.delta", delta="x"), closing([{"n": 1}], type_=type_))
    assert fold.output() == [{"n": 1}]
    assert fold.state is state


@pytest.mark.parametrize("response", [{}, {"output": None}, {"output": []}])
def test_an_end_that_says_no_output_leaves_what_was_built(response: Json) -> None:
    fold = folded(
        event("response.output_text.delta", delta="x"),
        event("response.completed", response=response),
    )
    assert fold.output()[0]["content"][0]["text"] == "x"


def test_asking_for_the_output_changes_nothing() -> None:
    added = event("response.output_item.added", output_index=0, item={"type": "m", "content": []})
    fold = folded(added, event("response.output_text.delta", delta="x"))
    assert fold.output() == fold.output()
    fold.apply(event("response.output_text.delta", delta="y"))
    assert fold.output()[0]["content"][0]["text"] == "xy"


BAD: list[tuple[str, Json]] = [
    ("response.output_text.delta", {"delta": 5}),
    ("response.output_text.delta", {"delta": "x", "output_index": "0"}),
    ("response.output_item.added", {"output_index": 0}),
    ("response.output_item.added", {"output_index": 0, "item": None}),
    ("response.output_item.added", {"output_index": -1, "item": {}}),
    ("response.output_text.annotation.added", {"output_index": []}),
    ("response.content_part.done", {"part": "x"}),
    ("response.completed", {"response": []}),
    ("response.completed", {"response": {"status": 5}}),
]


@pytest.mark.parametrize(("type_", "fields"), BAD)
def test_an_event_of_the_wrong_shape_is_malformed(type_: str, fields: Json) -> None:
    with pytest.raises(MalformedEvent):
        folded(event(type_, **fields))


def test_a_number_that_cannot_be_read_is_malformed() -> None:
    with pytest.raises(MalformedEvent):
        folded(of(added('{"type":"x"}', index="1e999")))


def test_a_reasoning_item_that_said_it_was_under_way_is_incomplete_too() -> None:
    item = {"type": "reasoning", "summary": [], "status": "in_progress"}
    assert folded(event(ADDED, item=item)).output()[0]["status"] == "incomplete"


ADDED = "response.output_item.added"
DELTA = '{"type":"response.output_text.delta","delta":"x"}'
NOTE = '{"type":"response.output_text.annotation.added","annotation":{}}'


def completed(output: str) -> str:
    """The text of a closing event with this text as its output."""
    return f'{{"type":"response.completed","response":{{"output":{output}}}}}'


def added(item: str, index: str = "0") -> str:
    """The text of an added event with these texts in it."""
    return f'{{"type":"{ADDED}","output_index":{index},"item":{item}}}'


@pytest.mark.parametrize(
    "texts",
    [
        [added('"x"')],
        [added("{}", index='"x"')],
        [added('{"id":"msg_1"}')],
        [added('{"type":"message","content":"abc"}'), DELTA],
        [added('{"type":"message","content":null}'), NOTE],
        ['{"type":"response.output_text.delta","content_index":-1,"delta":"x"}'],
        [completed("5")],
        [completed('"x"')],
        [completed("[5]")],
        [completed("[1e999]")],
    ],
)
def test_whatever_an_upstream_sends_is_malformed_or_gives_a_list_of_items(texts: list[str]) -> None:
    assert_malformed_or_items(texts)


@settings(max_examples=1_000, report_multiple_bugs=False)
@given(st.lists(ODD_EVENTS, min_size=1, max_size=4))
def test_any_events_are_malformed_or_give_a_list_of_items(texts: list[str]) -> None:
    assert_malformed_or_items(texts)


def assert_malformed_or_items(texts: list[str]) -> None:
    """Whatever has been taken in before and after something malformed, a run can end with it."""
    fold = Fold()
    for text in texts:
        with contextlib.suppress(MalformedEvent):
            fold.apply(of(text))
    wire.items(wire.raw(fold.output()), param="output")


def test_an_end_with_a_spaced_empty_output_leaves_what_was_built() -> None:
    fold = folded(of(DELTA), of(completed("[ ]")))
    assert len(fold.output()) == 1


def test_an_item_without_a_place_is_finished_where_it_was_added() -> None:
    item = {"type": "message", "id": "msg_1", "content": []}
    fold = folded(event(ADDED, item=item), event("response.output_item.done", item=item))
    assert fold.output() == [item]
