"""Who runs next: limits in all and per caller, and fairness between callers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.admission import Limits, next_caller

CALLERS = ["ann", "bob", "eve"]


def limits(*, total: int = 10, **running: int) -> Limits:
    """Limits on runs under way, in all and by caller name."""
    return Limits(max_running=total, max_queued=5, caller_running=running, caller_queued={"ann": 3})


@pytest.mark.parametrize(
    ("waiting", "running", "chosen"),
    [
        ({}, {}, None),
        ({}, {"ann": 1}, None),
        ({"ann": 7}, {}, "ann"),
        # Nobody under way: who has waited longest.
        ({"ann": 7, "bob": 3}, {}, "bob"),
        # Fewest under way goes first, however late.
        ({"ann": 1, "bob": 99}, {"ann": 1}, "bob"),
        ({"ann": 1, "bob": 99}, {"ann": 1, "bob": 1}, "ann"),
        # A caller at the limit is passed over, and the next one is not.
        ({"ann": 1, "bob": 2}, {"ann": 2, "bob": 2}, "bob"),
        ({"ann": 1}, {"ann": 2}, None),
        # Nobody knows eve any more.
        ({"eve": 1}, {}, None),
        ({"eve": 1, "ann": 2}, {}, "ann"),
    ],
)
def test_the_next_run_is_that_of_the_caller_with_least_under_way_then_longest_waiting(
    waiting: dict[str, int], running: dict[str, int], chosen: str | None
) -> None:
    assert next_caller(waiting, running, limits=limits(ann=2, bob=3)) == chosen


def test_a_caller_that_may_run_one_runs_one() -> None:
    rules = limits(ann=1)
    assert next_caller({"ann": 1}, {}, limits=rules) == "ann"
    assert next_caller({"ann": 1}, {"ann": 1}, limits=rules) is None


@pytest.mark.parametrize(("total", "chosen"), [(3, None), (4, None), (5, "bob")])
def test_the_limit_on_all_runs_stops_everybody(total: int, chosen: str | None) -> None:
    rules = limits(total=total, ann=9, bob=9)
    assert next_caller({"bob": 1}, {"ann": 3, "bob": 1}, limits=rules) == chosen


def test_a_callers_own_limit_never_exceeds_that_of_all() -> None:
    assert limits(total=4, ann=9).running("ann") == 4
    assert limits(total=4, ann=2).running("ann") == 2


def test_a_caller_that_is_no_longer_known_may_neither_run_nor_wait() -> None:
    assert limits(ann=2).running("eve") == 0
    assert limits(ann=2).queued("eve") == 0
    assert limits(ann=2).queued("ann") == 3


COUNTS = st.dictionaries(st.sampled_from(CALLERS), st.integers(0, 4))


@given(COUNTS, COUNTS, COUNTS, st.integers(0, 8))
def test_whoever_is_chosen_waits_is_within_both_limits_and_has_least_under_way(
    waiting: dict[str, int], running: dict[str, int], allowed: dict[str, int], total: int
) -> None:
    rules = limits(total=total, **allowed)
    may = {
        name
        for name in waiting
        if running.get(name, 0) < allowed.get(name, 0) and sum(running.values()) < total
    }
    chosen = next_caller(waiting, running, limits=rules)
    assert (chosen in may) if may else (chosen is None)
    if chosen is not None:
        assert running.get(chosen, 0) == min(running.get(name, 0) for name in may)


def test_one_callers_backlog_does_not_delay_anothers_first_run() -> None:
    running: dict[str, int] = {}
    order = []
    for place in range(6):
        chosen = next_caller({"ann": place, "bob": 1_000}, running, limits=limits(ann=9, bob=9))
        assert chosen is not None
        running[chosen] = running.get(chosen, 0) + 1
        order.append(chosen)
    assert order == ["ann", "bob", "ann", "bob", "ann", "bob"]
