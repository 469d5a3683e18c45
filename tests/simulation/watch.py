"""What a simulation writes down: a trace, counters, and every breach of an invariant."""

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Final

from handrail.core.lifecycle import LAST_OPENING
from handrail.core.retry import MAX_ATTEMPTS
from tests.simulation.clock import Wall
from tests.simulation.loop import VirtualLoop
from tests.simulation.seen import Seen
from tests.simulation.upstream import Call

if TYPE_CHECKING:
    from tests.simulation.disk import Disk
    from tests.simulation.upstream import Upstream


AFTERMATH_SECONDS: Final = 12.0
"""A write that began while the disk was locked may still wait for so long."""


class Watch:
    """Shared by all that is simulated. The trace holds nothing random but what the seed drew."""

    disk: "Disk"
    upstream: "Upstream"

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        running: dict[str, int],
        max_running: int,
        retrying: frozenset[str],
    ) -> None:
        self.loop = loop
        self.wall = Wall(loop)
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.seen = Seen(self.wall, loop.time, self.violate)
        self.restart_at = -1.0
        self.disk_at = -100.0
        self._running = running
        self._retrying = retrying
        self._max_running = max_running

    def trace(self, what: str) -> None:
        """One line of the trace."""
        self.lines.append(f"{self.loop.time():10.4f} {what}")

    def count(self, situation: str) -> None:
        """Something worth knowing has happened."""
        self.counts[situation] += 1
        self.trace(situation)

    def violate(self, what: str) -> None:
        """An invariant does not hold."""
        self.violations.append(f"at {self.loop.time():.4f} s: {what}")
        self.trace(f"VIOLATION {what}")

    def troubled_since(self, moment: float) -> bool:
        """Whether the gateway was restarted since then, or the disk had trouble (`sick_since`)."""
        return self.restart_at >= moment or self.sick_since(moment)

    def sick_since(self, moment: float) -> bool:
        """Whether the disk has had trouble since then, or shortly before."""
        return self.disk.trouble is not None or self.disk_at + AFTERMATH_SECONDS >= moment

    def digest(self) -> str:
        """Equal for two runs that went the same way."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()

    # --- upstream calls (I7 and limits) ----------------------------------------------------

    def called(self, call: Call) -> None:
        """Held against the rules at the moment at which a call arrives."""
        self.trace(f"upstream gets {call.tag}#{call.number}")
        earlier = self.upstream.calls[call.tag][:-1]
        if any(other.open for other in earlier):
            self.violate(f"{call.tag} is called twice at once")
        if not self.seen.may_be_new(call.tag):
            self._check_again(call.tag, sum(not other.proof for other in earlier))
            if call.tag in self.seen.stopped:
                self.violate(f"{call.tag} was called after {self.seen.stopped[call.tag]}")
        if call.tag in self.seen.refused:
            self.violate(f"{call.tag} was called although its create was refused")
        if earlier:
            self.count(f"called again after {earlier[-1].answer.head}")
        self._check_limits()

    def _check_again(self, tag: str, lost: int) -> None:
        """`lost` earlier calls of a run may have run: the policy `safe` then forbids another."""
        if lost and self.seen.caller_of[tag] not in self._retrying:
            self.violate(f"{tag} was called again, and an earlier call may have run")
        elif lost >= MAX_ATTEMPTS:
            self.violate(f"{tag} is called although {lost} calls may have run")
        elif lost:
            self.count("another attempt")
            known = self.seen.by_tag.get(tag)
            if known is not None and max(known.frames, default=0) > LAST_OPENING:
                self.violate(f"{tag} was called again, and a part of its answer was shown")

    def _check_limits(self) -> None:
        under_way = Counter(self.seen.caller_of[c.tag] for c in self.upstream.open_calls())
        if under_way.total() > self._max_running:
            self.violate(f"{under_way.total()} upstream calls at once, {self._max_running} allowed")
        for caller, number in under_way.items():
            if number > self._running[caller]:
                self.violate(f"{number} upstream calls of {caller} at once")

    def close_calls(self, process: int) -> None:
        """A process is dead, and with it its connections."""
        for call in self.upstream.open_calls():
            if call.process == process:
                call.open = False
                self.count("died with an upstream call under way")
