"""Simulated time: the loop's for durations, and a wall clock that can jump."""

import asyncio

from tests.simulation.loop import VirtualLoop

BEGINNING = 1_900_000_000.0


class Wall:
    """The machine's wall clock: the loop's time on top of an offset that jumps.

    It remembers its jumps and the starts of processes, because what is kept goes by the time that
    has passed, and only over a restart by what the wall clock says of it.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._offset = BEGINNING
        self._jumps: list[tuple[float, float]] = []
        self._started = 0.0

    def now(self) -> float:
        """Unix time in seconds."""
        return self._offset + self._loop.time()

    def jump(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._jumps.append((self._loop.time(), seconds))
        self._offset += seconds

    def started(self) -> None:
        """A process starts."""
        self._started = self._loop.time()

    def passed_at_most(self, moment: float) -> float:
        """How many seconds since the loop's time `moment` may count against what is kept."""
        believed = (s for at, s in self._jumps if moment <= at <= self._started and s > 0)
        return self._loop.time() - moment + sum(believed)


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
