"""What a call costs: a price by model and date, and arithmetic that never makes a price up.

Money is counted in whole nano-dollars (10⁻⁹ USD), so that sums are exact.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from handrail.core.usage import Usage

NANO: Final = 1_000_000_000
DEFAULT_TIER: Final = "default"

_MILLION: Final = 1_000_000
_DATED: Final = re.compile(r"(.+?)-\d{4}-?\d{2}-?\d{2}")
# What a response calls the tier that has no price of its own.
_PLAIN_TIERS: Final = frozenset({"", "default", "auto", "standard"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs from a date on, in USD per million.

    `since` is in unix seconds. `cached` is for input from the cache, None where it costs as much as
    any. `max_input` is the longest input, in tokens of the model, that this price holds for; None
    for any. `source` says where the figure is from.
    """

    model: str
    since: float
    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    tier: str = DEFAULT_TIER
    max_input: int | None = None
    source: str = ""

    def cost(self, usage: Usage) -> int | None:
        """What `usage` costs, in nano-dollars; None unless input and output are known.

        Cached input is a part of the input, reasoning a part of the output; neither is added.
        """
        if usage.input is None or usage.output is None:
            return None
        cached = min(usage.cached or 0, usage.input)
        of_cached = self.input if self.cached is None else self.cached
        whole = (
            self.input * (usage.input - cached) + of_cached * cached + self.output * usage.output
        )
        return round(whole * NANO / _MILLION)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """All prices: the operator's `own`, which win, and the `shipped` ones."""

    own: tuple[Price, ...] = ()
    shipped: tuple[Price, ...] = ()

    def find(
        self, models: Sequence[str], *, at: float, tier: str | None, usage: Usage
    ) -> Price | None:
        """The price of a call at the unix time `at`; None when it is not known.

        `models` are the names that the call went by; the last one, which the upstream read, is
        looked up first. A snapshot (`gpt-5.4-2026-03-05`) without a price has its model's.
        """
        wanted = DEFAULT_TIER if (tier or "") in _PLAIN_TIERS else tier
        for name in _names(models):
            for table in (self.own, self.shipped):
                fitting = [
                    price
                    for price in table
                    if price.model == name
                    and price.since <= at
                    and price.tier == wanted
                    and _holds(price, usage)
                ]
                if fitting:
                    return max(fitting, key=_order)
        return None

    def cost(
        self, models: Sequence[str], *, at: float, tier: str | None, usage: Usage | None
    ) -> int | None:
        """What a call cost, in nano-dollars; None when usage or price is not known."""
        if usage is None:
            return None
        price = self.find(models, at=at, tier=tier, usage=usage)
        return None if price is None else price.cost(usage)


def _names(models: Iterable[str]) -> Iterator[str]:
    for model in reversed(list(models)):
        name = model.strip().lower()
        yield name
        dated = _DATED.fullmatch(name)
        if dated is not None:
            yield dated[1]


def _holds(price: Price, usage: Usage) -> bool:
    return price.max_input is None or (usage.input or 0) <= price.max_input


def _order(price: Price) -> tuple[float, bool, int]:
    # The latest; of several from one day the one for the shortest inputs.
    return price.since, price.max_input is not None, -(price.max_input or 0)
