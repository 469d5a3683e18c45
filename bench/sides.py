"""What every measurement is given: the servers, where to write, and how long to take."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import quantiles

from bench.client import Seen
from bench.processes import Launcher, Server
from bench.record import DIRECT, Record


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way to the upstream: straight, or through a gateway."""

    name: str
    port: int
    server: Server | None

    def cpu(self) -> float:
        """CPU seconds of the gateway so far; 0 where there is none."""
        return self.server.cpu() if self.server is not None else 0.0


@dataclass(kw_only=True)
class Bench:
    """One run of the benchmark. `sides` are in the order of this round."""

    launcher: Launcher
    upstream: Server
    sides: list[Side]
    record: Record
    seen: Seen
    quick: bool

    def lasting(self, seconds: float) -> float:
        """How long to measure something that should be measured for `seconds`."""
        return seconds * 0.3 if self.quick else seconds

    def times(self, count: int) -> int:
        """How often to do something that should be done `count` times."""
        return max(5, count * 3 // 10) if self.quick else count

    def side(self, name: str) -> Side:
        """The side of that name."""
        return next(side for side in self.sides if side.name == name)

    def without(self, *names: str) -> list[Side]:
        """The sides but these, in the order of this round."""
        return [side for side in self.sides if side.name not in names]

    @property
    def gateways(self) -> list[Side]:
        """The sides that have a process to be measured."""
        return self.without(DIRECT)


Measure = Callable[[Bench], Awaitable[None]]


def percentile(values: list[float], percent: int) -> float:
    """A percentile, for any number of values from one on."""
    return (
        quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
    )
