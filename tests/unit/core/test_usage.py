"""What an upstream says that it used: each count once, and nothing made up."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from handrail.core import wire
from handrail.core.usage import MAX_COUNT, Usage, read_other_usage, read_usage

WHOLE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 7},
    "output_tokens": 100,
    "output_tokens_details": {"reasoning_tokens": 50},
    "total_tokens": 1_150,
}


def of(usage: Any) -> Usage | None:
    return read_usage({"usage": wire.raw(usage)})


def test_cached_and_reasoning_are_inside_the_whole() -> None:
    usage = of(WHOLE)
    assert usage == Usage(input=1000, cached=400, output=100, reasoning=50)
    assert usage.total == 1_100


def test_what_was_not_told_is_unknown_and_not_nothing() -> None:
    usage = of({"input_tokens": 7, "output_tokens": 0})
    assert usage == Usage(input=7, cached=None, output=0, reasoning=None)
    assert usage.total == 7
    for half in ({"input_tokens": 7}, {"output_tokens": 7}):
        known = of(half)
        assert known is not None
        assert known.total is None


@pytest.mark.parametrize(
    "value",
    [None, [], "much", 7, True, {}, {"input_tokens": None}, {"input_tokens_details": [1]}],
)
def test_what_is_no_usage_is_none(value: Any) -> None:
    assert of(value) is None


def test_a_response_without_the_field_or_with_broken_json_in_it_has_none() -> None:
    assert read_usage({}) is None
    assert read_usage({"usage": Raw(b"{")}) is None


@pytest.mark.parametrize("count", [-1, MAX_COUNT + 1, 10**30, 1.9, "9", True, None, [1]])
def test_a_count_that_is_no_count_was_not_told(count: Any) -> None:
    assert of({"input_tokens": count, "output_tokens": 5}) == Usage(output=5)


def test_the_bounds_of_a_count_are_counts() -> None:
    assert of({"input_tokens": 0, "output_tokens": MAX_COUNT}) == Usage(input=0, output=MAX_COUNT)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_reading_any_json_raises_nothing(value: Any) -> None:
    of(value)
    of({"input_tokens": value, "input_tokens_details": value, "output_tokens_details": value})


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(input=10, cached=4, output=5, reasoning=3),
        ),
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(input=8, output=0)),
        ({"prompt_tokens": 8, "total_tokens": 7}, Usage(input=8)),
        ({"prompt_tokens": 8}, Usage(input=8)),
        ({"total_tokens": 8}, None),
        ({"input_tokens": 2, "output_tokens": 1}, Usage(input=2, output=1)),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_other_routes_call_their_counts_otherwise(told: Any, usage: Usage | None) -> None:
    assert read_other_usage({"usage": wire.raw(told)}) == usage
    assert read_other_usage({}) is None
