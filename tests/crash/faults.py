"""What is done to a gateway under load, and to the next one while it starts."""

import asyncio
import random
import signal
from dataclasses import dataclass
from typing import Final

from tests.crash.host import Host, Life
from tests.crash.points import Point, When, points

LEAST_SECONDS: Final = 0.15
MOST_SECONDS: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens in one cycle. `point` None: `kill -9` at a random moment.

    `start` is what happens to the process after it, while that starts: a point, or a random moment.
    """

    point: Point | None = None
    start: Point | None = None
    start_at_random: bool = False
    pause: bool = False

    @property
    def settings(self) -> str:
        """Under which settings the gateway runs."""
        if self.point is None:
            return "gateway"
        return {When.DRAIN: "drain", When.REMOTE: "remote"}.get(self.point.when, "gateway")

    @property
    def name(self) -> str:
        """For a report and for replaying."""
        first = self.point.name if self.point else ("pause" if self.pause else "random")
        then = self.start.name if self.start else ("random" if self.start_at_random else "")
        return f"{first}, then {then} at the start" if then else first


_FIRST: Final = points(When.LOAD, When.DRAIN, When.REMOTE)
_START: Final = points(When.START)


def schedule(cycle: int) -> Fault:
    """The fault of a cycle: every third at random, the others at each point in turn.

    Every third has another one while the next process starts.
    """
    point = None if cycle % 3 == 0 else _FIRST[(cycle - cycle // 3 - 1) % len(_FIRST)]
    if cycle % 3 != 1:
        return Fault(point=point)
    place = (cycle // 3) % (len(_START) + 1)
    if place == len(_START):
        return Fault(point=point, start_at_random=True)
    return Fault(point=point, start=_START[place])


async def strike(fault: Fault, life: Life, chance: random.Random) -> bool:
    """Do it, and wait until the process is gone; whether its named point was reached."""
    seconds = chance.uniform(LEAST_SECONDS, MOST_SECONDS)
    if fault.point is None:
        await asyncio.sleep(seconds)
        await life.kill()
        return False
    life.signal(signal.SIGUSR1)
    await asyncio.wait({life.ended}, timeout=seconds if drains(fault) else 2 * MOST_SECONDS)
    if drains(fault):
        life.signal(signal.SIGTERM)
        await asyncio.wait({life.ended}, timeout=10)
    reached = life.ended.done() and life.ended.result() == -signal.SIGKILL
    await life.kill()
    return reached


def drains(fault: Fault) -> bool:
    """Whether its point is reached only by stopping in order."""
    return fault.point is not None and fault.point.when is When.DRAIN


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
