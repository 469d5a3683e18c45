"""Kills the gateway under load, again and again, and checks what it had promised."""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.acceptance.processes import monotonic
from tests.crash.behaviours import MIX, MIXES, Mix, Visit, go_on_from
from tests.crash.calls import Upstream
from tests.crash.checks import CLOSE_SECONDS, Checks
from tests.crash.client import Clients, until_ended
from tests.crash.faults import Fault, How, Struck, schedule, strike, strike_at_start
from tests.crash.host import DRAIN_SECONDS, Host, Life
from tests.crash.journal import Journal, Run
from tests.crash.report import Report, key
from tests.crash.wire import Broken

CLIENTS: Final = 10
CROWD: Final = 150
TRIES: Final = 4
LIMIT_SECONDS: Final = 5.0
END_SECONDS: Final = 60.0
AT_ONCE: Final = 8
GO_ON: Final = 3
TELL_CYCLES: Final = 100
OLD_SAMPLE: Final = 4


class Driver:
    """One experiment on one data directory. All randomness comes from the seed and the cycle."""

    def __init__(self, host: Host, *, seed: int) -> None:
        self.host = host
        self.seed = seed
        self.journal = Journal()
        self.checks = Checks(self.journal)
        self.report = Report(seed=seed)
        self.upstream = Upstream(host.upstream.url)
        self._tags = 0
        self._stopping = False

    def chance(self, *place: object) -> random.Random:
        """Randomness of its own for a place in the experiment."""
        return random.Random(":".join(map(str, (self.seed, self.journal.cycle, *place))))

    async def run(self, cycles: range, plan: Callable[[int], Fault]) -> Report:
        """The cycles with the faults of the plan, then everything once more."""
        began = monotonic()
        for cycle in cycles:
            await self.cycle(cycle, plan(cycle))
            self.report.cycles += 1
            if self.report.cycles % TELL_CYCLES == 0:
                told = f"{cycle}: {len(self.journal.runs)} runs, "
                print(f"{told}{len(self.journal.violations)} broken promises", file=sys.stderr)
        life = await self.host.start()
        async with Clients(life.url, self.journal) as clients:
            await at_once(
                [self._last_look(run, clients) for run in self.journal.runs], limit=AT_ONCE
            )
        await life.kill()
        self.upstream.close()
        self.report.seconds = monotonic() - began
        return self._filled()

    async def cycle(self, cycle: int, fault: Fault) -> None:
        """Load, a fault, perhaps another at the start, then every check of what was promised."""
        self.journal.cycle = cycle
        self._tags = 0
        chance = self.chance("fault")
        before = len(self.journal.runs)
        for _ in range(TRIES if fault.point else 1):
            life = await self._begin(fault, chance)
            struck = await self._under_load(life, fault, chance)
            if struck.reached:
                break
        died = monotonic()
        self._count(fault.point, reached=struck.reached)
        if fault.how is How.DRAIN:
            await self._drained(struck, before=before)
        if fault.start or fault.start_at_random:
            reached = await strike_at_start(fault, self.host, chance)
            self._count(fault.start, reached=reached)
        if fault.how is not How.PAUSE:
            drained = fault.settings == "drain"
            settings = "gateway" if drained else fault.settings
            # Where the kill was random, everything is the real command.
            life = await self.host.start(settings, quick=fault.point is not None)
        async with Clients(life.url, self.journal) as clients:
            await self._aftermath(clients, before=before, died=died)
        await life.kill()

    async def _under_load(self, life: Life, fault: Fault, chance: random.Random) -> Struck:
        first = len(self.journal.runs)
        async with Clients(life.url, self.journal) as clients:
            clients.draining = fault.settings in ("drain", "wide")
            self._stopping = False
            mix = MIXES.get(fault.mix, MIX)
            crowd = CROWD if fault.how is How.DRAIN and not self.host.quick else CLIENTS
            load = [asyncio.create_task(self._client(clients, n, mix)) for n in range(crowd)]
            struck = await strike(fault, life, chance)
            self._stopping = True
            await asyncio.gather(*load)
        if fault.how is not How.PAUSE:
            # Also those whose reply nobody has seen: a repeat of the create may yet find them.
            journal = self.journal
            for run in {*journal.runs[first:], *journal.by_key.values(), *journal.unanswered}:
                run.faults += 1
        return struck

    async def _drained(self, struck: Struck, *, before: int) -> None:
        """What had been sent has ended before the process did, and its readers were told."""
        late = struck.seconds - (0.0 if struck.cut else DRAIN_SECONDS)
        self.report.latest_exit = max(self.report.latest_exit, late)
        if late > (1.0 if struck.cut else 2.0):
            self.journal.wrong(None, f"exit {struck.seconds:.1f} s after SIGTERM")
        if struck.cut:
            return
        calls = await self.upstream.calls()
        for run in self.journal.runs[before:]:
            read = [piece for piece in run.pieces if piece.data]
            self.report.streams += len(read)
            if calls.of_run(run) and any(not piece.ended for piece in read if not piece.left):
                self.journal.wrong(run, "a stream was cut without an end")

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
            while not self._stopping:
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
        calls = await self.upstream.calls()
        runs = self.journal.runs[before:]
        sent = [run for run in runs if any(call["began"] < died for call in calls.of_run(run))]
        repeats, self.journal.by_key = list(self.journal.by_key.values()), {}
        unanswered, self.journal.unanswered = self.journal.unanswered, []
        await asyncio.gather(
            self._all_ended(sent, clients, began=began),
            *(self._rejoin(run, clients) for run in runs if run.cut and not run.gone),
            *(clients.create(run) for run in repeats),
            # What may have expired meanwhile would be a new response, and rightly so.
            *(
                clients.create_again(run)
                for run in unanswered
                if not (run.remote or run.kept_seconds)
            ),
        )
        visit = Visit(clients=clients, chance=self.chance("then"), new_tag=self._new_tag)
        for run in [run for run in runs if run.caller == "ann" and not run.remote][-GO_ON:]:
            await go_on_from(visit, run)
        runs = self.journal.runs[before:]
        await at_once([self._end(run, clients) for run in runs], limit=AT_ONCE)
        calls = await self.upstream.at_rest(seconds=CLOSE_SECONDS)
        self.upstream.settle(calls)
        chance = self.chance("checks")
        await at_once(
            [self.checks.first(run, clients, calls=calls, chance=chance) for run in runs],
            limit=AT_ONCE,
        )
        old = self.journal.runs[:before]
        for run in chance.sample(old, min(OLD_SAMPLE, len(old))):
            await self.checks.again(run, clients)

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
        over = monotonic() - run.ended_at > (run.kept_seconds or 0.0) + 1.0
        if run.kept_seconds is not None and over and not (run.gone or run.remote):
            self.journal.wrong(run, "kept longer than its caller's retention")

    def _filled(self) -> Report:
        report, checked = self.report, self.checks.checked
        for run in self.journal.runs:
            report.ends[run.status or ("deleted" if run.doomed else "expired")] += 1
        report.accepted = len(self.journal.runs)
        report.refused = self.journal.refused
        report.deleted = sum(run.gone and not run.expired for run in self.journal.runs)
        report.expired = sum(run.expired for run in self.journal.runs)
        report.upstream_calls = self.upstream.settled
        report.bytes_compared = checked.bytes_compared
        report.resumes = checked.resumes
        report.slowest_start = self.host.slowest_start
        report.slowest_close = max(checked.closed, default=0.0)
        report.violations = self.journal.violations
        return report


async def at_once(work: list[Awaitable[None]], *, limit: int) -> None:
    room = asyncio.Semaphore(limit)

    async def one(item: Awaitable[None]) -> None:
        async with room:
            await item

    await asyncio.gather(*map(one, work))


async def experiment(
    directory: Path,
    *,
    cycles: range,
    seed: int,
    plan: Callable[[int], Fault] = schedule,
    quick: bool = False,
) -> Report:
    """Run it and give the report."""
    async with Host(directory, quick=quick) as host:
        return await Driver(host, seed=seed).run(cycles, plan)
