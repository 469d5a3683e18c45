"""Fast sessions: what is complex, what is trivial, and what holds for a caller."""

from dataclasses import replace
from typing import Any

import pytest

from handrail.core import fast_session, items, wire
from handrail.core.fast_session import (
    NOTICE,
    FastPolicy,
    FastSession,
    Judgement,
    Strategy,
    applies,
    judge,
    shortened,
)
from handrail.core.items import Head
from handrail.errors import ConfigInvalid

Json = dict[str, Any]
ANSWER: Json = {"role": "assistant", "content": "a"}
LONG = "word " * 60


def user(text: Any) -> Json:
    """A message of the user."""
    return {"type": "message", "role": "user", "content": text}


def judged(*given: Json, max_items: int = 30) -> tuple[bool, bool]:
    """Whether these items are complex, and whether their last turn is trivial."""
    found = judge(*items.read(wire.raw(given)), max_items=max_items)
    assert found.reason
    return found.is_complex, found.is_trivial


def why(*given: Json) -> str:
    """The reason for the judgement."""
    return judge(*items.read(wire.raw(given)), max_items=30).reason


@pytest.mark.parametrize(
    "text",
    ["hi", "  hi\n", "x" * 220, "1.5 is a number", "a - b", "a | b", "ftp://x", "-x", "`x`"],
)
def test_one_short_line_of_plain_words_is_trivial(text: str) -> None:
    assert judged(user(text)) == (False, True)
    assert why(user(text)) == "the last turn is one short line"


@pytest.mark.parametrize("text", ["a\nb", "x" * 221, "see https://x.y", "HTTP://x", LONG])
def test_plain_words_that_are_not_trivial_are_not_complex_either(text: str) -> None:
    assert judged(user(text)) == (False, False)
    assert why(user(text)) == "the user's last messages are plain"


@pytest.mark.parametrize(
    "text",
    ["```x```", "a\nb\nc", "- item", "* item", "1. item", "|a|b|", "a\n  2.  two", "a\n\n\nb\nc"],
)
def test_structure_is_complex(text: str) -> None:
    assert judged(user(text)) == (True, False)
    assert why(user(text)) == (
        "the user's last messages hold code, a list, a table or several lines"
    )


@pytest.mark.parametrize("text", ["a\n\n\nb", "a\n \nb", "||", "-\nx", "1.\nx"])
def test_what_only_looks_like_structure_is_plain(text: str) -> None:
    assert not judged(user(text))[0]


def test_the_last_three_messages_of_the_user_count() -> None:
    code, plain = user("```x```"), user(LONG)
    assert judged(code, plain, plain) == (True, False)
    assert judged(code, plain, ANSWER, plain, user("  "), plain) == (False, False)
    assert judged(code, user("ok")) == (False, True)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": "data:x"}],
        "x" * 70_000,
        7,
    ],
)
def test_what_is_more_than_short_text_is_complex(content: Any) -> None:
    assert judged(user(content)) == (True, False)
    assert judged(user(content), user(LONG)) == (True, False)
    assert judged(user(content), user("ok")) == (False, True)
    assert why(user(content)) == "the user's last messages hold more than short text"


def test_without_a_word_of_a_user_nothing_is_complex() -> None:
    for given in ([], [ANSWER], [user("  ")], [{"type": "reasoning", "role": "user"}]):
        assert judged(*given) == (False, False)
        assert why(*given) == "there is no word of a user"


@pytest.mark.parametrize(
    "kind",
    [
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "local_shell_call",
        "web_search_call",
        "computer_call_output",
    ],
)
def test_tools_at_work_are_complex_among_the_last_items(kind: str) -> None:
    work = {"type": kind, "call_id": "c"}
    assert judged(work, user("hi")) == (True, True)
    assert why(work, user("hi")) == "tools are at work"
    assert judged(work, *[ANSWER] * 10, user("hi"), max_items=8) == (True, True)
    assert judged(work, *[ANSWER] * 11, user("hi"), max_items=24) == (False, True)
    assert judged(work, *[ANSWER] * 14, user("hi"), max_items=32) == (True, True)
    assert judged(work, *[ANSWER] * 15, user("hi"), max_items=32) == (False, True)
    assert judged({"type": "function_calls"}, user("hi")) == (False, True)


