"""What rewriting a 109 KiB body costs, next to decoding and encoding it generically.

In this process, without any I/O: the same body, one after the other, the fastest of several
repeats, because noise only ever adds. "Rewrite" is `upstream_request` and `wire.encode`; "read and
rewrite" also has `wire.read_create`, so it is everything that happens to a body on its way.
"""

import time
from collections.abc import Callable

import msgspec

from bench import bodies
from bench.record import GENERIC, HANDRAIL, Figure
from bench.sides import Bench
from handrail.core import wire
from handrail.core.profiles import COMPATIBLE, OPENAI, Profile
from handrail.core.rewrite import upstream_request

KEPT = Figure("109 KiB, input passes as it is: rewrite", "us")
KEPT_READ = Figure("109 KiB, input passes as it is: read and rewrite", "us")
WALKED = Figure("109 KiB, ids taken out of the input: rewrite", "us")
WALKED_READ = Figure("109 KiB, ids taken out of the input: read and rewrite", "us")
_REPEATS = 15
_LOOPS = 20


async def measure(bench: Bench) -> None:
    """Both kinds of body."""
    cases = (
        (KEPT, KEPT_READ, COMPATIBLE, bodies.large_text()),
        (WALKED, WALKED_READ, OPENAI, bodies.large()),
    )
    for alone, with_reading, profile, data in cases:
        generic = _best(_generic(data))
        for figure, seconds in (
            (alone, _best(_rewrite(data, profile))),
            (with_reading, _best(_read_and_rewrite(data, profile))),
        ):
            bench.record.add(figure, GENERIC, generic * 1e6)
            bench.record.add(figure, HANDRAIL, seconds * 1e6)


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
