"""One simulation from its first event to its last: lives of the gateway, clients, and trouble."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import structlog

from handrail.errors import HandrailError
from tests.simulation import plan as plans
from tests.simulation.clients import Client
from tests.simulation.disk import Disk, Trouble
from tests.simulation.invariants import Judge
from tests.simulation.loop import Stuck, VirtualLoop
from tests.simulation.plan import Blow, Plan
from tests.simulation.process import Process
from tests.simulation.upstream import Upstream
from tests.simulation.watch import Watch

_SWEPT_SECONDS: Final = 65.0
_TWO_DAYS: Final = 2 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one seed."""

    seed: int
    violations: tuple[str, ...]
    digest: str
    counts: Counter[str]
    lines: tuple[str, ...]
    seconds: float


class World:
    """Everything of one simulation. `process` is None while the gateway is down."""

    def __init__(self, plan: Plan, loop: VirtualLoop) -> None:
        self.plan = plan
        self.over = False
        self.process: Process | None = None
        self.watch = Watch(
            loop,
            running=plan.running,
            max_running=plan.settings.max_running,
            retrying=plan.retrying,
        )
        self.watch.disk = Disk(random.Random(f"{plan.seed} disk"), count=self.watch.count)
        self.watch.upstream = Upstream(plan.seed, calm=plan.calm, watcher=self.watch)
        self._chance = random.Random(f"{plan.seed} world")
        self._settings = plan.settings
        self._lives = 0
        self._tags = 0
        self._revoked: set[str] = set()

    # --- what clients see ------------------------------------------------------------------

    def new_tag(self) -> str:
        """The name of a new create; after the last one clients only look after what there is."""
        self._tags += 1
        return f"run-{self._tags}"

    def key_of(self, caller: str) -> str:
        """A caller's key."""
        return plans.key_of(caller)

    def revoked(self, caller: str) -> bool:
        """Whether the caller was ever revoked."""
        return caller in self._revoked

    def troubled_since(self, moment: float) -> bool:
        """Whether the disk has had trouble since then."""
        return self.watch.troubled_since(moment)

    # --- its course ------------------------------------------------------------------------

    async def run(self) -> None:
        """All of it."""
        await self._start()
        clients = [asyncio.create_task(client.run()) for client in self._clients()]
        for blow in self.plan.blows:
            await asyncio.sleep(max(0.0, blow.at - self.watch.loop.time()))
            await self._strike(blow)
        await asyncio.sleep(max(0.0, self.plan.seconds - self.watch.loop.time()))
        self.over = True
        await self._calm_down()
        process = self.process
        assert process is not None
        judge = Judge(self.watch, self.plan, process)
        if not await judge.settled():
            return
        await self._end_clients(clients)
        judge.nothing_of_destroyed()
        judge.nothing_readable()
        await judge.every_run(self._chance)
        judge.at_rest()
        await self._after_two_days()
        judge.nothing_left()
        self.watch.violations += self.watch.loop.complaints

    async def _after_two_days(self) -> None:
        # A wall clock that jumps destroys nothing under a process that runs; but over a restart
        # nobody knows that no time has passed.
        assert self.process is not None
        await asyncio.wait([self.process.spawn(self.process.drain(0))])
        self.watch.wall.jump(_TWO_DAYS)
        await self._restart()
        process = self.process
        await asyncio.sleep(_SWEPT_SECONDS)
        await asyncio.wait([process.spawn(process.drain(0))])

    def _clients(self) -> list[Client]:
        return [
            Client(
                self,
                self.plan.callers[number % len(self.plan.callers)],
                random.Random(f"{self.plan.seed} client {number}"),
            )
            for number in range(self.plan.clients)
        ]

    async def _end_clients(self, clients: list[asyncio.Task[None]]) -> None:
        # Every run has ended, so every reader is told so; what still waits waits for ever.
        _, waiting = await asyncio.wait(clients, timeout=30.0)
        for client in waiting:
            self.watch.violate("a client still waits although everything has ended")
            client.cancel()
        for client in clients:
            if client.done() and not client.cancelled() and client.exception() is not None:
                raise client.exception()  # type: ignore[misc]

    async def _start(self) -> None:
        self._lives += 1
        self.watch.trace(f"process {self._lives} starts")
        self.watch.wall.started()
        self.process = Process(self.watch, self._settings, number=self._lives)

    async def _bury(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            await process.unwound()

    async def _calm_down(self) -> None:
        self._disk_is(None)
        if self.process is not None and self.process.dead:
            await self._bury()
        if self.process is None:
            await self._start()
        self.watch.trace("the last trouble is over")

    # --- trouble ---------------------------------------------------------------------------

    async def _strike(self, blow: Blow) -> None:
        self.watch.trace(f"now: {blow.kind} {blow.seconds}")
        kind, _, rest = blow.kind.partition(" ")
        if kind == "disk":
            return await self._spoil(Trouble(rest), blow.seconds)
        if kind == "jump":
            self.watch.count("wall clock jumped")
            return self.watch.wall.jump(self._chance.choice((-86_400, -3_600, 3_600, 86_400)))
        process = self.process
        if process is None or process.dead:
            await self._restart()
        elif kind == "die":
            await self._kill(process, rest, blow.seconds)
        elif kind == "drain":
            await self._drain(process, rest, blow.seconds)
        else:
            await self._revoke(process, blow.seconds)
        return None

    async def _kill(self, process: Process, point: str, seconds: float) -> None:
        if point:
            await process.comes_to(point, process.kill, seconds=seconds)
        else:
            self.watch.count("died at a random moment")
            process.kill()
        await self._restart()

    async def _restart(self) -> None:
        await self._bury()
        self.watch.restart_at = self.watch.loop.time()
        await asyncio.sleep(self._chance.choice((0.01, 0.2, 3.0)))
        if self._chance.random() < 0.2:  # the worst moment: what it has to take over is waiting
            self.watch.count("started on a sick disk")
            self._disk_is(self._chance.choice((Trouble.LOCKED, Trouble.UNREADABLE, Trouble.FULL)))
        await self._start()
        if self.watch.disk.trouble is not None:
            await asyncio.sleep(self._chance.choice((0.5, 12.0)))
            self._disk_is(None)

    async def _drain(self, process: Process, point: str, seconds: float) -> None:
        started: list[asyncio.Task[None]] = []

        def begin() -> None:
            started.append(process.spawn(process.drain(self.plan.settings.drain_seconds)))

        if point:
            await process.comes_to(point, begin, seconds=seconds)
        else:
            begin()
        if not started:
            return await self._restart()
        under_way = process.parts.executor.running
        began = self.watch.loop.time()
        second = self._chance.random() < 0.2  # somebody loses patience
        await asyncio.wait(started, timeout=0.3 if second else 300.0)
        if not process.dead and not second and self.watch.disk.trouble is None:
            self.watch.violate("a drain did not end")
        self.watch.count("drained" if process.dead else "killed while draining")
        if under_way:
            waited = self.watch.loop.time() - began >= self.plan.settings.drain_seconds > 0
            self.watch.count("drain interrupted runs" if waited else "drain let runs end")
        if not process.dead:
            process.kill()
        return await self._restart()

    async def _spoil(self, trouble: Trouble, seconds: float) -> None:
        self._disk_is(trouble)
        await asyncio.sleep(seconds)
        self._disk_is(None)

    def _disk_is(self, trouble: Trouble | None) -> None:
        self.watch.disk_at = self.watch.loop.time()
        self.watch.disk.trouble = trouble

    async def _revoke(self, process: Process, seconds: float) -> None:
        gone = self._chance.choice(self.plan.callers)
        self._revoked.add(gone)
        self.watch.count("caller revoked")
        left = {name: caller for name, caller in self._settings.callers.items() if name != gone}
        self._settings = replace(self._settings, callers=MappingProxyType(left))
        await asyncio.wait([process.spawn(process.reload(self._settings))])
        await asyncio.sleep(seconds)
        self._settings = self.plan.settings
        if self.process is not None and not self.process.dead:
            await asyncio.wait([self.process.spawn(self.process.reload(self._settings))])


# --- logs ----------------------------------------------------------------------------------------

# Lines of the log that tell of a defect, if their exception is neither ours nor the disk's.
_DEFECTS: Final = frozenset(
    {
        "execution_broke",
        "flush_failed",
        "loop_broke",
        "run_broke",
        "run_end_broke",
        "request_failed",
        "run_not_recovered",
    }
)


@contextmanager
def _listening(watch: Watch) -> Iterator[None]:
    """What the gateway logs as an error is looked at; nothing is printed."""

    def heard(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> Any:
        problem = entry.get("exc_info")
        expected = isinstance(problem, HandrailError) or type(problem).__module__ == "sqlite3"
        if isinstance(problem, Exception) and not expected and entry["event"] in _DEFECTS:
            watch.violate(f"{entry['event']} {type(problem).__name__}: {problem}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[heard],
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def simulate(seed: int) -> Outcome:
    """Run one seed to its end."""
    plan = plans.draw(seed)
    shuffle = random.Random(f"{seed} order") if plan.shuffled else None
    loop = VirtualLoop(shuffle=shuffle, first_task=seed * 1_000_003)
    world = World(plan, loop)
    watch = world.watch
    with _listening(watch):
        try:
            loop.run_until_complete(world.run())
        except Stuck as stuck:
            watch.violate(f"stuck: {stuck}")
        finally:
            _close(loop)
            watch.disk.connection.close()
    return Outcome(
        seed=seed,
        violations=tuple(watch.violations),
        digest=watch.digest(),
        counts=watch.counts,
        lines=tuple(watch.lines),
        seconds=loop.time(),
    )


def _close(loop: VirtualLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.cancel()
    try:
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.run_until_complete(loop.shutdown_asyncgens())
    except Stuck:
        pass
    loop.close()
