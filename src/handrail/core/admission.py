"""Who runs next: limits and fairness between callers, decided on counts alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from handrail.core.caller_policy import Priority

PLACES: Final[Mapping[Priority, int]] = MappingProxyType(
    {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
)
"""In which order a caller's own waiting runs go; those of one priority as they came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many runs may be under way and waiting, in all and per caller (by caller name).

    `weights` are the callers' shares between each other, 1 where none is given.
    """

    max_running: int
    max_queued: int
    caller_running: Mapping[str, int]
    caller_queued: Mapping[str, int]
    weights: Mapping[str, int] = field(default_factory=dict)

    def running(self, caller: str) -> int:
        """The most runs of `caller` at once; 0 for a caller who is no longer known."""
        return min(self.max_running, self.caller_running.get(caller, 0))

    def queued(self, caller: str) -> int:
        """The most waiting runs of `caller`."""
        return self.caller_queued.get(caller, 0)

    def weight(self, caller: str) -> int:
        """The share of `caller`."""
        return self.weights.get(caller, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Where a caller stands: its runs under way, and the place of its next run.

    `place` is that in the order of arrival, None when nothing waits. `started` and `turn` are what
    `next_start` gave when its latest run started.
    """

    caller: str
    running: int
    place: int | None
    started: float = 0.0
    turn: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Whose next run starts, and what is to be kept of that."""

    caller: str
    place: int
    started: float
    turn: float


def next_start(queues: Sequence[Queue], *, limits: Limits) -> Start | None:
    """Whose next run starts now; None when nobody may start.

    `queues` has one entry for each caller who ever had a run. The caller with the fewest runs under
    way for its weight goes first: so a backlog of one does not delay another's first run. Between
    equals it goes by turns, of which a caller of weight n has n while one of weight 1 has one
    (start-time fair queueing, Goyal et al. 1996): so that holds where only one run fits in, too.
    """
    if sum(queue.running for queue in queues) >= limits.max_running:
        return None
    # Who had nothing to start for a while begins with the others, and has saved up nothing.
    now = max((queue.started for queue in queues), default=0.0)
    candidates = [
        (
            queue.running / limits.weight(queue.caller),
            max(queue.turn, now),
            queue.place,
            queue.caller,
        )
        for queue in queues
        if queue.place is not None and queue.running < limits.running(queue.caller)
    ]
    if not candidates:
        return None
    _, started, place, caller = min(candidates)
    turn = started + 1 / limits.weight(caller)
    return Start(caller=caller, place=place, started=started, turn=turn)
