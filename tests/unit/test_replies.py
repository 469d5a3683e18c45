"""Notes about replies: the latest counts, and a store that cannot take them stops nothing."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from handrail.engine.replies import Replies
from handrail.errors import Code, StoreFailed
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault


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
    replies = Replies(store)
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
    replies = Replies(store)
    looping = asyncio.create_task(replies.loop())
    store.problem = StoreFailed(Code.STORAGE_FULL, "full")
    replies.note("r1", answered=True)
    await replies.settle()
    store.problem = None
    replies.note("r2", answered=True)
    while not store.told:
        await asyncio.sleep(0)
    assert store.told == [{"r2": True}]
    looping.cancel()
    await asyncio.wait([looping])
    await store.close()
