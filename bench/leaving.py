"""From a foreground caller leaving to the upstream connection closing, in three phases.

Both moments are read from the same monotonic clock: just before the caller's socket is closed,
and when the upstream's event loop is told that its connection is lost. A call that is still open
four seconds later is counted as leaked: it would go on costing its owner money.
"""

import asyncio
import time
from itertools import count

from bench import bodies
from bench.client import Connection, connect, post
from bench.record import BARE, Figure
from bench.sides import Bench, Side, percentile

PHASES = {
    "before the headers": "hold=head",
    "before the first event": "hold=body",
    "in mid-stream": "events=100000 rate=20",
}
LEAK_SECONDS = 4.0
_numbers = count()


def closed(phase: str, percent: int) -> Figure:
    """How long it takes in a phase."""
    return Figure(f"caller leaves {phase}: upstream closed, p{percent}", "ms")


def leaked(phase: str) -> Figure:
    """What is never closed in a phase."""
    return Figure(f"caller leaves {phase}: still open after {LEAK_SECONDS:.0f} s", "calls")


async def measure(bench: Bench) -> None:
    """Every phase, for every side that is meant to notice (the bare proxy is not)."""
    for phase, script in PHASES.items():
        for side in bench.without(BARE):
            await _phase(bench, side, phase=phase, script=script)


async def _phase(bench: Bench, side: Side, *, phase: str, script: str) -> None:
    seen = bench.seen
    opened: dict[str, Connection] = {}
    for _ in range(bench.times(50)):
        tag = f"leave{next(_numbers)}"
        opened[tag] = await _open(side, f"{script} tag={tag}")
    async with asyncio.timeout(20):
        await seen.until(lambda: opened.keys() <= seen.called.keys(), seconds=10)
    await asyncio.sleep(0.1)  # whatever the phase sends has been sent
    left = {}
    for tag, connection in opened.items():
        left[tag] = time.monotonic()
        connection.leave()
        await asyncio.sleep(0.002)
    await seen.until(lambda: opened.keys() <= seen.closed.keys(), seconds=LEAK_SECONDS)
    times = [(seen.closed[tag] - left[tag]) * 1e3 for tag in opened if tag in seen.closed]
    bench.record.add(leaked(phase), side.name, len(opened) - len(times))
    for percent in (50, 99) if times else ():
        bench.record.add(closed(phase, percent), side.name, percentile(times, percent))


async def _open(side: Side, script: str) -> Connection:
    connection = await connect(side.port)
    request = post(side.port, bodies.small(script, stream=True))
    connection.begin(request, lambda _: None)
    return connection
