"""The embedded store: one SQLite file, one writing thread, readers beside it.

WAL so that reads never wait for writes; `synchronous=FULL` so that what was answered survives a
power cut (it costs nothing measurable under group commit); `secure_delete` so that a deleted run's
pages are overwritten.
"""

import asyncio
import contextlib
import queue
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

from handrail.core.admission import Limits
from handrail.core.lifecycle import LAST_OPENING
from handrail.core.quota import Quota
from handrail.core.retry import Cause
from handrail.errors import Code, StoreFailed
from handrail.store.base import (
    Call,
    Close,
    Closing,
    NewRun,
    Outline,
    Remote,
    Run,
    Segment,
    Share,
    Slice,
    Visit,
)
from handrail.store.faults import store_failed
from handrail.store.kept_time import KeptTime
from handrail.store.keys import DataKeys
from handrail.store.opening import cannot_open, connect_to_read, connect_to_write, kept
from handrail.store.outlines import outlines, shares
from handrail.store.quota import Quotas
from handrail.store.reserve import Reserve
from handrail.store.rows import SQL
from handrail.store.runs import Runs
from handrail.store.vault import Vault
from handrail.store.writer import Writer

T = TypeVar("T")

RESERVE_BYTES: Final = 2 * 1024 * 1024
_READERS: Final = 2


