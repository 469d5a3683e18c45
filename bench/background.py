"""Background runs: how soon they are kept, how soon they start, and what durability costs a reader.

Next to each figure stands what bounds it: the disk's own fdatasync for a create, the foreground
stream under the same load for the lag of durable events, the foreground pass-through for their
rate. Lag is from the sender's monotonic clock, which stands in the delta, to the reader's.
"""

import asyncio
import os
import time
from itertools import count
from pathlib import Path

from bench import bodies
from bench.client import KEYS, DeltaLag, EventCount, all_lags, connect, post
from bench.record import BARE, DISK, DURABLE, HANDRAIL, NGINX, Figure
from bench.sides import Bench, Side, percentile
from bench.streams import PACE, together

CREATE_P50 = Figure("background create, queued and durable: p50", "ms")
CREATE_P99 = Figure("background create, queued and durable: p99", "ms")
STARTED_P50 = Figure("background create to upstream call: p50", "ms")
STARTED_P99 = Figure("background create to upstream call: p99", "ms")
LAG_P50 = Figure("64 streams, 50 events/s each: lag p50", "ms")
LAG_P99 = Figure("64 streams, 50 events/s each: lag p99", "ms")
LAG_CPU = Figure("64 streams, 50 events/s each: gateway CPU for each event", "us")
FLAT_RATE = Figure("1 stream flat out: events", "1/s")
FLAT_CPU = Figure("1 stream flat out: gateway CPU for each event", "us")
_numbers = count()


async def measure(bench: Bench) -> None:
    """Creates one after another, then paced runs, then one run flat out."""
    await _creates(bench)
    await _paced(bench)
    await _flat_out(bench)


def sync_p50(folder: Path) -> float:
    """Milliseconds that the disk takes to make 4 KiB durable, in place as a write-ahead log is."""
    times = []
    path = folder / "sync"
    with path.open("wb", buffering=0) as file:
        file.write(bytes(200 * 4_096))
        os.fsync(file.fileno())
        for number in range(200):
            file.seek(number * 4_096)
            file.write(b"x" * 4_096)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1e3)
    path.unlink()
    return percentile(times, 50)


async def _creates(bench: Bench) -> None:
    side, seen = bench.side(HANDRAIL), bench.seen
    connection = await connect(side.port)
    created: dict[str, float] = {}
    times = []
    for number in range(bench.times(50)):
        tag = f"run{next(_numbers)}"
        body = bodies.small(f"events=1 tag={tag}", background=True)
        request = post(side.port, body, key=KEYS[number % 2])
        started = time.monotonic()
        await connection.ask(request)
        times.append((time.monotonic() - started) * 1e3)
        created[tag] = started
        await asyncio.sleep(0.025)  # let the run end: creates are measured, not a queue
    connection.leave()
    await seen.until(lambda: created.keys() <= seen.called.keys(), seconds=10)
    starts = [(seen.called[tag] - moment) * 1e3 for tag, moment in created.items()]
    record = bench.record
    record.add(CREATE_P50, DISK, sync_p50(bench.launcher.home))
    record.add(CREATE_P50, HANDRAIL, percentile(times, 50))
    record.add(CREATE_P99, HANDRAIL, percentile(times, 99))
    record.add(STARTED_P50, HANDRAIL, percentile(starts, 50))
    record.add(STARTED_P99, HANDRAIL, percentile(starts, 99))


def _ways(bench: Bench) -> list[tuple[str, Side, bool]]:
    """Straight, through the foreground, and durable: name, side, whether it is a run."""
    ways = [(side.name, side, False) for side in bench.without(BARE, NGINX)]
    return [*ways, (DURABLE, bench.side(HANDRAIL), True)]


async def _paced(bench: Bench) -> None:
    events = int(PACE * bench.lasting(2.5))
    for name, side, is_run in _ways(bench):
        body = bodies.small(f"events={events} rate={PACE}", stream=True, background=is_run)
        readers = [DeltaLag() for _ in range(64)]
        cpu = side.cpu()
        await together(side, [(body, reader.take) for reader in readers], keys=KEYS)
        cpu = side.cpu() - cpu
        lags = all_lags(readers, deltas=events)
        bench.record.add(LAG_P50, name, percentile(lags, 50))
        bench.record.add(LAG_P99, name, percentile(lags, 99))
        if side.server is not None:
            bench.record.add(LAG_CPU, name, cpu / len(lags) * 1e6)


async def _flat_out(bench: Bench) -> None:
    events = bench.times(50_000)
    for name, side, is_run in _ways(bench):
        body = bodies.small(f"events={events}", stream=True, background=is_run)
        counted = EventCount()
        cpu, started = side.cpu(), time.perf_counter()
        await together(side, [(body, counted.take)])
        took, cpu = time.perf_counter() - started, side.cpu() - cpu
        counted.check(events)
        bench.record.add(FLAT_RATE, name, counted.events / took)
        if side.server is not None:
            bench.record.add(FLAT_CPU, name, cpu / counted.events * 1e6)
