"""Simulated time: the loop's for durations, and a wall clock that can jump."""

import asyncio

from tests.simulation.loop import VirtualLoop

BEGINNING = 1_900_000_000.0


class Wall:
    """The machine's wall clock: the loop's time on top of an offset that jumps.

    It remembers its jumps, because what may have expired depends on what it has ever shown.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._jumps: list[tuple[float, float]] = [(0.0, BEGINNING)]

    def now(self) -> float:
        """Unix time in seconds."""
        return self._jumps[-1][1] + self._loop.time()

    def jump(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._jumps.append((self._loop.time(), self._jumps[-1][1] + seconds))

    def highest_since(self, moment: float) -> float:
        """The latest time that it has shown since the loop's time `moment`."""
        return max(base + end for base, _, end in self._periods(moment))

    def lowest_since(self, moment: float) -> float:
        """The earliest time that it has shown since the loop's time `moment`."""
        return min(base + start for base, start, _ in self._periods(moment))

    def _periods(self, moment: float) -> list[tuple[float, float, float]]:
        ends = [start for start, _ in self._jumps[1:]] + [self._loop.time()]
        return [
            (base, max(start, moment), end)
            for (start, base), end in zip(self._jumps, ends, strict=True)
            if end >= moment
        ]


class SimulatedClock:
    """`engine.clock.Clock` of one process."""

    def __init__(self, loop: VirtualLoop, wall: Wall) -> None:
        self._loop = loop
        self.now = wall.now

    def monotonic(self) -> float:
        """See the port."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """See the port."""
        await asyncio.sleep(seconds)
