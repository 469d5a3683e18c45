"""What messages say in words, and which mode instructions put the model in."""

from typing import Any

import pytest
from msgspec import Raw

from handrail.core import items, wire
from handrail.core.item_texts import MAX_READ, is_message, stated_mode, text_of
from handrail.core.items import Head


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hi", "hi"),
        ("", ""),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}], "a\nb"),
        ([], ""),
        ([{"type": "input_text", "text": "a"}, {"type": "input_image"}], None),
        ([{"type": "input_image", "text": None}], None),
        ([{"type": "input_text", "text": 1}], None),
        (["a"], None),
        ({"text": "a"}, None),
        (7, None),
        (None, None),
    ],
)
def test_the_text_of_a_message_is_all_of_its_parts_or_none(content: Any, text: str | None) -> None:
    assert text_of({"content": wire.raw(content)}) == text
    assert text_of({}) is None


def test_a_long_message_is_not_read() -> None:
    assert MAX_READ == 65_536
    longest = "x" * (MAX_READ - 2)
    assert text_of({"content": wire.raw(longest)}) == longest
    assert text_of({"content": wire.raw(longest + "x")}) is None


def test_a_message_too_deep_to_be_read_has_no_text() -> None:
    deep = b'[{"text":"a","b":' + b"[" * 3_000 + b"]" * 3_000 + b"}]"
    assert text_of({"content": Raw(deep)}) is None


def test_a_message_may_have_no_type() -> None:
    assert is_message(Head())
    assert is_message(Head(type="message"))
    assert not is_message(Head(type="reasoning"))


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("Collaboration mode: plan", "plan"),
        ("collaboration MODE:\n  Default", "default"),
        ("# Collaboration Mode: **Plan**", "plan"),
        ("you are in Plan mode.", "plan"),
        ("You are in **Default Mode** until", "default"),
        ("in plan mode, then in default mode", "default"),
        ("in default mode, then collaboration mode: plan", "plan"),
        ("Plan mode", None),
        ("within plan mode", None),
        ("in plan modes", None),
        ("collaboration mode: planning", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("role", ["developer", "system"])
def test_instructions_may_state_a_mode(text: str, mode: str | None, role: str) -> None:
    given = [{"role": role, "content": text}, {"role": "user", "content": "in plan mode"}]
    assert stated_mode(*items.read(wire.raw(given))) == mode


def test_the_last_word_holds_and_silence_says_nothing() -> None:
    plan, default, silent = (
        {"role": "developer", "content": text}
        for text in ("in plan mode", "in default mode", "be kind")
    )
    assert stated_mode(*items.read(wire.raw([default, plan, silent]))) == "plan"
    assert stated_mode(*items.read(wire.raw([plan, default]))) == "default"
    assert stated_mode([], []) is None
    picture: Any = {"role": "developer", "content": [{"type": "input_image"}]}
    assert stated_mode(*items.read(wire.raw([plan, picture]))) == "plan"
    call: Any = {"type": "custom_tool_call", "role": "developer", "content": "in default mode"}
    assert stated_mode(*items.read(wire.raw([plan, call]))) == "plan"
