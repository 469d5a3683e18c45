"""A workload on a real store that says what it was answered; run with the preloaded library.

    python -m tests.faults.power DIRECTORY SEED

Its acknowledgements go into the library's own trace, in one order with the writes and flushes.
"""

import asyncio
import os
import random
import struct
import sys
from dataclasses import replace
from pathlib import Path

from handrail.core.fold import Fold
from handrail.core.lifecycle import State
from handrail.engine.closing import closing
from handrail.store.base import Run, Segment
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.contract.runs import Now, limits
from tests.unit.test_journal import new_run, opened

KEY = bytes(range(32))
HEAD = struct.Struct("<ciqqq")


def acknowledge(text: str) -> None:
    """Note that the store has answered."""
    name = text.encode()
    descriptor = os.open(os.environ["FAULTS_TRACE"], os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, HEAD.pack(b"A", len(name), 0, 0, 0) + name)
    os.close(descriptor)


class Workload:
    """Runs that are accepted, begun, extended, ended and deleted, a few at a time."""

    def __init__(self, store: SqliteStore, *, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)

    async def one(self, number: int) -> None:
        """The life of one run."""
        run_id = f"r{number}"
        size = self.random.choice((100, 5_000, 60_000))
        new = replace(new_run(run_id), request=b'{"input":"' + b"x" * size + b'"}')
        await self.store.accept(new, limits=limits())
        acknowledge(f"accepted {run_id}")
        run = await self.store.claim(owner="me", limits=limits())
        if run is not None:
            await self.execute(run)
        if number % 3 == 0:
            await self.store.delete(run_id, caller="ann")
            acknowledge(f"deleted {run_id}")

    async def execute(self, run: Run) -> None:
        """Begin it, write some events, and perhaps end it."""
        if not await self.store.begin(
            run.id, run.fence, now=1.0, segment=Segment(first=2, frames=(opened(2),))
        ):
            return
        last = 2
        for _ in range(self.random.randrange(6)):
            frames = tuple(opened(last + 1 + n) for n in range(self.random.randint(1, 20)))
            segment = Segment(first=last + 1, frames=frames)
            if not await self.store.append(run.id, run.fence, segment):
                return
            last = segment.last
            acknowledge(f"event {run.id} {last}")
        if self.random.random() < 0.6:
            now = replace(run, state=State.IN_PROGRESS, last_seq=last)
            end = closing(now, State.COMPLETED, fold=Fold(), now=Now().seconds)
            if await self.store.finish(run.id, run.fence, end):
                acknowledge(f"ended {run.id}")


async def main(directory: Path, seed: int) -> None:
    """Eight clients at once, twelve runs each."""
    store = SqliteStore(directory / "handrail.db", vault=Vault(KEY), now=Now())
    store.open()
    work = Workload(store, seed=seed)

    async def client(first: int) -> None:
        for number in range(first, first + 12):
            await work.one(number)

    await asyncio.gather(*(client(12 * n) for n in range(8)))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
