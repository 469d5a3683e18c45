"""What outlives a process: one database in memory, and how well the disk under it does.

The SQL is real, and so is a full disk (SQLite's own page limit). Only locks and failing flushes
are raised here, at the statements where SQLite would raise them.
"""

import functools
import random
import sqlite3
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from handrail.store.migrate import migrate
from handrail.store.reserve import Reserve
from handrail.store.rows import SQL
from handrail.store.vault import Vault

STORE_KEY: Final = bytes(range(32))
RESERVE_PAGES: Final = 24
_PLENTY: Final = 1 << 30


class Trouble(StrEnum):
    """What can be wrong with the disk for a while."""

    FULL = "full"
    FULL_AT_COMMIT = "full at commit"
    LOCKED = "locked"
    SLOW = "slow"
    UNREADABLE = "unreadable"


_ERRORS: Final = {
    Trouble.FULL_AT_COMMIT: ("database or disk is full", "SQLITE_FULL"),
    Trouble.LOCKED: ("database is locked", "SQLITE_BUSY"),
    Trouble.UNREADABLE: ("unable to open database file", "SQLITE_CANTOPEN"),
}
_AT: Final = {
    "begin immediate": Trouble.LOCKED,
    "commit": Trouble.FULL_AT_COMMIT,
    "begin": Trouble.UNREADABLE,
}


def sqlite_error(trouble: Trouble) -> sqlite3.OperationalError:
    """The error that SQLite raises in that trouble."""
    text, name = _ERRORS[trouble]
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


class Connection(sqlite3.Connection):
    """A real connection that is asked before a transaction begins or ends."""

    before: Callable[[str], None] = staticmethod(lambda statement: None)

    def execute(self, statement: str, /, *values: Any) -> sqlite3.Cursor:
        if statement in _AT:
            self.before(statement)
        return super().execute(statement, *values)


@functools.cache
def _template() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, path="simulated")
    vault = Vault(STORE_KEY)
    vault.new_mark_key()
    for name, value in {"store_key": vault.prove(), "mark_key": vault.wrapped_mark_key()}.items():
        connection.execute(SQL["put_meta"], {"name": name, "value": value})
    return connection


class Disk:
    """One machine's disk. `chance` draws how long a flush takes, and what a failing one does."""

    def __init__(self, chance: random.Random, *, count: Callable[[str], None]) -> None:
        self._chance = chance
        self._count = count
        self._trouble: Trouble | None = None
        self.connection = sqlite3.connect(
            ":memory:", isolation_level=None, factory=Connection, check_same_thread=False
        )
        _template().backup(self.connection)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("pragma foreign_keys = on")
        self.connection.execute("pragma secure_delete = on")
        self.connection.before = self._before
        self.reserve = SimulatedReserve(self)

    @property
    def trouble(self) -> Trouble | None:
        """What is wrong now."""
        return self._trouble

    @trouble.setter
    def trouble(self, trouble: Trouble | None) -> None:
        self._trouble = trouble
        self._limit(self._pages() + self._chance.randrange(4) if trouble is Trouble.FULL else None)

    def latency(self) -> float:
        """Seconds from a write's arrival to the end of its flush."""
        if self._trouble is Trouble.SLOW:
            return self._chance.uniform(0.5, 5.0)
        if self._trouble is Trouble.LOCKED:
            return self._chance.uniform(1.0, 10.0)
        return self._chance.uniform(0.0005, 0.008)

    def reading_latency(self) -> float:
        """Seconds that a read takes."""
        return self._chance.uniform(0.0002, 0.002)

    def give_room(self) -> None:
        """The pages of the reserve become free."""
        self._count("reserve given up")
        if self._trouble is Trouble.FULL:
            self._limit(self._pages() + RESERVE_PAGES)
        elif self._trouble is Trouble.FULL_AT_COMMIT:
            self.trouble = None

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What a query gives, for checks; no simulated time passes."""
        return [tuple(row) for row in self.connection.execute(statement)]

    def _pages(self) -> int:
        return int(self.connection.execute("pragma page_count").fetchone()[0])

    def _limit(self, pages: int | None) -> None:
        self.connection.execute(f"pragma max_page_count = {pages or _PLENTY}")

    def _before(self, statement: str) -> None:
        if self._trouble is not _AT[statement]:
            return
        self._count(f"disk {self._trouble}")
        # After a failing commit SQLite has rolled back in some cases, and has not in others.
        if self._trouble is Trouble.FULL_AT_COMMIT and self._chance.random() < 0.5:
            self.connection.execute("rollback")
        raise sqlite_error(self._trouble)


class SimulatedReserve(Reserve):
    """The reserve file, as so many pages."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(Path("reserve"), 0)
        self._disk = disk
        self._held = True

    def hold(self) -> None:
        if self._disk.trouble not in (Trouble.FULL, Trouble.FULL_AT_COMMIT):
            self._held = True

    def give_up(self) -> bool:
        held, self._held = self._held, False
        if held:
            self._disk.give_room()
        return held
