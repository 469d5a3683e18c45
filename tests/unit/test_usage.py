"""The counts behind the quotas, held against what is really there after every kind of change."""

import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handrail.core.lifecycle import State
from handrail.core.quota import Quota
from handrail.errors import HandrailError
from handrail.store.migrate import migrate, migrations, statements
from handrail.store.queries import load
from handrail.store.rows import SQL
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.contract.runs import Now, accept, close_as, ending, frames, limits

CALLERS = ("ann", "bob", "cyd")


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
async def store(tmp_path: Path, now: Now) -> AsyncIterator[SqliteStore]:
    quota = Quota(max_bytes=60_000, caller_bytes={"ann": 12_000})
    opened = SqliteStore(tmp_path / "runs.db", vault=Vault(bytes(32)), now=now, quota=lambda: quota)
    opened.open()
    yield opened
    await opened.close()


def counts(path: Path, query: str) -> list[tuple[str, int, int]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(SQL[query]).fetchall()
    finally:
        connection.close()


class Changes:
    """Random changes of a store, some of which its quotas refuse."""

    def __init__(self, store: SqliteStore, now: Now, *, seed: int) -> None:
        self.store = store
        self.now = now
        self.random = random.Random(seed)
        self.begun: dict[str, tuple[int, int]] = {}  # id -> fence, next number
        self.refused = 0

    async def one(self, number: int) -> None:
        """One change of a random kind; a refusal is counted."""
        kinds = (self.accept, self.accept, self.begin, self.append, self.finish, self.cancel)
        kind = self.random.choice((*kinds, self.delete, self.expire))
        try:
            await kind(f"r{number}")
        except HandrailError:
            self.refused += 1

    async def accept(self, run_id: str) -> None:
        await accept(self.store, run_id, caller=self.random.choice(CALLERS))

    async def begin(self, _: str) -> None:
        run = await self.store.claim(owner="me", limits=limits())
        if run is not None and await self.store.begin(
            run.id, run.fence, now=1.0, segment=frames(2)
        ):
            self.begun[run.id] = (run.fence, 3)

    async def append(self, _: str) -> None:
        for run_id, (fence, first) in self.begun.items():
            segment = frames(first, self.random.randint(1, 9), "x" * self.random.randint(1, 200))
            if await self.store.append(run_id, fence, segment):
                self.begun[run_id] = (fence, segment.last + 1)

    async def finish(self, _: str) -> None:
        if self.begun:
            run_id = self.random.choice(list(self.begun))
            fence, first = self.begun.pop(run_id)
            seconds = self.random.choice((5, 1_000))
            await self.store.finish(run_id, fence, ending(first, kept_seconds=seconds))

    async def cancel(self, _: str) -> None:
        for caller in CALLERS:
            run_id = f"r{self.random.randint(0, 300)}"
            await self.store.conclude(run_id, caller=caller, close=close_as(State.CANCELLED))
            self.begun.pop(run_id, None)

    async def delete(self, _: str) -> None:
        for caller in CALLERS:
            run_id = f"r{self.random.randint(0, 300)}"
            if await self.store.delete(run_id, caller=caller):
                self.begun.pop(run_id, None)

    async def expire(self, _: str) -> None:
        self.now.seconds += 1
        await self.store.sweep(limit=10)


async def test_the_counts_are_true_after_every_change(
    store: SqliteStore, now: Now, tmp_path: Path
) -> None:
    changes = Changes(store, now, seed=4)
    for number in range(300):
        await changes.one(number)
        if number % 10 == 0:
            path = tmp_path / "runs.db"
            assert counts(path, "counted") == counts(path, "recount"), f"after {number}"
    assert changes.refused > 5
    assert len(counts(tmp_path / "runs.db", "counted")) == 1 + len(CALLERS)


async def test_a_store_from_before_is_counted_when_it_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path, isolation_level=None)
    number = next(n for n, name in enumerate(migrations()) if "usage" in name)
    for name in migrations()[:number]:
        for statement in statements(load(name)):
            connection.execute(statement)
    connection.execute(f"pragma user_version = {number}")
    connection.execute("pragma application_id = 0x48524C31")
    for run_id, caller in (("r1", "ann"), ("r2", "ann"), ("r3", "bob")):
        connection.execute(
            "insert into runs (id, caller, state, created_at, target, plan, wrapped_key, request,"
            " response, last_seq) values (?, ?, 'queued', 1, 't', x'01', x'0202', x'030303',"
            " x'04040404', 1)",
            (run_id, caller),
        )
    for first in (0, 1):
        connection.execute("insert into segments values ('r1', ?, ?, zeroblob(100))", (first,) * 2)
    migrate(connection, path=str(path))
    connection.close()
    assert counts(path, "counted") == [("", 230, 3), ("ann", 220, 2), ("bob", 10, 1)]
    assert counts(path, "recount") == counts(path, "counted")
