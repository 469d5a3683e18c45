"""What was used, summed up for people: lines by caller, model, account, project and day."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from types import MappingProxyType
from typing import Final

from handrail.core.prices import NANO
from handrail.errors import Code, RequestRejected

GROUPS: Final = ("caller", "model", "account", "project", "day")
COUNTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "calls": "calls",
        "failed": "failed",
        "input": "input_tokens",
        "cached": "cached_tokens",
        "output": "output_tokens",
        "reasoning": "reasoning_tokens",
    }
)
"""The counts of a line, and what they are called in JSON and CSV."""

_BLOCKS: Final = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSum:
    """Sums of calls that are alike, and ended in the same quarter of an hour.

    `quarter` is its beginning in unix seconds. `failed` were no success, `unpriced` have an
    unknown cost. `cost` is in nano-dollars, of those that have one.
    """

    quarter: int
    caller: str
    project: str | None
    model: str
    account: str | None
    calls: int
    failed: int
    input: int
    cached: int
    output: int
    reasoning: int
    cost: int
    unpriced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What belongs together by `key`, one text for each group that was asked for.

    Cached input is a part of the input, reasoning a part of the output. `cost` is in nano-dollars,
    of the calls that have one; `unpriced` calls have none that is known.
    """

    key: tuple[str, ...]
    calls: int = 0
    failed: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    cost: int = 0
    unpriced: int = 0

    @property
    def usd(self) -> float | None:
        """The cost in USD; None when none is known, which is not 0."""
        return None if self.unpriced and not self.cost else self.cost / NANO

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input + self.output

    def plus(self, part: "UsageSum | Line") -> "Line":
        """The line with more of the same key."""
        return Line(
            key=self.key,
            calls=self.calls + part.calls,
            failed=self.failed + part.failed,
            input=self.input + part.input,
            cached=self.cached + part.cached,
            output=self.output + part.output,
            reasoning=self.reasoning + part.reasoning,
            cost=self.cost + part.cost,
            unpriced=self.unpriced + part.unpriced,
        )


def lines(
    sums: Iterable[UsageSum], *, by: Sequence[str], zone: tzinfo, most: int | None = None
) -> list[Line]:
    """One line for each key, of the groups `by`; days are those of `zone`.

    By day they are in the order of time, otherwise the dearest comes first. Raises RequestRejected
    for more than `most`.
    """
    found: dict[tuple[str, ...], Line] = {}
    for part in sums:
        key = tuple(_word(part, group, zone) for group in by)
        found[key] = found.get(key, Line(key=key)).plus(part)
        if most is not None and len(found) > most:
            raise RequestRejected(
                Code.INVALID_VALUE,
                f"These are more than {most} rows. Ask for fewer groups, or a shorter time.",
                param="by",
            )
    if "day" in by:
        place = by.index("day")
        return sorted(found.values(), key=lambda line: (line.key[place], line.key))
    return sorted(found.values(), key=lambda line: (-line.cost, -line.tokens, line.key))


def total(of: Iterable[Line]) -> Line:
    """All lines together, under no key."""
    whole = Line(key=())
    for line in of:
        whole = whole.plus(line)
    return whole


def bar(line: Line, among: Sequence[Line], *, width: int) -> str:
    """A bar of at most `width` characters: the line's part of the largest, by cost.

    By tokens when no line has a cost that is known.
    """
    amounts = [other.cost for other in among]
    amount = line.cost
    if not any(amounts):
        amounts, amount = [other.tokens for other in among], line.tokens
    largest = max(amounts, default=0)
    if not largest:
        return ""
    eighths = round(width * 8 * amount / largest)
    return ("█" * (eighths // 8) + _BLOCKS[eighths % 8]).rstrip()


def gauge(share: float, *, width: int) -> str:
    """`share`, 0 to 1 (more counts as 1), as `width` characters that are full or empty."""
    full = round(width * min(max(share, 0.0), 1.0))
    return "█" * full + "░" * (width - full)


def _word(part: UsageSum, group: str, zone: tzinfo) -> str:
    if group == "day":
        return datetime.fromtimestamp(part.quarter, zone).date().isoformat()
    return getattr(part, group) or "-"
