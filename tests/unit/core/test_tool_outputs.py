"""Calls and outputs of tools: each with its other half, or in words."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core import items, wire
from handrail.core.tool_outputs import BROKEN_OFF, MAX_TEXT, repaired

Json = dict[str, Any]
CALL = {"type": "function_call", "call_id": "a", "name": "run", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "a", "output": "ok"}
USER = {"role": "user", "content": "hi"}


def after(*given: Json) -> tuple[list[Json], int, int]:
    """The items after the repair; orphans and missing outputs."""
    bodies, heads = items.read(wire.raw(list(given)))
    whole = repaired(bodies, heads)
    assert [head.type for head in whole.heads] == [
        None if "type" not in item else wire.string(item, "type") for item in whole.items
    ]
    return json.loads(wire.encode(whole.items)), whole.orphaned, whole.missing


def told(heads: list[items.Head]) -> list[tuple[str | None, str | None, str | None]]:
    """Type, role and call of each head."""
    return [(head.type, head.role, head.call_id or head.id) for head in heads]


@pytest.mark.parametrize(
    "given",
    [
        (CALL, USER),
        (OUTPUT, USER),
        ({"type": "local_shell_call", "id": "l"}, OUTPUT),
        ({"type": "local_shell_call", "call_id": "a"}, {**OUTPUT, "call_id": "b"}),
    ],
)
def test_what_is_put_in_has_the_head_that_reading_it_would_give(given: tuple[Json, ...]) -> None:
    whole = repaired(*items.read(wire.raw(list(given))))
    assert whole.orphaned or whole.missing
    assert told(whole.heads) == told(items.read(wire.raw(whole.items))[1])


@pytest.mark.parametrize(
    "given",
    [
        (),
        (USER,),
        (CALL, OUTPUT),
        (OUTPUT, CALL),
        ({**CALL, "call_id": " a "}, OUTPUT),
        (CALL, OUTPUT, OUTPUT),
        (
            {"type": "local_shell_call", "id": "l", "action": {}},
            {"type": "local_shell_call_output", "id": "l", "output": "x"},
        ),
        ({"type": "local_shell_call", "call_id": "a", "action": {}}, OUTPUT),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "t", "input": ""},
            {"type": "custom_tool_call_output", "call_id": "c", "output": [{"type": "input_text"}]},
        ),
        ({"type": "computer_call", "call_id": "k"}, {"type": "mcp_call", "id": "m"}),
        ({"type": "computer_call_output", "call_id": "k", "output": {}},),
        ({"type": "compaction", "id": "c", "encrypted_content": "x"}, USER),
        ({**CALL, "call_id": ""},),
    ],
)
def test_what_is_whole_stays_as_it_is(given: tuple[Json, ...]) -> None:
    assert after(*given) == (list(given), 0, 0)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (OUTPUT, "[Previous tool result; call_id=a]: ok"),
        ({**OUTPUT, "name": " shell "}, "[Previous shell result; call_id=a]: ok"),
        ({**OUTPUT, "name": ""}, "[Previous tool result; call_id=a]: ok"),
        ({**OUTPUT, "name": 5}, "[Previous tool result; call_id=a]: ok"),
        ({**OUTPUT, "name": None}, "[Previous tool result; call_id=a]: ok"),
        ({**OUTPUT, "call_id": " "}, "[Previous tool result; call_id=unknown]: ok"),
        ({**OUTPUT, "output": {"k": 1}}, '[Previous tool result; call_id=a]: {"k":1}'),
        ({**OUTPUT, "output": ""}, "[Previous tool result; call_id=a]: "),
        ({**OUTPUT, "output": None}, "[Previous tool result; call_id=a]: null"),
        # D-2: an output without an output made the reference send the request as it came
        ({"type": "function_call_output"}, "[Previous tool result; call_id=unknown]: "),
        (
            {**OUTPUT, "type": "custom_tool_call_output"},
            "[Previous tool result; call_id=a]: ok",
        ),
    ],
)
def test_an_output_whose_call_is_gone_becomes_words(output: Json, text: str) -> None:
    message = {"type": "message", "role": "assistant", "content": text}
    assert after(output, USER) == ([message, USER], 1, 0)


@pytest.mark.parametrize("kind", ["custom_tool_call_output", "local_shell_call_output"])
def test_an_output_of_another_kind_does_not_answer_a_function(kind: str) -> None:
    whole, orphaned, missing = after(CALL, {**OUTPUT, "type": kind})
    assert whole[:2] == [CALL, {**OUTPUT, "output": BROKEN_OFF}]
    assert (whole[2]["role"], orphaned, missing) == ("assistant", 1, 1)


def test_a_long_orphan_is_cut() -> None:
    (message,), _, _ = after({**OUTPUT, "output": "y" * (MAX_TEXT + 1)})
    assert message["content"].endswith("y\n...[truncated]")
    assert message["content"].count("y") == MAX_TEXT == 16_000
    (message,), _, _ = after({**OUTPUT, "output": "y" * MAX_TEXT})
    assert message["content"].endswith("yy")


@pytest.mark.parametrize(
    ("call", "output"),
    [
        (CALL, {"type": "function_call_output", "call_id": "a"}),
        (
            {"type": "custom_tool_call", "call_id": "c"},
            {"type": "custom_tool_call_output", "call_id": "c"},
        ),
        (
            {"type": "local_shell_call", "id": "l"},
            {"type": "local_shell_call_output", "id": "l"},
        ),
    ],
)
def test_a_call_without_an_output_was_broken_off(call: Json, output: Json) -> None:
    said = "Operation cancelled by user"
    assert after(call, USER) == ([call, {**output, "output": said}, USER], 0, 1)


def test_of_parallel_calls_each_gets_its_own_output() -> None:
    second = {**CALL, "call_id": "b"}
    whole, orphaned, missing = after(CALL, second, {**OUTPUT, "call_id": "b"})
    assert whole[1] == {"type": "function_call_output", "call_id": "a", "output": BROKEN_OFF}
    assert (len(whole), orphaned, missing) == (4, 0, 1)


_IDS = st.sampled_from(["a", "b", " a ", ""])
_ITEM = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                "function_call",
                "function_call_output",
                "custom_tool_call",
                "custom_tool_call_output",
                "local_shell_call",
                "message",
            ]
        )
    },
    optional={"call_id": _IDS, "output": st.text(max_size=5)},
)


@given(st.lists(_ITEM, max_size=8))
def test_a_second_repair_finds_nothing_to_do(given: list[Json]) -> None:
    before = json.dumps(given)
    whole, _, _ = after(*given)
    assert after(*whole) == (whole, 0, 0)
    assert json.dumps(given) == before


def test_a_call_with_a_blank_call_id_is_known_by_its_id() -> None:
    call = {"type": "local_shell_call", "id": "l", "call_id": ""}
    whole, _, missing = after(call)
    assert (whole[1], missing) == (
        {"type": "local_shell_call_output", "id": "l", "output": BROKEN_OFF},
        1,
    )
    assert after(*whole) == (whole, 0, 0)
