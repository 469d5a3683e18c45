"""What is done to a gateway under load, and to the next one while it starts."""

import asyncio
import random
import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.acceptance.processes import monotonic
from tests.crash.host import DRAIN_SECONDS, Host, Life
from tests.crash.points import Point, When, points

LEAST_SECONDS: Final = 0.15
MOST_SECONDS: Final = 0.8
REACH_SECONDS: Final = 2.5


class How(StrEnum):
    """What is done under load: a SIGKILL, a SIGTERM, or a SIGSTOP with a SIGCONT after it."""

    KILL = "kill"
    DRAIN = "drain"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens in one cycle: at `point`, or at a random moment when there is none.

    `start` is what happens to the process after it, while that starts: a point, or a random moment.
    """

    how: How = How.KILL
    point: Point | None = None
    start: Point | None = None
    start_at_random: bool = False

    @property
    def settings(self) -> str:
        """Under which settings the gateway runs."""
        if self.how is How.DRAIN:
            return "wide"
        if self.point is None:
            return "gateway"
        return {When.DRAIN: "drain", When.REMOTE: "remote"}.get(self.point.when, "gateway")

    @property
    def mix(self) -> str:
        """The clients that bring it about: their name in `behaviours.MIXES`."""
        put_back = self.start is not None and self.start.name.startswith("requeue")
        if put_back and self.settings != "remote":
            return "insist"  # what may have another attempt is put back
        return self.settings

    @property
    def stops_in_order(self) -> bool:
        """Whether its point is reached only by a process that stops in order."""
        return self.point is not None and self.point.when is When.DRAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """What came of it: whether the named point was reached, and the seconds from a SIGTERM to the
    end. `cut` says that a second SIGTERM did not let it finish.
    """

    reached: bool = False
    seconds: float = 0.0
    cut: bool = False


_FIRST: Final = points(When.LOAD, When.DRAIN, When.REMOTE)
_START: Final = points(When.START)
# Points by which a cycle has some runs under way.
_BUSY: Final = tuple(point for point in _FIRST if point.when is When.LOAD and point.most >= 8)


def schedule(cycle: int) -> Fault:
    """The fault of a cycle: every fourth at random, the others at each point in turn.

    Every third has another one while the next process starts.
    """
    point = None if cycle % 4 == 0 else _FIRST[(cycle - cycle // 4 - 1) % len(_FIRST)]
    if cycle % 3 != 1:
        return Fault(point=point)
    place = (cycle // 3) % (len(_START) + 1)
    if place == len(_START):
        return Fault(point=point, start_at_random=True)
    return Fault(point=point, start=_START[place])


def each_point(cycle: int) -> Fault:
    """The shortest way through all points: those of a start follow on those of a busy gateway."""
    if cycle >= len(_FIRST):
        return Fault(start_at_random=True)
    point = _FIRST[cycle]
    place = _BUSY.index(point) if point in _BUSY else len(_START)
    return Fault(point=point, start=_START[place] if place < len(_START) else None)


EACH_POINT_CYCLES: Final = len(_FIRST) + 1


def drains(_: int) -> Fault:
    """Every cycle ends in order."""
    return Fault(how=How.DRAIN)


def pauses(_: int) -> Fault:
    """Nothing ends; every cycle the process stands still for a while."""
    return Fault(how=How.PAUSE)


async def strike(fault: Fault, life: Life, chance: random.Random) -> Struck:
    """Do it, and wait until the process is gone, or goes on."""
    if fault.how is How.DRAIN:
        return await _drain(life, chance)
    if fault.how is How.PAUSE:
        return await _pause(life, chance)
    seconds = chance.uniform(LEAST_SECONDS, MOST_SECONDS)
    if fault.point is None:
        await asyncio.sleep(seconds)
        await life.kill()
        return Struck()
    life.signal(signal.SIGUSR1)
    limit = seconds if fault.stops_in_order else REACH_SECONDS
    await asyncio.wait({life.ended}, timeout=limit)
    if fault.stops_in_order:
        life.signal(signal.SIGTERM)
        await asyncio.wait({life.ended}, timeout=10)
    reached = life.ended.done() and life.ended.result() == -signal.SIGKILL
    await life.kill()
    return Struck(reached=reached)


async def _drain(life: Life, chance: random.Random) -> Struck:
    await asyncio.sleep(chance.uniform(0.3, 1.5))
    life.signal(signal.SIGTERM)
    began = monotonic()
    cut = chance.random() < 0.1
    if cut:
        await asyncio.sleep(chance.uniform(0.0, 0.9 * DRAIN_SECONDS))
        life.signal(signal.SIGTERM)
        began = monotonic()
    await life.gone()
    return Struck(seconds=monotonic() - began, cut=cut)


async def _pause(life: Life, chance: random.Random) -> Struck:
    for _ in range(chance.randint(1, 2)):
        await asyncio.sleep(chance.uniform(0.05, MOST_SECONDS))
        life.signal(signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(1.0, 5.0))
        life.signal(signal.SIGCONT)
    return Struck()


async def strike_at_start(fault: Fault, host: Host, chance: random.Random) -> bool:
    """Start a gateway that does not live to see its load; whether it died as it should."""
    if fault.start_at_random:
        life = await host.spawn()
        await asyncio.sleep(chance.uniform(0.0, 0.6))
        await life.kill()
        return True
    assert fault.start is not None
    nth = chance.randint(1, fault.start.most)
    life_at = await host.start_at(fault.start, nth, armed=True)
    if life_at is None:
        return True
    await asyncio.wait({life_at.ended}, timeout=0.3)
    reached = life_at.ended.done() and life_at.ended.result() == -signal.SIGKILL
    await life_at.kill()
    return reached
