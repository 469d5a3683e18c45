"""Windows of time, and whether one more call fits: arithmetic, to the edge."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.budgets import Budget, Charge, State, Totals, Window, Work, judge, span

BERLIN = ZoneInfo("Europe/Berlin")
WORK = Work(caller="ann", project="site", models=("gpt-5", "gpt-5.5"))


def at(text: str, zone: Any = UTC, *, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("window", "start", "end"),
    [
        (Window.HOUR, "2026-11-22T13:00", "2026-11-22T14:00"),
        (Window.DAY, "2026-11-22T00:00", "2026-11-23T00:00"),
        (Window.WEEK, "2026-11-16T00:00", "2026-11-23T00:00"),  # a Sunday is the last of its week
        (Window.MONTH, "2026-11-01T00:00", "2026-12-01T00:00"),
    ],
)
@pytest.mark.parametrize("zone", [UTC, BERLIN, ZoneInfo("Asia/Kathmandu")])
def test_a_window_is_by_the_wall_clocks_of_its_zone(
    window: Window, start: str, end: str, zone: Any
) -> None:
    found = span(window, at("2026-11-22T13:37:21", zone) + 0.5, zone)
    assert (found.start, found.end) == (at(start, zone), at(end, zone))


def test_an_edge_belongs_to_what_begins() -> None:
    midnight = at("2026-03-01T00:00", BERLIN)
    assert span(Window.MONTH, midnight, BERLIN).start == midnight
    assert span(Window.MONTH, midnight - 0.001, BERLIN).end == midnight
    assert span(Window.WEEK, at("2026-11-23T00:00"), UTC).start == at("2026-11-23T00:00")


def test_a_day_on_which_clocks_are_put_back_has_25_hours_and_its_doubled_hour_is_two() -> None:
    day = span(Window.DAY, at("2026-10-25T12:00", BERLIN), BERLIN)
    assert day.end - day.start == 25 * 3_600
    first = span(Window.HOUR, at("2026-10-25T02:30", BERLIN), BERLIN)
    second = span(Window.HOUR, at("2026-10-25T02:30", BERLIN, fold=1), BERLIN)
    assert second.start == first.end
    spring = span(Window.DAY, at("2026-03-29T12:00", BERLIN), BERLIN)
    assert spring.end - spring.start == 23 * 3_600


def test_a_day_whose_first_hour_stands_twice_begins_with_the_first_of_them() -> None:
    azores = ZoneInfo("Atlantic/Azores")  # from 01:00 back to 00:00
    again = at("2026-10-25T00:30", azores, fold=1)
    found = span(Window.DAY, again, azores)
    assert found.start == at("2026-10-25T00:00", azores) == again - 5_400
    assert found.end - found.start == 25 * 3_600


def test_december_is_followed_by_january() -> None:
    found = span(Window.MONTH, at("2026-12-31T23:59"), UTC)
    assert (found.start, found.end) == (at("2026-12-01T00:00"), at("2027-01-01T00:00"))


@given(
    st.sampled_from(Window),
    st.integers(0, 4_000_000_000),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Auckland"]),
)
def test_a_moment_is_in_its_window_and_the_next_one_begins_where_it_ends(
    window: Window, moment: int, name: str
) -> None:
    zone = ZoneInfo(name)
    found = span(window, moment, zone)
    assert found.start <= moment < found.end
    assert span(window, found.start, zone) == found
    assert span(window, found.end, zone).start == found.end


def budget(**keys: Any) -> Budget:
    return Budget(**{"name": "team", "window": Window.DAY, **keys})


@pytest.mark.parametrize(
    ("scope", "covers"),
    [
        ({}, True),
        ({"caller": "ann"}, True),
        ({"caller": "bob"}, False),
        ({"project": "site"}, True),
        ({"project": "other"}, False),
        ({"model": "gpt-5.5"}, True),
        ({"model": "GPT-5*"}, True),
        ({"model": "gpt-4*"}, False),
        ({"account": "work"}, False),
        ({"caller": "ann", "project": "other"}, False),
    ],
)
def test_a_budget_is_for_what_all_its_keys_fit(scope: dict[str, str], covers: bool) -> None:
    assert budget(**scope).covers(WORK) is covers


def test_an_account_is_one_key_more() -> None:
    work = Work(caller="ann", project=None, models=("m",), account="work")
    assert budget(account="work").covers(work)
    assert budget().covers(work)
    assert not budget(project="site").covers(work)


def test_what_nobody_knows_counts_as_reserved() -> None:
    team = budget(reserve=Totals(cost=7, tokens=11, requests=1))
    known = Charge(work=WORK, known=Totals(cost=3, tokens=5, requests=1))
    assert team.charged(known) == Totals(cost=3, tokens=5, requests=1)
    half = Charge(work=WORK, known=Totals(tokens=5, requests=1), unpriced=1)
    assert team.charged(half) == Totals(cost=7, tokens=5, requests=1)
    many = Charge(work=WORK, known=Totals(cost=3, tokens=5, requests=9), unpriced=2, uncounted=3)
    assert team.charged(many) == Totals(cost=17, tokens=38, requests=9)


def test_a_budget_sums_up_what_it_is_for() -> None:
    own = Charge(work=WORK, known=Totals(cost=3, tokens=5, requests=1))
    other = Charge(work=Work(caller="bob", project=None, models=("m",)), known=Totals(requests=9))
    ann = budget(caller="ann", reserve=Totals(tokens=7, requests=1))
    unknown = Charge(work=WORK, known=Totals(requests=1), uncounted=1)
    assert ann.used([own, other, unknown]) == Totals(cost=3, tokens=12, requests=2)
    assert ann.used([]) == Totals()


def test_sums_are_added_and_taken_away_and_never_below_nothing() -> None:
    some, more = Totals(cost=1, tokens=2, requests=3), Totals(cost=4, tokens=1, requests=3)
    assert some.plus(more) == Totals(cost=5, tokens=3, requests=6)
    assert some.less(more) == Totals(cost=0, tokens=1, requests=0)
    assert more.less(some) == Totals(cost=3, tokens=0, requests=0)
    assert Totals(requests=5).less(Totals(tokens=9, requests=2)) == Totals(requests=3)
    assert Totals() == Totals(cost=0, tokens=0, requests=0)


@pytest.mark.parametrize(
    ("used", "reserved", "state", "passes"),
    [
        (0, 0, State.ALLOW, False),
        (6, 0, State.ALLOW, False),
        (7, 0, State.WARN, False),  # with this call it is 8 of 10
        (0, 7, State.WARN, False),
        (9, 0, State.WARN, False),
        (10, 0, State.STOP, False),
        (11, 0, State.STOP, False),
        (9, 1, State.STOP, True),
        (0, 10, State.STOP, True),
    ],
)
def test_a_call_fits_until_the_limit_is_reached(
    used: int, reserved: int, state: State, passes: bool
) -> None:
    team = budget(max_requests=10)
    found = judge(team, used=Totals(requests=used), reserved=Totals(requests=reserved))
    assert (found.state, found.passes) == (state, passes)


def test_what_would_go_beyond_a_limit_does_not_fit_although_it_is_not_reached() -> None:
    team = budget(max_tokens=100, reserve=Totals(tokens=30, requests=1))
    assert judge(team, used=Totals(tokens=70), reserved=Totals()).state is State.WARN
    found = judge(team, used=Totals(tokens=71), reserved=Totals())
    assert (found.state, found.passes, found.reason) == (State.STOP, False, "71 of 100 tokens")
    held = judge(team, used=Totals(tokens=1), reserved=Totals(tokens=70))
    assert (held.state, held.passes) == (State.STOP, True)


def test_every_limit_counts_and_the_nearest_is_told() -> None:
    team = budget(max_cost=2_000_000_000, max_tokens=100, max_requests=10, warn_at=0.5)
    found = judge(team, used=Totals(cost=500_000_000, tokens=60, requests=1), reserved=Totals())
    assert (found.state, found.reason) == (State.WARN, "60 of 100 tokens")
    assert found.share == pytest.approx(0.6)
    stop = judge(team, used=Totals(cost=2_500_000_000), reserved=Totals())
    assert (stop.state, stop.reason, stop.share) == (State.STOP, "2.5 of 2 USD", 1.25)


def test_a_limit_of_nothing_lets_nothing_through() -> None:
    found = judge(budget(max_cost=0), used=Totals(), reserved=Totals())
    assert (found.state, found.share, found.passes) == (State.STOP, 1.0, False)


def test_without_a_limit_everything_fits() -> None:
    found = judge(budget(), used=Totals(requests=10**9), reserved=Totals())
    assert (found.state, found.share, found.reason) == (State.ALLOW, 0.0, "")


def test_windows_have_the_names_of_the_settings() -> None:
    assert list(Window) == ["hour", "day", "week", "month"]


def test_so_many_reservations_are_so_many_times_one() -> None:
    assert Totals(cost=2, tokens=3, requests=1).times(4) == Totals(cost=8, tokens=12, requests=4)
    assert Totals(cost=2, tokens=3, requests=1).times(0) == Totals()
