"""One thread that writes, and commits for everybody who is waiting (group commit).

While one commit waits for the disk, further writes gather; the next transaction takes them all,
so a disk flush is paid once a batch and not once a write. Each write has a savepoint of its own:
one that fails takes nothing else with it. What becomes of the store after an error of its disk
stands in `faults`.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from handrail.errors import Code, StoreFailed
from handrail.store.cleaning import LogCleaner
from handrail.store.faults import Verdict, concerns_all, name_of, store_failed, verdict
from handrail.store.reserve import Reserve
from handrail.telemetry import get_logger

Operation = Callable[[sqlite3.Connection], Any]

_BATCH: Final = 256


class Writer:
    """The writing thread. `run` may be awaited from one event loop only."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], *, reserve: Reserve) -> None:
        self._connect = connect
        self._reserve = reserve
        self._cleaner = LogCleaner()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="handrail-writer", daemon=True)
        self._ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._closed = False
        self.problem: StoreFailed | None = None
        """Why nothing is written any more before the next start; None while all is well."""

    def start(self) -> None:
        """Open the database in the thread; raises what opening raised."""
        self._thread.start()
        problem = self._ready.get()
        if problem is not None:
            raise problem

    async def run(
        self, operation: Operation, *, vital: bool = False, destroys: bool = False
    ) -> Any:
        """What `operation` returned, after it is durable.

        `vital` writes may use up the reserve when the disk is full. After one that `destroys`,
        the log is emptied soon. Raises StoreFailed, or the HandrailError that `operation` raised.
        """
        if self._closed:
            raise StoreFailed(
                Code.STORE_UNAVAILABLE, "The gateway's run store is closed.", final=True
            )
        loop = asyncio.get_running_loop()
        job = _Job(operation, loop, vital=vital, destroys=destroys)
        self._queue.put(job)
        return await job.future

    def close(self) -> None:
        """Write what was handed in, then stop. Blocks until the thread has ended."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    # --- in the thread ---------------------------------------------------------------------

    def _work(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:  # `start` waits for one word or the other
            self._ready.put(error)
            return
        self._reserve.hold()
        self._ready.put(None)
        stopping = False
        while not stopping:
            jobs, stopping = self._gather()
            if jobs:
                self._serve(connection, jobs)
            if not jobs or self._cleaner.overdue():
                self._clean(connection)
        if self._cleaner.patience is not None:
            self._clean(connection)
        with contextlib.suppress(sqlite3.Error):
            connection.close()

    def _gather(self) -> "tuple[list[_Job], bool]":
        jobs: list[_Job] = []
        try:
            job = self._queue.get(timeout=self._cleaner.patience)
            while job is not None:
                jobs.append(job)
                if len(jobs) == _BATCH:
                    return jobs, False
                job = self._queue.get_nowait()
        except queue.Empty:
            return jobs, False
        return jobs, True

    def _serve(self, connection: sqlite3.Connection, jobs: "list[_Job]") -> None:
        try:
            self._reserve.hold()
            self._commit(connection, jobs)
        except Exception as error:
            # Whoever waits must hear of it, and nothing may be written by a thread in doubt.
            problem = StoreFailed(Code.STORE_UNAVAILABLE, _BROKEN, detail=repr(error))
            self._give_up(problem)
            _refuse(jobs, problem)

    def _commit(self, connection: sqlite3.Connection, jobs: "list[_Job]") -> None:
        if self.problem is not None:
            return _refuse(jobs, self.problem)
        error = _transaction(connection, jobs)
        if error is not None and len(jobs) == 1 and _is_full(error) and jobs[0].vital:
            error = _transaction(connection, jobs) if self._reserve.give_up() else error
        if error is None:
            return self._committed(jobs)
        if verdict(error) is Verdict.BROKEN:
            self._give_up(store_failed(error))
        if len(jobs) == 1 or concerns_all(error):
            return _refuse(jobs, self.problem or store_failed(error))
        # One write may be what the disk has no room for: give the others a try of their own.
        for job in jobs:
            self._commit(connection, [job])
        return None

    def _committed(self, jobs: "list[_Job]") -> None:
        _settle(jobs)
        if any(job.destroys and job.outcome for job in jobs):
            self._cleaner.owe()

    def _clean(self, connection: sqlite3.Connection) -> None:
        if self.problem is not None:
            return
        try:
            self._cleaner.clean(connection)
        except sqlite3.Error as error:
            if verdict(error) is Verdict.BROKEN:
                self._give_up(store_failed(error))

    def _give_up(self, problem: StoreFailed) -> None:
        if self.problem is None:
            problem.final = True
            self.problem = problem
            get_logger().error("store_broken", why=problem.detail)


_BROKEN: Final = "The gateway's run store cannot be used now."


def _is_full(error: sqlite3.Error) -> bool:
    return name_of(error).startswith("SQLITE_FULL")


def _refuse(jobs: "Sequence[_Job]", problem: StoreFailed) -> None:
    fault = problem.fault
    for job in jobs:  # each its own: an exception that is raised twice mixes two tracebacks
        job.outcome = StoreFailed(
            Code(fault.code or Code.STORE_UNAVAILABLE),
            fault.message,
            detail=problem.detail,
            final=problem.final,
        )
    _settle(jobs)


def _settle(jobs: "Sequence[_Job]") -> None:
    def resolve() -> None:
        for job in jobs:
            job.resolve()

    with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
        jobs[0].loop.call_soon_threadsafe(resolve)


class _Job:
    def __init__(
        self,
        operation: Operation,
        loop: asyncio.AbstractEventLoop,
        *,
        vital: bool,
        destroys: bool,
    ) -> None:
        self.operation = operation
        self.future: asyncio.Future[Any] = loop.create_future()
        self.loop = loop
        self.vital = vital
        self.destroys = destroys
        self.outcome: Any = None

    def resolve(self) -> None:
        if self.future.done():
            return
        if isinstance(self.outcome, Exception):
            self.future.set_exception(self.outcome)
        else:
            self.future.set_result(self.outcome)


def _transaction(connection: sqlite3.Connection, jobs: "list[_Job]") -> sqlite3.Error | None:
    """Run the jobs in one transaction; what went wrong with the whole of it, or None."""
    try:
        connection.execute("begin immediate")
        for job in jobs:
            _savepoint(connection, job)
        connection.execute("commit")
    except sqlite3.Error as error:
        # On a full disk SQLite has already rolled back, and a second rollback would hide why.
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("rollback")
        return error
    return None


def _savepoint(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("savepoint job")
    try:
        job.outcome = job.operation(connection)
    except sqlite3.Error:
        raise
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError("a damaged text") from error
    except Exception as error:
        # The operation's own refusal (a full queue), or a defect in it: either way its caller's.
        connection.execute("rollback to job")
        job.outcome = error
    connection.execute("release job")
