"""Prices and budgets in the settings: what is read, and what stops the start."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from handrail.core.budgets import Budget, Totals, Window
from handrail.core.prices import NANO, Price
from handrail.core.usage import Usage
from handrail.settings.accounting import shipped
from tests.unit.reading import FILE, Read, refusal

NOVEMBER = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def table(kind: str, **keys: Any) -> str:
    def word(value: Any) -> str:
        return f'"{value}"' if isinstance(value, str) and not value.startswith("2") else str(value)

    return f"[[{kind}]]\n" + "".join(f"{key} = {word(value)}\n" for key, value in keys.items())


PRICE = {"model": "m", "since": "2026-01-01", "input": 1, "output": 2}
BUDGET = {"name": "team", "window": "day", "max_requests": 5}


# --- the shipped prices -------------------------------------------------------------------------


def test_every_shipped_price_says_where_it_is_from() -> None:
    assert len(shipped()) > 10
    for price in shipped():
        assert len(price.source) > 20, price.model
        assert price.since < NOVEMBER
        assert 0 < (price.cached or price.input) <= price.input < price.output


def test_no_shipped_price_is_there_twice() -> None:
    keys = [(price.model, price.since, price.tier, price.max_input) for price in shipped()]
    assert len(set(keys)) == len(keys)


def test_a_price_that_went_down_is_there_by_date(read: Read) -> None:
    prices = read().accounting.prices
    usage = Usage(input=1_000_000, output=0)
    costs = [
        prices.cost(
            ("o3",), at=datetime(2025, 6, day, tzinfo=UTC).timestamp(), tier=None, usage=usage
        )
        for day in (9, 10)
    ]
    assert costs == [10 * NANO, 2 * NANO]


# --- prices of the operator ---------------------------------------------------------------------


def test_a_price_is_read_by_its_digits(read: Read) -> None:
    toml = table("prices", **{**PRICE, "model": " My-Model ", "input": 0.1, "cached_input": 0.025})
    (own,) = read(toml).accounting.prices.own
    assert own == Price(
        model="my-model",
        since=datetime(2026, 1, 1, tzinfo=UTC).timestamp(),
        input=Decimal("0.1"),
        cached=Decimal("0.025"),
        output=Decimal("2.0"),
    )


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("prices = 7\n", "'prices' must be a list of tables: [[prices]]"),
        ("[prices]\n", "'prices' must be a list of tables: [[prices]]"),
        (table("prices", **{**PRICE, "input": -1}), "prices[1].input: must be a number from 0 to"),
        (table("prices", **{**PRICE, "output": 1_000_001}), "must be a number from 0 to 1000000."),
        (table("prices", **{**PRICE, "output": "nan"}), "prices[1].output: Expected `float`"),
        (
            "[[prices]]\nmodel = 'm'\nsince = 2026-01-01\ninput = nan\noutput = 1\n",
            "input: must be",
        ),
        (table("prices", **{**PRICE, "since": "soon"}), "prices[1].since: Invalid"),
        (table("prices", **{**PRICE, "model": " "}), "prices[1].model: must be a text"),
        (table("prices", **{**PRICE, "usd": 1}), "prices[1]: Object contains unknown field `usd`"),
        (table("prices", model="m"), "prices[1]: Object missing required field"),
    ],
)
def test_a_price_that_cannot_be_meant_stops_the_start(read: Read, toml: str, words: str) -> None:
    said = refusal(read, toml)
    assert words in said
    assert said.startswith(FILE)
    assert "\n" not in said


# --- budgets ------------------------------------------------------------------------------------


def test_a_budget_is_read_with_what_it_reserves(read: Read) -> None:
    toml = table("budgets", **BUDGET, caller="ann", model="gpt-5*", max_cost=12.5, max_tokens=500)
    toml += "[callers.ann]\n"
    accounting = read(f'{toml}[ledger]\ntime_zone = "Europe/Berlin"\n').accounting
    assert accounting.budgets == (
        Budget(
            name="team",
            window=Window.DAY,
            caller="ann",
            model="gpt-5*",
            max_cost=12_500_000_000,
            max_tokens=500,
            max_requests=5,
            reserve=Totals(cost=50_000_000, tokens=500, requests=1),
        ),
    )
    assert accounting.zone == ZoneInfo("Europe/Berlin")
    assert accounting.retention_seconds == 400 * 86_400


def test_without_any_there_are_none_and_days_are_those_of_utc(read: Read) -> None:
    accounting = read("").accounting
    assert (accounting.budgets, accounting.prices.own) == ((), ())
    assert accounting.zone == ZoneInfo("UTC")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"name": ""}, "budgets[1].name: must be 1 to 64"),
        ({"name": "a/b"}, "budgets[1].name: must be 1 to 64"),
        ({"window": "year"}, "budgets[1].window: Invalid enum value"),
        ({"max_requests": -1}, "budgets[1].max_requests: must be a number from 0 to"),
        ({"max_requests": 1.5}, "budgets[1].max_requests: Expected `int | null`"),
        ({"max_cost": "much"}, "budgets[1].max_cost: Expected"),
        ({"warn_at": 0}, "budgets[1].warn_at: must be more than 0"),
        ({"warn_at": 1.01}, "budgets[1].warn_at: must be more than 0"),
        ({"max_cost": 1, "reserve_cost": 1.1}, "budgets[1].reserve_cost: is more than the limit"),
        ({"max_tokens": 9, "reserve_tokens": 10}, "reserve_tokens: is more than the limit"),
        ({"reserve_tokens": -1}, "budgets[1].reserve_tokens: must be a number from 0 to"),
        ({"user": "ann"}, "budgets[1]: Object contains unknown field `user`"),
    ],
)
def test_a_budget_that_cannot_be_meant_stops_the_start(
    read: Read, keys: dict[str, Any], words: str
) -> None:
    assert words in refusal(read, table("budgets", **{**BUDGET, **keys}))


@pytest.mark.parametrize("whose", ["caller", "project"])
def test_a_budget_that_would_never_stop_a_call_stops_the_start(read: Read, whose: str) -> None:
    toml = table("budgets", **BUDGET, account="work", **{whose: "ann"}) + "[callers.ann]\n"
    said = refusal(read, toml)
    assert "budgets[1]: an account's budget cannot name a caller or project too." in said


def test_a_budget_needs_a_limit_and_a_name_of_its_own(read: Read) -> None:
    limitless = table("budgets", name="team", window="day")
    assert "needs max_cost, max_tokens or max_requests" in refusal(read, limitless)
    twice = table("budgets", **BUDGET) * 2
    assert "two budgets have the name 'team'" in refusal(read, twice)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "", 7])
def test_a_time_zone_that_nobody_knows_stops_the_start(read: Read, zone: Any) -> None:
    written = zone if isinstance(zone, int) else f'"{zone}"'
    said = refusal(read, f"[ledger]\ntime_zone = {written}\n")
    assert "ledger.time_zone: must be" in said
