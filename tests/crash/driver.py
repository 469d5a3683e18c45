"""Kills the gateway under load, again and again, and checks what it had promised."""

import asyncio
import random
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from tests.acceptance.processes import monotonic
from tests.crash.behaviours import MIX, REMOTE_MIX, Mix, Visit
from tests.crash.checks import Checks, Upstream
from tests.crash.client import Clients, until_ended
from tests.crash.faults import Fault, schedule, strike, strike_at_start
from tests.crash.host import Host, Life
from tests.crash.journal import Journal, Run
from tests.crash.report import Report, key
from tests.crash.wire import Api, Broken

CLIENTS: Final = 10
LIMIT_SECONDS: Final = 5.0
END_SECONDS: Final = 60.0
AT_ONCE: Final = 8
OLD_SAMPLE: Final = 4


class Driver:
    """One experiment on one data directory. All randomness comes from the seed and the cycle."""

    def __init__(self, host: Host, *, seed: int) -> None:
        self.host = host
        self.seed = seed
        self.journal = Journal()
        self.checks = Checks(self.journal)
        self.report = Report(seed=seed)
        self._upstream = Api(host.upstream.url, "none")
        self._seen_calls = 0
        self._tags = 0

    def chance(self, *place: object) -> random.Random:
        """Randomness of its own for a place in the experiment."""
        return random.Random(":".join(map(str, (self.seed, self.journal.cycle, *place))))

    async def run(self, cycles: range) -> Report:
        """The cycles, then everything once more."""
        began = monotonic()
        for cycle in cycles:
            await self.cycle(cycle, schedule(cycle))
            self.report.cycles += 1
        life = await self.host.start()
        async with Clients(life.url, self.journal) as clients:
            await _at_once(
                [self._last_look(run, clients) for run in self.journal.runs], limit=AT_ONCE
            )
        await life.kill()
        self._upstream.close()
        self.report.seconds = monotonic() - began
        return self._filled()

    async def cycle(self, cycle: int, fault: Fault) -> None:
        """Load, a fault, perhaps another at the start, then every check of what was promised."""
        self.journal.cycle = cycle
        self._tags = 0
        chance = self.chance("fault")
        before = len(self.journal.runs)
        life = await self._begin(fault, chance)
        async with Clients(life.url, self.journal) as clients:
            mix = REMOTE_MIX if fault.settings == "remote" else MIX
            clients.draining = fault.settings == "drain"
            load = [asyncio.create_task(self._client(clients, n, mix)) for n in range(CLIENTS)]
            reached = await strike(fault, life, chance)
            died = monotonic()
            await asyncio.gather(*load)
        self._count(fault.point, reached=reached)
        runs = self.journal.runs[before:]
        for run in runs:
            run.faults += 1
        if fault.start or fault.start_at_random:
            reached = await strike_at_start(fault, self.host, chance)
            self._count(fault.start, reached=reached)
        remote = fault.settings == "remote"
        life = await self.host.start("remote" if remote else "gateway")
        async with Clients(life.url, self.journal) as clients:
            await self._aftermath(clients, before=before, died=died)
        await life.kill()

    async def _begin(self, fault: Fault, chance: random.Random) -> Life:
        if fault.point is None:
            return await self.host.start(fault.settings)
        nth = chance.randint(1, fault.point.most)
        life = await self.host.start_at(fault.point, nth, settings=fault.settings, armed=False)
        assert life is not None
        return life

    def _count(self, point: object, *, reached: bool) -> None:
        self.report.kills += 1
        if point is not None and reached:
            self.report.reached[key(point)] += 1

    async def _client(self, clients: Clients, number: int, mix: Mix) -> None:
        chance = self.chance("client", number)
        visit = Visit(clients=clients, chance=chance, new_tag=self._new_tag)
        acts, weights = zip(*mix, strict=True)
        try:
            while True:
                [act] = chance.choices(acts, weights)
                await act(visit)
        except Broken:
            return

    def _new_tag(self) -> str:
        self._tags += 1
        return f"c{self.journal.cycle}n{self._tags}"

    # --- after the restart -----------------------------------------------------------------

    async def _aftermath(self, clients: Clients, *, before: int, died: float) -> None:
        """What has just been restarted: everything ends, then everything is checked."""
        began = monotonic()
        upstream = await self._calls()
        runs = self.journal.runs[before:]
        sent = [
            run
            for run in runs
            if any(call["began"] < died for call in upstream.calls.get(run.tag, ()))
        ]
        repeats = [run for run in self.journal.by_key.values() if run.caller]
        self.journal.by_key = {}
        await asyncio.gather(
            self._all_ended(sent, clients, began=began),
            *(self._rejoin(run, clients) for run in runs if run.cut and not run.gone),
            *(clients.create(run) for run in repeats),
        )
        runs = self.journal.runs[before:]
        await _at_once([self._end(run, clients) for run in runs], limit=AT_ONCE)
        upstream = await self._calls()
        self._seen_calls += sum(map(len, upstream.calls.values()))
        chance = self.chance("checks")
        await _at_once(
            [self.checks.first(run, clients, upstream=upstream, chance=chance) for run in runs],
            limit=AT_ONCE,
        )
        old = self.journal.runs[:before]
        for run in chance.sample(old, min(OLD_SAMPLE, len(old))):
            await self.checks.again(run, clients)

    async def _calls(self) -> Upstream:
        reply = await self._upstream.send("GET", f"/calls?from={self._seen_calls}")
        return Upstream.of(reply.json())

    async def _all_ended(self, sent: list[Run], clients: Clients, *, began: float) -> None:
        for run in sent:
            if not run.remote:
                await until_ended(clients, run)
        took = monotonic() - began
        self.report.slowest_terminal = max(self.report.slowest_terminal, took)
        if took > LIMIT_SECONDS:
            self.journal.wrong(None, f"{len(sent)} sent runs were terminal only after {took:.1f} s")

    async def _rejoin(self, run: Run, clients: Clients) -> None:
        if run.cut is not None and not run.order.kind.endless:
            await clients.follow(run, after=run.cut.last)

    async def _end(self, run: Run, clients: Clients) -> None:
        if run.remote or run.gone:
            return
        body = await clients.poll(run)
        if body is not None and run.rank < 2 and run.order.kind.endless:
            await clients.cancel(run)
        try:
            async with asyncio.timeout(END_SECONDS):
                await until_ended(clients, run)
        except TimeoutError:
            self.journal.wrong(run, f"not terminal {END_SECONDS:.0f} s after the restart")

    async def _last_look(self, run: Run, clients: Clients) -> None:
        await self.checks.again(run, clients)
        if run.kept_seconds is not None and not (run.gone or run.remote):
            self.journal.wrong(run, "kept longer than its caller's retention")

    def _filled(self) -> Report:
        report, checked = self.report, self.checks.checked
        for run in self.journal.runs:
            report.ends[run.status or ("deleted" if run.doomed else "expired")] += 1
        report.accepted = len(self.journal.runs)
        report.refused = self.journal.refused
        report.deleted = sum(run.gone and not run.expired for run in self.journal.runs)
        report.expired = sum(run.expired for run in self.journal.runs)
        report.upstream_calls = self._seen_calls
        report.bytes_compared = checked.bytes_compared
        report.resumes = checked.resumes
        report.slowest_start = self.host.slowest_start
        report.slowest_close = checked.closed_after
        report.violations = self.journal.violations
        return report


async def _at_once(work: list[Awaitable[None]], *, limit: int) -> None:
    room = asyncio.Semaphore(limit)

    async def one(item: Awaitable[None]) -> None:
        async with room:
            await item

    await asyncio.gather(*map(one, work))


async def experiment(directory: Path, *, cycles: range, seed: int) -> Report:
    """Run it and give the report."""
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(Host(directory))
        return await Driver(host, seed=seed).run(cycles)
