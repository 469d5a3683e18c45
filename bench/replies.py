"""Replies that are no streams: requests a second, latency, and CPU for each request.

CPU for each request is the CPU time that the gateway's process had during a closed loop, by the
number of replies: it depends neither on the load generator nor on who else uses the machine.
Requests a second and latency depend on both and are good for ratios within a round only.
"""

import asyncio
import time
from dataclasses import dataclass

from bench import bodies
from bench.client import connect, post
from bench.record import DIRECT, Figure
from bench.sides import Bench, Side, percentile

SMALL_ONE = Figure("0.5 KB, 1 connection: requests", "1/s")
SMALL_ONE_P50 = Figure("0.5 KB, 1 connection: p50", "ms")
SMALL_ONE_CPU = Figure("0.5 KB, 1 connection: gateway CPU for each request", "us")
SMALL_MANY = Figure("0.5 KB, 64 connections: requests", "1/s")
SMALL_CPU = Figure("0.5 KB, 64 connections: gateway CPU for each request", "us")
LARGE_CPU = Figure("109 KiB, 8 connections: gateway CPU for each request", "us")
ADDED_P50 = Figure("0.5 KB, 1 connection: p50 added to direct", "ms")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a closed loop gave. Latencies in milliseconds, CPU in microseconds a request."""

    rate: float
    latencies: list[float]
    cpu: float


async def small(bench: Bench) -> None:
    """Bodies of half a kilobyte, over 1 and over 64 connections."""
    record, body = bench.record, bodies.small()
    p50s = {}
    for side in bench.sides:
        load = await closed_loop(side, body, connections=1, seconds=bench.lasting(1.0))
        record.add(SMALL_ONE, side.name, load.rate)
        if side.server is not None:
            record.add(SMALL_ONE_CPU, side.name, load.cpu)
        p50s[side.name] = percentile(load.latencies, 50)
        record.add(SMALL_ONE_P50, side.name, p50s[side.name])
    for side in bench.gateways:
        record.add(ADDED_P50, side.name, p50s[side.name] - p50s[DIRECT])
    for side in bench.sides:
        load = await closed_loop(side, body, connections=64, seconds=bench.lasting(2.0))
        record.add(SMALL_MANY, side.name, load.rate)
        if side.server is not None:
            record.add(SMALL_CPU, side.name, load.cpu)


async def large(bench: Bench) -> None:
    """Bodies of 109 KiB, whose input has to be walked for ids."""
    body = bodies.large()
    for side in bench.gateways:
        load = await closed_loop(side, body, connections=8, seconds=bench.lasting(1.5))
        bench.record.add(LARGE_CPU, side.name, load.cpu)


async def closed_loop(side: Side, body: bytes, *, connections: int, seconds: float) -> Load:
    """Every connection asks again as soon as it has its reply, for that long."""
    request = post(side.port, body)
    latencies: list[float] = []
    opened = [await connect(side.port) for _ in range(connections)]
    for connection in opened:
        await connection.ask(request)
    cpu, started = side.cpu(), time.perf_counter()

    async def ask_on(number: int) -> None:
        now = started
        while now - started < seconds:
            await opened[number].ask(request)
            last, now = now, time.perf_counter()
            latencies.append((now - last) * 1e3)

    async with asyncio.timeout(seconds + 30), asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(ask_on(number))
    took, cpu = time.perf_counter() - started, side.cpu() - cpu
    for connection in opened:
        connection.leave()
    count = len(latencies)
    return Load(rate=count / took, latencies=latencies, cpu=cpu / count * 1e6)
