"""Usage for people: what belongs together, in which order, and how long its bar is."""

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from handrail.core.report import Line, UsageSum, bar, gauge, lines, total
from handrail.errors import RequestRejected

NOON = 1_795_348_800  # 2026-11-22, 12:00 UTC


def part(**keys: Any) -> UsageSum:
    counts = {"calls": 1, "failed": 0, "input": 10, "cached": 4, "output": 5, "reasoning": 2}
    whose = {"caller": "ann", "project": None, "model": "m", "account": None}
    return UsageSum(**{"quarter": NOON, "cost": 0, "unpriced": 0, **counts, **whose, **keys})


def test_what_has_one_key_is_one_line_and_nothing_is_added_twice() -> None:
    found = lines([part(cost=3), part(cost=4, failed=1)], by=("caller", "model"), zone=UTC)
    assert found == [
        Line(
            key=("ann", "m"),
            calls=2,
            failed=1,
            input=20,
            cached=8,
            output=10,
            reasoning=4,
            cost=7,
        )
    ]
    assert found[0].tokens == 30


def test_the_dearest_comes_first_and_then_the_largest() -> None:
    sums = [
        part(model="a"),
        part(model="b", cost=1),
        part(model="c", cost=2),
        part(model="d", output=99),
    ]
    order = [line.key[0] for line in lines(sums, by=("model",), zone=UTC)]
    assert order == ["c", "b", "d", "a"]


def test_days_are_those_of_the_zone_and_in_their_order() -> None:
    sums = [part(cost=1), part(quarter=NOON - 86_400)]
    by = ("caller", "day")
    assert [x.key for x in lines(sums, by=by, zone=UTC)] == [
        ("ann", "2026-11-21"),
        ("ann", "2026-11-22"),
    ]
    far = ZoneInfo("Pacific/Auckland")
    assert [x.key[1] for x in lines(sums, by=by, zone=far)] == ["2026-11-22", "2026-11-23"]


def test_what_has_no_label_has_a_line_of_its_own() -> None:
    by = ("project", "account")
    keys = [line.key for line in lines([part(), part(project="site")], by=by, zone=UTC)]
    assert keys == [("-", "-"), ("site", "-")]


def test_an_unknown_cost_is_not_nothing() -> None:
    assert Line(key=(), unpriced=1).usd is None
    assert Line(key=(), unpriced=1, cost=2_000_000_000).usd == 2.0
    assert Line(key=()).usd == 0.0
    whole = total([Line(key=("a",), unpriced=1), Line(key=("b",), cost=5, calls=2)])
    assert whole == Line(key=(), unpriced=1, cost=5, calls=2)


def test_a_bar_is_its_part_of_the_largest() -> None:
    dear, cheap = Line(key=("a",), cost=1_000), Line(key=("b",), cost=260, input=9)
    assert bar(dear, [dear, cheap], width=4) == "████"
    assert bar(cheap, [dear, cheap], width=4) == "█"
    assert bar(cheap, [dear, cheap], width=6) == "█▌"
    big, small = Line(key=("a",), input=8), Line(key=("b",), output=4)
    assert [bar(x, [big, small], width=2) for x in (big, small)] == ["██", "█"]
    nothing = Line(key=("c",))
    assert bar(nothing, [nothing], width=9) == ""
    assert bar(nothing, [], width=9) == ""


def test_a_gauge_is_full_at_one_and_never_longer() -> None:
    assert [gauge(share, width=4) for share in (-1, 0, 0.5, 0.9, 1, 7)] == [
        "░░░░",
        "░░░░",
        "██░░",
        "████",
        "████",
        "████",
    ]


def test_more_lines_than_there_may_be_are_refused_and_not_cut_off() -> None:
    sums = [part(model=name) for name in ("a", "b", "a", "c")]
    assert len(lines(sums, by=("model",), zone=UTC, most=3)) == 3
    with pytest.raises(RequestRejected) as caught:
        lines(sums, by=("model",), zone=UTC, most=2)
    assert caught.value.fault.param == "by"
    assert "more than 2 rows" in caught.value.fault.message
