"""Fault row 19: the wall clock jumps, and nothing expires early."""

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from handrail.core import idempotency, wire
from handrail.core.lifecycle import State
from handrail.core.request_options import RequestOptions
from handrail.engine.background import Accepted, Background
from handrail.engine.budgets import Budgets
from handrail.engine.history import Conversation
from handrail.engine.journal import RunLog
from handrail.engine.tail import Tails
from handrail.errors import RequestRejected, StoreFailed
from handrail.store.base import Repeat
from handrail.store.kept_time import KeptTime
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.clocks import HandClock
from tests.contract.runs import ending, limits, started
from tests.contract.test_store import remote
from tests.unit.test_compactor import TARGET
from tests.unit.test_journal import PLAN, new_run
from tests.unit.test_recovery import NoExecutor

T = TypeVar("T")

HOUR, DAY = 3_600.0, 86_400.0
JUMPS = [HOUR, -HOUR, DAY, -DAY]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@asynccontextmanager
async def opened(path: Path, clock: HandClock) -> AsyncIterator[SqliteStore]:
    """The store of one process."""
    store = SqliteStore(
        path / "runs.db", vault=Vault(bytes(32)), now=clock.now, monotonic=clock.monotonic
    )
    store.open()
    yield store
    await store.close()


async def kept(store: SqliteStore, run_id: str, *, seconds: float) -> None:
    """A run that has ended and is kept for so long."""
    run = await started(store, run_id)
    assert await store.finish(run.id, run.fence, ending(3, kept_seconds=seconds))


async def is_kept(store: SqliteStore, run_id: str) -> bool:
    """Whether it can be read, after everything that has expired was destroyed."""
    readable = await store.get(run_id, caller="ann") is not None
    await store.sweep(limit=1_000)
    assert (await store.get(run_id, caller="ann") is not None) is readable
    return readable


def left_by_a_kill(directory: Path) -> Path:
    """What a process that is killed now leaves, in a directory of its own."""
    copy = directory / "copy"
    copy.mkdir()
    for name in ("runs.db", "runs.db-wal"):
        (copy / name).write_bytes((directory / name).read_bytes())
    return copy


def time_of(clock: HandClock) -> KeptTime:
    time = KeptTime(wall=clock.now, monotonic=clock.monotonic)
    time.begin(None)
    assert time.moved()  # nothing is known of it yet
    time.written(time.saved())
    return time


def test_it_is_the_wall_clocks_time_until_that_jumps(clock: HandClock) -> None:
    time = time_of(clock)
    clock.passes(10)
    assert time.now() == clock.wall
    assert not time.moved()


@pytest.mark.parametrize("jump", JUMPS)
def test_a_jump_moves_nothing(clock: HandClock, jump: float) -> None:
    time = time_of(clock)
    clock.wall += jump
    clock.passes(10)
    assert time.now() == 1_000_010
    assert time.moved()
    saved = time.saved()
    assert time.moved()  # what is to be saved is not yet saved
    time.written(saved)
    assert not time.moved()


@pytest.mark.parametrize(
    ("wall", "goes_on_by"), [(0.0, 0.0), (300.0, 300.0), (DAY, DAY), (-DAY, 0.0)]
)
def test_over_a_restart_it_goes_on_as_the_wall_clock_did_and_never_back(
    clock: HandClock, wall: float, goes_on_by: float
) -> None:
    before = time_of(clock)
    clock.wall += DAY  # which it learnt to leave out
    saved = before.saved()
    clock.wall += wall
    clock.mono = 3.0  # of another boot
    after = KeptTime(wall=clock.now, monotonic=clock.monotonic)
    after.begin(saved)
    assert after.now() == 1_000_000 + goes_on_by


@pytest.mark.parametrize("jump", JUMPS)
async def test_nothing_expires_by_a_jump_and_everything_by_time(
    tmp_path: Path, clock: HandClock, jump: float
) -> None:
    async with opened(tmp_path, clock) as store:
        await kept(store, "before", seconds=HOUR)
        clock.wall += jump
        await kept(store, "after", seconds=HOUR)
        assert await is_kept(store, "before")
        assert await is_kept(store, "after")
        clock.wall -= jump
        assert await is_kept(store, "before")
        assert await is_kept(store, "after")
        clock.passes(HOUR - 1)
        assert await is_kept(store, "before")
        assert await is_kept(store, "after")
        clock.passes(2)
        assert not await is_kept(store, "before")
        assert not await is_kept(store, "after")


async def test_twenty_jumps_and_as_many_restarts_expire_nothing_early(
    tmp_path: Path, clock: HandClock
) -> None:
    jumps = random.Random(19)
    passed = 0.0
    kept_since: dict[str, float] = {}
    for number in range(20):
        async with opened(tmp_path, clock) as store:
            await kept(store, f"r{number}", seconds=HOUR)
            kept_since[f"r{number}"] = passed
            clock.wall += jumps.choice(JUMPS)
            clock.passes(400)
            passed += 400
            for run_id, since in kept_since.items():
                assert await is_kept(store, run_id) is (passed - since < HOUR), (number, run_id)
        clock.passes(50)  # without a process
        passed += 50


