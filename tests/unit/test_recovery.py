"""Taking over from a process that died, one damaged run included."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handrail.core import events, wire
from handrail.core.caller_policy import CrashPolicy
from handrail.core.lifecycle import State
from handrail.core.retry import MAX_ATTEMPTS, Cause
from handrail.core.wire import Body
from handrail.engine.background import Accepted, Background
from handrail.engine.budgets import Budgets
from handrail.engine.clock import SystemClock
from handrail.engine.recovery import Recovery
from handrail.engine.tail import Tails
from handrail.errors import Code, StoreFailed
from handrail.store.base import Run, Segment, Slice, Store
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.conftest import eventually
from tests.contract.runs import limits
from tests.unit.test_journal import PLAN, new_run, opened

PROGRESS = Segment(first=2, frames=(opened(2),))


class NoExecutor:
    """An executor with nothing under way; counts how often it is woken."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    async def cancel(self, run_id: str) -> None:
        raise AssertionError(f"{run_id} runs nowhere")

    async def start(self) -> None:
        """Nothing to start."""

    async def drain(self, seconds: float) -> None:
        """Nothing to drain."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "runs.db", vault=Vault(bytes(32)), now=lambda: 1.0)
    store.open()
    yield store
    await store.close()


async def recovered(store: Store) -> NoExecutor:
    executor = NoExecutor()
    background = Background(
        store=store,
        executor=executor,
        tails=Tails(store, heartbeat_seconds=1),
        clock=SystemClock(),
        budgets=Budgets(now=lambda: 0.0),
    )
    await background.recover(owner="the new process")
    return executor


async def claimed(store: Store, run_id: str) -> Run:
    await store.accept(new_run(run_id), limits=limits())
    run = await store.claim(owner="the dead process", limits=limits())
    assert run is not None
    return run


async def test_what_had_not_begun_waits_again_and_what_had_begun_ends_with_its_output(
    store: SqliteStore,
) -> None:
    await claimed(store, "waiting")
    begun = await claimed(store, "begun")
    await store.begin(begun.id, begun.fence, now=1.0, segment=PROGRESS)
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    heard = [
        events.event(
            "response.output_text.delta",
            {name: wire.raw(value) for name, value in {**at, "delta": word}.items()},
        )
        for word in ("half ", "an answer")
    ]
    frames_heard = tuple(event.numbered(3 + n).frame for n, event in enumerate(heard))
    await store.append(begun.id, begun.fence, Segment(first=3, frames=frames_heard))
    executor = await recovered(store)
    assert executor.woken == 1
    waiting = await store.get("waiting", caller="ann")
    ended = await store.get("begun", caller="ann")
    assert waiting is not None
    assert ended is not None
    assert (waiting.state, ended.state) == (State.QUEUED, State.FAILED)
    body = msgspec.json.decode(ended.response, type=Body)
    assert b'"worker_lost"' in bytes(body["error"])
    assert b'"half an answer"' in bytes(body["output"])
    assert ended.last_seq == 5
    again = await store.claim(owner="the new process", limits=limits())
    assert again is not None
    assert again.id == "waiting"


async def claimed_under_retry(store: Store, run_id: str) -> Run:
    """A run that has begun under the policy `retry`."""
    plan = replace(PLAN, crash=CrashPolicy.RETRY)
    await store.accept(replace(new_run(run_id), plan=wire.encode(plan)), limits=limits())
    run = await store.claim(owner="the dead process", limits=limits())
    assert run is not None
    assert await store.begin(run.id, run.fence, now=1.0, segment=PROGRESS)
    return run


async def test_under_retry_what_had_begun_waits_again_while_nothing_is_visible(
    store: SqliteStore,
) -> None:
    await claimed_under_retry(store, "unseen")
    seen = await claimed_under_retry(store, "seen")
    assert await store.append(seen.id, seen.fence, Segment(first=3, frames=(opened(3),)))
    await recovered(store)
    unseen = await store.get("unseen", caller="ann")
    ended = await store.get("seen", caller="ann")
    assert unseen is not None
    assert ended is not None
    assert (unseen.state, ended.state) == (State.IN_PROGRESS, State.FAILED)
    assert b'"worker_lost"' in ended.response
    again = await store.claim(owner="the new process", limits=limits())
    assert again is not None
    assert (again.id, again.attempt) == ("unseen", 1)
    assert await store.claim(owner="the new process", limits=limits()) is None


async def test_a_run_that_every_attempt_of_has_died_is_ended(store: SqliteStore) -> None:
    run = await claimed_under_retry(store, "deadly")
    fence: int | None = run.fence
    for attempts in range(2, MAX_ATTEMPTS + 1):
        assert fence is not None
        fence = await store.begin_again(run.id, fence, now=1.0, cause=Cause.WORKER_LOST)
        row = await store.get("deadly", caller="ann")
        assert row is not None
        assert (row.state, row.attempt) == (State.IN_PROGRESS, attempts)
    await recovered(store)
    row = await store.get("deadly", caller="ann")
    assert row is not None
    assert row.state is State.FAILED
    assert b'"worker_lost"' in row.response


async def test_what_a_dead_process_answered_in_the_foreground_ends_too(store: SqliteStore) -> None:
    made = replace(new_run("kept"), opening=Segment(first=0, frames=(opened(0), opened(1))))
    await store.keep(made, owner="the dead process")
    await recovered(store)
    ended = await store.get("kept", caller="ann")
    assert ended is not None
    assert (ended.state, ended.last_seq) == (State.FAILED, 2)
    assert b'"worker_lost"' in bytes(msgspec.json.decode(ended.response, type=Body)["error"])
    assert await store.claim(owner="the new process", limits=limits()) is None


async def test_recovering_twice_changes_nothing(store: SqliteStore) -> None:
    begun = await claimed(store, "begun")
    await store.begin(begun.id, begun.fence, now=1.0, segment=PROGRESS)
    await recovered(store)
    first = await store.get("begun", caller="ann")
    await recovered(store)
    assert await store.get("begun", caller="ann") == first


async def test_a_run_that_cannot_be_recovered_does_not_keep_the_others_from_it(
    store: SqliteStore, tmp_path: Path
) -> None:
    for name in ("broken", "whole"):
        run = await claimed(store, name)
        await store.begin(run.id, run.fence, now=1.0, segment=PROGRESS)

    def spoil(connection: object) -> None:
        connection.execute("update runs set plan = x'00' where id = 'broken'")  # type: ignore[attr-defined]

    await store._writer.run(spoil)
    await recovered(store)
    whole = await store.get("whole", caller="ann")
    assert whole is not None
    assert whole.state is State.FAILED


class Locked(SqliteStore):
    """A real store that cannot be used for so many writes from outside an execution."""

    def __init__(self, path: Path, *, failures: int) -> None:
        super().__init__(path, vault=Vault(bytes(32)), now=lambda: 1.0)
        self.failures = failures

    async def conclude(self, *arguments: Any, **named: Any) -> Run | None:
        if self.failures:
            self.failures -= 1
            raise StoreFailed(Code.STORE_UNAVAILABLE, "locked")
        return await super().conclude(*arguments, **named)


class Instant(SystemClock):
    """A clock on which waiting takes no time; remembers how long it should have taken."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)


