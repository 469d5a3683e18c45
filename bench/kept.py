"""Whether the gateway stays as quick with a million kept responses, and how soon it is back.

    .venv/bin/python bench/kept.py [--sizes 1000 10000 100000 1000000] [--unfinished 10000]

A store is filled with copies of one response that the gateway itself has made, through the same
transactions; then a gateway is started on it and asked, at each size in turn: creates, polls and
resumes of responses chosen at random among all. At the end the store gets unfinished runs, half
waiting and half under way when their process died, and the gateway is started once more.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import bodies
from bench.client import KEYS, BenchFailed, Connection, ask_once, connect, get, post
from bench.machine import describe
from bench.processes import Cores, Launcher, Server
from bench.sides import percentile
from handrail.bootstrap.data_dir import DATABASE, STORE_KEY
from handrail.core.admission import Limits
from handrail.core.lifecycle import State
from handrail.core.quota import Quota
from handrail.store.base import Closing, NewRun, Run, Segment
from handrail.store.kept_time import KeptTime
from handrail.store.keys import DataKeys
from handrail.store.opening import connect_to_write
from handrail.store.quota import Quotas
from handrail.store.runs import Runs
from handrail.store.vault import Vault, load_store_key

ASKED: Final = 1_000
BATCH: Final = 5_000
NAME: Final = "kept"
FAR: Final = 4e9
ROOM: Final = Limits(
    max_running=10**9,
    max_queued=10**9,
    caller_running={"first": 10**9},
    caller_queued={"first": 10**9},
)


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One finished response, to be copied under other ids."""

    run: Run
    frames: tuple[bytes, ...]

    def opening(self, run_id: str) -> NewRun:
        """A new run like it."""
        return NewRun(
            id=run_id,
            caller=self.run.caller,
            created_at=self.run.created_at,
            target=self.run.target,
            plan=self.run.plan,
            request=self.run.request,
            response=self._own(self.run.response, run_id),
            opening=self.segment(run_id, 0, 2),
        )

    def segment(self, run_id: str, first: int, end: int) -> Segment:
        """Its events from `first` up to, not including, `end`."""
        return Segment(
            first=first, frames=tuple(self._own(frame, run_id) for frame in self.frames[first:end])
        )

    def end(self, run_id: str) -> Closing:
        """Its end, that never expires."""
        return Closing(
            state=State.COMPLETED,
            response=self._own(self.run.response, run_id),
            segment=self.segment(run_id, len(self.frames) - 1, len(self.frames)),
            finished_at=self.run.finished_at or 0.0,
            kept_seconds=FAR,
        )

    def _own(self, text: bytes, run_id: str) -> bytes:
        return text.replace(self.run.id.encode(), run_id.encode())


class Filler:
    """Writes copies into the store of a gateway that is not running."""

    def __init__(self, data_dir: Path) -> None:
        database = data_dir / DATABASE
        vault = Vault(load_store_key(data_dir / STORE_KEY, database=database))
        still = KeptTime(wall=lambda: 0.0, monotonic=lambda: 0.0)
        self._runs = Runs(DataKeys(vault), time=still, quotas=Quotas(Quota))
        self._connection = connect_to_write(database, vault=vault)
        self._connection.execute("pragma synchronous = off")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.execute("pragma wal_checkpoint(truncate)")
        self._connection.close()
        # The gateway's first flush must not pay for what was written here without any.
        os.sync()

    def pattern(self, run_id: str) -> Pattern:
        """What the gateway made."""
        run = self._runs.get(self._connection, run_id, caller="first")
        part = self._runs.read(self._connection, run_id, after=-1, caller="first")
        if run is None or part is None or run.state is not State.COMPLETED:
            raise BenchFailed("the response to be copied did not complete")
        return Pattern(run=run, frames=part.frames)

    def fill(self, ids: list[str], one: Callable[[str], None]) -> None:
        """Do `one` for each id, many in one transaction."""
        for start in range(0, len(ids), BATCH):
            self._connection.execute("begin immediate")
            for run_id in ids[start : start + BATCH]:
                one(run_id)
            self._connection.execute("commit")

    def finished(self, pattern: Pattern, run_id: str) -> None:
        """A run that has come to its end."""
        run = self.sent(pattern, run_id)
        middle = pattern.segment(run_id, 3, len(pattern.frames) - 1)
        values = {"id": run_id, "fence": run.fence}
        self._runs.extend(self._connection, "extend", values, segment=middle)
        self._runs.finish(self._connection, run_id, run.fence, closing=pattern.end(run_id))

    def sent(self, pattern: Pattern, run_id: str) -> Run:
        """A run whose upstream call is under way."""
        self.waiting(pattern, run_id)
        run = self._runs.claim(self._connection, owner="a process that died", limits=ROOM)
        if run is None or run.id != run_id:
            raise BenchFailed("another run was claimed")
        segment = pattern.segment(run_id, 2, 3)
        self._runs.begin(self._connection, run_id, run.fence, now=1.0, segment=segment)
        return run

    def waiting(self, pattern: Pattern, run_id: str) -> None:
        """A run that nobody has begun."""
        self._runs.accept(self._connection, pattern.opening(run_id), limits=ROOM)