async def test_a_jump_is_written_down_with_the_next_write_so_that_a_kill_loses_nothing(
    tmp_path: Path, clock: HandClock
) -> None:
    async with opened(tmp_path, clock) as store:
        await kept(store, "r1", seconds=HOUR)
        clock.wall += DAY
        await store.accept(new_run("r2"), limits=limits())
        killed = left_by_a_kill(tmp_path)
    async with opened(killed, clock) as store:
        assert await is_kept(store, "r1")


async def test_a_jump_that_a_refused_write_was_to_write_down_is_written_down_with_the_next(
    tmp_path: Path, clock: HandClock
) -> None:
    async with opened(tmp_path, clock) as store:
        clock.wall += DAY
        with pytest.raises(RequestRejected):
            await store.accept(new_run("refused"), limits=limits(queued=0))
        await kept(store, "r1", seconds=HOUR)
        killed = left_by_a_kill(tmp_path)
    async with opened(killed, clock) as store:
        assert await is_kept(store, "r1")


async def test_a_jump_that_a_failing_write_was_to_write_down_is_written_down_with_the_next(
    tmp_path: Path, clock: HandClock
) -> None:
    def fails(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database is locked")

    async with opened(tmp_path, clock) as store:
        clock.wall += DAY
        with pytest.raises(StoreFailed):
            await store._write(fails)
        await kept(store, "r1", seconds=HOUR)
        killed = left_by_a_kill(tmp_path)
    async with opened(killed, clock) as store:
        assert await is_kept(store, "r1")


@pytest.mark.parametrize("jump", JUMPS)
async def test_keys_and_places_expire_by_time_alone_too(
    tmp_path: Path, clock: HandClock, jump: float
) -> None:
    async with opened(tmp_path, clock) as store:
        repeat = Repeat(key="k", digest=b"d", kept_seconds=HOUR)
        await store.accept(new_run("r1", repeat=repeat), limits=limits())
        await store.delete("r1", caller="ann")
        assert await store.remember(remote(), kept_seconds=HOUR)
        clock.wall += jump
        await store.sweep(limit=10)
        assert await store.locate("resp_far", caller="ann") is not None
        with pytest.raises(Exception, match="no longer kept"):
            await store.accept(new_run("r2", repeat=repeat), limits=limits())
        clock.passes(HOUR + 1)
        assert await store.locate("resp_far", caller="ann") is None
        assert await store.accept(new_run("r3", repeat=repeat), limits=limits()) == "r3"


async def while_the_disk_is_slow(
    store: SqliteStore, clock: HandClock, work: Coroutine[Any, Any, T], *, jump: float
) -> T:
    """What `work` gives, whose write was handed in before the wall clock jumped, and done after."""
    busy, done = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def flush(_: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(busy.set)
        assert done.wait(10)

    flushing = asyncio.create_task(store._writer.run(flush))
    await busy.wait()
    working = asyncio.create_task(work)
    while store._writer._queue.empty():
        await asyncio.sleep(0)
    clock.wall += jump
    done.set()
    await flushing
    return await working


@pytest.mark.parametrize("jump", JUMPS)
async def test_an_end_that_waits_for_the_disk_while_the_wall_clock_jumps_is_kept_as_long_as_any(
    tmp_path: Path, clock: HandClock, jump: float
) -> None:
    async with opened(tmp_path, clock) as store:
        await store.accept(new_run("r1"), limits=limits())
        run = await store.claim(owner="me", limits=limits())
        assert run is not None
        tails = Tails(store, heartbeat_seconds=1)
        log = RunLog(run, store=store, tails=tails, clock=clock)
        assert await while_the_disk_is_slow(store, clock, log.close(State.FAILED), jump=jump)
        clock.passes(PLAN.retention_seconds - 1)
        assert await is_kept(store, "r1")
        clock.passes(2)
        assert not await is_kept(store, "r1")


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_key_whose_create_waits_for_the_disk_while_the_wall_clock_jumps_is_known_as_long(
    tmp_path: Path, clock: HandClock, jump: float
) -> None:
    async with opened(tmp_path, clock) as store:
        ids = iter(["r1", "r2", "r3"])
        background = Background(
            store=store,
            executor=NoExecutor(),
            tails=Tails(store, heartbeat_seconds=1),
            clock=clock,
            budgets=Budgets(now=clock.now),
        )

        def create() -> Coroutine[Any, Any, Accepted]:
            return background.submit(
                Conversation.alone(wire.read_create(b'{"model":"m","input":"hi"}')),
                plan=PLAN,
                caller="ann",
                targets=[TARGET],
                limits=limits(),
                options=RequestOptions(key="k"),
                response_id=next(ids),
            )

        assert (await while_the_disk_is_slow(store, clock, create(), jump=jump)).id == "r1"
        await store.delete("r1", caller="ann")
        clock.passes(idempotency.KEPT_SECONDS - 1)
        await store.sweep(limit=10)
        with pytest.raises(RequestRejected, match="no longer kept"):
            await create()
        clock.passes(2)
        assert (await create()).id == "r3"
