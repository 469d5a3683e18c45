"""The life of a run: which state may follow which.

Every transition stands in NEXT and nowhere else. Nothing here knows who asks or what time it is.
States are those of the Response object; there is no backward move and no way out of an end.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """The `status` of a response."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"


class Cue(StrEnum):
    """What can happen to a run."""

    SENT = "sent"
    COMPLETED = "completed"
    CUT_SHORT = "cut_short"
    BROKE = "broke"
    CANCEL = "cancel"


class WrongCue(ValueError):
    """The cue does not apply to a run in that state."""


_END: Final[Mapping[Cue, State]] = MappingProxyType({})

NEXT: Final[Mapping[State, Mapping[Cue, State]]] = MappingProxyType(
    {
        State.QUEUED: {
            Cue.SENT: State.IN_PROGRESS,
            Cue.BROKE: State.FAILED,
            Cue.CANCEL: State.CANCELLED,
        },
        State.IN_PROGRESS: {
            Cue.COMPLETED: State.COMPLETED,
            Cue.CUT_SHORT: State.INCOMPLETE,
            Cue.BROKE: State.FAILED,
            Cue.CANCEL: State.CANCELLED,
        },
        State.COMPLETED: _END,
        State.FAILED: _END,
        State.INCOMPLETE: _END,
        # Cancelling twice is idempotent and gives the same object (OpenAI's guide).
        State.CANCELLED: {Cue.CANCEL: State.CANCELLED},
    }
)

FINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.INCOMPLETE, State.CANCELLED})

# The terminal event of each end. There is no `response.cancelled` event in the API: a cancelled
# stream ends with `response.failed` whose response says `cancelled`.
TERMINAL_EVENT: Final[Mapping[State, str]] = MappingProxyType(
    {
        State.COMPLETED: "response.completed",
        State.INCOMPLETE: "response.incomplete",
        State.FAILED: "response.failed",
        State.CANCELLED: "response.failed",
    }
)

# Wording of OpenAI (completed) and of Azure's behaviour contract (the others).
CANCEL_REFUSED: Final[Mapping[State, str]] = MappingProxyType(
    {
        State.COMPLETED: "Cannot cancel a completed response.",
        State.FAILED: "Cannot cancel a failed response.",
        State.INCOMPLETE: "Cannot cancel a response in terminal state.",
    }
)


def next_state(state: State, cue: Cue) -> State:
    """The state after `cue`; raises WrongCue where the table has no such move."""
    try:
        return NEXT[state][cue]
    except KeyError:
        raise WrongCue(f"'{cue}' does not apply to a run that is {state}.") from None


def is_final(state: State) -> bool:
    """Whether nothing can change any more."""
    return state in FINAL
