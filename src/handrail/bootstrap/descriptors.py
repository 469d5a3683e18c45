"""How many client connections the process has file descriptors for.

A connection may need a second descriptor for its call upstream, so a gateway that takes more than
half of what it may open ends up taking requests that it cannot serve, or with no descriptor left
for its own files.
"""

import resource
from collections.abc import Callable
from typing import Final

OWN: Final = 64
"""What the process needs for itself: its files, the event loop, connections being refused."""

Bounds = tuple[int, int]


def make_room(
    wanted: int,
    *,
    runs: int,
    get: Callable[[], Bounds] = lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    put: Callable[[Bounds], None] = lambda b: resource.setrlimit(resource.RLIMIT_NOFILE, b),
) -> int:
    """How many of the `wanted` client connections may be admitted; raises the soft limit for them.

    `runs` is how many background responses may hold a call upstream at once.
    """
    need = 2 * wanted + runs + OWN
    soft, hard = get()
    if 0 <= soft < need and soft != hard:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        put((soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= need:
        return wanted
    return max(1, (soft - runs - OWN) // 2)
