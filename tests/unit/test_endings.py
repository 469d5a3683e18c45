"""An end that has been decided is written, whatever fails or whoever leaves in that moment."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from handrail.core import wire
from handrail.core.lifecycle import State
from handrail.core.policy import Mode
from handrail.engine.clock import SystemClock
from handrail.engine.dispatch import Dispatcher
from handrail.engine.execution import Execution
from handrail.engine.history import Conversation
from handrail.engine.journal import PENDING_BYTES, Journal
from handrail.engine.kept import KeptForeground
from handrail.engine.meter import Attribution
from handrail.engine.opening import Opening
from handrail.engine.tail import Tails
from handrail.engine.targets import Targets
from handrail.engine.ways import Place
from handrail.errors import Code, StoreFailed
from handrail.store.base import Closing, Run, Segment
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from handrail.upstream.client import UpstreamCall
from tests.contract.runs import limits
from tests.unit.test_compactor import TARGET
from tests.unit.test_journal import PLAN

CREATE = wire.read_create(b'{"model":"m","input":"hi"}')
ITEM = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress"}


def said(kind: str, **fields: object) -> bytes:
    """An event as the upstream writes it."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


class Reply:
    """An upstream's stream: its first item at once, its end when a test says so."""

    status = 200

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {"content-type": "text/event-stream"}
        self.over = asyncio.Event()
        self.closed = asyncio.Event()
        self.parts = [
            said("response.output_item.added", output_index=0, item={**ITEM, "content": []}),
            said("response.completed", response={"id": "r", "status": "completed", "output": []}),
        ]

    async def read(self, *, limit: int, idle_seconds: float) -> bytes:
        """Nobody reads it whole."""
        raise AssertionError

    async def slice(self) -> bytes:
        """The next part."""
        if len(self.parts) == 1:
            await self.over.wait()
        return self.parts.pop(0)

    async def finish(self) -> None:
        """Nothing is left."""

    def close(self) -> None:
        """What its reader has decided cannot change any more."""
        self.closed.set()


class Upstream:
    """Gives one reply."""

    def __init__(self) -> None:
        self.reply = Reply()

    async def send(self, call: UpstreamCall) -> Reply:
        """See the port."""
        return self.reply

    async def close(self) -> None:
        """See the port."""


class Sick(SqliteStore):
    """A real store whose appends and ends wait until a test lets them; it may be locked by then."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, vault=Vault(bytes(32)), now=lambda: 1.0)
        self.locked = False
        self.appending, self.may_append = asyncio.Event(), asyncio.Event()
        self.ending, self.may_end = asyncio.Event(), asyncio.Event()

    async def append(self, run_id: str, fence: int, segment: Segment) -> bool:
        self.appending.set()
        await self.may_append.wait()
        if self.locked:
            raise StoreFailed(Code.STORE_UNAVAILABLE, "locked")
        return await super().append(run_id, fence, segment)

    async def finish(self, run_id: str, fence: int, closing: Closing) -> bool:
        self.ending.set()
        await self.may_end.wait()
        return await super().finish(run_id, fence, closing)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Sick]:
    store = Sick(tmp_path / "runs.db")
    store.open()
    yield store
    await store.close()


class Engine:
    """What carries runs out on that store, with one upstream."""

    def __init__(self, store: Sick) -> None:
        self.store = store
        self.upstream = Upstream()
        self.clock = SystemClock()
        self.tails = Tails(store, heartbeat_seconds=60)
        self.journal = Journal(store=store, tails=self.tails, clock=self.clock)
        self.execution = Execution(
            dispatcher=Dispatcher(self.upstream, clock=self.clock),
            journal=self.journal,
            store=store,
            targets=Targets([TARGET]),
            clock=self.clock,
            max_seconds=60.0,
            max_bytes=10 * PENDING_BYTES,
        )

    async def state(self, run_id: str) -> State:
        """How the run stands."""
        run = await self.store.get(run_id, caller="ann")
        assert run is not None
        return run.state


@pytest.fixture
async def engine(store: Sick) -> AsyncIterator[Engine]:
    engine = Engine(store)
    flushing = asyncio.create_task(engine.journal.loop())
    yield engine
    flushing.cancel()
    await asyncio.wait([flushing])


async def claimed(store: Sick) -> Run:
    """A run that is about to be carried out."""
    opening = Opening(id="r1", caller="ann", target=TARGET, now=1.0)
    await store.accept(opening.run(CREATE, PLAN), limits=limits())
    run = await store.claim(owner="me", limits=limits())
    assert run is not None
    return run


async def test_an_append_that_fails_when_the_end_is_decided_does_not_stop_the_end(
    engine: Engine,
) -> None:
    store, reply = engine.store, engine.upstream.reply
    store.locked = True
    running = asyncio.create_task(engine.execution.run(await claimed(store)))
    async with asyncio.timeout(5):
        await store.appending.wait()
        reply.over.set()
        await reply.closed.wait()
        store.may_append.set()
        await store.ending.wait()
        assert not running.cancelling()
        store.may_end.set()
        await running
    assert await engine.state("r1") is State.COMPLETED


async def test_a_large_part_that_cannot_be_kept_stops_its_reader_at_once_and_not_its_end(
    engine: Engine,
) -> None:
    store, reply = engine.store, engine.upstream.reply
    reply.parts[0] += said("response.output_text.delta", delta="x" * (PENDING_BYTES + 1))
    reply.over.set()  # so that its reader has to wait for nothing
    store.locked = True
    store.may_append.set()
    running = asyncio.create_task(engine.execution.run(await claimed(store)))
    async with asyncio.timeout(5):
        await store.ending.wait()
        store.may_end.set()
        await asyncio.wait([running])
    assert await engine.state("r1") is State.FAILED
    assert reply.parts != []


class Adopting:
    """An executor that carries out what it is given, and nothing else."""

    owner = "me"

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None

    def adopt(self, run_id: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def working() -> None:
            await work()

        self.task = asyncio.create_task(working(), name=run_id)
        return self.task


async def test_a_caller_who_leaves_when_the_end_is_decided_does_not_stop_the_end(
    engine: Engine,
) -> None:
    store, reply, executor = engine.store, engine.upstream.reply, Adopting()
    kept = KeptForeground(
        store=store,
        execution=engine.execution,
        executor=executor,
        journal=engine.journal,
        tails=engine.tails,
        clock=engine.clock,
    )
    call = kept.prepare(
        Conversation.alone(CREATE),
        plan=replace(PLAN, mode=Mode.KEPT, stream=True),
        attribution=Attribution(caller="ann", mode=Mode.KEPT, response_id="r1"),
        places=[Place(target=TARGET)],
        limits=limits(),
    )

    async def waits() -> None:
        async with kept.open(call, left=lambda: True):
            await asyncio.Event().wait()

    caller = asyncio.create_task(waits())
    async with asyncio.timeout(5):
        await store.appending.wait()
        reply.over.set()
        await reply.closed.wait()
        store.may_append.set()
        await store.ending.wait()
        caller.cancel()
        await asyncio.wait([caller])
        assert executor.task is not None
        assert not executor.task.cancelling()
        store.may_end.set()
        await executor.task
    assert await engine.state("r1") is State.COMPLETED
