"""Memory of a gateway that has just started, and what each open stream adds.

Always a fresh process: a heap that has grown before would hide what a stream takes. RSS counts
shared pages whole, PSS by their share; what a stream adds is private, so both should agree. With
large requests the figure says how many copies of a request are kept while its answer streams.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from bench import bodies
from bench.client import Connection, connect, post
from bench.processes import Server
from bench.record import BARE, HANDRAIL, NGINX, Figure
from bench.sides import Bench

REST_RSS = Figure("at rest: RSS", "MB")
REST_PSS = Figure("at rest: PSS", "MB")
STREAM_RSS = Figure("500 quiet streams: RSS for each", "KB")
STREAM_PSS = Figure("500 quiet streams: PSS for each", "KB")
LARGE_PSS = Figure("100 quiet streams of 109 KiB requests: PSS for each", "KB")
_SCRIPT = "events=1000 rate=0.5"
_SETTLE_SECONDS = 0.3


async def measure(bench: Bench) -> None:
    """Two fresh processes of each gateway, one for each size of request."""
    starters: Mapping[str, Callable[[int], Server]] = {
        BARE: bench.launcher.bare,
        NGINX: bench.launcher.nginx,
        HANDRAIL: lambda port: bench.launcher.handrail(port, name="memory"),
    }
    for side in bench.gateways:
        for measured in (_small, _large):
            server = starters[side.name](bench.upstream.port)
            try:
                await measured(bench, side.name, server)
            finally:
                server.stop()


async def _small(bench: Bench, name: str, server: Server) -> None:
    record = bench.record
    await asyncio.sleep(_SETTLE_SECONDS)
    rss, pss = server.memory()
    record.add(REST_RSS, name, rss / 1e6)
    record.add(REST_PSS, name, pss / 1e6)
    each_rss, each_pss = await _each_stream(server, bodies.small(_SCRIPT, stream=True), count=500)
    record.add(STREAM_RSS, name, each_rss / 1e3)
    record.add(STREAM_PSS, name, each_pss / 1e3)


async def _large(bench: Bench, name: str, server: Server) -> None:
    _, pss = await _each_stream(server, bodies.large(_SCRIPT, stream=True), count=100)
    bench.record.add(LARGE_PSS, name, pss / 1e3)


async def _each_stream(server: Server, body: bytes, *, count: int) -> tuple[float, float]:
    """What one of so many streams adds to RSS and PSS, in bytes."""
    warm = await _streams(server.port, body, count=8)  # code and caches that the first ones load
    rss, pss = server.memory()
    opened = await _streams(server.port, body, count=count)
    more_rss, more_pss = server.memory()
    for connection in (*warm, *opened):
        connection.leave()
    await asyncio.sleep(_SETTLE_SECONDS)
    return (more_rss - rss) / count, (more_pss - pss) / count


def _set(begun: asyncio.Event, _: bytes) -> None:
    begun.set()


async def _streams(port: int, body: bytes, *, count: int) -> list[Connection]:
    """Open streams that have begun and say something every two seconds."""
    request = post(port, body)
    opened = []
    for _ in range(count):
        connection = await connect(port)
        begun = asyncio.Event()
        connection.begin(request, partial(_set, begun))
        await asyncio.wait_for(begun.wait(), 10)
        opened.append(connection)
    await asyncio.sleep(_SETTLE_SECONDS)
    return opened
