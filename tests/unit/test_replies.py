"""Notes about replies: the latest counts, and a store that cannot take them stops nothing."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from handrail.engine.clock import SystemClock
from handrail.engine.replies import Replies
from handrail.errors import Code, StoreFailed
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault


class Waiting(SystemClock):
    """A clock whose sleep ends when a test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.over = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asked.set()
        await self.over.wait()


class Noting(SqliteStore):
    """A real store that tells what it was told, or fails."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, vault=Vault(bytes(32)), now=lambda: 1.0)
        self.told: list[Mapping[str, bool]] = []
        self.problem: StoreFailed | None = None

    async def answered(self, notes: Mapping[str, bool]) -> None:
        if self.problem is not None:
            raise self.problem
        self.told.append(dict(notes))
        await super().answered(notes)


async def test_notes_are_written_together_and_the_latest_of_each_run_counts(tmp_path: Path) -> None:
    store = Noting(tmp_path / "runs.db")
    store.open()
    replies = Replies(store, clock=SystemClock())
    replies.note("r1", answered=True)
    replies.note("r2", answered=True)
    replies.note("r1", answered=False)
    await replies.settle()
    await replies.settle()
    assert store.told == [{"r1": False, "r2": True}]
    await store.close()


async def test_a_store_that_fails_loses_its_notes_and_nothing_more(tmp_path: Path) -> None:
    store = Noting(tmp_path / "runs.db")
    store.open()
    clock = Waiting()
    replies = Replies(store, clock=clock)
    looping = asyncio.create_task(replies.loop())
    store.problem = StoreFailed(Code.STORAGE_FULL, "full")
    replies.note("r1", answered=True)
    await replies.settle()
    store.problem = None
    replies.note("r2", answered=True)
    await clock.asked.wait()
    assert store.told == []
    clock.over.set()
    while not store.told:
        await asyncio.sleep(0)
    assert store.told == [{"r2": True}]
    looping.cancel()
    await asyncio.wait([looping])
    await store.close()


async def test_a_note_is_not_written_before_it_has_had_time_to_change(tmp_path: Path) -> None:
    store = Noting(tmp_path / "runs.db")
    store.open()
    clock = Waiting()
    replies = Replies(store, clock=clock)
    looping = asyncio.create_task(replies.loop())
    replies.note("old", answered=True)
    await clock.asked.wait()
    replies.note("new", answered=True)
    replies.note("old", answered=False)
    clock.over.set()
    while len(store.told) < 2:
        await asyncio.sleep(0)
    assert store.told == [{"old": False}, {"new": True}]
    looping.cancel()
    await asyncio.wait([looping])
    await store.close()
