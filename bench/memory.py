"""Memory of a gateway that has just started, and what each open stream adds.

Always a fresh process: a heap that has grown before would hide what a stream takes. RSS counts
shared pages whole, PSS by their share; what a stream adds is private, so both should agree.
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
_STREAMS = 500
_SETTLE_SECONDS = 0.5


async def measure(bench: Bench) -> None:
    """One fresh process of each gateway."""
    starters: Mapping[str, Callable[[int], Server]] = {
        BARE: bench.launcher.bare,
        NGINX: bench.launcher.nginx,
        HANDRAIL: lambda port: bench.launcher.handrail(port, name="memory"),
    }
    for side in bench.gateways:
        server = starters[side.name](bench.upstream.port)
        try:
            await _measure(bench, side.name, server)
        finally:
            server.stop()


async def _measure(bench: Bench, name: str, server: Server) -> None:
    record = bench.record
    await asyncio.sleep(_SETTLE_SECONDS)
    rss, pss = server.memory()
    record.add(REST_RSS, name, rss / 1e6)
    record.add(REST_PSS, name, pss / 1e6)
    warm = await _streams(server.port, 8)  # code and caches that the first streams pay for
    rss, pss = server.memory()
    opened = await _streams(server.port, _STREAMS)
    more_rss, more_pss = server.memory()
    for connection in (*warm, *opened):
        connection.leave()
    record.add(STREAM_RSS, name, (more_rss - rss) / _STREAMS / 1e3)
    record.add(STREAM_PSS, name, (more_pss - pss) / _STREAMS / 1e3)
    await asyncio.sleep(_SETTLE_SECONDS)


def _set(begun: asyncio.Event, _: bytes) -> None:
    begun.set()


async def _streams(port: int, count: int) -> list[Connection]:
    """Open streams that have begun and say something every two seconds."""
    request = post(port, bodies.small("events=1000 rate=0.5", stream=True))
    opened = []
    for _ in range(count):
        connection = await connect(port)
        begun = asyncio.Event()
        connection.begin(request, partial(_set, begun))
        await asyncio.wait_for(begun.wait(), 10)
        opened.append(connection)
    await asyncio.sleep(_SETTLE_SECONDS)
    return opened
