"""The store of one simulated process: the real SQL and the real group commit, without threads."""

import asyncio
import contextlib
import queue
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from handrail.core.admission import Limits
from handrail.core.quota import Quota
from handrail.engine.clock import Clock
from handrail.store.base import NewRun, Run
from handrail.store.faults import store_failed
from handrail.store.kept_time import KeptTime
from handrail.store.keys import DataKeys
from handrail.store.opening import kept
from handrail.store.quota import Quotas
from handrail.store.runs import Runs
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from handrail.store.writer import Operation, Writer
from tests.simulation.disk import STORE_KEY, Disk

T = TypeVar("T")

PROMPT_SECONDS: Final = 0.25
"""In which a run starts that nothing keeps from it; less than the executor's look every second."""


class Host(Protocol):
    """The process that a store belongs to. `passes` may end the process at a named point."""

    dead: bool

    def passes(self, point: str) -> None: ...

    def troubled_since(self, moment: float) -> bool: ...

    def violate(self, what: str) -> None: ...


class _Waiting:
    """In the place of the writer's queue: says when the first job has come."""

    def __init__(self, arrived: Callable[[], None]) -> None:
        self._arrived = arrived
        self._jobs: deque[Any] = deque()

    def put(self, job: Any) -> None:
        self._jobs.append(job)
        self._arrived()

    def get(self, *, timeout: float | None) -> Any:
        return self._jobs.popleft()

    def get_nowait(self) -> Any:
        if not self._jobs:
            raise queue.Empty
        return self._jobs.popleft()

    def __len__(self) -> int:
        return len(self._jobs)


class SimulatedWriter(Writer):
    """The real writer, its thread replaced: a commit is done in one moment, after its latency."""

    def __init__(self, host: Host, disk: Disk) -> None:
        super().__init__(lambda: disk.connection, reserve=disk.reserve)
        disk.reserve.hold()
        self._host = host
        self._disk = disk
        self._waiting = _Waiting(self._arrived)
        self._queue = self._waiting  # type: ignore[assignment]
        self._due = False

    async def run(
        self, operation: Operation, *, vital: bool = False, destroys: bool = False
    ) -> Any:
        if self._host.dead:
            raise asyncio.CancelledError
        return await super().run(operation, vital=vital, destroys=destroys)

    async def finish(self) -> None:
        """What closing the real one does: write what was handed in."""
        self._closed = True
        while self._waiting:
            await asyncio.sleep(self._disk.latency())
            self._flush()

    def _waiting_of_the_living(self) -> bool:
        return bool(self._waiting) and not self._host.dead

    def _arrived(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(self._disk.latency(), self._flush)

    def _flush(self) -> None:
        self._due = False
        if not self._waiting_of_the_living():
            return
        self._host.passes("before a commit")
        if not self._waiting_of_the_living():
            return
        jobs, _ = self._gather()
        self._serve(self._disk.connection, jobs)
        self._host.passes("after a commit")
        if self._waiting:
            self._arrived()


class CheckedRuns(Runs):
    """The real transactions; every claim is held against limits and fairness, told anew."""

    def __init__(self, keys: DataKeys, *, time: KeptTime, host: Host) -> None:
        super().__init__(keys, time=time, quotas=Quotas(Quota))
        self._host = host
        self._may_start: dict[str, tuple[str, float]] = {}  # caller and since when, by run

    def accept(self, connection: sqlite3.Connection, run: NewRun, *, limits: Limits) -> str:
        alone = not _waiting(connection)
        stands = super().accept(connection, run, limits=limits)
        if alone and run.caller in _free(_running(connection), {run.caller}, limits):
            self._may_start[run.id] = run.caller, asyncio.get_running_loop().time()
        return stands

    def claim(self, connection: sqlite3.Connection, *, owner: str, limits: Limits) -> Run | None:
        before = _running(connection)
        waiting = _waiting(connection)
        run = super().claim(connection, owner=owner, limits=limits)
        may = _free(before, {caller for caller, _ in waiting}, limits)
        since = self._may_start_since(connection, run, limits)
        if run is None:
            if may:
                self._host.violate(f"nothing was claimed although {sorted(may)} may run")
            return None
        if run.caller not in may:
            self._host.violate(f"claimed over a limit: {run.caller} runs {before}")
        if before.get(run.caller, 0) > min((before.get(c, 0) for c in may), default=0):
            self._host.violate(f"unfair: {run.caller} was served before one who runs less")
        if run.id != next(id_ for caller, id_ in waiting if caller == run.caller):
            self._host.violate("a younger run of a caller was claimed before an older one")
        if since is not None and not self._host.troubled_since(since):
            waited = asyncio.get_running_loop().time() - since
            if waited > PROMPT_SECONDS:
                self._host.violate(f"a run waited {waited:.1f} s although it could have started")
        return run

    def _may_start_since(
        self, connection: sqlite3.Connection, run: Run | None, limits: Limits
    ) -> float | None:
        """Since when `run`, which is claimed now, could have been; None when it could not.

        Others may wait again for whose caller this claim leaves no slot. When two were accepted
        before the executor looked, the second may have the better turn, which is checked by itself;
        and who is revoked while its create is being written has no slot at all.
        """
        _, since = self._may_start.pop(run.id if run else "", ("", None))
        callers = {caller for caller, _ in self._may_start.values()}
        free = _free(_running(connection), callers, limits)
        for run_id, (caller, _) in list(self._may_start.items()):
            if caller not in free:
                del self._may_start[run_id]
        return since


def _waiting(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Caller and id of every waiting run, as they came."""
    rows = connection.execute(
        "select caller, id from runs where owner is null and finished_at is null order by ord"
    )
    return [(row[0], row[1]) for row in rows]


def _free(running: dict[str, int], callers: set[str], limits: Limits) -> set[str]:
    """Those of the callers who may start another run."""
    if sum(running.values()) >= limits.max_running:
        return set()
    return {c for c in callers if running.get(c, 0) < limits.caller_running.get(c, 0)}


def _running(connection: sqlite3.Connection) -> dict[str, int]:
    rows = connection.execute(
        "select caller, count(*) from runs where owner is not null and foreground = 0 "
        "group by caller"
    )
    return {row[0]: row[1] for row in rows}


class SimulatedStore(SqliteStore):
    """The real store, over a disk that outlives it."""

    def __init__(self, host: Host, disk: Disk, *, clock: Clock) -> None:
        vault = Vault(STORE_KEY)
        super().__init__(Path("simulated"), vault=vault, now=clock.now, monotonic=clock.monotonic)
        vault.open_mark_key(kept(disk.connection, "mark_key") or b"")
        self._host = host
        self._disk = disk
        self._simulated = self._writer = SimulatedWriter(host, disk)
        self._runs = CheckedRuns(DataKeys(vault), time=self._time, host=host)

    def open(self) -> None:
        """The disk is open already; what the real store reads from it at the start is read here."""
        self._time.begin(kept(self._disk.connection, "clock"))
        with contextlib.suppress(sqlite3.Error):
            self._time.written(self._save_clock(self._disk.connection))

    async def close(self) -> None:
        await self._simulated.finish()

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        await asyncio.sleep(self._disk.reading_latency())
        if self._host.dead:
            raise asyncio.CancelledError
        connection = self._disk.connection
        try:
            connection.execute("begin")
            try:
                return work(connection)
            finally:
                connection.execute("rollback")
        except sqlite3.Error as error:
            raise store_failed(error) from error
