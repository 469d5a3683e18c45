"""One thread that writes, and commits for everybody who is waiting (group commit).

While one commit waits for the disk, further writes gather; the next transaction takes them all,
so a disk flush is paid once a batch and not once a write. Each write has a savepoint of its own:
one that fails takes nothing else with it.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from handrail.errors import Code, ConfigInvalid, StoreFailed

Operation = Callable[[sqlite3.Connection], Any]

_BATCH: Final = 256


def store_failed(error: sqlite3.Error) -> StoreFailed:
    """What an error of SQLite means to a caller."""
    primary = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return StoreFailed(
            Code.STORAGE_FULL, "The gateway's disk is full: nothing new can be kept now."
        )
    return StoreFailed(Code.STORE_UNAVAILABLE, "The gateway's run store cannot be used now.")


class Reserve:
    """A file that is only there to be deleted: room for the ends of runs on a full disk."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    def hold(self) -> None:
        """Take the room, if the disk has it. Called at start and whenever things are well."""
        try:
            if self._path.exists():
                return
            with self._path.open("wb") as file:
                for _ in range(self._size // 65_536):
                    file.write(bytes(65_536))
        except OSError:
            self._path.unlink(missing_ok=True)

    def give_up(self) -> bool:
        """Free the room. False when there was none left to free."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


class Writer:
    """The writing thread. `run` may be awaited from one event loop only."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], *, reserve: Reserve) -> None:
        self._connect = connect
        self._reserve = reserve
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="handrail-writer", daemon=True)
        self._ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._closed = False

    def start(self) -> None:
        """Open the database in the thread; raises what opening raised."""
        self._thread.start()
        problem = self._ready.get()
        if problem is not None:
            raise problem

    async def run(self, operation: Operation, *, vital: bool = False) -> Any:
        """What `operation` returned, after it is durable.

        `vital` writes may use up the reserve when the disk is full. Raises StoreFailed, or the
        HandrailError that `operation` raised.
        """
        if self._closed:
            raise StoreFailed(Code.STORE_UNAVAILABLE, "The gateway's run store is closed.")
        loop = asyncio.get_running_loop()
        job = _Job(operation, loop, vital=vital)
        self._queue.put(job)
        return await job.future

    def close(self) -> None:
        """Write what was handed in, then stop. Blocks until the thread has ended."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        try:
            connection = self._connect()
        except (sqlite3.Error, ConfigInvalid, OSError) as error:
            self._ready.put(error)
            return
        self._reserve.hold()
        self._ready.put(None)
        stopping = False
        while not stopping:
            jobs, stopping = self._gather()
            if jobs:
                self._commit(connection, jobs)
        connection.close()

    def _gather(self) -> "tuple[list[_Job], bool]":
        jobs: list[_Job] = []
        job = self._queue.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _BATCH:
                return jobs, False
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _commit(self, connection: sqlite3.Connection, jobs: "list[_Job]") -> None:
        problem = _transaction(connection, jobs)
        if problem is not None and len(jobs) > 1:
            # One write may be what the disk has no room for: give the others a try of their own.
            for job in jobs:
                self._commit(connection, [job])
            return
        if problem is not None:
            [job] = jobs
            full = problem.fault.code == Code.STORAGE_FULL
            if full and job.vital and self._reserve.give_up():
                problem = _transaction(connection, jobs)
            if problem is not None:
                job.outcome = problem
        _settle(jobs)


def _settle(jobs: "list[_Job]") -> None:
    def resolve() -> None:
        for job in jobs:
            job.resolve()

    with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
        jobs[0].loop.call_soon_threadsafe(resolve)


class _Job:
    def __init__(
        self, operation: Operation, loop: asyncio.AbstractEventLoop, *, vital: bool
    ) -> None:
        self.operation = operation
        self.future: asyncio.Future[Any] = loop.create_future()
        self.loop = loop
        self.vital = vital
        self.outcome: Any = None

    def resolve(self) -> None:
        if self.future.done():
            return
        if isinstance(self.outcome, Exception):
            self.future.set_exception(self.outcome)
        else:
            self.future.set_result(self.outcome)


def _transaction(connection: sqlite3.Connection, jobs: list[_Job]) -> StoreFailed | None:
    """Run the jobs in one transaction; what went wrong with the whole of it, or None."""
    try:
        connection.execute("begin immediate")
        for job in jobs:
            _savepoint(connection, job)
        connection.execute("commit")
    except sqlite3.Error as error:
        # On a full disk SQLite has already rolled back, and a second rollback would hide why.
        if connection.in_transaction:
            connection.execute("rollback")
        return store_failed(error)
    return None


def _savepoint(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("savepoint job")
    try:
        job.outcome = job.operation(connection)
    except sqlite3.Error:
        raise
    except Exception as error:
        # The operation's own refusal (a full queue), or a defect in it: either way its caller's.
        connection.execute("rollback to job")
        job.outcome = error
    connection.execute("release job")
