"""The life of a run: which state may follow which.

Every transition stands in NEXT; the store asks it inside the transaction that writes an end.
Nothing here knows who asks or what time it is. States are those of the Response object; there is
no backward move and no way out of an end.
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


NEXT: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        # Not `completed`: what was never sent has no answer.
        State.QUEUED: frozenset({State.IN_PROGRESS, State.FAILED, State.CANCELLED}),
        State.IN_PROGRESS: frozenset(
            {State.COMPLETED, State.INCOMPLETE, State.FAILED, State.CANCELLED}
        ),
        State.COMPLETED: frozenset(),
        State.FAILED: frozenset(),
        State.INCOMPLETE: frozenset(),
        State.CANCELLED: frozenset(),
    }
)

FINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.INCOMPLETE, State.CANCELLED})

LAST_OPENING: Final = 2
"""The number of `response.in_progress`, the last of the events that the gateway itself opens a log
with. What comes after it is an upstream's answer, and visible."""

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


# OpenAI's wording for a response that its caller waited for.
CANCEL_SYNCHRONOUS: Final = "Cannot cancel a synchronous response."


def may_follow(before: State, after: State) -> bool:
    """Whether a run in the state `before` may move to `after`."""
    return after in NEXT[before]


def is_final(state: State) -> bool:
    """Whether nothing can change any more."""
    return state in FINAL
