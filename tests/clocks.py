"""Clocks that tests move."""

import asyncio
import time


class JumpingClock:
    """The machine's clock, whose wall time is as wrong as a test says; a `Clock`."""

    def __init__(self) -> None:
        self.wrong_by = 0.0

    def now(self) -> float:
        """Unix time, and what it is wrong by."""
        return time.time() + self.wrong_by

    def monotonic(self) -> float:
        """The machine's own."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Really."""
        await asyncio.sleep(seconds)


class OutOfTurns(BaseException):
    """A loop has had all the turns that a test gave it."""


class HandClock:
    """A wall clock and a monotonic one that go only when a test lets them; a `Clock`.

    With `turns` so many waits are over at once, and the one after them raises OutOfTurns.
    """

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.mono = 500.0
        self.turns: int | None = None

    def now(self) -> float:
        """The wall clock."""
        return self.wall

    def monotonic(self) -> float:
        """The monotonic one."""
        return self.mono

    async def sleep(self, seconds: float) -> None:
        """Nothing passes by waiting for it."""
        if self.turns is None:
            await asyncio.Event().wait()
        else:
            self.turns -= 1
            if not self.turns:
                raise OutOfTurns

    def passes(self, seconds: float) -> None:
        """Time passes, and both clocks say so."""
        self.wall += seconds
        self.mono += seconds
