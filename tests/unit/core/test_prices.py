"""Prices: the right one for model, day, tier and length, or none at all."""

from decimal import Decimal
from typing import Any

import pytest

from handrail.core.prices import NANO, Price, PriceTable
from handrail.core.usage import Usage

SMALL = Usage(input=1_000, cached=400, output=100, reasoning=50)


def price(model: str = "m", since: float = 0, **keys: Any) -> Price:
    return Price(**{"model": model, "since": since, "input": 2, "output": 12, **keys})


def of(table: PriceTable, *models: str, at: float = 100, tier: str | None = None) -> Price | None:
    return table.find(models, at=at, tier=tier, usage=SMALL)


def test_cached_input_is_a_part_of_the_input_and_reasoning_one_of_the_output() -> None:
    one = price(input=Decimal("2.5"), cached=Decimal("0.25"), output=Decimal(15))
    # 600 x 2.5 + 400 x 0.25 + 100 x 15, each a millionth
    assert one.cost(SMALL) == 3_100_000
    assert one.cost(Usage(input=1_000, cached=400, output=100)) == 3_100_000


def test_a_cost_is_exact_in_billionths_of_a_dollar() -> None:
    one = price(input=Decimal("0.005"), output=Decimal("0.4"))
    assert one.cost(Usage(input=1, output=1)) == 405
    assert price(input=1, output=0).cost(Usage(input=1_000_000, output=7)) == NANO


def test_without_a_price_of_its_own_cached_input_costs_as_any() -> None:
    assert price().cost(Usage(input=10, cached=10, output=0)) == 20_000
    assert price(cached=Decimal(0)).cost(Usage(input=10, cached=10, output=0)) == 0
    assert price(cached=Decimal(1)).cost(Usage(input=10, output=0)) == 20_000


def test_more_from_the_cache_than_there_was_costs_no_less_than_nothing() -> None:
    assert price(cached=Decimal(1)).cost(Usage(input=10, cached=99, output=0)) == 10_000


@pytest.mark.parametrize("usage", [Usage(input=7), Usage(output=7), Usage(cached=7)])
def test_what_was_not_told_has_no_cost(usage: Usage) -> None:
    assert price().cost(usage) is None
    table = PriceTable(shipped=(price(),))
    assert table.cost(("m",), at=1, tier=None, usage=usage) is None


def test_an_unknown_price_is_none_and_never_nothing() -> None:
    table = PriceTable(shipped=(price(),))
    assert table.cost(("other",), at=1, tier=None, usage=SMALL) is None
    assert table.cost(("m",), at=1, tier=None, usage=None) is None
    assert table.cost(("m",), at=1, tier=None, usage=SMALL) == 1_000 * 2_000 + 100 * 12_000
    assert of(PriceTable(), "m") is None


def test_a_price_holds_from_its_day_on() -> None:
    old, new = price(since=50), price(since=100)
    table = PriceTable(shipped=(new, old))
    assert of(table, "m", at=49) is None
    assert of(table, "m", at=50) is old
    assert of(table, "m", at=99.9) is old
    assert of(table, "m", at=100) is new


def test_the_operators_own_price_wins_from_its_day_on() -> None:
    own, shipped = price(since=60), price(since=90)
    table = PriceTable(own=(own,), shipped=(shipped,))
    assert of(table, "m", at=95) is own
    assert of(PriceTable(own=(price(since=99),), shipped=(shipped,)), "m", at=95) is shipped


def test_the_name_that_the_upstream_read_comes_first() -> None:
    asked, sent = price("asked"), price("sent")
    table = PriceTable(shipped=(asked, sent))
    assert of(table, "asked", "sent") is sent
    assert of(table, "asked", "my-deployment") is asked
    assert of(table, " SENT ") is sent


def test_a_snapshot_has_the_price_of_its_model_unless_it_has_one() -> None:
    model, snapshot = price("gpt-5.4"), price("gpt-5.4-2026-03-05")
    assert of(PriceTable(shipped=(model,)), "gpt-5.4-2026-03-05") is model
    assert of(PriceTable(shipped=(model,)), "gpt-5.4-20260305") is model
    assert of(PriceTable(shipped=(model, snapshot)), "gpt-5.4-2026-03-05") is snapshot
    assert of(PriceTable(own=(model,), shipped=(snapshot,)), "gpt-5.4-2026-03-05") is snapshot
    assert of(PriceTable(shipped=(model,)), "gpt-5.4-mini") is None


@pytest.mark.parametrize("tier", [None, "", "default", "auto", "standard"])
def test_plain_tiers_are_one(tier: str | None) -> None:
    plain, flex = price(), price(tier="flex")
    assert of(PriceTable(shipped=(flex, plain)), "m", tier=tier) is plain


def test_another_tier_has_its_own_price_or_none() -> None:
    plain, flex = price(), price(tier="flex")
    assert of(PriceTable(shipped=(plain, flex)), "m", tier="flex") is flex
    assert of(PriceTable(shipped=(plain, flex)), "m", tier="priority") is None


def test_a_longer_input_has_another_price_or_none() -> None:
    short, middle, other = price(max_input=999), price(max_input=1_000), price()
    assert of(PriceTable(shipped=(short,)), "m") is None
    assert of(PriceTable(shipped=(short, other, middle)), "m") is middle
    assert of(PriceTable(shipped=(price(max_input=2_000), middle)), "m") is middle
    assert of(PriceTable(shipped=(short, other)), "m") is other
