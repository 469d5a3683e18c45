"""A conversation that goes on from a kept response: what leaves, and what cannot be continued."""

import json
from dataclasses import replace
from typing import Any

import pytest

from handrail.core import wire
from handrail.core.history import History, not_found
from handrail.core.lifecycle import State
from handrail.core.profiles import PROFILES, Endpoint
from handrail.core.rewrite import endpoint_request, upstream_request, upstream_run_request
from handrail.errors import RequestRejected

Json = dict[str, Any]


def said(text: str, **more: Any) -> Json:
    """A message of the model."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": f"msg_{text}", "role": "assistant", "content": [part], **more}


def asked(text: str) -> Json:
    """A message of the user, as a text input becomes one."""
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content}


def history(*turns: tuple[Any, list[Json]], max_bytes: int | None = None) -> History:
    """A history of these turns, each an input and an output, oldest first."""
    made = History(max_bytes=max_bytes)
    for number, (given, output) in reversed(list(enumerate(turns))):
        body = {"model": "m"} if given is None else {"model": "m", "input": given}
        made.take(
            f"resp_{number}",
            State.COMPLETED,
            request=json.dumps(body).encode(),
            response=json.dumps({"output": output}).encode(),
        )
    return made


def create(given: Any = None, **more: Any) -> wire.CreateRequest:
    """A create that goes on from something."""
    body = {"model": "m", "previous_response_id": "resp_9", **more}
    if given is not None:
        body["input"] = given
    return wire.read_create(json.dumps(body).encode())


def joined(before: History, given: Any = None, *, strips_ids: bool = True) -> list[Json]:
    """The whole input."""
    whole = before.before(create(given), strips_ids=strips_ids)
    decoded: list[Json] = json.loads(wire.encode(whole.body["input"]))
    return decoded


def test_every_turn_stands_in_its_order_before_the_new_input() -> None:
    before = history(("one", [said("1")]), ([{"role": "user", "content": "two"}], [said("2")]))
    assert joined(before, "three", strips_ids=False) == [
        asked("one"),
        said("1"),
        {"role": "user", "content": "two"},
        said("2"),
        asked("three"),
    ]


def test_turns_without_an_input_and_creates_without_one_are_understood() -> None:
    before = history((None, [said("1")]), ("two", []))
    assert joined(before, strips_ids=False) == [said("1"), asked("two")]
    assert joined(before, [], strips_ids=False) == [said("1"), asked("two")]


def test_items_of_the_history_lose_their_ids_where_the_upstream_looks_them_up() -> None:
    before = history(([{"role": "user", "content": "a", "id": "msg_a"}], [said("1")]))
    own = [{"role": "user", "content": "b", "id": "msg_b"}]
    assert [item.get("id") for item in joined(before, own)] == [None, None, "msg_b"]
    kept = joined(before, own, strips_ids=False)
    assert [item.get("id") for item in kept] == ["msg_a", "msg_1", "msg_b"]


SUMMARY = [{"type": "summary_text", "text": "s"}]
REASONING: list[tuple[Json, bool]] = [
    ({"encrypted_content": "gAAAA"}, True),
    ({"content": [{"type": "reasoning_text", "text": "t"}]}, True),
    ({"content": [{"type": "reasoning_text", "text": "t"}], "encrypted_content": None}, True),
    ({}, False),
    ({"encrypted_content": None}, False),
    ({"encrypted_content": ""}, False),
    ({"content": []}, False),
    ({"content": None, "summary": SUMMARY}, False),
]


@pytest.mark.parametrize(("fields", "travels"), REASONING)
def test_reasoning_travels_when_it_holds_anything(fields: Json, travels: bool) -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], **fields}
    whole = joined(history(("q", [item, said("1")])), strips_ids=False)
    assert whole == [asked("q"), *([item] if travels else []), said("1")]


def test_reasoning_that_the_caller_itself_sent_stays() -> None:
    item = {"type": "reasoning", "summary": []}
    assert joined(history(([item], [said("1")])), strips_ids=False) == [item, said("1")]


def test_a_request_without_history_stays_as_it_is() -> None:
    request = create("hi")
    assert history().before(request, strips_ids=True) is request


def test_instructions_and_everything_else_are_those_of_the_request_alone() -> None:
    request = create("hi", instructions="be brief", tools=[])
    whole = history(("q", [])).before(request, strips_ids=True)
    assert whole.whole
    assert {**whole.body, "input": None} == {**request.body, "input": None}
    assert replace(whole, body={}, whole=False) == replace(request, body={})


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        (State.QUEUED, "is queued. It can be continued when it has ended"),
        (State.IN_PROGRESS, "is in_progress. It can be continued when it has ended"),
        (State.FAILED, "is failed. Only one that is completed or incomplete"),
        (State.CANCELLED, "is cancelled. Only one that is completed or incomplete"),
    ],
)
def test_what_has_no_answer_cannot_be_continued(state: State, hint: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        History(max_bytes=None).take("resp_1", state, request=b"{}", response=b'{"output":[]}')
    fault = caught.value.fault
    assert (fault.status, fault.code, fault.param) == (
        400,
        "response_not_completed",
        "previous_response_id",
    )
    assert f"Previous response with id 'resp_1' {hint}" in fault.message


def test_an_answer_that_was_cut_short_can_be_continued() -> None:
    made = History(max_bytes=None)
    made.take("r", State.INCOMPLETE, request=b'{"input":"q"}', response=b'{"output":[]}')
    assert joined(made, strips_ids=False) == [asked("q")]


def test_the_bound_is_on_inputs_and_outputs_together_and_named() -> None:
    turn: tuple[str, list[Json]] = ("x" * 8, [])  # "xxxxxxxx" and []: 10 and 2 bytes
    assert history(turn, turn, max_bytes=24).size == 24
    assert history((None, []), max_bytes=2).size == 2
    with pytest.raises(RequestRejected) as caught:
        history(turn, turn, max_bytes=23)
    fault = caught.value.fault
    assert (fault.status, fault.code, fault.param) == (
        400,
        "history_too_large",
        "previous_response_id",
    )
    assert "larger than 23 bytes (background.max_history_bytes)" in fault.message


def test_a_missing_response_is_named_and_what_is_kept_is_said() -> None:
    fault = not_found("resp_x", previous="resp_x").fault
    assert (fault.status, fault.code, fault.param) == (
        400,
        "previous_response_not_found",
        "previous_response_id",
    )
    assert fault.message.startswith("Previous response with id 'resp_x' not found: this gateway ")
    assert "[background] enabled" in fault.message
    assert 'store = "keep"' in fault.message
    long = not_found("y" * 200, previous="y" * 200).fault.message
    assert f"'{'y' * 80}'" in long


def test_a_deleted_ancestor_is_named_with_what_goes_on_from_it() -> None:
    text = not_found("resp_old", previous="resp_new").fault.message
    assert text.startswith("Previous response with id 'resp_old' not found: it was deleted, and ")
    assert "'resp_new' goes on from it" in text
    long = not_found("o" * 200, previous="n" * 200).fault.message
    assert "o" * 81 not in long
    assert "n" * 81 not in long


# --- what leaves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "named",
    [
        {"previous_response_id": "resp_9"},
        {
            "previous_response_id": None,
            "providerOptions": {"openai": {"previousResponseId": "resp_9"}},
        },
    ],
)
def test_the_upstream_sees_the_history_and_no_previous_response(profile: str, named: Json) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "o"}
    request = create([output], **named)
    whole = history(("q", [call])).before(request, strips_ids=True)
    for rewrite in (upstream_request, upstream_run_request):
        made = rewrite(whole, profile=PROFILES[profile], stream=True)
        body = json.loads(wire.encode(made.body))
        assert "previous_response_id" not in body
        assert body["input"] == [asked("q"), call, output]
        steps = [step for step in made.steps if step.field == "previous_response_id"]
        assert [step.action for step in steps] == ["removed"]


def test_the_endpoints_beside_create_get_the_history_too() -> None:
    whole = history(("q", [])).before(create("hi"), strips_ids=True)
    made = endpoint_request(whole, endpoint=Endpoint.COMPACT, profile=PROFILES["codex"])
    assert json.loads(wire.encode(made.body["input"])) == [asked("q"), asked("hi")]
    assert "previous_response_id" not in made.body


def test_a_history_that_begins_at_the_upstream_is_named_to_it() -> None:
    whole = history(("q", [])).before(create("hi"), strips_ids=True)
    output = {"type": "function_call_output", "call_id": "c", "output": "o"}
    for request in (whole, create([output])):
        for made in (
            upstream_request(
                request, profile=PROFILES["codex"], stream=True, continues="resp_theirs"
            ),
            endpoint_request(
                request,
                endpoint=Endpoint.COMPACT,
                profile=PROFILES["compatible"],
                continues="resp_theirs",
            ),
        ):
            body = json.loads(wire.encode(made.body))
            assert body["previous_response_id"] == "resp_theirs"
    assert body["input"] == [output]


@pytest.mark.parametrize("rewrite", [upstream_request, upstream_run_request])
def test_a_previous_response_that_nobody_looked_up_never_vanishes(rewrite: Any) -> None:
    for request in (
        create("hi"),
        create(
            "hi",
            previous_response_id=None,
            providerOptions={"openai": {"previousResponseId": "resp_9"}},
        ),
    ):
        with pytest.raises(RequestRejected) as caught:
            rewrite(request, profile=PROFILES["openai"], stream=False)
        assert caught.value.fault.code == "previous_response_not_found"
