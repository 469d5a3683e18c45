"""From starting the process to its first served request, answered by the upstream.

Both are started in the same way by the same interpreter, with compiled modules in place and, for
Handrail, a data directory that exists already. The clock stops when the reply has arrived, so
nothing that is loaded lazily on the first request can hide.
"""

from bench.record import BARE, HANDRAIL, Figure
from bench.sides import Bench

START = Figure("process start to first served request", "ms")


async def measure(bench: Bench) -> None:
    """Start each once and end it again."""
    upstream = bench.upstream.port
    starters = {
        HANDRAIL: lambda: bench.launcher.handrail(upstream, name="startup"),
        BARE: lambda: bench.launcher.bare(upstream),
    }
    for side in bench.sides:
        if side.name not in starters:
            continue
        if not bench.record.median(START, side.name):
            starters[side.name]().stop()  # the first time, so that every measured start is alike
        server = starters[side.name]()
        server.stop()
        bench.record.add(START, side.name, server.seconds * 1e3)
