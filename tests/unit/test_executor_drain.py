"""The executor in this process: what it gives back when it is told to stop."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handrail.core.admission import Limits
from handrail.core.lifecycle import State
from handrail.engine.executors import LocalExecutor
from handrail.store.base import Run
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.contract.runs import limits
from tests.unit.test_journal import new_run


class Gated(SqliteStore):
    """A real store whose claims are answered only when the gate is open."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, vault=Vault(bytes(32)), now=lambda: 1.0)
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()

    async def claim(self, *, owner: str, limits: Limits) -> Run | None:
        run = await super().claim(owner=owner, limits=limits)
        self.asked.set()
        await self.gate.wait()
        return run


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Gated]:
    store = Gated(tmp_path / "runs.db")
    store.open()
    await store.accept(new_run("r1"), limits=limits())
    yield store
    await store.close()


async def nothing_to_do(_: Run) -> None:
    raise AssertionError("this run must not be executed")


async def test_a_run_that_is_claimed_while_the_drain_begins_goes_back_into_the_queue(
    store: Gated,
) -> None:
    executor = LocalExecutor(owner="me", store=store, execute=nothing_to_do, limits=limits)
    claiming = asyncio.create_task(executor.start())
    await store.asked.wait()
    draining = asyncio.create_task(executor.drain(0))
    await asyncio.sleep(0)
    store.gate.set()
    await draining
    await claiming
    run = await store.get("r1", caller="ann")
    assert run is not None
    assert run.state is State.QUEUED
    assert await store.counts() == {"waiting": 1, "running": 0}