async def test_what_a_sick_store_keeps_from_being_taken_over_is_tried_until_it_is_done(
    tmp_path: Path,
) -> None:
    store = Locked(tmp_path / "runs.db", failures=3)
    store.open()
    run = await claimed(store, "begun")
    await store.begin(run.id, run.fence, now=1.0, segment=PROGRESS)
    background = Background(
        store=store,
        executor=NoExecutor(),
        tails=Tails(store, heartbeat_seconds=1),
        clock=SystemClock(),
        budgets=Budgets(now=lambda: 0.0),
    )
    clock = Instant()
    recovery = Recovery(background, owner="the new process", callers=lambda: {"ann"}, clock=clock)
    recovering = asyncio.create_task(recovery.loop())
    await eventually(lambda: not store.failures)
    async with asyncio.timeout(5):
        while (ended := await store.get("begun", caller="ann")) is None or not ended.finished_at:
            await asyncio.sleep(0.005)
    recovering.cancel()
    await store.close()
    assert ended.state is State.FAILED
    assert clock.waits == [1.0, 2.0, 4.0]


class Unreadable(SqliteStore):
    """A store that can be written and not read."""

    async def read(self, run_id: str, *, after: int, caller: str) -> Slice | None:
        raise StoreFailed(Code.STORE_UNAVAILABLE, "unreadable")


async def test_the_first_events_of_an_accepted_run_are_shown_without_asking_the_store(
    store: SqliteStore,
) -> None:
    background = Background(
        store=store,
        executor=NoExecutor(),
        tails=Tails(Unreadable(Path("x"), vault=Vault(bytes(32)), now=float), heartbeat_seconds=1),
        clock=SystemClock(),
        budgets=Budgets(now=lambda: 0.0),
    )
    accepted = Accepted(id="r1", response=b"{}", steps=(), opening=(opened(0), opened(1)))
    stream = background.stream(accepted, caller="ann")
    assert await anext(stream) == opened(0) + opened(1)
    with pytest.raises(StoreFailed):
        await anext(stream)
