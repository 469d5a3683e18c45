"""Empties the log after deletions, so that what was destroyed is in no file any more.

SQLite's log keeps the earlier versions of pages until later ones happen to overwrite them: a
deleted run's sealed bytes, and its wrapped key, could stand there for days. Copying the log into
the database and cutting it to nothing ends that. It costs a disk flush or two, so it is done when
nobody is waiting, and under a steady load once a second.
"""

import sqlite3
import time
from collections.abc import Callable
from typing import Final

QUIET_SECONDS: Final = 0.05
LONGEST_SECONDS: Final = 1.0


class LogCleaner:
    """What the writing thread still owes after deletions. `monotonic` is in seconds."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._owed_since: float | None = None
        self._not_before = 0.0

    def owe(self) -> None:
        """Something was destroyed, durably."""
        if self._owed_since is None:
            self._owed_since = self._monotonic()

    @property
    def patience(self) -> float | None:
        """Seconds to wait for other work before cleaning; None when nothing is owed."""
        if self._owed_since is None:
            return None
        return max(QUIET_SECONDS, self._not_before - self._monotonic())

    def overdue(self) -> bool:
        """Whether it must be done now although there is other work."""
        now = self._monotonic()
        return (
            self._owed_since is not None
            and now >= self._owed_since + LONGEST_SECONDS
            and now >= self._not_before
        )

    def clean(self, connection: sqlite3.Connection) -> None:
        """Empty the log, unless a reader is in it: then once more in a second.

        Raises sqlite3.Error when the disk fails.
        """
        timeout = connection.execute("pragma busy_timeout").fetchone()[0]
        connection.execute("pragma busy_timeout = 0")
        try:
            busy = connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0]
        finally:
            connection.execute(f"pragma busy_timeout = {timeout}")
        if busy:
            self._not_before = self._monotonic() + LONGEST_SECONDS
        else:
            self._owed_since = None
