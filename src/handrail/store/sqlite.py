"""The embedded store: one SQLite file, one writing thread, readers beside it.

WAL so that reads never wait for writes; `synchronous=FULL` so that what was answered survives a
power cut (it costs nothing measurable under group commit); `secure_delete` so that a deleted run's
pages are overwritten.
"""

import asyncio
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

from handrail.core.admission import Limits, next_caller
from handrail.core.lifecycle import State, may_follow
from handrail.errors import ConfigInvalid
from handrail.store.base import Close, Closing, NewRun, Remote, Run, Segment, Slice
from handrail.store.migrate import migrate
from handrail.store.rows import SQL, add_items, add_segment, check_room, earlier_run, item_of
from handrail.store.vault import Sealer, Vault
from handrail.store.writer import Reserve, Writer, store_failed

T = TypeVar("T")

SLICE_BYTES: Final = 512 * 1024
RESERVE_BYTES: Final = 2 * 1024 * 1024
_READERS: Final = 2
_KEYS: Final = 1_024


class SqliteStore:
    """`Store` on one SQLite file. Only one process may have it open for writing at a time."""

    def __init__(self, path: Path, *, vault: Vault, now: Callable[[], float]) -> None:
        self._path = path
        self._vault = vault
        self._now = now
        self._keys: OrderedDict[str, Sealer] = OrderedDict()
        self._keys_lock = threading.Lock()
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

    # --- keys ------------------------------------------------------------------------------

    def _key(self, connection: sqlite3.Connection, run_id: str) -> Sealer:
        with self._keys_lock:
            known = self._keys.get(run_id)
            if known is not None:
                self._keys.move_to_end(run_id)
                return known
        row = connection.execute(SQL["run_key"], {"id": run_id}).fetchone()
        sealer = self._vault.unwrap(run_id, row["wrapped_key"])
        self._remember_key(run_id, sealer)
        return sealer

    def _remember_key(self, run_id: str, sealer: Sealer) -> None:
        with self._keys_lock:
            self._keys[run_id] = sealer
            while len(self._keys) > _KEYS:
                self._keys.popitem(last=False)

    def _run(self, connection: sqlite3.Connection, row: sqlite3.Row) -> Run:
        sealer = self._key(connection, row["id"])
        return Run(
            id=row["id"],
            caller=row["caller"],
            state=State(row["state"]),
            created_at=row["created_at"],
            target=row["target"],
            plan=row["plan"],
            request=sealer.open(f"{row['id']}/request", row["request"]),
            response=sealer.open(f"{row['id']}/response", row["response"]),
            attempt=row["attempt"],
            fence=row["fence"],
            calls=row["calls"],
            last_seq=row["last_seq"],
            sent_at=row["sent_at"],
            finished_at=row["finished_at"],
        )

    # --- writing ---------------------------------------------------------------------------

    async def accept(self, run: NewRun, *, limits: Limits) -> str:
        def work(connection: sqlite3.Connection) -> str:
            earlier = earlier_run(connection, run, vault=self._vault, now=self._now())
            if earlier is not None:
                return earlier
            row = connection.execute(SQL["count_waiting"], {"caller": run.caller}).fetchone()
            check_room(run.caller, of_caller=row[0], of_all=row[1], limits=limits)
            sealer, wrapped = self._vault.new_key(run.id)
            connection.execute(
                SQL["insert_run"],
                {
                    "id": run.id,
                    "caller": run.caller,
                    "created_at": run.created_at,
                    "target": run.target,
                    "plan": run.plan,
                    "wrapped_key": wrapped,
                    "request": sealer.seal(f"{run.id}/request", run.request),
                    "response": sealer.seal(f"{run.id}/response", run.response),
                    "last_seq": run.opening.last,
                },
            )
            add_segment(connection, run.id, (sealer, run.opening))
            add_items(connection, run.caller, (run.id, run.items))
            self._remember_key(run.id, sealer)
            return run.id

        return await self._write(work)

    async def claim(self, *, owner: str, limits: Limits) -> Run | None:
        def work(connection: sqlite3.Connection) -> Run | None:
            waiting = {row[0]: row[1] for row in connection.execute(SQL["waiting"])}
            if not waiting:
                return None
            running = {row[0]: row[1] for row in connection.execute(SQL["running"])}
            caller = next_caller(waiting, running, limits=limits)
            if caller is None:
                return None
            values = {"ord": waiting[caller], "owner": owner}
            row = connection.execute(SQL["claim"], values).fetchone()
            return self._run(connection, row)

        return await self._write(work)

    async def begin(self, run_id: str, fence: int, *, now: float, segment: Segment) -> bool:
        values = {"id": run_id, "fence": fence, "now": now}
        return await self._fenced("begin", values, segment)

    async def append(self, run_id: str, fence: int, segment: Segment) -> bool:
        return await self._fenced("extend", {"id": run_id, "fence": fence}, segment)

    async def _fenced(self, query: str, values: dict[str, object], segment: Segment) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            places = {"first_seq": segment.first, "last_seq": segment.last}
            if connection.execute(SQL[query], {**values, **places}).rowcount == 0:
                return False
            run_id = str(values["id"])
            add_segment(connection, run_id, (self._key(connection, run_id), segment))
            return True

        return await self._write(work)

    async def call_again(self, run_id: str, fence: int) -> bool:
        return await self._changed("call_again", {"id": run_id, "fence": fence})

    async def release(self, run_id: str, fence: int) -> bool:
        return await self._changed("release", {"id": run_id, "fence": fence})

    async def requeue(self, run_id: str) -> None:
        await self._changed("requeue", {"id": run_id})

    async def finish(self, run_id: str, fence: int, closing: Closing) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute(SQL["run"], {"id": run_id}).fetchone()
            return row is not None and self._end(
                connection, row, closing, query="finish", fence=fence
            )

        return await self._write(work, vital=True)

    async def conclude(
        self, run_id: str, *, caller: str | None, close: Close, events: bool = False
    ) -> Run | None:
        def work(connection: sqlite3.Connection) -> Run | None:
            row = self._row(connection, run_id, caller)
            if row is None:
                return None
            run = self._run(connection, row)
            frames = self._frames(connection, run_id, after=-1) if events else []
            closing = close(run, list(frames))
            if closing is None:
                return run
            self._end(connection, row, closing, query="conclude", fence=run.fence)
            return self._run(connection, connection.execute(SQL["run"], {"id": run_id}).fetchone())

        return await self._write(work, vital=True)

    def _end(
        self,
        connection: sqlite3.Connection,
        row: sqlite3.Row,
        closing: Closing,
        *,
        query: str,
        fence: int,
    ) -> bool:
        run_id = row["id"]
        if not may_follow(State(row["state"]), closing.state):
            return False
        sealer = self._key(connection, run_id)
        values = {
            "id": run_id,
            "fence": fence,
            "state": closing.state,
            "response": sealer.seal(f"{run_id}/response", closing.response),
            "first_seq": closing.segment.first,
            "last_seq": closing.segment.last,
            "finished_at": closing.finished_at,
            "expires_at": closing.expires_at,
        }
        if connection.execute(SQL[query], values).rowcount == 0:
            return False
        add_segment(connection, run_id, (sealer, closing.segment))
        add_items(connection, row["caller"], (run_id, closing.items))
        return True

    async def delete(self, run_id: str, *, caller: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            return self._row(connection, run_id, caller) is not None and self._destroy(
                connection, run_id, caller
            )

        return await self._write(work, vital=True)

    async def sweep(self, *, limit: int) -> int:
        def work(connection: sqlite3.Connection) -> int:
            values = {"now": self._now(), "limit": limit}
            connection.execute(SQL["forget_expired"], values)
            connection.execute(SQL["drop_keys"], values)
            rows = connection.execute(SQL["expired"], values).fetchall()
            return sum(self._destroy(connection, row["id"], row["caller"]) for row in rows)

        return await self._write(work, vital=True)

    def _destroy(self, connection: sqlite3.Connection, run_id: str, caller: str) -> bool:
        values = {"id": run_id, "caller": caller}
        connection.execute(SQL["destroy_key"], values)
        with self._keys_lock:
            self._keys.pop(run_id, None)
        return connection.execute(SQL["delete_run"], values).rowcount > 0

    async def _changed(self, query: str, values: Mapping[str, object]) -> bool:
        return await self._write(lambda c: c.execute(SQL[query], values).rowcount > 0)

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, vital: bool = False) -> T:
        result: T = await self._writer.run(work, vital=vital)
        return result

    # --- reading ---------------------------------------------------------------------------

    async def get(self, run_id: str, *, caller: str) -> Run | None:
        def work(connection: sqlite3.Connection) -> Run | None:
            row = self._row(connection, run_id, caller)
            return None if row is None else self._run(connection, row)

        return await self._read(work)

    async def read(self, run_id: str, *, after: int, caller: str) -> Slice | None:
        def work(connection: sqlite3.Connection) -> Slice | None:
            row = self._row(connection, run_id, caller)
            if row is None:
                return None
            frames = tuple(self._frames(connection, run_id, after=after, bound=SLICE_BYTES))
            return Slice(frames=frames, state=State(row["state"]), last_seq=row["last_seq"])

        return await self._read(work)

    def _row(
        self, connection: sqlite3.Connection, run_id: str, caller: str | None
    ) -> sqlite3.Row | None:
        if caller is None:
            row = connection.execute(SQL["run"], {"id": run_id}).fetchone()
        else:
            values = {"id": run_id, "caller": caller, "now": self._now()}
            row = connection.execute(SQL["run_of_caller"], values).fetchone()
        return row if isinstance(row, sqlite3.Row) else None

    def _frames(
        self, connection: sqlite3.Connection, run_id: str, *, after: int, bound: int | None = None
    ) -> Iterable[bytes]:
        sealer = self._key(connection, run_id)
        size = 0
        for row in connection.execute(SQL["segments_after"], {"run_id": run_id, "after": after}):
            first = row["first_seq"]
            body = sealer.open(f"{run_id}/{first}", row["body"])
            # JSON holds no raw line feed, so a blank line ends a frame and nothing else.
            frames = [frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]]
            yield from frames[max(0, after + 1 - first) :]
            size += len(body)
            if bound is not None and size >= bound:
                return

    async def find_items(self, caller: str, ids: Collection[str]) -> Mapping[str, bytes]:
        def work(connection: sqlite3.Connection) -> Mapping[str, bytes]:
            found: dict[str, bytes] = {}
            for item_id in ids:
                values = {"caller": caller, "item_id": item_id}
                place = connection.execute(SQL["find_item"], values).fetchone()
                row = None if place is None else self._row(connection, place["run_id"], caller)
                item = None if row is None else item_of(self._run(connection, row), item_id)
                if item is not None:
                    found[item_id] = item
            return found

        return await self._read(work)

    async def remember(self, remote: Remote) -> bool:
        return await self._changed("remember", asdict(remote))

    async def locate(self, response_id: str, *, caller: str) -> Remote | None:
        values = {"id": response_id, "caller": caller, "now": self._now()}
        row = await self._read(lambda c: c.execute(SQL["locate"], values).fetchone())
        return None if row is None else Remote(**dict(row))

    async def forget(self, response_id: str, *, caller: str) -> None:
        await self._changed("forget", {"id": response_id, "caller": caller})

    async def abandoned(self, *, owner: str) -> Sequence[str]:
        return await self._read(
            lambda c: [row["id"] for row in c.execute(SQL["abandoned"], {"owner": owner})]
        )

    async def unfinished_of_others(self, callers: Collection[str]) -> Sequence[str]:
        return await self._read(
            lambda c: [row["id"] for row in c.execute(SQL["unfinished"]) if row[1] not in callers]
        )

    async def counts(self) -> Mapping[str, int]:
        row: Any = await self._read(lambda c: c.execute(SQL["counts"]).fetchone())
        return {"waiting": row[0], "running": row[1]}
