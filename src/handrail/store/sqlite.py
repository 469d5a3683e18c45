"""The embedded store: one SQLite file, one writing thread, readers beside it.

WAL so that reads never wait for writes; `synchronous=FULL` so that what was answered survives a
power cut (it costs nothing measurable under group commit); `secure_delete` so that a deleted run's
pages are overwritten.
"""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

from handrail.core.admission import Limits
from handrail.errors import ConfigInvalid
from handrail.store.base import Close, Closing, NewRun, Remote, Run, Segment, Slice
from handrail.store.keys import DataKeys
from handrail.store.migrate import migrate
from handrail.store.rows import SQL
from handrail.store.runs import Runs
from handrail.store.vault import Vault
from handrail.store.writer import Reserve, Writer, store_failed

T = TypeVar("T")

RESERVE_BYTES: Final = 2 * 1024 * 1024
_READERS: Final = 2


class SqliteStore:
    """`Store` on one SQLite file. Only one process may have it open for writing at a time."""

    def __init__(self, path: Path, *, vault: Vault, now: Callable[[], float]) -> None:
        self._path = path
        self._vault = vault
        self._now = now
        self._runs = Runs(DataKeys(vault), now=now)
        self._local = threading.local()
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
        except (sqlite3.Error, OSError) as error:
            raise ConfigInvalid(
                f"{self._path}: cannot be opened as a run store: {error}."
            ) from None

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.close)
        self._readers.shutdown(wait=True)

    # --- connections -----------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=10.0)
        connection.row_factory = sqlite3.Row
        connection.execute("pragma foreign_keys = on")
        return connection

    def _open_writer(self) -> sqlite3.Connection:
        # SQLite gives its log and shared memory the mode of the database itself.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        connection = self._connect()
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma secure_delete = on")
        migrate(connection, path=str(self._path))
        proof = connection.execute(SQL["get_meta"], {"name": "store_key"}).fetchone()
        if proof is None:
            values = {"name": "store_key", "value": self._vault.prove()}
            connection.execute(SQL["put_meta"], values)
        elif not self._vault.fits(proof["value"]):
            connection.close()
            raise ConfigInvalid(
                f"{self._path}: was written under another store key than the one in this data "
                "directory; put the right key file back."
            )
        return connection

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read_now, work)

    def _read_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        try:
            if connection is None:
                connection = self._local.connection = self._connect()
                connection.execute("pragma query_only = on")
            connection.execute("begin")
            try:
                return work(connection)
            finally:
                connection.execute("rollback")
        except sqlite3.Error as error:
            raise store_failed(error) from error

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, vital: bool = False) -> T:
        result: T = await self._writer.run(work, vital=vital)
        return result

    async def _changed(self, query: str, values: Mapping[str, object]) -> bool:
        return await self._write(lambda c: c.execute(SQL[query], values).rowcount > 0)

    # --- writing ---------------------------------------------------------------------------

    async def accept(self, run: NewRun, *, limits: Limits) -> str:
        return await self._write(lambda c: self._runs.accept(c, run, limits=limits))

    async def claim(self, *, owner: str, limits: Limits) -> Run | None:
        return await self._write(lambda c: self._runs.claim(c, owner=owner, limits=limits))

    async def begin(self, run_id: str, fence: int, *, now: float, segment: Segment) -> bool:
        values = {"id": run_id, "fence": fence, "now": now}
        return await self._write(lambda c: self._runs.extend(c, "begin", values, segment=segment))

    async def append(self, run_id: str, fence: int, segment: Segment) -> bool:
        values = {"id": run_id, "fence": fence}
        return await self._write(lambda c: self._runs.extend(c, "extend", values, segment=segment))

    async def call_again(self, run_id: str, fence: int) -> bool:
        return await self._changed("call_again", {"id": run_id, "fence": fence})

    async def release(self, run_id: str, fence: int) -> bool:
        return await self._changed("release", {"id": run_id, "fence": fence})

    async def requeue(self, run_id: str) -> None:
        await self._changed("requeue", {"id": run_id})

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
        return await self._write(lambda c: self._runs.delete(c, run_id, caller=caller), vital=True)

    async def sweep(self, *, limit: int) -> int:
        return await self._write(lambda c: self._runs.sweep(c, limit=limit), vital=True)

    async def remember(self, remote: Remote) -> bool:
        return await self._changed("remember", asdict(remote))

    async def forget(self, response_id: str, *, caller: str) -> None:
        await self._changed("forget", {"id": response_id, "caller": caller})

    # --- reading ---------------------------------------------------------------------------

    async def get(self, run_id: str, *, caller: str) -> Run | None:
        return await self._read(lambda c: self._runs.get(c, run_id, caller=caller))

    async def read(self, run_id: str, *, after: int, caller: str) -> Slice | None:
        return await self._read(lambda c: self._runs.read(c, run_id, after=after, caller=caller))

    async def find_items(self, caller: str, ids: Collection[str]) -> Mapping[str, bytes]:
        return await self._read(lambda c: self._runs.find_items(c, caller, ids))

    async def locate(self, response_id: str, *, caller: str) -> Remote | None:
        values = {"id": response_id, "caller": caller, "now": self._now()}
        row = await self._read(lambda c: c.execute(SQL["locate"], values).fetchone())
        return None if row is None else Remote(**dict(row))

    async def abandoned(self, *, owner: str) -> Sequence[str]:
        return await self._read(lambda c: self._runs.ids(c, "abandoned", owner=owner))

    async def unfinished_of_others(self, callers: Collection[str]) -> Sequence[str]:
        return await self._read(
            lambda c: [row["id"] for row in c.execute(SQL["unfinished"]) if row[1] not in callers]
        )

    async def counts(self) -> Mapping[str, int]:
        row: Any = await self._read(lambda c: c.execute(SQL["counts"]).fetchone())
        return {"waiting": row[0], "running": row[1]}


def open_sqlite(path: Path, *, vault: Vault, now: Callable[[], float]) -> SqliteStore:
    """A store on the file at `path`, open. `now` is unix time in seconds. Raises as `open` does."""
    store = SqliteStore(path, vault=vault, now=now)
    store.open()
    return store