class Kept:
    """The experiment: a launcher, an upstream, and one data directory that grows."""

    def __init__(self, launcher: Launcher, upstream: Server) -> None:
        self._launcher = launcher
        self._upstream = upstream
        self._data_dir = launcher.home / NAME
        self._random = random.Random(1)
        self._ids: list[str] = []

    def gateway(self) -> Server:
        """Handrail on the store as it is."""
        return self._launcher.handrail(self._upstream.port, name=NAME)

    async def first(self) -> Pattern:
        """Have the gateway make the response that is copied."""
        server = self.gateway()
        body = bodies.small("events=8", background=True)
        run_id = str(json.loads(await ask_once(server.port, post(server.port, body)))["id"])
        while True:
            reply = await ask_once(server.port, _get(server.port, f"/v1/responses/{run_id}"))
            if json.loads(reply)["status"] == State.COMPLETED:
                break
        server.stop()
        with closing(Filler(self._data_dir)) as filler:
            return filler.pattern(run_id)

    async def at(self, size: int, pattern: Pattern) -> None:
        """Grow to `size` kept responses, then ask."""
        new = [f"resp_{self._random.randbytes(24).hex()}" for _ in range(size - len(self._ids))]
        with closing(Filler(self._data_dir)) as filler:
            filler.fill(new, lambda run_id: filler.finished(pattern, run_id))
        self._ids += new
        server = self.gateway()
        connection = await connect(server.port)
        try:
            poll = await self._each(connection, self._polls(server.port))
            resume = await self._each(connection, self._resumes(server.port, pattern))
            create = await self._each(connection, self._creates(server.port))
        finally:
            connection.leave()
        rss = server.memory()[0] / 1e6
        data = sum(file.stat().st_size for file in self._data_dir.iterdir()) / 1e6
        server.stop()
        print(
            f"{size:>9,}  create {_shown(create)}  poll {_shown(poll)}  resume {_shown(resume)}"
            f"  start {server.seconds * 1e3:.0f} ms  RSS {rss:.0f} MB  files {data:,.0f} MB",
            flush=True,
        )

    def _polls(self, port: int) -> list[bytes]:
        chosen = self._random.choices(self._ids, k=ASKED)
        return [_get(port, f"/v1/responses/{run_id}") for run_id in chosen]

    def _resumes(self, port: int, pattern: Pattern) -> list[bytes]:
        cursors = range(len(pattern.frames))
        return [
            _get(port, f"/v1/responses/{run_id}?stream=true&starting_after={cursor}")
            for run_id in self._random.choices(self._ids, k=ASKED)
            for cursor in self._random.choices(cursors)
        ]

    def _creates(self, port: int) -> list[bytes]:
        body = bodies.small("events=1", background=True)
        return [post(port, body) for _ in range(ASKED // 4)]

    async def _each(self, connection: Connection, requests: list[bytes]) -> list[float]:
        times = []
        for request in requests:
            started = time.perf_counter()
            await connection.ask(request)
            times.append((time.perf_counter() - started) * 1e3)
            if b"POST" in request[:4]:
                await asyncio.sleep(0.01)  # let the run end: creates are measured, not a queue
        return times

    async def restart(self, unfinished: int, pattern: Pattern) -> None:
        """A process has died with so many runs on its hands: how soon are all of them right?"""
        ids = [f"resp_{self._random.randbytes(24).hex()}" for _ in range(unfinished)]
        half = unfinished // 2
        with closing(Filler(self._data_dir)) as filler:
            filler.fill(ids[:half], lambda run_id: _none(filler.sent(pattern, run_id)))
            filler.fill(ids[half:], lambda run_id: filler.waiting(pattern, run_id))
        started = time.perf_counter()
        server = self.gateway()
        serving = time.perf_counter() - started
        connection = await connect(server.port)
        last = ids[half - 1]
        while True:
            reply = await connection.ask(_get(server.port, f"/v1/responses/{last}"))
            if json.loads(reply)["status"] == State.FAILED:
                break
            await asyncio.sleep(0.005)
        ended = time.perf_counter() - started
        connection.leave()
        server.stop()
        print(
            f"{unfinished:,} unfinished runs: first request served {serving:.2f} s after the "
            f"start, all {half:,} that had been sent were ended after {ended:.2f} s"
        )


def _none(_: Run) -> None:
    return None


def _get(port: int, path: str) -> bytes:
    key = f"authorization: Bearer {KEYS[0]}\r\n"
    return get(port, path).replace(b"\r\n\r\n", f"\r\n{key}\r\n".encode())


def _shown(times: list[float]) -> str:
    return f"{percentile(times, 50):.2f}/{percentile(times, 99):.2f} ms"


async def run(launcher: Launcher, sizes: list[int], unfinished: int) -> None:
    """The sizes in turn, then the restart."""
    upstream = launcher.upstream()
    try:
        kept = Kept(launcher, upstream)
        pattern = await kept.first()
        print("kept       p50/p99 of each", flush=True)
        for size in sizes:
            await kept.at(size, pattern)
        await kept.restart(unfinished, pattern)
    finally:
        upstream.stop()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--unfinished", type=int, default=10_000)
    given = parser.parse_args()
    cores = Cores.of_machine()
    for name, value in describe(cores).items():
        print(f"{name + ':':<14}{value}")
    os.sched_setaffinity(0, cores.load)
    with tempfile.TemporaryDirectory(prefix="handrail-bench-") as home:
        launcher = Launcher(home=Path(home), cores=cores)
        uvloop.run(run(launcher, sorted(given.sizes), given.unfinished))


if __name__ == "__main__":
    main()
