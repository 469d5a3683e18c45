"""Who runs next: limits and fairness between callers, decided on counts alone."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many runs may be under way and waiting, in all and per caller (by caller name)."""

    max_running: int
    max_queued: int
    caller_running: Mapping[str, int]
    caller_queued: Mapping[str, int]

    def running(self, caller: str) -> int:
        """The most runs of `caller` at once; 0 for a caller who is no longer known."""
        return min(self.max_running, self.caller_running.get(caller, 0))

    def queued(self, caller: str) -> int:
        """The most waiting runs of `caller`."""
        return self.caller_queued.get(caller, 0)


def next_caller(
    waiting: Mapping[str, int], running: Mapping[str, int], *, limits: Limits
) -> str | None:
    """The caller whose oldest waiting run starts next, None when nobody may start.

    `waiting` maps each caller to the place of its oldest waiting run in the order of arrival,
    `running` to its runs under way. The caller with the fewest runs under way goes first, then
    the one who has waited longest, so a backlog of one caller does not delay another's first run.
    """
    if sum(running.values()) >= limits.max_running:
        return None
    candidates = [
        (running.get(caller, 0), place, caller)
        for caller, place in waiting.items()
        if running.get(caller, 0) < limits.running(caller)
    ]
    return min(candidates)[2] if candidates else None
