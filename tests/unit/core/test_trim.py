"""Which items stay: pairs together, instructions and the newest turn always, in order."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core import items, wire
from handrail.core.tool_outputs import repaired
from handrail.core.trim import groups, kept, newest_user

Json = dict[str, Any]
Places = list[int]
ANSWER: Json = {"role": "assistant", "content": "a"}
USER: Json = {"role": "user", "content": "u"}
DEVELOPER: Json = {"role": "developer", "content": "d"}
THOUGHT: Json = {"type": "reasoning", "encrypted_content": "x"}


def call(name: str, kind: str = "function_call") -> Json:
    """A tool call or output."""
    return {"type": kind, "call_id": name}


def output(name: str) -> Json:
    """The output of a call."""
    return call(name, "function_call_output")


def stays(*given: Json, limit: int = 8, newest_only: bool = False) -> Places:
    """The places that stay of these items."""
    read = items.read(wire.raw(given))
    return kept(*read, max_items=limit, newest_only=newest_only)


def together(*given: Json) -> list[Places]:
    """The groups of these items, each once."""
    found = groups(*items.read(wire.raw(given)))
    for place, group in enumerate(found):
        assert place in group
    return [list(group) for group in sorted({tuple(sorted(group)) for group in found})]


@pytest.mark.parametrize("limit", [0, 7, 8])
def test_what_is_short_enough_stays_whole(limit: int) -> None:
    assert stays(*[ANSWER] * 8, limit=limit) == list(range(8))
    assert stays(*[ANSWER] * 9, limit=limit) == list(range(1, 9))
    assert stays(limit=limit) == []


def test_the_end_stays_up_to_the_limit() -> None:
    assert stays(*[USER] * 40, limit=30) == list(range(10, 40))
    assert stays(*[USER] * 30, limit=30) == list(range(30))


def test_instructions_stay_wherever_they_are() -> None:
    middle = [*[ANSWER] * 3, {"role": "system", "content": "s" * 5_000}, *[ANSWER] * 8]
    assert stays(DEVELOPER, *middle, USER) == [0, 4, *range(8, 14)]
    assert stays(*[DEVELOPER] * 20, *[ANSWER] * 5, USER, ANSWER) == [*range(20), 25, 26]
    # Neither a role of another spelling nor another item gives instructions.
    assert 0 not in stays({"role": "Developer"}, *[ANSWER] * 9)
    assert 0 not in stays({"type": "reasoning_text", "role": "developer"}, *[ANSWER] * 9)


@pytest.mark.parametrize("kind", ["compaction", "compaction_summary"])
def test_what_stands_for_all_that_was_before_stays(kind: str) -> None:
    assert stays(ANSWER, {"type": kind, "encrypted_content": "x"}, *[ANSWER] * 9)[:2] == [1, 4]


def test_the_newest_message_of_the_user_stays_however_much_follows() -> None:
    assert stays(USER, USER, *[ANSWER] * 20) == [1, *range(15, 22)]
    assert stays({"role": "User", "content": "u"}, *[ANSWER] * 20)[0] == 0


def test_a_call_and_its_output_stay_or_go_together() -> None:
    assert stays(call("a"), *[USER] * 8, output("a")) == [0, *range(3, 10)]
    assert stays(*[ANSWER] * 3, call("a"), output("a"), *[USER] * 7) == list(range(5, 12))
    assert stays(ANSWER, ANSWER, call("a"), *[ANSWER] * 5, output("a")) == list(range(1, 9))
    assert stays(*[ANSWER] * 3, call("a"), output("a"), *[USER] * 6) == list(range(3, 11))
    many = [*(call(str(n)) for n in range(20)), *(output(str(n)) for n in range(20))]
    assert stays(USER, *many) == [0, *(n for n in range(18, 21)), *(n for n in range(38, 41))]


def test_a_group_that_is_larger_than_the_limit_stays_if_it_is_the_end() -> None:
    assert stays(USER, ANSWER, *[output("a")] * 20) == [0, *range(2, 22)]
    assert stays(USER, *[output("a")] * 20, ANSWER) == [0, 21]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (call("a"), call("a", "custom_tool_call_output")),
        (call(" a "), output("a")),
        (
            {"type": "local_shell_call", "call_id": "a"},
            {"type": "local_shell_call_output", "id": "a"},
        ),
        ({"type": "local_shell_call", "id": "a"}, {"type": "local_shell_call_output", "id": " a "}),
        (
            {"type": "mcp_approval_request", "id": "a"},
            {"type": "mcp_approval_response", "approval_request_id": "a"},
        ),
        (THOUGHT, ANSWER),
    ],
)
def test_what_needs_each_other_is_together(one: Json, other: Json) -> None:
    assert together(one, other, ANSWER) == [[0, 1], [2]]
    assert together(one, other) == [[0, 1]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (call("a"), output("b")),
        (call(""), output("")),
        (call("  "), output("  ")),
        ({"type": "function_call", "id": "a"}, {"type": "function_call_output", "id": "a"}),
        ({"type": "message", "id": "a"}, {"type": "message", "id": "a"}),
        *(
            (answer, answer)
            for answer in (
                {"type": "mcp_approval_response", "approval_request_id": 1},
                {"type": "mcp_approval_response", "approval_request_id": None},
            )
        ),
        ({"type": "mcp_approval_request"}, {"type": "mcp_approval_request"}),
        (ANSWER, THOUGHT),
    ],
)
def test_what_does_not_is_not(one: Json, other: Json) -> None:
    assert together(one, other) == [[0], [1]]


def test_thoughts_stay_with_the_call_that_follows_and_its_output() -> None:
    given = [ANSWER, THOUGHT, THOUGHT, call("a"), ANSWER, output("a"), THOUGHT]
    assert together(*given) == [[0], [1, 2, 3, 5], [4], [6]]
    nested = [call("a"), call("b"), THOUGHT, output("a"), output("b"), output("a")]
    assert together(*nested) == [[0, 2, 3, 5], [1, 4]]


def test_the_newest_turn_alone_keeps_the_answer_before_it() -> None:
    def newest(*given: Json) -> Places:
        return stays(*given, newest_only=True)

    assert newest(USER, USER) == [1]
    assert newest(USER, ANSWER, USER, ANSWER, USER) == [3, 4]
    assert newest(DEVELOPER, USER, ANSWER, USER, USER, ANSWER) == [0, 2, 4, 5]
    assert newest(USER, DEVELOPER, USER) == [1, 2]
    assert newest(call("a"), USER, output("a")) == [0, 1, 2]
    assert newest(USER, THOUGHT, ANSWER, THOUGHT, call("b"), output("b"), USER) == [1, 2, 6]
    assert newest({"type": "compaction"}, USER, USER) == [0, 2]
    assert newest({"type": "reasoning", "role": "assistant"}, ANSWER, USER) == [0, 1, 2]
    assert newest({"type": "thing", "role": "assistant"}, USER) == [1]
    assert newest(*[ANSWER] * 9) == list(range(1, 9))
    assert newest() == []


def test_the_newest_message_of_the_user_is_found() -> None:
    heads = items.read(wire.raw([USER, USER, ANSWER]))[1]
    assert newest_user(heads) == 1
    assert newest_user(heads[2:]) is None


# --- any list of items ----------------------------------------------------------------------------

_IDS = st.sampled_from(["a", "b", "c", "d", "", " a"])
_ITEM = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "developer", "system"])}),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(
                ["function_call", "function_call_output", "custom_tool_call", "web_search_call"]
            ),
            "call_id": _IDS,
        }
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["local_shell_call_output", "local_shell_call"]), "id": _IDS}
    ),
    st.just(THOUGHT),
    st.just({"type": "compaction"}),
    st.just({"type": "made_up"}),
)
_LISTS = st.lists(_ITEM, max_size=40)


@given(_LISTS, st.integers(8, 20), st.booleans())
def test_trimming_any_items_keeps_what_it_says(
    given_items: list[Json], limit: int, newest_only: bool
) -> None:
    read, heads = items.read(wire.raw(given_items))
    stay = kept(read, heads, max_items=limit, newest_only=newest_only)
    assert stay == sorted(set(stay))
    assert set(stay) <= set(range(len(read)))
    for group in groups(read, heads):
        assert set(group) <= set(stay) or not set(group) & set(stay)
    assert {p for p, h in enumerate(heads) if h.role in ("developer", "system")} <= set(stay)
    assert newest_user(heads) in {*stay, None}
    assert not read or len(read) - 1 in stay
    again = kept(
        [read[p] for p in stay], [heads[p] for p in stay], max_items=limit, newest_only=newest_only
    )
    assert again == list(range(len(stay)))


@given(_LISTS, st.integers(8, 20), st.booleans())
def test_trimming_what_is_whole_leaves_nothing_to_mend(
    given_items: list[Json], limit: int, newest_only: bool
) -> None:
    whole = repaired(*items.read(wire.raw(given_items)))
    stay = kept(whole.items, whole.heads, max_items=limit, newest_only=newest_only)
    again = repaired([whole.items[p] for p in stay], [whole.heads[p] for p in stay])
    assert (again.orphaned, again.missing) == (0, 0)


def test_many_items_that_are_one_group_take_no_more_than_their_own_size() -> None:
    read, heads = items.read(wire.raw([DEVELOPER | call("a")] * 20_000))
    tracemalloc.start()
    try:
        assert len(kept(read, heads, max_items=8, newest_only=False)) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000 * 400
