"""Strategies for JSON, for its spellings, and for the bodies of creates."""

import json
from typing import Any

from hypothesis import strategies as st

Values = st.SearchStrategy[Any]

SCALARS: Values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
)


def _containers(inner: Values) -> Values:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)


JSON: Values = st.recursive(SCALARS, _containers, max_leaves=8)

_LAYOUTS = st.fixed_dictionaries(
    {
        "ensure_ascii": st.booleans(),
        "indent": st.sampled_from([None, 0, 2, "\t"]),
        "separators": st.sampled_from([(",", ":"), (", ", ": "), ("\r\n,", " : ")]),
    }
)


def spelled(values: Values) -> st.SearchStrategy[bytes]:
    """The generated values as JSON texts, in any layout."""
    return st.builds(lambda value, layout: json.dumps(value, **layout).encode(), values, _LAYOUTS)


_maybe = st.sampled_from([None, False, True])
_ids = st.sampled_from([None, "msg_1", "rs_2", ""])
_items: Values = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant"])},
        optional={
            "type": st.sampled_from(["message", "reasoning", "function_call", None]),
            "id": _ids,
            "content": st.text(max_size=5) | st.lists(st.just({"type": "input_text", "id": "x"})),
        },
    ),
    max_size=4,
)
_includes: Values = st.none() | st.lists(
    st.sampled_from(["reasoning.encrypted_content", "message.output_text.logprobs"]),
    max_size=2,
    unique=True,
)
_options: Values = st.none() | st.fixed_dictionaries(
    {}, optional={"openai": st.fixed_dictionaries({}, optional={"include": _includes})}
)

UNKNOWN: Values = st.dictionaries(
    st.text(max_size=8).map(lambda name: f"new_{name}"), JSON, max_size=3
)
"""Fields that no rule knows."""

KNOWN: Values = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        "input": st.none() | st.text(max_size=8) | _items,
        "instructions": st.none() | st.text(max_size=8),
        "background": _maybe,
        "background_options": st.none() | st.just({"completion_window": "2h"}),
        "store": _maybe,
        "stream": _maybe,
        "stream_options": st.none() | st.just({"include_obfuscation": False}),
        "include": _includes,
        "providerOptions": _options,
        "reasoning": st.none() | st.just({}) | st.just({"effort": "low"}),
        "temperature": st.none() | st.floats(0, 2),
        "max_output_tokens": st.none() | st.integers(1, 100),
        "metadata": st.none() | st.just({"a": "b"}),
        "prompt": st.none() | st.just({"id": "pmpt_1"}),
        "previous_response_id": st.none(),
        "conversation": st.none(),
    },
)
"""Fields that the rules read, each of a right type."""

_wild: Values = st.dictionaries(
    st.sampled_from(
        [
            "background",
            "conversation",
            "include",
            "input",
            "model",
            "prompt",
            "providerOptions",
            "store",
            "stream",
            "tools",
        ]
    ),
    JSON
    | st.just({"openai": {"store": False}})
    | st.just([{"type": "item_reference", "id": "x"}])
    | st.just([{"type": 5, "id": {}}]),
)

WILD: Values = st.builds(
    lambda known, wild, unknown: {**known, **wild, **unknown}, KNOWN, _wild, UNKNOWN
)
"""Creates in which anything may have any type."""

_odd: Values = st.sampled_from(
    [None, True, 0, 1, -1, 1.5, "", "x", "0", [], [1], [{}], {}, {"type": "message"}]
) | st.just({"type": "message", "content": [{"type": "output_text"}]})

ODD_EVENTS: st.SearchStrategy[str] = st.builds(
    lambda type_, fields: json.dumps({**fields, "type": type_}),
    st.sampled_from(
        [
            "error",
            "response.completed",
            "response.content_part.added",
            "response.failed",
            "response.function_call_arguments.delta",
            "response.in_progress",
            "response.output_item.added",
            "response.output_item.done",
            "response.output_text.annotation.added",
            "response.output_text.delta",
            "response.reasoning_summary_text.done",
        ]
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "content_index": _odd,
            "delta": _odd,
            "item": _odd | st.fixed_dictionaries({"type": _odd, "content": _odd}),
            "item_id": _odd,
            "output_index": _odd,
            "part": _odd,
            "response": _odd
            | st.fixed_dictionaries(
                {}, optional={"error": _odd, "output": _odd, "status": _odd, "usage": _odd}
            ),
            "sequence_number": st.none() | st.integers(0, 9),
        },
    ),
)
"""Texts of events in which anything may have any shape."""
