"""A small SQLite file that several processes change at the same time.

The gateway and command lines have it open together, so every piece of work is one short
transaction that takes the file's lock at its beginning: what it reads cannot change before what it
writes. Nothing is kept in memory between two of them. What only reads has a connection and a thread
of its own: it waits neither for another process that writes nor for what waits for that one.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from handrail.errors import ConfigInvalid, StoreFailed
from handrail.store.faults import store_failed
from handrail.store.migrate import Schema, migrate
from handrail.store.opening import BUSY_SECONDS, connect

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]

_READ_SECONDS: Final = 1.0


class SharedFile:
    """One such file, open. `now` waits for the lock and the disk; `run` does so in a thread.

    After an error of its disk nothing more is written by this process, as with the run store.
    `patience` is how many seconds after it was handed in a piece of work still waits for the lock
    of another process, so that all that is waiting fails with the first of it.
    """

    def __init__(self, path: Path, *, schema: Schema) -> None:
        self.path = path
        self.patience = BUSY_SECONDS
        self._schema = schema
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"handrail-{path.stem}")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix=f"handrail-{path.stem}-read")
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._problem: StoreFailed | None = None

    def open(self) -> None:
        """Create or upgrade the file. Raises ConfigInvalid when it cannot be used."""
        try:
            self._thread.submit(self._open).result()
            self._reading.submit(self._open_to_read).result()
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

    def _open_to_read(self) -> None:
        # Nobody's lock holds it up but that of whoever repairs the file, for a moment.
        self._reader = connect(self.path, seconds=_READ_SECONDS)
        self._reader.execute("pragma query_only = on")

    def close(self) -> None:
        """Finish what was handed in and let go of the file."""
        self._reading.submit(self._close_reader).result()
        self._thread.submit(self._close).result()
        self._reading.shutdown(wait=True)
        self._thread.shutdown(wait=True)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def now(self, work: Work[T]) -> T:
        """What `work` returns, durable. Raises StoreFailed, or the HandrailError of `work`."""
        return self._thread.submit(self._transact, work, time.monotonic()).result()

    def read_now(self, work: Work[T]) -> T:
        """What `work` returns, which only reads. Raises StoreFailed."""
        return self._reading.submit(self._read, work).result()

    async def read(self, work: Work[T]) -> T:
        """The same without holding the event loop up."""
        return await asyncio.wrap_future(self._reading.submit(self._read, work))

    async def run(
        self, work: Work[T], *, after: Callable[[T | None], None] = lambda result: None
    ) -> T:
        """The same without holding the event loop up; goes on if nobody waits for it any more.

        `after` comes before any other work of this process, with what was returned once that is
        durable, None when it is not.
        """
        return await asyncio.wrap_future(
            self._thread.submit(self._followed, work, after, time.monotonic())
        )

    def _followed(self, work: Work[T], after: Callable[[T | None], None], asked_at: float) -> T:
        result: T | None = None
        try:
            result = self._transact(work, asked_at)
            return result
        finally:
            after(result)

    def _transact(self, work: Work[T], asked_at: float) -> T:
        with self._judged(self._connection) as connection:
            left = max(asked_at + self.patience - time.monotonic(), 0.0)
            connection.execute(f"pragma busy_timeout = {round(left * 1_000)}")
            return _done(connection, work, begin="begin immediate")

    def _read(self, work: Work[T]) -> T:
        with self._judged(self._reader) as connection:
            return _done(connection, work, begin="begin")

    @contextmanager
    def _judged(self, connection: sqlite3.Connection | None) -> Iterator[sqlite3.Connection]:
        if self._problem is not None:
            raise self._problem
        assert connection is not None  # noqa: S101 - it is open
        try:
            yield connection
        except (sqlite3.Error, UnicodeDecodeError) as error:
            problem = store_failed(error)
            if problem.final:
                self._problem = problem
            raise problem from None

    async def changes(self) -> int:
        """A number that is another one after anybody has changed the file."""
        return await asyncio.wrap_future(self._reading.submit(self._version))

    def _version(self) -> int:
        # Everybody who writes does so with another connection than this.
        with self._judged(self._reader) as connection:
            return int(connection.execute("pragma data_version").fetchone()[0])


def _done(connection: sqlite3.Connection, work: Work[T], *, begin: str) -> T:
    connection.execute(begin)
    try:
        result = work(connection)
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise
    return result
