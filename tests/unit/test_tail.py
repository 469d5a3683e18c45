"""A reader of a run that is told of something while it is busy with what came before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from handrail.core.fold import Fold
from handrail.core.lifecycle import State
from handrail.engine.closing import closing
from handrail.engine.tail import Tails
from handrail.store.runs import SLICE_BYTES
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.contract.runs import ending, frames, limits
from tests.unit.test_journal import new_run

NEVER = 3_600.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "runs.db", vault=Vault(bytes(32)), now=lambda: 1.0)
    store.open()
    yield store
    await store.close()


async def test_a_reader_that_is_still_writing_hears_of_an_end_from_outside(
    store: SqliteStore,
) -> None:
    await store.accept(new_run("run"), limits=limits())
    tails = Tails(store, heartbeat_seconds=NEVER)
    async with aclosing(tails.follow("run", caller="ann", after=-1)) as chunks:
        async with asyncio.timeout(5):
            first = await anext(chunks)
            # Now the reader's network takes its time, and somebody cancels.
            await store.conclude(
                "run",
                caller="ann",
                close=lambda run, _: closing(run, State.CANCELLED, fold=Fold(), now=1.0),
            )
            tails.changed("run")
            rest = await anext(chunks)
    assert first.count(b"\n\n") == 2
    assert rest.startswith(b"event: response.failed\n")


async def test_a_reader_that_is_still_writing_hears_of_a_deletion(store: SqliteStore) -> None:
    await store.accept(new_run("run"), limits=limits())
    tails = Tails(store, heartbeat_seconds=NEVER)
    chunks = tails.follow("run", caller="ann", after=-1)
    async with asyncio.timeout(5):
        await anext(chunks)
        await store.delete("run", caller="ann")
        tails.changed("run")
        assert [chunk async for chunk in chunks] == []


async def test_a_log_that_is_longer_than_one_read_comes_without_a_pause(
    store: SqliteStore,
) -> None:
    await store.accept(new_run("run"), limits=limits())
    run = await store.claim(owner="me", limits=limits())
    assert run is not None
    await store.begin("run", run.fence, now=1.0, segment=frames(2))
    for number in (3, 4, 5):
        await store.append("run", run.fence, frames(number, text="x" * SLICE_BYTES))
    await store.finish("run", run.fence, ending(6))
    tails = Tails(store, heartbeat_seconds=NEVER)
    async with asyncio.timeout(5):
        parts = [part async for part in tails.follow("run", caller="ann", after=1)]
    assert b"".join(parts).count(b"\n\n") == 5
    assert len(parts) > 2
