"""A small SQLite file that several processes change at the same time.

The gateway and command lines have it open together, so every piece of work is one short
transaction that takes the file's lock at its beginning: what it reads cannot change before what it
writes. Nothing is kept in memory between two of them.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from handrail.errors import ConfigInvalid, StoreFailed
from handrail.store.faults import store_failed
from handrail.store.migrate import Schema, migrate
from handrail.store.opening import BUSY_SECONDS, connect

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]


class SharedFile:
    """One such file, open. `now` waits for the lock and the disk; `run` does so in a thread.

    After an error of its disk nothing more is written by this process, as with the run store.
    `patience` is how many seconds a piece of work waits for the lock of another process.
    """

    def __init__(self, path: Path, *, schema: Schema) -> None:
        self.path = path
        self.patience = BUSY_SECONDS
        self._schema = schema
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"handrail-{path.stem}")
        self._connection: sqlite3.Connection | None = None
        self._problem: StoreFailed | None = None

    def open(self) -> None:
        """Create or upgrade the file. Raises ConfigInvalid when it cannot be used."""
        try:
            self._thread.submit(self._open).result()
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            raise ConfigInvalid(f"{self.path}: cannot be opened: {error}.") from None

    def _open(self) -> None:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        connection = connect(self.path)
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.execute("pragma secure_delete = on")
            migrate(connection, path=str(self.path), schema=self._schema)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def close(self) -> None:
        """Finish what was handed in and let go of the file."""
        self._thread.submit(self._close).result()
        self._thread.shutdown(wait=True)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def now(self, work: Work[T]) -> T:
        """What `work` returns, durable. Raises StoreFailed, or the HandrailError of `work`."""
        return self._thread.submit(self._transact, work).result()

    async def run(
        self, work: Work[T], *, after: Callable[[T | None], None] = lambda result: None
    ) -> T:
        """The same without holding the event loop up; goes on if nobody waits for it any more.

        `after` comes before any other work of this process, with what was returned once that is
        durable, None when it is not.
        """
        return await asyncio.wrap_future(self._thread.submit(self._followed, work, after))

    def _followed(self, work: Work[T], after: Callable[[T | None], None]) -> T:
        result: T | None = None
        try:
            result = self._transact(work)
            return result
        finally:
            after(result)

    def _transact(self, work: Work[T]) -> T:
        if self._problem is not None:
            raise self._problem
        assert self._connection is not None  # noqa: S101 - it is open
        try:
            self._connection.execute(f"pragma busy_timeout = {round(self.patience * 1_000)}")
            self._connection.execute("begin immediate")
            try:
                result = work(self._connection)
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise
        except (sqlite3.Error, UnicodeDecodeError) as error:
            problem = store_failed(error)
            if problem.final:
                self._problem = problem
            raise problem from None
        return result

    async def changes(self) -> int:
        """A number that is another one after anybody has changed the file."""
        return await asyncio.wrap_future(self._thread.submit(self._version))

    def _version(self) -> int:
        assert self._connection is not None  # noqa: S101 - it is open
        try:
            others = int(self._connection.execute("pragma data_version").fetchone()[0])
            # What this very connection has written does not count there.
            return (others << 40) + self._connection.total_changes
        except sqlite3.Error as error:
            raise store_failed(error) from None
