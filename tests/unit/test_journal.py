"""The event log of one run: numbers, groups, and what happens when the store says no."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handrail.core import wire
from handrail.core.events import Event, event, lifecycle_event
from handrail.core.lifecycle import State
from handrail.core.policy import Mode, Plan
from handrail.core.retry import Cause
from handrail.engine.clock import SystemClock
from handrail.engine.journal import Journal, RunLog
from handrail.engine.tail import Tails
from handrail.errors import Code, StoreFailed
from handrail.store.base import NewRun, Repeat, Run, Segment
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.contract.runs import limits

PLAN = Plan(mode=Mode.BACKGROUND, stream=False, store=True, retention_seconds=60, reasons=())


class Gated(SqliteStore):
    """A real store whose appends wait for a gate, or fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, vault=Vault(bytes(32)), now=lambda: 1.0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.problem: StoreFailed | None = None

    async def append(self, run_id: str, fence: int, segment: Segment) -> bool:
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return await super().append(run_id, fence, segment)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Gated]:
    store = Gated(tmp_path / "runs.db")
    store.open()
    yield store
    await store.close()


def new_run(run_id: str, *, repeat: Repeat | None = None) -> NewRun:
    return NewRun(
        repeat=repeat,
        id=run_id,
        caller="ann",
        created_at=1.0,
        target="t",
        plan=wire.encode(PLAN),
        request=b"{}",
        response=b'{"id":"r1","object":"response","created_at":1,"background":true,"store":true,'
        b'"metadata":{},"status":"queued","previous_response_id":null}',
        opening=Segment(first=0, frames=(opened(0), opened(1))),
    )


def opened(number: int) -> bytes:
    """One of the events that the gateway itself writes at the beginning."""
    return lifecycle_event("response.queued", {"output": wire.raw([])}, number=number).frame


async def log_of_a_begun_run(store: Gated) -> RunLog:
    await store.accept(new_run("r1"), limits=limits())
    claimed = await store.claim(owner="me", limits=limits())
    assert isinstance(claimed, Run)
    clock = SystemClock()
    journal = Journal(store=store, tails=Tails(store, heartbeat_seconds=1), clock=clock)
    log = journal.open(claimed)
    assert await log.begin(event("response.in_progress", {"sequence_number": wire.raw(2)}))
    return log


def delta(text: str) -> Event:
    return event("response.output_text.delta", {"delta": wire.raw(text)})


async def numbers(store: Gated) -> list[int]:
    part = await store.read("r1", after=2, caller="ann")
    assert part is not None
    return [json.loads(f.split(b"\ndata: ")[1])["sequence_number"] for f in part.frames]


async def test_events_that_come_while_others_are_being_written_get_the_next_numbers(
    store: Gated,
) -> None:
    log = await log_of_a_begun_run(store)
    store.gate.clear()
    log.add(delta("a"))
    log.add(delta("b"))
    writing = asyncio.create_task(log.flush())
    await asyncio.sleep(0)
    log.add(delta("c"))
    store.gate.set()
    await writing
    log.add(delta("d"))
    await log.flush()
    assert await log.close(State.COMPLETED)
    assert await numbers(store) == [3, 4, 5, 6, 7]


async def test_closing_while_a_write_is_under_way_waits_for_it_and_loses_nothing(
    store: Gated,
) -> None:
    log = await log_of_a_begun_run(store)
    store.gate.clear()
    log.add(delta("a"))
    writing = asyncio.create_task(log.flush())
    await asyncio.sleep(0)
    log.add(delta("b"))
    closing = asyncio.create_task(log.close(State.COMPLETED))
    store.gate.set()
    await asyncio.gather(writing, closing)
    assert await numbers(store) == [3, 4, 5]


async def test_a_write_that_fails_aborts_the_execution_and_keeps_the_events_for_the_end(
    store: Gated,
) -> None:
    log = await log_of_a_begun_run(store)
    aborted: list[bool] = []
    store.problem = StoreFailed(Code.STORAGE_FULL, "full")
    log.add(delta("a"))
    with log.aborting(lambda: aborted.append(True)):
        await log.flush()
    assert log.problem is store.problem
    assert aborted == [True]
    assert await log.close(State.FAILED)
    assert await numbers(store) == [3, 4]


async def test_an_execution_that_was_shut_out_learns_of_it_and_writes_nothing(
    store: Gated,
) -> None:
    log = await log_of_a_begun_run(store)
    aborted: list[bool] = []
    assert await store.delete("r1", caller="ann")
    log.add(delta("a"))
    with log.aborting(lambda: aborted.append(True)):
        await log.flush()
    assert log.fenced
    assert aborted == [True]
    assert not await log.close(State.COMPLETED)


async def test_starting_over_forgets_what_was_read_and_goes_on_under_a_new_fence(
    store: Gated,
) -> None:
    log = await log_of_a_begun_run(store)
    before = log.run
    log.add(delta("of the first"))
    log.fold.apply(event("response.created", {"response": wire.raw({"model": "first"})}))
    assert await log.start_over()
    assert (log.pending, log.bytes, log.begun, log.fold.snapshot) == (False, 0, False, {})
    await log.flush()
    assert await numbers(store) == []
    assert await log.begin_again(Cause.ENDED_EARLY)
    assert (log.run.attempt, log.run.fence > before.fence) == (2, True)
    log.add(delta("of the second"))
    assert await log.close(State.COMPLETED)
    part = await store.read("r1", after=2, caller="ann")
    assert part is not None
    assert b"of the second" in part.frames[0]
    assert await numbers(store) == [3, 4]


async def test_starting_over_waits_for_a_write_under_way_and_gives_in_to_it(store: Gated) -> None:
    log = await log_of_a_begun_run(store)
    store.gate.clear()
    log.add(delta("a"))
    writing = asyncio.create_task(log.flush())
    await asyncio.sleep(0)
    log.add(delta("b"))
    starting = asyncio.create_task(log.start_over())
    store.gate.set()
    await writing
    assert not await starting
    assert log.begun
    assert await log.close(State.FAILED)
    assert await numbers(store) == [3, 4, 5]


async def test_an_execution_that_was_shut_out_has_no_other_call_or_attempt(store: Gated) -> None:
    for again in ("call_again", "begin_again"):
        log = await log_of_a_begun_run(store)
        assert await store.delete("r1", caller="ann")
        assert not await getattr(log, again)(Cause.REFUSED)
        assert log.fenced
