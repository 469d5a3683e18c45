"""The time that retention is counted in: it passes as time does, whatever the wall clock says.

What has expired is destroyed for good, so a wall clock that jumps a day ahead, and perhaps back,
must not decide about it. While the process runs, this time follows the monotonic clock alone. Over
a restart it goes on by as much as the wall clock did, which is all that anybody knows of the time
between, and never back.
"""

import struct
from collections.abc import Callable
from typing import Final

_SAVED: Final = struct.Struct(">dd")
_MOVED_SECONDS: Final = 1.0


class KeptTime:
    """Kept time in unix seconds; equal to the wall clock's until that jumps.

    `wall` is unix time, `monotonic` a time that only goes forward, both in seconds. Safe to use
    from several threads once it has begun.
    """

    def __init__(self, *, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._base = wall()
        self._began = monotonic()
        self._written: float | None = None

    def begin(self, saved: bytes | None) -> None:
        """Go on from what `saved` gave when the store was last written; None for a new store."""
        wall = self._wall()
        self._began = self._monotonic()
        if saved is None:
            self._base = wall
        else:
            then, kept = _SAVED.unpack(saved)
            self._base = kept + max(0.0, wall - then)
            self._written = kept - then

    def now(self) -> float:
        """What time it is."""
        return self._base + self._monotonic() - self._began

    def moved(self) -> bool:
        """Whether the wall clock has jumped since what was last `written`."""
        ahead = self.now() - self._wall()
        return self._written is None or abs(ahead - self._written) > _MOVED_SECONDS

    def saved(self) -> bytes:
        """What to keep over a restart: both times of this moment."""
        return _SAVED.pack(self._wall(), self.now())

    def written(self, saved: bytes) -> None:
        """What `saved` gave is durable. Not to be said before: a write may fail, or be refused."""
        then, kept = _SAVED.unpack(saved)
        self._written = kept - then
