"""What may be spent: windows of time, and whether one more call fits into a budget.

All of it is arithmetic on what it is given; `engine.budgets` keeps the sums.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from handrail.core.prices import NANO

_HOUR: Final = 3_600.0


class Window(StrEnum):
    """How long a budget's sums go on before they begin anew. A week begins on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From `start`, up to and without `end`; unix seconds."""

    start: float
    end: float


def span(window: Window, at: float, zone: tzinfo) -> Span:
    """The window that the unix time `at` is in, by the wall clocks of `zone`."""
    local = datetime.fromtimestamp(at, zone)
    if window is Window.HOUR:
        past = timedelta(minutes=local.minute, seconds=local.second).total_seconds()
        # From the instant and not from the wall clock's reading, which stands twice in autumn.
        start = float(int(at) - past)
        return Span(start=start, end=start + _HOUR)
    first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if window is Window.WEEK:
        first -= timedelta(days=first.weekday())
        after = first + timedelta(days=7)
    elif window is Window.MONTH:
        first = first.replace(day=1)
        after = (first + timedelta(days=32)).replace(day=1)
    else:
        after = first + timedelta(days=1)
    return Span(start=first.timestamp(), end=after.timestamp())


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums: nano-dollars, input and output together, upstream calls that may have run."""

    cost: int = 0
    tokens: int = 0
    requests: int = 0

    def plus(self, other: "Totals") -> "Totals":
        """Both together."""
        return Totals(
            cost=self.cost + other.cost,
            tokens=self.tokens + other.tokens,
            requests=self.requests + other.requests,
        )

    def times(self, count: int) -> "Totals":
        """So many of it."""
        return Totals(
            cost=self.cost * count, tokens=self.tokens * count, requests=self.requests * count
        )

    def less(self, other: "Totals") -> "Totals":
        """What is left of these after `other`, nothing below 0."""
        return Totals(
            cost=max(0, self.cost - other.cost),
            tokens=max(0, self.tokens - other.tokens),
            requests=max(0, self.requests - other.requests),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Something that makes upstream calls: whose it is, and the names that its model goes by."""

    caller: str
    project: str | None
    models: tuple[str, ...]
    account: str | None = None

    def within(self, *, caller: str | None, project: str | None, model: str | None) -> bool:
        """Whether it is this caller's, under this label, of a model that the pattern fits.

        None stands for any.
        """
        return (
            caller in (None, self.caller)
            and project in (None, self.project)
            and (model is None or any(fits(name, model) for name in self.models))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What calls have used, of which at least one may have run.

    `known` are the sums of what is known. `unpriced` and `uncounted` are how many of the calls have
    an unknown cost, and an unknown use.
    """

    work: Work
    known: Totals
    unpriced: int = 0
    uncounted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much whose calls may use within a window. None stands for everybody, and for no limit.

    `model` is a pattern with `*`, for any of the names that a call goes by. `max_cost` is in
    nano-dollars. `reserve` is held for a call that is under way, and charged for one whose use or
    price nobody knows. From the share `warn_at` on there is a warning.
    """

    name: str
    window: Window
    caller: str | None = None
    project: str | None = None
    model: str | None = None
    account: str | None = None
    max_cost: int | None = None
    max_tokens: int | None = None
    max_requests: int | None = None
    warn_at: float = 0.8
    reserve: Totals = Totals(requests=1)

    def covers(self, work: Work) -> bool:
        """Whether this budget is for such work."""
        scope = work.within(caller=self.caller, project=self.project, model=self.model)
        return scope and self.account in (None, work.account)

    def charged(self, charge: Charge) -> Totals:
        """What is added to the sums; what nobody knows counts as much as was reserved.

        Not as nothing: whoever leaves before the end would never be charged.
        """
        return Totals(
            cost=charge.known.cost + charge.unpriced * self.reserve.cost,
            tokens=charge.known.tokens + charge.uncounted * self.reserve.tokens,
            requests=charge.known.requests,
        )

    def used(self, charges: Iterable[Charge]) -> Totals:
        """The sums of those that it is for."""
        found = Totals()
        for charge in charges:
            if self.covers(charge.work):
                found = found.plus(self.charged(charge))
        return found


class State(StrEnum):
    """What a budget says to one more call."""

    ALLOW = "allow"
    WARN = "warn"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a budget says, and why; `share` is how much of the nearest limit is then taken.

    `passes`: it is only work under way that stands in the way, and not what is used already.
    """

    state: State
    reason: str
    share: float
    passes: bool = False


def judge(budget: Budget, *, used: Totals, reserved: Totals) -> Verdict:
    """Whether one more call fits, beside what is used and what is reserved for work under way.

    A limit that is reached stops, and so does one that the new reservation would go beyond.
    """
    found = Verdict(state=State.ALLOW, reason="", share=0.0)
    for (unit, scale), limit, done, held, more in _dimensions(budget, used, reserved):
        taken = done + held
        words = f"{taken / scale:g} of {limit / scale:g} {unit}"
        if taken >= limit or taken + more > limit:
            return Verdict(
                state=State.STOP,
                reason=words,
                share=taken / limit if limit else 1.0,
                passes=done < limit and done + more <= limit,
            )
        share = (taken + more) / limit
        if share > found.share:
            state = State.WARN if share >= budget.warn_at else State.ALLOW
            found = Verdict(state=state, reason=words, share=share)
    return found


_Unit = tuple[str, int]


def _dimensions(
    budget: Budget, used: Totals, reserved: Totals
) -> list[tuple[_Unit, int, int, int, int]]:
    """Each limit that is set: its unit, the limit, what is used, what is reserved, one more."""
    more = budget.reserve
    rows = (
        (("USD", NANO), budget.max_cost, used.cost, reserved.cost, more.cost),
        (("tokens", 1), budget.max_tokens, used.tokens, reserved.tokens, more.tokens),
        (("requests", 1), budget.max_requests, used.requests, reserved.requests, more.requests),
    )
    return [
        (unit, limit, done, held, wanted)
        for unit, limit, done, held, wanted in rows
        if limit is not None
    ]


def fits(name: str, pattern: str) -> bool:
    """Whether a pattern with `*` fits the name of a model; case does not count."""
    return fnmatchcase(name.strip().lower(), pattern.lower())
