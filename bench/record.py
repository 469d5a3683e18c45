"""What was measured: one value a round for each figure and side, and ratios of the same round.

On a machine with neighbours a figure can be half or double a minute later. The ratio of two sides
that were measured one after the other in the same round moves far less, so that is what is shown
beside each figure, with its own spread.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

DIRECT = "direct"  # straight to the upstream
DISK = "fdatasync"  # the disk alone
GENERIC = "generic"  # msgspec's decode and encode
NGINX = "nginx"
BARE = "bare proxy"
HANDRAIL = "handrail"
DURABLE = "durable"  # handrail, a background run
SIDES = (DIRECT, DISK, GENERIC, NGINX, BARE, HANDRAIL, DURABLE)


@dataclass(frozen=True, slots=True)
class Figure:
    """What a row of the table is about."""

    name: str
    unit: str


class Record:
    """All values, by figure in the order of measuring, then by side: a list with one a round."""

    def __init__(self) -> None:
        self._values: dict[Figure, dict[str, list[float]]] = {}

    def add(self, figure: Figure, side: str, value: float) -> None:
        """One round's value."""
        self._values.setdefault(figure, {}).setdefault(side, []).append(value)

    def values(self, figure: Figure, side: str) -> list[float]:
        """The values of a side, round by round; empty when it was not measured."""
        return self._values.get(figure, {}).get(side, [])

    def median(self, figure: Figure, side: str) -> float | None:
        """The median of a side, None when it was not measured."""
        values = self.values(figure, side)
        return median(values) if values else None

    def ratios(self, figure: Figure, side: str, base: str) -> list[float]:
        """`side` over `base`, round by round; empty when they were not measured together."""
        above, below = self.values(figure, side), self.values(figure, base)
        if len(above) != len(below) or not all(below):
            return []
        return [one / other for one, other in zip(above, below, strict=True)]

    def ratio(self, figure: Figure, side: str, base: str) -> float | None:
        """The median of the same-round ratios of two sides, None without any."""
        ratios = self.ratios(figure, side, base)
        return median(ratios) if ratios else None

    def plain(self) -> Mapping[str, object]:
        """Everything, for JSON."""
        return {
            figure.name: {
                "unit": figure.unit,
                "rounds": sides,
                "ratios": {
                    f"{side} / {base}": _spread(self.ratios(figure, side, base))
                    for side in sides
                    for base in self._bases(figure, side)
                },
            }
            for figure, sides in self._values.items()
        }

    def table(self) -> Iterator[str]:
        """Everything, for people: median [lowest .. highest] of the rounds."""
        for figure, sides in self._values.items():
            yield f"{figure.name} [{figure.unit}]"
            for side in (side for side in SIDES if side in sides):
                line = f"    {side:<11}{_shown(sides[side]):<36}"
                for base in self._bases(figure, side):
                    line += f"  x {base} {_shown(self.ratios(figure, side, base))}"
                yield line.rstrip()

    def _bases(self, figure: Figure, side: str) -> list[str]:
        before = SIDES[: SIDES.index(side)]
        return [base for base in before if self.ratios(figure, side, base)]


def _spread(values: list[float]) -> Mapping[str, float]:
    return {"min": min(values), "median": median(values), "max": max(values)}


def _shown(values: list[float]) -> str:
    spread = _spread(values)
    if len(values) == 1:
        return number(spread["median"])
    low, high = number(spread["min"]), number(spread["max"])
    return f"{number(spread['median'])} [{low} .. {high}]"


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3 if abs(value) >= 0.1 else 4
    return f"{value:.{digits}f}"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One line of the bar: what is held against which limit."""

    text: str
    value: Callable[[Record], float | None]
    limit: Callable[[Record], float | None]
    at_least: bool = False

    def verdict(self, record: Record) -> str | None:
        """The line that says how it went; None when it was not measured."""
        value, limit = self.value(record), self.limit(record)
        if value is None or limit is None:
            return None
        met = value >= limit if self.at_least else value <= limit
        sign = ">=" if self.at_least else "<="
        word = "met   " if met else "MISSED"
        return f"{word}  {self.text}: {number(value)} (goal {sign} {number(limit)})"
