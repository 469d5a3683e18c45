"""Resumes at random cursors: `python -m tests.crash.resumes --count 100000 --seed 1`.

Of finished runs, whose rest must come byte for byte, and of live ones, whose readers leave at any
byte and whose pieces are held against the whole log at the end.
"""

import asyncio
import random
import sys
from itertools import accumulate
from pathlib import Path
from typing import Final

from tests.acceptance.processes import monotonic
from tests.crash.behaviours import ENDING, Visit
from tests.crash.calls import Upstream
from tests.crash.checks import Checks
from tests.crash.client import Clients, ask_for, until_ended
from tests.crash.command import Outcome, command
from tests.crash.driver import AT_ONCE, at_once
from tests.crash.host import Host
from tests.crash.journal import Journal, Piece, Run, frames_of
from tests.crash.orders import BY_NAME, Order
from tests.crash.wire import Broken

READERS: Final = 8
LIVE: Final = 4
FINISHED: Final = 60
LIVE_SHARE: Final = 0.05


class Log:
    """The whole log of a finished run, and where each of its events begins."""

    def __init__(self, run: Run, log: bytes) -> None:
        self.run = run
        self.data = log
        self.starts = [0, *accumulate(map(len, frames_of(log)))]

    def after(self, number: int) -> bytes:
        """The bytes after an event; none beyond the last."""
        return self.data[self.starts[min(number + 1, len(self.starts) - 1)] :]


class Resumes:
    """One experiment on one gateway."""

    def __init__(self, clients: Clients, *, upstream: Upstream, seed: int) -> None:
        self._clients = clients
        self._upstream = upstream
        self._seed = seed
        self._tags = 0
        self._finished: list[Log] = []
        self._live: list[Run] = []
        self.left = 0
        self.of_live = 0
        self.checks = Checks(clients.journal)

    async def run(self, count: int) -> None:
        """Make logs, then that many resumes."""
        self.left = count
        chance = random.Random(f"{self._seed}:finished")
        await at_once([self._make(self._drawn(chance)) for _ in range(FINISHED)], limit=AT_ONCE)
        # Two that are longer than the gateway reads in one go.
        await at_once([self._make(self._visit(chance, _LONG)) for _ in range(2)], limit=2)
        making = [asyncio.create_task(self._keep_live(number)) for number in range(LIVE)]
        await asyncio.gather(*(self._reader(number) for number in range(READERS)))
        await asyncio.gather(*making)

    def _drawn(self, chance: random.Random) -> Run:
        names = tuple(name for name in ENDING if name not in ("broken", "large"))
        run = self._visiting(chance).run(kinds=names, caller="ann")
        words = chance.choice((1, 10, 50, 200))
        place = chance.randint(0, words)
        order = Order(kind=run.order.kind, words=words, delay=0.0, place=place)
        return ask_for(run, order)

    def _visit(self, chance: random.Random, order: Order) -> Run:
        return ask_for(self._visiting(chance).run(caller="ann"), order)

    def _visiting(self, chance: random.Random) -> Visit:
        return Visit(clients=self._clients, chance=chance, new_tag=self._new_tag)

    def _new_tag(self) -> str:
        self._tags += 1
        return f"r{self._tags}"

    async def _make(self, run: Run) -> None:
        """Create a run, wait for its end, check it, and keep its log."""
        assert await self._clients.create(run)
        self._live.append(run)
        await until_ended(self._clients, run, pause=0.05)
        self._live.remove(run)
        calls = await self._upstream.calls()
        chance = random.Random(f"{self._seed}:{run.tag}")
        await self.checks.first(run, self._clients, calls=calls, chance=chance)
        self._finished.append(Log(run, await self._clients.bytes_after(run, -1)))

    async def _keep_live(self, number: int) -> None:
        chance = random.Random(f"{self._seed}:live:{number}")
        while self.left > 0:
            words = chance.randint(50, 200)
            order = Order(kind=BY_NAME["words"], words=words, delay=0.02, place=0)
            await self._make(self._visit(chance, order))

    async def _reader(self, number: int) -> None:
        chance = random.Random(f"{self._seed}:reader:{number}")
        while self.left > 0:
            self.left -= 1
            try:
                if self._live and chance.random() < LIVE_SHARE:
                    await self._resume_live(chance.choice(self._live), chance)
                else:
                    await self._resume(chance.choice(self._finished), chance)
            except Broken as error:
                self._clients.journal.wrong(None, f"a connection broke: {error}")
                return

    async def _resume(self, log: Log, chance: random.Random) -> None:
        after = chance.randint(-1, len(log.starts))
        if await self._clients.bytes_after(log.run, after) != log.after(after):
            self._clients.journal.wrong(log.run, f"starting_after={after} gives other bytes")
        self.checks.checked.bytes_compared += len(log.after(after))

    async def _resume_live(self, run: Run, chance: random.Random) -> None:
        self.of_live += 1
        known = max((piece.last for piece in run.pieces[-3:]), default=-1)
        size = chance.choice((1, 500, 5_000, 50_000))

        def leave(piece: Piece) -> bool:
            return len(piece.data) >= size

        await self._clients.follow(run, after=chance.randint(-1, known), leave=leave)


_LONG: Final = Order(kind=BY_NAME["large"], words=250, delay=0.0, place=0)


async def experiment(directory: Path, *, count: int, seed: int) -> Outcome:
    """Run it and give the figures and what was broken."""
    async with Host(directory) as host:
        life = await host.start("races")
        upstream = Upstream(host.upstream.url)
        async with Clients(life.url, Journal()) as clients:
            work = Resumes(clients, upstream=upstream, seed=seed)
            began = monotonic()
            await work.run(count)
            seconds = monotonic() - began
        upstream.close()
    figures = {
        "resumes": count,
        "of live runs": work.of_live,
        "runs": len(clients.journal.runs),
        "bytes compared": work.checks.checked.bytes_compared,
        "seconds": seconds,
        "a second": count / seconds,
    }
    return Outcome(figures=figures, violations=clients.journal.violations)


if __name__ == "__main__":
    sys.exit(command(__doc__, experiment, count=100_000))
