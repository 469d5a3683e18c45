"""Time as a port: wall clock for stamps, monotonic clock for deadlines, and waiting."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the engine knows of time. All in seconds."""

    def now(self) -> float:
        """Unix time; only for stamps that somebody reads, because it can jump."""

    def monotonic(self) -> float:
        """A time that only goes forward; for deadlines and durations."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """See the port."""
        return time.time()  # noqa: TID251 - this is the one place

    def monotonic(self) -> float:
        """See the port."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See the port."""
        await asyncio.sleep(seconds)
