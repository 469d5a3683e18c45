"""Streams: CPU for each event, and how long an event is on its way.

Flat out, the upstream writes as fast as it is read, so a slow gateway finds more events in each
read than a fast one, and looks better for it; how many also depends on how sender and reader share
their core. In bursts, every side gets sixteen events a read. Paced, each event wakes the gateway by
itself: the price of carrying one. All three are CPU time of the gateway's process by the number of
events. The lag is from the sender's monotonic clock, which stands in the delta, to the reader's on
the same machine.
"""

import asyncio
import time
from collections.abc import Sequence

from bench import bodies
from bench.client import KEYS, DeltaLag, EventCount, Take, all_lags, ask_once, post
from bench.record import Figure
from bench.sides import Bench, Side, percentile

FLAT_RATE = Figure("64 streams flat out: events", "1/s")
FLAT_CPU = Figure("64 streams flat out: gateway CPU for each event", "us")
BURST_CPU = Figure("32 streams, 25 bursts/s of 16 events: gateway CPU for each event", "us")
LAG_P50 = Figure("32 streams, 50 events/s each: lag p50", "ms")
LAG_P99 = Figure("32 streams, 50 events/s each: lag p99", "ms")
PACED_CPU = Figure("32 streams, 50 events/s each: gateway CPU for each event", "us")
PACE = 50


async def measure(bench: Bench) -> None:
    """Flat out, then in bursts, then paced."""
    for side in bench.sides:
        await _flat_out(bench, side)
    for side in bench.gateways:
        await _bursts(bench, side)
    for side in bench.sides:
        await _paced(bench, side)


async def _flat_out(bench: Bench, side: Side) -> None:
    deltas = bench.times(2_000)
    body = bodies.small(f"events={deltas}", stream=True)
    counts = [EventCount() for _ in range(64)]
    cpu, started = side.cpu(), time.perf_counter()
    await together(side, [(body, count.take) for count in counts])
    took, cpu = time.perf_counter() - started, side.cpu() - cpu
    for count in counts:
        count.check(deltas)
    events = sum(count.events for count in counts)
    bench.record.add(FLAT_RATE, side.name, events / took)
    if side.server is not None:
        bench.record.add(FLAT_CPU, side.name, cpu / events * 1e6)


async def _bursts(bench: Bench, side: Side) -> None:
    deltas = 16 * int(25 * bench.lasting(2.0))
    body = bodies.small(f"events={deltas} rate=25 burst=16", stream=True)
    counts = [EventCount() for _ in range(32)]
    cpu = side.cpu()
    await together(side, [(body, count.take) for count in counts])
    cpu = side.cpu() - cpu
    for count in counts:
        count.check(deltas)
    events = sum(count.events for count in counts)
    bench.record.add(BURST_CPU, side.name, cpu / events * 1e6)


async def _paced(bench: Bench, side: Side) -> None:
    events = int(PACE * bench.lasting(3.0))
    body = bodies.small(f"events={events} rate={PACE}", stream=True)
    readers = [DeltaLag() for _ in range(32)]
    cpu = side.cpu()
    await together(side, [(body, reader.take) for reader in readers])
    cpu = side.cpu() - cpu
    lags = all_lags(readers, deltas=events)
    bench.record.add(LAG_P50, side.name, percentile(lags, 50))
    bench.record.add(LAG_P99, side.name, percentile(lags, 99))
    if side.server is not None:
        bench.record.add(PACED_CPU, side.name, cpu / len(lags) * 1e6)


async def together(
    side: Side, asked: list[tuple[bytes, Take]], *, keys: Sequence[str] = KEYS[:1]
) -> None:
    """Ask all of this at once, the keys in turn, and read every reply to its end."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number, (body, take) in enumerate(asked):
            request = post(side.port, body, key=keys[number % len(keys)])
            group.create_task(ask_once(side.port, request, take))
