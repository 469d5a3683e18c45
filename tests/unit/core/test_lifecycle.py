"""The table of states, row by row, and that no end is ever left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.lifecycle import (
    CANCEL_REFUSED,
    FINAL,
    NEXT,
    TERMINAL_EVENT,
    Cue,
    State,
    WrongCue,
    is_final,
    next_state,
)

# Each state with what each cue leads to; None where the cue has no business.
MOVES = {
    #              sent           completed    cut_short     broke     cancel
    "queued": ("in_progress", None, None, "failed", "cancelled"),
    "in_progress": (None, "completed", "incomplete", "failed", "cancelled"),
    "completed": (None, None, None, None, None),
    "failed": (None, None, None, None, None),
    "incomplete": (None, None, None, None, None),
    "cancelled": (None, None, None, None, "cancelled"),
}
CUES = [Cue.SENT, Cue.COMPLETED, Cue.CUT_SHORT, Cue.BROKE, Cue.CANCEL]
ENDS = {"completed", "failed", "incomplete", "cancelled"}


def follow(state: State, cue: Cue) -> State | None:
    """The next state, None where the table refuses."""
    try:
        return next_state(state, cue)
    except WrongCue:
        return None


def test_the_table_has_a_row_for_every_state_and_this_test_a_column_for_every_cue() -> None:
    assert set(MOVES) == set(State) == set(NEXT)
    assert set(CUES) == set(Cue)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("cue", CUES)
def test_every_cue_leads_where_the_contract_says(state: State, cue: Cue) -> None:
    assert follow(state, cue) == MOVES[state][CUES.index(cue)]


def test_a_wrong_cue_names_the_cue_and_the_state() -> None:
    with pytest.raises(WrongCue, match=r"^'sent' does not apply to a run that is completed\.$"):
        next_state(State.COMPLETED, Cue.SENT)


def test_every_cue_is_named_in_words_of_its_own() -> None:
    assert list(Cue) == ["sent", "completed", "cut_short", "broke", "cancel"]


def test_a_queued_run_is_cancelled_without_running() -> None:
    assert next_state(State.QUEUED, Cue.CANCEL) is State.CANCELLED


def test_cancelling_twice_changes_nothing() -> None:
    assert next_state(State.CANCELLED, Cue.CANCEL) is State.CANCELLED


@pytest.mark.parametrize("state", State)
def test_a_state_is_final_exactly_when_nothing_leads_out_of_it(state: State) -> None:
    assert is_final(state) is (state in ENDS) is (state in FINAL)
    assert is_final(state) is not (set(NEXT[state].values()) - {state} != set())


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


@given(st.lists(st.sampled_from(CUES), max_size=12))
def test_no_sequence_of_cues_leaves_an_end_or_goes_back(cues: list[Cue]) -> None:
    ranks = {State.QUEUED: 0, State.IN_PROGRESS: 1}
    state = State.QUEUED
    for cue in cues:
        after = follow(state, cue) or state
        assert after is state or not is_final(state)
        assert ranks.get(after, 2) >= ranks.get(state, 2)
        state = after
