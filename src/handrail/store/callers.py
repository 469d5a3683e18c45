"""The keys of callers: a port, and SQLite behind it on the file that several processes share."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final, Protocol

from handrail.core.caller_keys import CallerKey, rotated
from handrail.store.queries import load, parse
from handrail.store.shared import SharedFile

SQL: Final = parse(load("accounts/keys.sql"))


class Keys(Protocol):
    """Where the keys of callers are kept. Every method is one transaction.

    Each raises StoreFailed when the file cannot do its work.
    """

    async def add(self, key: CallerKey) -> None:
        """Keep a new key, durably, before returning."""

    async def all(self) -> Sequence[CallerKey]:
        """Every key that was made, the oldest first."""

    async def revoke(self, key_id: str, *, now: float) -> CallerKey | None:
        """Make a key open nothing, durably; how it stands then. None when there is none."""

    async def rotate(
        self, key_id: str, *, new_id: str, digest: bytes, now: float, overlap: float
    ) -> tuple[CallerKey, CallerKey] | None:
        """Give a key a successor by `core.caller_keys.rotated`: the new one and the old one.

        None when there is none. Raises RequestRejected for one that opens nothing any more.
        """

    async def used(self, times: Mapping[str, float]) -> None:
        """Write down when keys, by id, were used last."""

    async def changes(self) -> int:
        """A number that is another one after another process has changed the file."""


class SqliteKeys:
    """`Keys` on a shared file."""

    def __init__(self, file: SharedFile) -> None:
        self._file = file

    async def add(self, key: CallerKey) -> None:
        """See the port."""
        await self._file.run(lambda connection: _add(connection, key))

    async def all(self) -> Sequence[CallerKey]:
        """See the port."""
        return await self._file.read(
            lambda connection: [_row(row) for row in connection.execute(SQL["keys"])]
        )

    async def revoke(self, key_id: str, *, now: float) -> CallerKey | None:
        """See the port."""

        def work(connection: sqlite3.Connection) -> CallerKey | None:
            connection.execute(SQL["revoke_key"], {"id": key_id, "now": now})
            return _one(connection, key_id)

        return await self._file.run(work)

    async def rotate(
        self, key_id: str, *, new_id: str, digest: bytes, now: float, overlap: float
    ) -> tuple[CallerKey, CallerKey] | None:
        """See the port."""

        def work(connection: sqlite3.Connection) -> tuple[CallerKey, CallerKey] | None:
            old = _one(connection, key_id)
            if old is None:
                return None
            new, end = rotated(old, key_id=new_id, digest=digest, now=now, overlap=overlap)
            _add(connection, new)
            values = {"id": key_id, "expires_at": end}
            connection.execute(SQL["end_key"], values)
            ended = _one(connection, key_id)
            return None if ended is None else (new, ended)

        return await self._file.run(work)

    async def used(self, times: Mapping[str, float]) -> None:
        """See the port."""
        rows = [{"id": key_id, "at": at} for key_id, at in times.items()]
        await self._file.run(lambda connection: connection.executemany(SQL["use_key"], rows))

    async def changes(self) -> int:
        """See the port."""
        return await self._file.changes()


def _add(connection: sqlite3.Connection, key: CallerKey) -> None:
    connection.execute(SQL["add_key"], asdict(key))


def _one(connection: sqlite3.Connection, key_id: str) -> CallerKey | None:
    row = connection.execute(SQL["key"], {"id": key_id}).fetchone()
    return None if row is None else _row(row)


def _row(row: sqlite3.Row) -> CallerKey:
    return CallerKey(**dict(row))
