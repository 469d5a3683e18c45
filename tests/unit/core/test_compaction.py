"""What may be asked of the upstream instead of leaving items out, and what its answer becomes."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core import items, wire
from handrail.core.compaction import Compaction, planned
from handrail.core.profiles import CODEX, COMPATIBLE, OPENAI, Profile
from tests.unit.core.generated import JSON

Json = dict[str, Any]
ANSWER: Json = {"type": "message", "role": "assistant", "content": "a"}
USER: Json = {"type": "message", "role": "user", "content": "u"}
DEVELOPER: Json = {"type": "message", "role": "developer", "content": "d"}
CALL: Json = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "a", "output": "o"}
SEALED: Json = {"type": "compaction", "id": "cmp_1", "encrypted_content": "x"}


def wish(
    *given: Json,
    profile: Profile = OPENAI,
    capabilities: frozenset[str] | None = None,
    seconds: float = 4.0,
) -> Compaction | None:
    """What may be asked for these items."""
    read = items.read(wire.raw(given))
    return planned(*read, profile=profile, capabilities=capabilities, seconds=seconds)


def plain(bodies: Any) -> list[Json]:
    """Raw items, decoded."""
    decoded: list[Json] = json.loads(wire.encode(bodies))
    return decoded


WISH = wish(DEVELOPER, ANSWER, DEVELOPER, USER, ANSWER)


def test_only_what_is_before_the_newest_turn_is_asked_and_instructions_stay() -> None:
    found = wish(DEVELOPER, USER, CALL, OUTPUT, DEVELOPER, ANSWER, USER, ANSWER)
    assert found is not None
    assert plain(found.asked) == [USER, CALL, OUTPUT, ANSWER]
    assert plain(found.before) == [DEVELOPER, DEVELOPER]
    assert plain(found.after) == [USER, ANSWER]
    assert (found.seconds, found.strips_ids) == (4.0, True)


@pytest.mark.parametrize(
    "given",
    [
        [],
        [ANSWER],
        [USER],
        [DEVELOPER, USER, ANSWER],
        [CALL, ANSWER, USER, OUTPUT],
        [ANSWER, {"type": "reasoning", "encrypted_content": "x"}, USER],
    ],
)
def test_without_a_turn_or_anything_whole_before_it_nothing_is_asked(given: list[Json]) -> None:
    assert wish(*given) is None


def test_what_is_asked_shows_in_no_log() -> None:
    assert repr(WISH) == "Compaction(seconds=4.0, strips_ids=True)"


def test_a_thing_of_another_role_is_no_instruction() -> None:
    found = wish({**CALL, "role": "developer"}, OUTPUT, USER)
    assert found is not None
    assert found.before == ()


@pytest.mark.parametrize(
    ("profile", "capabilities", "seconds", "asked"),
    [
        (OPENAI, None, 0.5, True),
        (CODEX, frozenset({"compaction"}), 1, True),
        (CODEX, frozenset({"tool_search"}), 1, False),
        (OPENAI, frozenset(), 1, False),
        (COMPATIBLE, frozenset({"compaction"}), 1, False),
        (replace(OPENAI, endpoints=frozenset()), None, 1, False),
        (OPENAI, None, 0, False),
    ],
)
def test_it_is_asked_only_of_an_upstream_and_a_model_that_can(
    profile: Profile, capabilities: frozenset[str] | None, seconds: float, asked: bool
) -> None:
    found = wish(ANSWER, USER, profile=profile, capabilities=capabilities, seconds=seconds)
    assert (found is not None) is asked


def test_the_call_says_the_model_the_instructions_and_the_items() -> None:
    assert WISH is not None
    create = {"model": "m", "instructions": "be kind", "stream": True, "tools": [], "input": []}
    raw = {name: wire.raw(value) for name, value in create.items()}
    asked = json.loads(wire.encode(WISH.body(raw)))
    assert asked == {"model": "m", "instructions": "be kind", "input": [ANSWER]}
    bare = WISH.body({"model": wire.raw("m"), "instructions": wire.NULL})
    assert bare.keys() == {"model", "input"}


def answered(answer: Any, *, strips_ids: bool = True) -> list[Json] | None:
    """The input that leaves after this answer."""
    assert WISH is not None
    raw = {name: wire.raw(value) for name, value in answer.items()}
    found = replace(WISH, strips_ids=strips_ids).input(raw)
    return None if found is None else plain(found)


def test_the_answer_stands_between_the_instructions_and_the_turn() -> None:
    around = [DEVELOPER, DEVELOPER], [USER, ANSWER]
    sealed = {**SEALED}
    del sealed["id"]
    assert answered({"output": [USER, SEALED]}) == [*around[0], USER, sealed, *around[1]]
    assert answered({"output": [SEALED]}, strips_ids=False) == [*around[0], SEALED, *around[1]]
    assert answered({"input": [SEALED], "output": None}) == [*around[0], sealed, *around[1]]
    both = answered({"input": [USER], "output": [SEALED]})
    assert both == [*around[0], sealed, *around[1]]


def test_half_a_call_in_the_answer_is_mended() -> None:
    found = answered({"output": [CALL]})
    assert found is not None
    assert [item["type"] for item in found[2:4]] == ["function_call", "function_call_output"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"output": []},
        {"output": ["x"]},
        {"output": "x"},
        {"output": [{"type": 1}]},
        {"x": [{}]},
    ],
)
def test_an_answer_without_items_is_none(answer: Json) -> None:
    assert answered(answer) is None


@given(st.dictionaries(st.sampled_from(["output", "input", "id"]), JSON | st.lists(JSON)))
def test_any_answer_leaves_the_turn_and_the_instructions(answer: Json) -> None:
    found = answered(answer)
    if found is not None:
        assert found[:2] == [DEVELOPER, DEVELOPER]
        assert found[-2:] == [USER, ANSWER]
        assert len(found) > 4
