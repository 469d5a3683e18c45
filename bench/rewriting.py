"""What rewriting a 109 KiB body costs, next to decoding and encoding it generically.

In a fresh process without any I/O whose allocator keeps what it has (given back and taken again,
pages of that size cost more than the work): the same body, one after the other, the fastest of
several repeats, because noise only ever adds. "Rewrite" is `upstream_request` and `wire.encode`;
"read and rewrite" also has `wire.read_create`, so it is everything that happens to a body.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator

import msgspec

from bench import bodies
from bench.client import BenchFailed
from bench.record import GENERIC, HANDRAIL, Figure
from bench.sides import Bench
from handrail.core import wire
from handrail.core.profiles import COMPATIBLE, OPENAI, Profile
from handrail.core.rewrite import upstream_request

KEPT = Figure("109 KiB, input passes as it is: rewrite", "us")
KEPT_READ = Figure("109 KiB, input passes as it is: read and rewrite", "us")
WALKED = Figure("109 KiB, ids taken out of the input: rewrite", "us")
WALKED_READ = Figure("109 KiB, ids taken out of the input: read and rewrite", "us")
_CASES = (
    (KEPT, KEPT_READ, COMPATIBLE, bodies.large_text),
    (WALKED, WALKED_READ, OPENAI, bodies.large),
)
_KEEP = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
_REPEATS = 15
_LOOPS = 20


async def measure(bench: Bench) -> None:
    """Both kinds of body, in a process of their own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bench.rewriting"),
        env={**os.environ, **_KEEP, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await asyncio.wait_for(process.communicate(), 60)
    if process.returncode:
        raise BenchFailed(f"the rewriting ended with status {process.returncode}")
    for name, unit, side, value in json.loads(told):
        bench.record.add(Figure(name, unit), side, value)


def measured() -> Iterator[tuple[str, str, str, float]]:
    """Figure, unit, side and value of everything, measured in this process."""
    for alone, with_reading, profile, body in _CASES:
        data = body()
        for figure, work in (
            (alone, _rewrite(data, profile)),
            (with_reading, _read_and_rewrite(data, profile)),
        ):
            yield figure.name, figure.unit, GENERIC, _best(_generic(data)) * 1e6
            yield figure.name, figure.unit, HANDRAIL, _best(work) * 1e6


def _generic(data: bytes) -> Callable[[], object]:
    return lambda: msgspec.json.encode(msgspec.json.decode(data))


def _rewrite(data: bytes, profile: Profile) -> Callable[[], object]:
    request = wire.read_create(data)
    return lambda: wire.encode(upstream_request(request, profile=profile, stream=False).body)


def _read_and_rewrite(data: bytes, profile: Profile) -> Callable[[], object]:
    return lambda: wire.encode(
        upstream_request(wire.read_create(data), profile=profile, stream=False).body
    )


def _best(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        for _ in range(_LOOPS):
            work()
        best = min(best, time.perf_counter() - started)
    return best / _LOOPS


if __name__ == "__main__":
    print(json.dumps(list(measured())))