def test_a_role_is_read_in_any_case() -> None:
    assert fast_session.is_user(Head(role="USER"))
    assert not fast_session.is_user(Head(role=None))
    assert not fast_session.is_user(Head(role="user", type="reasoning"))


@pytest.mark.parametrize("is_complex", [True, False])
@pytest.mark.parametrize("is_trivial", [True, False])
def test_each_strategy_means_what_it_says(is_complex: bool, is_trivial: bool) -> None:
    found = Judgement(is_complex=is_complex, is_trivial=is_trivial, reason="")
    assert applies(Strategy.OFF, found) is False
    assert applies(Strategy.HYBRID, found) is not is_complex
    assert applies(Strategy.ALWAYS, found) is True


def test_nothing_is_left_out_unless_somebody_asks_for_it() -> None:
    fast = FastSession()
    assert (fast.strategy, fast.max_items, fast.compact_seconds) == (Strategy.OFF, 30, 0.0)
    assert (fast.drop_tools, fast.cut_instructions) == (False, False)
    assert fast == fast_session.NO_FAST_SESSION


def test_the_words_are_those_of_the_settings() -> None:
    assert list(Strategy) == ["off", "hybrid", "always"]
    assert list(FastPolicy) == ["inherit", "off", "hybrid", "always"]
    assert NOTICE.startswith("[The instructions end here")


@pytest.mark.parametrize("policy", list(FastPolicy))
@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_caller_inherits_or_has_a_strategy_of_his_own(
    policy: FastPolicy, strategy: Strategy
) -> None:
    fast = FastSession(strategy=strategy, max_items=50)
    wanted = strategy if policy is FastPolicy.INHERIT else Strategy(policy.value)
    assert fast.under(policy) == replace(fast, strategy=wanted)


def test_a_value_that_is_none_stops_the_start() -> None:
    assert FastSession(strategy="hybrid").strategy is Strategy.HYBRID  # type: ignore[arg-type]
    with pytest.raises(ConfigInvalid, match=r"^strategy: must be one of off, hybrid, always\.$"):
        FastSession(strategy="fast")  # type: ignore[arg-type]
    for bound in (8, 200):
        assert FastSession(max_items=bound).max_items == bound
    for beyond in (7, 201):
        with pytest.raises(ConfigInvalid, match=r"^max_items: must be from 8 to 200\.$"):
            FastSession(max_items=beyond)


@pytest.mark.parametrize(("is_trivial", "limit"), [(False, 900), (True, 320)])
def test_instructions_are_cut_to_a_limit(is_trivial: bool, limit: int) -> None:
    end = f"\n\n{NOTICE}"
    whole = "x" * limit
    assert shortened(whole, is_trivial=is_trivial) == whole
    assert shortened(f"{whole}y", is_trivial=is_trivial) == whole + end
    line = "l" * 179
    assert shortened(f"{line}l\n{whole}", is_trivial=is_trivial) == f"{line}l{end}"
    early = f"{line}\n{whole}"
    assert shortened(early, is_trivial=is_trivial) == early[:limit] + end
    assert shortened(f"{whole}\ny", is_trivial=is_trivial) == whole + end
    assert shortened(f"{whole}y\nz", is_trivial=is_trivial) == whole + end
    blank = "x" * 200 + " " * limit
    assert shortened(blank, is_trivial=is_trivial) == "x" * 200 + end
    assert shortened(f"{'x' * 190}\n{'y' * 50}\n{whole}", is_trivial=is_trivial) == (
        f"{'x' * 190}\n{'y' * 50}{end}"
    )
    assert NOTICE in shortened("z" * 2_000, is_trivial=is_trivial)
