"""Cancels at random moments: `python -m tests.crash.cancels --count 2000 --seed 1`.

Alone, twice at once, while the stream is read, around the end, together with a deletion, and by
clients that do not wait for the answer. Nothing may flip, the log must be frozen with one end, and
the upstream call closed within a second.
"""

import asyncio
import random
import sys
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.acceptance.processes import monotonic
from tests.crash.behaviours import CANCELS, Visit
from tests.crash.calls import Upstream
from tests.crash.checks import CLOSE_SECONDS, Checks
from tests.crash.client import Clients
from tests.crash.command import Outcome, command
from tests.crash.driver import AT_ONCE, at_once
from tests.crash.host import Host
from tests.crash.journal import Journal
from tests.crash.wire import Broken

CLIENTS: Final = 16
BATCH: Final = 400


class Cancels:
    """One experiment on one gateway."""

    def __init__(self, clients: Clients, *, upstream: Upstream, seed: int) -> None:
        self._clients = clients
        self._journal = clients.journal
        self._upstream = upstream
        self._seed = seed
        self._tags = 0
        self.checks = Checks(self._journal)

    async def batch(self, number: int, size: int) -> None:
        """That many runs with a cancel each, and every check of them."""
        self._journal.cycle = number
        before = len(self._journal.runs)
        goal = before + size
        await asyncio.gather(*(self._client(number, n, goal) for n in range(CLIENTS)))
        calls = await self._upstream.at_rest(seconds=CLOSE_SECONDS)
        self._upstream.settle(calls)
        runs = self._journal.runs[before:]
        chance = random.Random(f"{self._seed}:{number}")
        await at_once(
            [self.checks.first(run, self._clients, calls=calls, chance=chance) for run in runs],
            limit=AT_ONCE,
        )

    async def again(self) -> None:
        """All of them once more: nothing has flipped."""
        await at_once(
            [self.checks.again(run, self._clients) for run in self._journal.runs], limit=AT_ONCE
        )

    async def _client(self, batch: int, number: int, goal: int) -> None:
        chance = random.Random(f"{self._seed}:{batch}:{number}")
        visit = Visit(clients=self._clients, chance=chance, new_tag=self._new_tag)
        acts, weights = zip(*CANCELS, strict=True)
        while len(self._journal.runs) < goal:
            [act] = chance.choices(acts, weights)
            try:
                await act(visit)
            except Broken as error:
                self._journal.wrong(None, f"a connection broke: {error}")
                return

    def _new_tag(self) -> str:
        self._tags += 1
        return f"r{self._tags}"


async def experiment(directory: Path, *, count: int, seed: int) -> Outcome:
    """Run it and give the figures and what was broken."""
    began = monotonic()
    async with Host(directory) as host:
        life = await host.start("races")
        upstream = Upstream(host.upstream.url)
        async with Clients(life.url, Journal()) as clients:
            work = Cancels(clients, upstream=upstream, seed=seed)
            for number, done in enumerate(range(0, count, BATCH)):
                await work.batch(number, min(BATCH, count - done))
            await work.again()
        upstream.close()
    runs = clients.journal.runs
    figures: dict[str, Any] = {
        "cancels": sum(run.stop_asked_at > 0 for run in runs),
        "ends": dict(Counter("deleted" if run.gone else run.status for run in runs)),
        "came too late": sum(run.lost_cancel for run in runs),
        "upstream closed": len(work.checks.checked.closed),
        "closed after p50": median(work.checks.checked.closed or [0.0]),
        "closed after max": max(work.checks.checked.closed, default=0.0),
        "bytes compared": work.checks.checked.bytes_compared,
        "seconds": monotonic() - began,
    }
    return Outcome(figures=figures, violations=clients.journal.violations)


if __name__ == "__main__":
    sys.exit(command(__doc__, experiment, count=2_000))