class SqliteStore:
    """`Store` on one SQLite file. Only one process may have it open for writing at a time.

    `now` is the wall clock. With `monotonic` (seconds) what is kept does not expire because that
    has jumped; without it the wall clock is believed.
    """

    def __init__(
        self,
        path: Path,
        *,
        vault: Vault,
        now: Callable[[], float],
        monotonic: Callable[[], float] | None = None,
        quota: Callable[[], Quota] = Quota,
    ) -> None:
        self._path = path
        self._vault = vault
        self._time = KeptTime(wall=now, monotonic=monotonic or now)
        self._runs = Runs(DataKeys(vault), time=self._time, quotas=Quotas(quota))
        self._connections: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        reserve = Reserve(path.with_name(path.name + ".reserve"), RESERVE_BYTES)
        self._writer = Writer(self._open_writer, reserve=reserve)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="handrail-reader")

    def open(self) -> None:
        """Create or upgrade the file and start the threads.

        Raises ConfigInvalid when the file cannot be used: not ours, from a newer version, damaged,
        or sealed under another store key.
        """
        try:
            self._writer.start()
            # Now and not when they are needed: there may be no descriptor to be had then.
            for _ in range(_READERS):
                self._connections.put(connect_to_read(self._path))
        except (sqlite3.Error, OSError) as error:
            raise cannot_open(self._path, error) from None

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._readers.shutdown(wait=True)
        while not self._connections.empty():
            self._connections.get().close()
        self._writer.close()  # the last one out folds the log into the file

    @property
    def broken(self) -> StoreFailed | None:
        return self._writer.problem

    def _open_writer(self) -> sqlite3.Connection:
        connection = connect_to_write(self._path, vault=self._vault)
        self._time.begin(kept(connection, "clock"))
        with contextlib.suppress(sqlite3.Error):  # a full disk is no reason not to start
            self._time.written(self._save_clock(connection))
        return connection

    def _save_clock(self, connection: sqlite3.Connection) -> bytes:
        saved = self._time.saved()
        connection.execute(SQL["set_meta"], {"name": "clock", "value": saved})
        return saved

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            reading = loop.run_in_executor(self._readers, self._read_now, work)
        except RuntimeError:  # the threads are gone
            raise StoreFailed(
                Code.STORE_UNAVAILABLE, "The gateway's run store is closed.", final=True
            ) from None
        return await reading

    def _read_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connections.get()  # there are as many as threads
        try:
            connection.execute("begin")
            try:
                return work(connection)
            finally:
                connection.execute("rollback")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise store_failed(error) from error
        finally:
            self._connections.put(connection)

    async def _write(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        vital: bool = False,
        destroys: bool = False,
    ) -> T:
        saved: bytes | None = None

        def working(connection: sqlite3.Connection) -> T:
            nonlocal saved
            if self._time.moved():
                # At once: a process that is killed now must not come back a day later.
                saved = self._save_clock(connection)
            return work(connection)

        result: T = await self._writer.run(working, vital=vital, destroys=destroys)
        if saved is not None:  # work that is refused, or fails, takes it along
            self._time.written(saved)
        return result

    async def _changed(self, query: str, values: Mapping[str, object]) -> bool:
        return await self._write(lambda c: c.execute(SQL[query], values).rowcount > 0)

    # --- writing ---------------------------------------------------------------------------

    async def accept(self, run: NewRun, *, limits: Limits) -> str:
        return await self._write(lambda c: self._runs.accept(c, run, limits=limits))

    async def answered(self, notes: Mapping[str, bool]) -> None:
        rows = [{"run_id": run_id, "answered": int(note)} for run_id, note in notes.items()]
        await self._write(lambda c: c.executemany(SQL["note_reply"], rows).rowcount)

    async def keep(self, run: NewRun, *, owner: str) -> Run:
        return await self._write(lambda c: self._runs.keep(c, run, owner=owner))

    async def claim(self, *, owner: str, limits: Limits) -> Run | None:
        return await self._write(lambda c: self._runs.claim(c, owner=owner, limits=limits))

    async def begin(self, run_id: str, fence: int, *, now: float, segment: Segment) -> bool:
        return await self._write(
            lambda c: self._runs.begin(c, run_id, fence, now=now, segment=segment)
        )

    async def append(self, run_id: str, fence: int, segment: Segment) -> bool:
        values = {"id": run_id, "fence": fence}
        return await self._write(lambda c: self._runs.extend(c, "extend", values, segment=segment))

    async def call_again(self, run_id: str, fence: int, *, now: float, cause: Cause) -> bool:
        return await self._write(
            lambda c: self._runs.call_again(c, run_id, fence, now=now, cause=cause)
        )

    async def begin_again(self, run_id: str, fence: int, *, now: float, cause: Cause) -> int | None:
        return await self._write(
            lambda c: self._runs.begin_again(c, run_id, fence, now=now, cause=cause)
        )

    async def release(self, run_id: str, fence: int) -> bool:
        values = {"id": run_id, "fence": fence, "last_opening": LAST_OPENING}
        return await self._changed("release", values)

    async def requeue(self, run_id: str) -> None:
        await self._changed("requeue", {"id": run_id, "last_opening": LAST_OPENING})

    async def finish(self, run_id: str, fence: int, closing: Closing) -> bool:
        return await self._write(
            lambda c: self._runs.finish(c, run_id, fence, closing=closing), vital=True
        )

    async def conclude(
        self, run_id: str, *, caller: str | None, close: Close, events: bool = False
    ) -> Run | None:
        return await self._write(
            lambda c: self._runs.conclude(c, run_id, caller=caller, close=close, events=events),
            vital=True,
        )

    async def delete(self, run_id: str, *, caller: str) -> bool:
        return await self._write(
            lambda c: self._runs.delete(c, run_id, caller=caller), vital=True, destroys=True
        )

    async def sweep(self, *, limit: int) -> int:
        def work(connection: sqlite3.Connection) -> int:
            self._save_clock(connection)
            return self._runs.sweep(connection, limit=limit)

        return await self._write(work, vital=True, destroys=True)

    async def remember(self, remote: Remote, *, kept_seconds: float) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            values = {**asdict(remote), "expires_at": self._time.now() + kept_seconds}
            return connection.execute(SQL["remember"], values).rowcount > 0

        return await self._write(work)

    async def forget(self, response_id: str, *, caller: str) -> None:
        await self._changed("forget", {"id": response_id, "caller": caller})

    # --- reading ---------------------------------------------------------------------------

    async def get(self, run_id: str, *, caller: str) -> Run | None:
        return await self._read(lambda c: self._runs.get(c, run_id, caller=caller))

    async def calls(self, run_id: str, *, caller: str) -> Sequence[Call]:
        return await self._read(lambda c: self._runs.calls(c, run_id, caller=caller))

    async def ancestry(self, run_id: str, *, caller: str, visit: Visit) -> str | None:
        return await self._read(
            lambda c: self._runs.ancestry(c, run_id, caller=caller, visit=visit)
        )

    async def read(self, run_id: str, *, after: int, caller: str) -> Slice | None:
        return await self._read(lambda c: self._runs.read(c, run_id, after=after, caller=caller))

    async def find_items(self, caller: str, ids: Collection[str]) -> Mapping[str, bytes]:
        return await self._read(lambda c: self._runs.find_items(c, caller, ids))

    async def locate(self, response_id: str, *, caller: str) -> Remote | None:
        values = {"id": response_id, "caller": caller, "now": self._time.now()}
        row = await self._read(lambda c: c.execute(SQL["locate"], values).fetchone())
        return None if row is None else Remote(**dict(row))

    async def abandoned(self, *, owner: str) -> Sequence[str]:
        return await self._read(lambda c: self._runs.ids(c, "abandoned", owner=owner))

    async def unfinished_of_others(self, callers: Collection[str]) -> Sequence[str]:
        return await self._read(
            lambda c: [row["id"] for row in c.execute(SQL["unfinished"]) if row[1] not in callers]
        )

    async def outlines(self, *, after: str | None, limit: int) -> Sequence[Outline] | None:
        return await self._read(lambda c: outlines(c, after=after, limit=limit))

    async def shares(self) -> Sequence[Share]:
        return await self._read(shares)

    async def counts(self) -> Mapping[str, int]:
        row: Any = await self._read(lambda c: c.execute(SQL["counts"]).fetchone())
        return {"waiting": row[0], "running": row[1]}


def open_sqlite(path: Path, **rest: Any) -> SqliteStore:
    """A store on the file at `path`, open; `rest` as for `SqliteStore`. Raises as `open` does."""
    store = SqliteStore(path, **rest)
    store.open()
    return store
