"""The table of states, row by row, and that no end is ever left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.lifecycle import (
    CANCEL_REFUSED,
    FINAL,
    NEXT,
    TERMINAL_EVENT,
    State,
    is_final,
    may_follow,
)

# Each state with those that may follow it.
MOVES = {
    "queued": {"in_progress", "failed", "cancelled"},
    "in_progress": {"completed", "incomplete", "failed", "cancelled"},
    "completed": set(),
    "failed": set(),
    "incomplete": set(),
    "cancelled": set(),
}
ENDS = {"completed", "failed", "incomplete", "cancelled"}


def test_the_table_has_a_row_for_every_state() -> None:
    assert set(MOVES) == set(State) == set(NEXT)


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_a_state_follows_where_the_contract_says(before: State, after: State) -> None:
    assert may_follow(before, after) is (after in MOVES[before])


@pytest.mark.parametrize("state", State)
def test_a_state_is_final_exactly_when_nothing_leads_out_of_it(state: State) -> None:
    assert is_final(state) is (state in ENDS) is (state in FINAL)
    assert is_final(state) is not bool(NEXT[state])


def test_every_end_has_a_terminal_event_and_a_cancelled_stream_ends_as_a_failed_one() -> None:
    assert TERMINAL_EVENT == {
        "completed": "response.completed",
        "incomplete": "response.incomplete",
        "failed": "response.failed",
        "cancelled": "response.failed",
    }


def test_cancel_is_refused_in_every_end_but_cancelled_with_the_wording_of_the_api() -> None:
    assert CANCEL_REFUSED == {
        "completed": "Cannot cancel a completed response.",
        "failed": "Cannot cancel a failed response.",
        "incomplete": "Cannot cancel a response in terminal state.",
    }


@given(st.lists(st.sampled_from(State), max_size=12))
def test_no_sequence_of_moves_leaves_an_end_or_goes_back(wanted: list[State]) -> None:
    ranks = {State.QUEUED: 0, State.IN_PROGRESS: 1}
    state = State.QUEUED
    for after in wanted:
        if may_follow(state, after):
            assert not is_final(state)
            assert ranks.get(after, 2) > ranks.get(state, 2)
            state = after
