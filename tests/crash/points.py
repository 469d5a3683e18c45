"""The points at which a gateway is killed, as a table: every method of the store, every step of an
upstream call.

A method that writes has three: `before` (nothing has happened), `inside` (the statements have run,
the commit has not) and `after` (committed, but nobody has been told). One that only reads has one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class When(StrEnum):
    """In which part of a gateway's life a point is reached."""

    LOAD = "under load"
    START = "while it starts and recovers"
    DRAIN = "while it drains"
    REMOTE = "under load, with an upstream that keeps responses itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A place and its occasion; killed at the nth time, n from 1 to `most`."""

    name: str
    when: When
    most: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of the store: its phases, and how often it is reached within one cycle at least.

    Without an occasion it has no points, because nothing in a cycle asks for it.
    """

    phases: tuple[str, ...]
    most: Mapping[When, int]


WRITES: Final = ("before", "inside", "after")
READS: Final = ("before",)

STORE: Final[Mapping[str, Method]] = {
    "accept": Method(phases=WRITES, most={When.LOAD: 7}),
    "keep": Method(phases=WRITES, most={When.LOAD: 3}),
    "answered": Method(phases=WRITES, most={When.LOAD: 6}),
    "claim": Method(phases=WRITES, most={When.LOAD: 20}),
    "begin": Method(phases=WRITES, most={When.LOAD: 10}),
    "begin_again": Method(phases=WRITES, most={When.LOAD: 1}),
    "call_again": Method(phases=WRITES, most={When.LOAD: 1}),
    "append": Method(phases=WRITES, most={When.LOAD: 30}),
    "release": Method(phases=WRITES, most={When.DRAIN: 1}),
    "finish": Method(phases=WRITES, most={When.LOAD: 8}),
    "conclude": Method(phases=WRITES, most={When.LOAD: 3, When.START: 2}),
    "delete": Method(phases=WRITES, most={When.LOAD: 2}),
    "requeue": Method(phases=WRITES, most={When.START: 2}),
    "sweep": Method(phases=WRITES, most={When.START: 1}),
    "remember": Method(phases=WRITES, most={When.REMOTE: 5}),
    "forget": Method(phases=WRITES, most={When.REMOTE: 2}),
    "get": Method(phases=READS, most={When.LOAD: 20}),
    "read": Method(phases=READS, most={When.LOAD: 20}),
    "calls": Method(phases=READS, most={}),
    "ancestry": Method(phases=READS, most={When.LOAD: 1}),
    "find_items": Method(phases=READS, most={When.LOAD: 1}),
    "abandoned": Method(phases=READS, most={When.START: 1}),
    "unfinished_of_others": Method(phases=READS, most={When.START: 1}),
    "outlines": Method(phases=READS, most={}),
    "shares": Method(phases=READS, most={}),
    "locate": Method(phases=READS, most={When.REMOTE: 3}),
    "counts": Method(phases=READS, most={When.LOAD: 1}),
    "close": Method(phases=("before", "after"), most={When.DRAIN: 1}),
}

UPSTREAM: Final = (
    Point(name="upstream.before", when=When.LOAD, most=10),
    Point(name="upstream.unanswered", when=When.LOAD, most=2),
    Point(name="upstream.answered", when=When.LOAD, most=10),
    Point(name="upstream.slice", when=When.LOAD, most=30),
    Point(name="upstream.closed", when=When.LOAD, most=8),
)

POINTS: Final[tuple[Point, ...]] = (
    *(
        Point(name=f"{name}.{phase}", when=when, most=most)
        for name, method in STORE.items()
        for when, most in method.most.items()
        for phase in method.phases
    ),
    *UPSTREAM,
)


def points(*whens: When) -> tuple[Point, ...]:
    """The points of these occasions."""
    return tuple(point for point in POINTS if point.when in whens)
