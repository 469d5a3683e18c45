"""Which account a request belongs to."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core import affinity, wire
from handrail.core.rewrite import UpstreamRequest


def body(**fields: Any) -> wire.Body:
    return {name: wire.raw(value) for name, value in fields.items()}


def request(**fields: Any) -> UpstreamRequest:
    return UpstreamRequest(body=body(**fields), streams=True, added_include=False, steps=())


@pytest.mark.parametrize(
    ("headers", "fields", "expected"),
    [
        ({}, {}, None),
        ({}, {"prompt_cache_key": "k"}, "k"),
        ({"session_id": "s"}, {"prompt_cache_key": "k"}, "s"),
        ({"session_id": " ", "conversation_id": "c"}, {}, "c"),
        ({}, {"prompt_cache_key": None}, None),
        ({}, {"prompt_cache_key": 5}, None),
        ({}, {"prompt_cache_key": "x" * 300}, "x" * 256),
    ],
)
def test_a_conversation_is_named_by_a_header_or_by_its_cache_key(
    headers: dict[str, str], fields: dict[str, Any], expected: str | None
) -> None:
    assert affinity.conversation(headers, body(**fields)) == expected


REASONING = {"type": "reasoning", "summary": [], "encrypted_content": "one"}
COMPACTION = {"type": "compaction", "encrypted_content": "two"}
MESSAGE = {"role": "user", "content": "hi"}


def test_what_is_sealed_is_found_newest_first() -> None:
    assert affinity.sealed_in_request(body(input=[REASONING, MESSAGE, COMPACTION])) == (
        "two",
        "one",
    )
    assert affinity.sealed_in_request(body(input=[MESSAGE])) == ()
    assert affinity.sealed_in_request(body(input='a text with "encrypted_content" in it')) == ()
    assert affinity.sealed_in_request(body(model="m")) == ()
    assert affinity.sealed_in_request(body(input=[{**REASONING, "encrypted_content": 5}])) == ()
    assert affinity.sealed_in_request(body(input=[{**REASONING, "encrypted_content": None}])) == ()


def test_an_item_that_ends_in_a_stream_is_looked_at() -> None:
    def event(item: Any) -> bytes:
        return json.dumps({"type": affinity.ITEM_DONE, "item": item}).encode()

    assert affinity.sealed_in_event(event(REASONING)) == ("one",)
    assert affinity.sealed_in_event(event(MESSAGE)) == ()
    assert affinity.sealed_in_event(event({"encrypted_content": None})) == ()
    assert affinity.sealed_in_event(event({"encrypted_content": 5})) == ()
    assert affinity.sealed_in_event(b'"encrypted_content"') == ()
    assert affinity.sealed_in_event(b'{"encrypted_content":1}') == ()


def test_reasoning_can_be_left_out_and_it_is_said() -> None:
    plain = {"type": "reasoning", "summary": []}
    made = affinity.without_reasoning(request(input=[REASONING, MESSAGE, plain]))
    assert made is not None
    assert json.loads(bytes(made.body["input"])) == [MESSAGE, plain]
    assert made.steps[-1].action == "1 reasoning items left out"


def test_a_compaction_is_never_left_out() -> None:
    assert affinity.without_reasoning(request(input=[REASONING, COMPACTION])) is None


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_looking_raises_nothing_for_any_json(value: Any) -> None:
    data = json.dumps([value, {"encrypted_content": value}]).encode()
    assert isinstance(affinity.sealed_in_items(data), tuple)
    assert isinstance(affinity.sealed_in_event(data), tuple)


def test_reasoning_of_one_maker_can_stay() -> None:
    other = {**REASONING, "encrypted_content": "three"}
    made = affinity.without_reasoning(request(input=[REASONING, MESSAGE, other]), but=["three"])
    assert made is not None
    assert json.loads(bytes(made.body["input"])) == [MESSAGE, other]
    compacted = request(input=[REASONING, COMPACTION])
    assert affinity.without_reasoning(compacted, but=["one"]) is None
    kept = affinity.without_reasoning(compacted, but=["two"])
    assert kept is not None
    assert json.loads(bytes(kept.body["input"])) == [COMPACTION]
