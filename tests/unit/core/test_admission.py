"""Who runs next: limits in all and per caller, and fairness between callers."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.admission import PLACES, Limits, Queue, next_start
from handrail.core.caller_policy import Priority

CALLERS = ["ann", "bob", "eve"]


def limits(*, total: int = 10, weights: Mapping[str, int] | None = None, **running: int) -> Limits:
    """Limits on runs under way, in all and by caller name."""
    return Limits(
        max_running=total,
        max_queued=5,
        caller_running=running,
        caller_queued={"ann": 3},
        weights=weights or {},
    )


def queues(waiting: Mapping[str, int], running: Mapping[str, int]) -> list[Queue]:
    """Where callers stand who have not had a turn yet: the place of the next run, and how many."""
    return [
        Queue(caller=name, running=running.get(name, 0), place=waiting.get(name))
        for name in sorted({*waiting, *running})
    ]


def chosen(waiting: Mapping[str, int], running: Mapping[str, int], *, rules: Limits) -> str | None:
    """The caller whose run starts."""
    start = next_start(queues(waiting, running), limits=rules)
    if start is not None:
        assert start.place == waiting[start.caller]
    return None if start is None else start.caller


@pytest.mark.parametrize(
    ("waiting", "running", "first"),
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
    waiting: dict[str, int], running: dict[str, int], first: str | None
) -> None:
    assert chosen(waiting, running, rules=limits(ann=2, bob=3)) == first


def test_a_caller_that_may_run_one_runs_one() -> None:
    assert chosen({"ann": 1}, {}, rules=limits(ann=1)) == "ann"
    assert chosen({"ann": 1}, {"ann": 1}, rules=limits(ann=1)) is None


@pytest.mark.parametrize(("total", "first"), [(3, None), (4, None), (5, "bob")])
def test_the_limit_on_all_runs_stops_everybody(total: int, first: str | None) -> None:
    rules = limits(total=total, ann=9, bob=9)
    assert chosen({"bob": 1}, {"ann": 3, "bob": 1}, rules=rules) == first


def test_a_callers_own_limit_never_exceeds_that_of_all() -> None:
    assert limits(total=4, ann=9).running("ann") == 4
    assert limits(total=4, ann=2).running("ann") == 2


def test_a_caller_that_is_no_longer_known_may_neither_run_nor_wait() -> None:
    assert limits(ann=2).running("eve") == 0
    assert limits(ann=2).queued("eve") == 0
    assert limits(ann=2).queued("ann") == 3


def test_who_has_no_weight_has_one() -> None:
    assert limits(weights={"ann": 3}).weight("ann") == 3
    assert limits(weights={"ann": 3}).weight("bob") == 1


def test_priorities_have_an_order() -> None:
    # Kept in the store, whose default for runs from before is 1.
    assert PLACES == {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


def test_limits_need_no_weights() -> None:
    rules = Limits(max_running=1, max_queued=1, caller_running={"ann": 1}, caller_queued={})
    assert chosen({"ann": 1}, {}, rules=rules) == "ann"


COUNTS = st.dictionaries(st.sampled_from(CALLERS), st.integers(0, 4))
WEIGHTS = st.dictionaries(st.sampled_from(CALLERS), st.integers(1, 100))


@given(COUNTS, COUNTS, COUNTS, st.integers(0, 8), WEIGHTS)
def test_whoever_is_chosen_waits_is_within_both_limits_and_has_least_under_way_for_its_weight(
    waiting: dict[str, int],
    running: dict[str, int],
    allowed: dict[str, int],
    total: int,
    weights: dict[str, int],
) -> None:
    rules = limits(total=total, weights=weights, **allowed)
    may = {
        name
        for name in waiting
        if running.get(name, 0) < allowed.get(name, 0) and sum(running.values()) < total
    }
    first = chosen(waiting, running, rules=rules)
    assert (first in may) if may else (first is None)
    if first is not None:
        share = {name: running.get(name, 0) / weights.get(name, 1) for name in may}
        assert share[first] == min(share.values())


# --- turns ---------------------------------------------------------------------------------------


def starts(rules: Limits, *, slots: int, arrivals: Mapping[str, int]) -> Iterator[str]:
    """Whose runs start one after the other, if each caller has endless runs waiting.

    `arrivals` says after how many starts a caller comes. The oldest run under way ends as soon as
    all slots are taken.
    """
    stand = {
        name: Queue(caller=name, running=0, place=None if arrivals[name] else n)
        for n, name in enumerate(sorted(arrivals))
    }
    under_way: list[str] = []
    count = 0
    while True:
        for name, after in arrivals.items():
            if after and after == count:
                stand[name] = replace(stand[name], place=1_000_000)
        start = next_start(list(stand.values()), limits=rules)
        assert start is not None
        stand[start.caller] = replace(
            stand[start.caller],
            started=start.started,
            turn=start.turn,
            running=stand[start.caller].running + 1,
        )
        under_way.append(start.caller)
        count += 1
        yield start.caller
        if len(under_way) == slots:
            ended = under_way.pop(0)
            stand[ended] = replace(stand[ended], running=stand[ended].running - 1)


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
@pytest.mark.parametrize("before", [1, 10, 1_000])
def test_one_callers_backlog_does_not_delay_anothers_first_run(slots: int, before: int) -> None:
    rules = limits(total=slots, ann=slots, bob=slots)
    order = list(islice(starts(rules, slots=slots, arrivals={"ann": 0, "bob": before}), before + 9))
    assert order[:before] == ["ann"] * before
    assert order[before] == "bob"
    assert order[before:].count("bob") >= 4


@pytest.mark.parametrize("weights", [{"ann": 1, "bob": 1}, {"ann": 3, "bob": 1}, {"ann": 99}])
def test_where_one_run_fits_in_turns_are_as_the_weights_are_and_nobody_starves(
    weights: dict[str, int],
) -> None:
    rules = limits(total=1, ann=1, bob=1, weights=weights)
    share = weights["ann"]
    order = list(islice(starts(rules, slots=1, arrivals={"ann": 0, "bob": 0}), 10 * (share + 1)))
    assert abs(Counter(order)["bob"] - 10) <= 1
    gaps = [b - a for a, b in pairwise(n for n, name in enumerate(order) if name == "bob")]
    assert all(abs(gap - (share + 1)) <= 1 for gap in gaps)


def test_where_several_fit_in_as_many_are_under_way_as_the_weights_are() -> None:
    rules = limits(total=8, ann=8, bob=8, weights={"ann": 3, "bob": 1})
    running: Counter[str] = Counter()
    for _ in range(8):
        first = chosen({"ann": 1, "bob": 2}, running, rules=rules)
        assert first is not None
        running[first] += 1
    assert running == {"ann": 6, "bob": 2}


def test_who_was_away_has_saved_up_no_turns() -> None:
    rules = limits(total=1, ann=1, bob=1)
    order = list(islice(starts(rules, slots=1, arrivals={"ann": 0, "bob": 500}), 520))
    assert order[500:] == ["bob", "ann"] * 10
