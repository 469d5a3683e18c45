"""Reads prices, budgets and rate limits: the shipped price list, and the settings' own tables."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from handrail.core.budgets import Budget, Totals, Window
from handrail.core.prices import DEFAULT_TIER, NANO, Price, PriceTable
from handrail.core.rates import RateLimit
from handrail.errors import ConfigInvalid
from handrail.settings.rate_limits import read_limits
from handrail.settings.tables import amount, check_name, check_unique, entries

SHIPPED_FILE: Final = Path(__file__).with_name("prices.toml")
RESERVED_COST: Final = 0.05
RESERVED_TOKENS: Final = 10_000

MAX_PRICE: Final = 1_000_000
"""In USD per million. With `usage.MAX_COUNT` it keeps every cost within 64 bits of nano-dollars."""

# What each key means, in the order of docs/reference/settings.md.
PRICE_MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "model": "The model's name, as requests or the upstream have it.",
        "since": "The day from which on the price holds (midnight UTC), as a TOML date.",
        "input": "USD per million tokens of input.",
        "cached_input": "The same for input from the cache; by default as `input`.",
        "output": "USD per million tokens of output, reasoning included.",
        "tier": "The service tier that it is for, as responses name it.",
        "max_input": "The longest input that it is for; a longer one has another price or none.",
        "source": "Where the figure is from; for people.",
    }
)
BUDGET_MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "name": "What errors and the log call it.",
        "window": "hour, day, week (from Monday) or month, in `ledger.time_zone`.",
        "caller": "Whose calls it is for; by default everybody's together.",
        "project": "Only calls with this label in the header `handrail-project`.",
        "model": "Only calls of models that this pattern with `*` fits, by any of their names.",
        "account": "Only calls made with this account; not together with `caller` or `project`.",
        "max_cost": "Most USD within the window.",
        "max_tokens": "Most tokens, input and output together.",
        "max_requests": "Most upstream calls that may have run.",
        "warn_at": "The share of a limit from which on the log warns, once a window.",
        "reserve_cost": "USD held for each call under way, and charged for one whose cost is not "
        "known.",
        "reserve_tokens": "The same for tokens.",
    }
)


class PriceEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of `[[prices]]`."""

    model: str
    since: date
    input: float
    output: float
    cached_input: float | None = None
    tier: str = DEFAULT_TIER
    max_input: int | None = None
    source: str = ""


class BudgetEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of `[[budgets]]`."""

    name: str
    window: Window
    caller: str | None = None
    project: str | None = None
    model: str | None = None
    account: str | None = None
    max_cost: float | None = None
    max_tokens: int | None = None
    max_requests: int | None = None
    warn_at: float = 0.8
    reserve_cost: float | None = None
    reserve_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """What account is kept by. `retention_seconds` is how long rows of the ledger are kept."""

    prices: PriceTable
    budgets: tuple[Budget, ...]
    zone: tzinfo
    retention_seconds: int
    limits: tuple[RateLimit, ...] = ()


def read_accounting(tree: dict[str, Any], values: Mapping[str, Any], *, file: str) -> Accounting:
    """Prices, budgets and rate limits, taken out of a settings file. Raises ConfigInvalid."""
    return Accounting(
        prices=PriceTable(own=read_prices(tree.pop("prices", []), file), shipped=shipped()),
        budgets=read_budgets(tree.pop("budgets", []), file),
        zone=ZoneInfo(values["ledger.time_zone"]),
        retention_seconds=values["ledger.retention"],
        limits=read_limits(tree.pop("limits", []), file),
    )


@cache
def shipped() -> tuple[Price, ...]:
    """The prices that come with Handrail; read when first asked for."""
    tables = tomllib.loads(SHIPPED_FILE.read_text(encoding="utf-8"))
    return read_prices(tables["prices"], SHIPPED_FILE.name)


def read_prices(tables: Any, file: str) -> tuple[Price, ...]:
    """The prices of a list of tables. Raises ConfigInvalid that names the place."""
    found = entries(tables, PriceEntry, word="prices", file=file)
    return tuple(_price(entry, place) for place, entry in found)


def read_budgets(tables: Any, file: str) -> tuple[Budget, ...]:
    """The budgets of a list of tables. Raises ConfigInvalid that names the place."""
    found = entries(tables, BudgetEntry, word="budgets", file=file)
    budgets = tuple(_budget(entry, place) for place, entry in found)
    check_unique([budget.name for budget in budgets], word="budgets", file=file)
    return budgets


def _price(entry: PriceEntry, place: str) -> Price:
    for name in ("input", "output", "cached_input"):
        amount(getattr(entry, name), f"{place}.{name}", most=MAX_PRICE)
    amount(entry.max_input, f"{place}.max_input")
    if not entry.model.strip():
        raise ConfigInvalid(f"{place}.model: must be a text that is not empty.")
    cached = entry.cached_input
    return Price(
        model=entry.model.strip().lower(),
        since=datetime.combine(entry.since, time(), UTC).timestamp(),
        # By its digits: the price is what was written, not the nearest binary fraction.
        input=Decimal(str(entry.input)),
        output=Decimal(str(entry.output)),
        cached=None if cached is None else Decimal(str(cached)),
        tier=entry.tier,
        max_input=entry.max_input,
        source=entry.source,
    )


def _budget(entry: BudgetEntry, place: str) -> Budget:
    check_name(entry.name, place)
    if entry.account is not None and (entry.caller is not None or entry.project is not None):
        # Callers are asked about before an account is chosen, so that it would never stop a call.
        raise ConfigInvalid(f"{place}: an account's budget cannot name a caller or project too.")
    limits = {"max_cost": entry.max_cost, "max_tokens": entry.max_tokens}
    limits["max_requests"] = entry.max_requests
    if all(limit is None for limit in limits.values()):
        raise ConfigInvalid(f"{place}: needs max_cost, max_tokens or max_requests.")
    for name, limit in limits.items():
        amount(limit, f"{place}.{name}")
    if not 0 < entry.warn_at <= 1:
        raise ConfigInvalid(f"{place}.warn_at: must be more than 0 and at most 1.")
    cost = _held(
        entry.reserve_cost, entry.max_cost, default=RESERVED_COST, place=f"{place}.reserve_cost"
    )
    tokens = _held(
        entry.reserve_tokens,
        entry.max_tokens,
        default=RESERVED_TOKENS,
        place=f"{place}.reserve_tokens",
    )
    return Budget(
        name=entry.name,
        window=entry.window,
        caller=entry.caller,
        project=entry.project,
        model=entry.model,
        account=entry.account,
        max_cost=_nano(entry.max_cost),
        max_tokens=entry.max_tokens,
        max_requests=entry.max_requests,
        warn_at=entry.warn_at,
        reserve=Totals(cost=round(Decimal(str(cost)) * NANO), tokens=int(tokens), requests=1),
    )


def _held(given: float | None, limit: float | None, *, default: float, place: str) -> float:
    """What is reserved; by default no more than the limit."""
    amount(given, place)
    if given is None:
        return default if limit is None else min(default, limit)
    if limit is not None and given > limit:
        raise ConfigInvalid(f"{place}: is more than the limit, so that no call would ever fit.")
    return given


def _nano(usd: float | None) -> int | None:
    return None if usd is None else round(Decimal(str(usd)) * NANO)
