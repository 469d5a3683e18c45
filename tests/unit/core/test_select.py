"""Which account a call is made with, and the reason that is given."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.select import (
    BARRED,
    Candidate,
    Choice,
    Obstacle,
    State,
    Strategy,
    Wants,
    after_wait,
    choose,
    credits_after,
    score,
)

NOW = 1_000.0
SAID = Obstacle(reason="usage_limit_reached", until=NOW + 60)
GUESSED = Obstacle(reason="its last calls have failed", until=NOW + 30, guessed=True)


WORDS = {
    "hybrid": "most room",
    "drain_first": "first by name",
    "round_robin": "longest unused",
    "least_used": "fewest calls",
}


def account(name: str, **rest: Any) -> Candidate:
    return Candidate(id=f"acct_{name}", name=name, **rest)


def chosen(
    *candidates: Candidate,
    wants: Wants | None = None,
    strategy: Strategy = Strategy.HYBRID,
    pinned: str | None = None,
) -> Choice:
    return choose(candidates, wants or Wants(), strategy=strategy, now=NOW, pinned=pinned)


def name_of(choice: Choice) -> str | None:
    return None if choice.account is None else choice.account.removeprefix("acct_")


def test_without_an_account_there_is_nothing_to_choose() -> None:
    choice = chosen()
    assert (choice.account, choice.reason) == (None, "there is no account")


def test_the_only_one_is_taken_whatever_the_strategy() -> None:
    for strategy in Strategy:
        choice = chosen(account("a"), strategy=strategy)
        assert (name_of(choice), choice.reason) == ("a", "the only one that may be used")


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy.HYBRID, "c"),
        (Strategy.DRAIN_FIRST, "a"),
        (Strategy.ROUND_ROBIN, "b"),
        (Strategy.LEAST_USED, "d"),
    ],
)
def test_each_strategy_takes_its_own(strategy: Strategy, expected: str) -> None:
    choice = chosen(
        account("d", used_at=9.0, calls=1, left=0.1),
        account("c", used_at=8.0, calls=5, left=0.9),
        account("b", used_at=1.0, calls=5, left=0.2),
        account("a", used_at=7.0, calls=9, left=0.3),
        strategy=strategy,
    )
    assert name_of(choice) == expected
    assert choice.reason == f"{strategy.value}: {WORDS[strategy.value]} of 4"


def test_equal_room_goes_to_the_longest_unused_so_that_steady_traffic_spreads() -> None:
    used = {"a": 0.0, "b": 0.0, "c": 0.0}
    taken = []
    for moment in range(1, 10):
        choice = chosen(*(account(name, used_at=at) for name, at in used.items()))
        name = str(name_of(choice))
        used[name] = float(moment)
        taken.append(name)
    assert taken == ["a", "b", "c"] * 3


def test_room_is_weight_times_what_is_left_over_what_runs() -> None:
    assert score(account("a", weight=3.0, left=0.5, running=2)) == pytest.approx(0.5)
    assert score(account("a", left=0.0)) > 0
    assert name_of(chosen(account("a", running=1), account("b", weight=0.6))) == "b"


def test_what_is_over_stands_against_nobody() -> None:
    over = Obstacle(reason="usage_limit_reached", until=NOW)
    assert name_of(chosen(account("a", obstacles=(over,)))) == "a"


@pytest.mark.parametrize("state", [State.PAUSED, State.DRAINING, State.ENDED])
def test_who_is_not_active_is_not_chosen_and_the_answer_says_why(state: State) -> None:
    choice = chosen(account("a", state=state), account("b"))
    assert name_of(choice) == "b"
    obstacle = choice.considered[0].obstacle
    assert obstacle is not None
    assert obstacle.reason == state.value
    assert name_of(chosen(account("a", state=state))) is None


def test_a_limit_that_the_upstream_named_holds_also_for_the_last_one() -> None:
    later = Obstacle(reason="usage_limit_reached", until=NOW + 900)
    choice = chosen(account("a", obstacles=(later,)), account("b", obstacles=(SAID,)))
    assert choice.account is None
    assert choice.reason == "no account may be used now"
    assert choice.until == NOW + 60


def test_a_guess_puts_an_account_behind_the_others() -> None:
    assert name_of(chosen(account("a", obstacles=(GUESSED,)), account("b", running=9))) == "b"


def test_the_last_one_is_never_refused_by_a_guess() -> None:
    longer = Obstacle(reason="not reached", until=NOW + 99, guessed=True)
    choice = chosen(
        account("a", obstacles=(longer,)),
        account("b", obstacles=(GUESSED,)),
        account("c", obstacles=(SAID, GUESSED)),
        account("d", state=State.PAUSED),
    )
    assert name_of(choice) == "b"
    assert choice.reason == "the last one that may answer, although its last calls have failed"


def test_a_guess_without_an_end_is_over_at_once_for_the_last_one() -> None:
    endless = Obstacle(reason="its quota is used to 99 %", guessed=True)
    choice = chosen(account("a", obstacles=(GUESSED,)), account("b", obstacles=(endless,)))
    assert name_of(choice) == "b"


def test_of_several_obstacles_what_was_said_and_then_the_longest_is_told() -> None:
    endless = Obstacle(reason="endless")
    longest = Obstacle(reason="longest", until=NOW + 600)
    choice = chosen(account("a", obstacles=(GUESSED, SAID, endless, longest)))
    obstacle = choice.considered[0].obstacle
    assert obstacle is not None
    assert obstacle.reason == "longest"


def test_whose_call_has_just_failed_is_not_asked_again_for_the_same_request() -> None:
    wants = Wants(tried=frozenset({"acct_a"}))
    assert name_of(chosen(account("a"), account("b"), wants=wants)) == "b"
    choice = chosen(account("a"), wants=wants)
    assert choice.account is None
    assert choice.until is None
    assert chosen(account("a", obstacles=(GUESSED,)), wants=wants).account is None


def test_a_conversation_stays_with_its_account_while_that_may_be_used() -> None:
    wants = Wants(last="acct_b")
    choice = chosen(account("a"), account("b", running=9), wants=wants)
    assert (name_of(choice), choice.reason) == ("b", "its conversation used it last")
    assert name_of(chosen(account("a"), account("b", obstacles=(SAID,)), wants=wants)) == "a"
    assert name_of(chosen(account("a"), wants=wants)) == "a"


def test_what_only_one_can_read_goes_to_that_one_also_while_it_drains() -> None:
    wants = Wants(bound="acct_b", last="acct_a")
    for state in (State.ACTIVE, State.DRAINING):
        choice = chosen(account("a"), account("b", state=state), wants=wants)
        assert (name_of(choice), choice.reason) == ("b", "only it can read what is sent back")


def test_what_only_one_can_read_is_never_sent_to_another() -> None:
    wants = Wants(bound="acct_b")
    choice = chosen(account("a"), account("b", obstacles=(SAID,)), wants=wants)
    assert choice.account is None
    assert choice.until == NOW + 60
    assert choice.reason.endswith("but it cannot be used: usage_limit_reached")
    assert chosen(account("a"), wants=wants).reason.endswith("but there is no such account")


def test_a_demanded_account_is_taken_or_the_request_fails() -> None:
    wants = Wants(pin="b", bound="acct_a")
    choice = chosen(account("a"), account("b"), wants=wants, pinned="acct_a")
    assert (name_of(choice), choice.reason) == ("b", "the request demands it")
    assert chosen(account("a"), wants=wants).account is None
    assert chosen(account("b", state=State.PAUSED), account("a"), wants=wants).account is None


def test_a_guess_does_not_refuse_what_was_demanded_but_a_failed_call_does() -> None:
    wants = Wants(pin="a")
    assert name_of(chosen(account("a", obstacles=(GUESSED,)), wants=wants)) == "a"
    tried = Wants(pin="a", tried=frozenset({"acct_a"}))
    assert chosen(account("a", obstacles=(GUESSED,)), wants=tried).account is None
    assert chosen(account("a"), wants=tried).account is None


def test_the_operators_pin_holds_for_all_that_is_bound_to_nobody() -> None:
    choice = chosen(account("a"), account("b"), pinned="acct_b", wants=Wants(last="acct_a"))
    assert (name_of(choice), choice.reason) == ("b", "the operator pinned it")
    assert name_of(chosen(account("a"), account("b"), pinned="acct_b", wants=Wants(pin="a"))) == "a"
    assert chosen(account("a"), account("b", obstacles=(SAID,)), pinned="acct_b").account is None


def turns(count: int, credits: dict[str, float], **weights: float) -> list[str]:
    """Who is taken by so many calls one after another."""
    taken = []
    for _ in range(count):
        choice = chosen(
            *(account(n, weight=w, credit=credits.get(n, 0.0)) for n, w in weights.items())
        )
        for each, change in credits_after(choice).items():
            name = each.removeprefix("acct_")
            credits[name] = credits.get(name, 0.0) + change
        taken.append(str(name_of(choice)))
    return taken


def test_a_weight_is_a_share_also_of_calls_that_come_one_after_another() -> None:
    taken = turns(400, {}, a=3.0, b=1.0)
    assert (taken.count("a"), taken.count("b")) == (300, 100)
    assert max(len(run) for run in "".join(taken).split("b")) <= 3


def test_an_account_that_comes_back_has_nothing_to_catch_up() -> None:
    credits: dict[str, float] = {}
    turns(500, credits, b=1.0, c=1.0)
    taken = turns(30, credits, a=1.0, b=1.0, c=1.0)
    assert [taken.count(name) for name in "abc"] == [10, 10, 10]
    assert taken[:6].count("a") <= 3


def test_who_was_demanded_or_is_the_last_resort_earns_and_pays_nothing_for_others() -> None:
    assert credits_after(chosen(account("a"), wants=Wants(pin="a"))) == {"acct_a": 0.0}
    assert credits_after(chosen(account("a", obstacles=(GUESSED,)))) == {}
    assert credits_after(chosen(account("a", obstacles=(SAID,)))) == {}


@pytest.mark.parametrize("strategy", Strategy)
def test_of_equals_the_first_by_name_is_taken(strategy: Strategy) -> None:
    for names in ("ab", "ba"):
        assert name_of(chosen(*(account(name) for name in names), strategy=strategy)) == "a"


def test_the_words_of_the_settings_and_of_listings_are_these() -> None:
    assert [str(each) for each in Strategy] == list(WORDS)
    assert [str(each) for each in State] == ["active", "paused", "draining", "ended"]


def test_an_answer_shows_whom_it_has_looked_at_and_its_text_does_not() -> None:
    for wants in (Wants(), Wants(pin="a"), Wants(last="acct_a")):
        for obstacles in ((), (SAID,)):
            choice = chosen(account("a", obstacles=obstacles), wants=wants)
            assert [each.name for each in choice.considered] == ["a"]
            assert "acct" not in repr(choice).replace("account='acct_a'", "")


def test_a_failed_call_comes_after_what_was_said_and_before_what_is_guessed() -> None:
    def told(*standing: Obstacle) -> str:
        wants = Wants(tried=frozenset({"acct_a"}))
        choice = chosen(account("a", obstacles=standing), wants=wants)
        assert choice.account is None
        obstacle = choice.considered[0].obstacle
        assert obstacle is not None
        return obstacle.reason

    assert told(SAID, GUESSED) == "usage_limit_reached"
    assert told(GUESSED) == "its call has failed just now"


def test_of_several_guesses_the_longest_is_told() -> None:
    longer = Obstacle(reason="not reached", until=NOW + 99, guessed=True)
    choice = chosen(account("a", obstacles=(GUESSED, longer)), account("b"))
    assert choice.considered[0].obstacle == longer


def test_what_was_never_used_counts_as_unused() -> None:
    once = account("a", calls=1)
    assert name_of(chosen(once, account("b"), strategy=Strategy.LEAST_USED)) == "b"


obstacles = st.builds(
    Obstacle,
    reason=st.sampled_from(["one", "two"]),
    until=st.none() | st.floats(0, 2_000),
    guessed=st.booleans(),
)
accounts = st.builds(
    Candidate,
    id=st.sampled_from(["1", "2", "3"]),
    name=st.sampled_from(["a", "b", "c"]),
    state=st.sampled_from(State),
    obstacles=st.lists(obstacles, max_size=3).map(tuple),
    weight=st.floats(0, 10),
    left=st.floats(0, 1),
    running=st.integers(0, 9),
    used_at=st.floats(0, 2_000),
)


@given(
    st.lists(accounts, max_size=4, unique_by=lambda each: each.id),
    st.builds(Wants, bound=st.none() | st.just("2"), last=st.none() | st.just("1")),
    st.sampled_from(Strategy),
)
def test_whoever_is_chosen_is_there_and_nobody_said_otherwise(
    candidates: list[Candidate], wants: Wants, strategy: Strategy
) -> None:
    choice = choose(candidates, wants, strategy=strategy, now=NOW)
    assert choice.reason
    found = [each for each in candidates if each.id == choice.account]
    if choice.account is not None:
        assert found[0].state in (State.ACTIVE, State.DRAINING)
        standing = [o for o in found[0].obstacles if o.until is None or o.until > NOW]
        assert all(obstacle.guessed for obstacle in standing)
        assert wants.bound in (None, choice.account)
    elif wants.bound is None:
        for each in candidates:
            said = [o for o in each.obstacles if not o.guessed]
            assert each.state is not State.ACTIVE or said


EU = account("eu", tags=frozenset({"eu", "paid"}))
US = account("us", tags=frozenset({"us"}))
PLAIN = account("plain")


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (set(), {"eu", "us", "plain"}),
        ({"eu"}, {"eu"}),
        ({"paid", "us"}, {"eu", "us"}),
        ({"nowhere", "us"}, {"us"}),
    ],
)
def test_of_the_callers_tags_an_account_must_have_one(tags: set[str], names: set[str]) -> None:
    choice = chosen(EU, US, PLAIN, wants=Wants(tags=frozenset(tags)))
    assert {each.name for each in choice.considered if each.obstacle is None} == names
    assert name_of(choice) in names
    assert not choice.barred
    assert all(each.obstacle == BARRED for each in choice.considered if each.name not in names)


def test_a_caller_without_an_account_of_its_own_gets_none_and_hears_why() -> None:
    choice = chosen(EU, US, PLAIN, wants=Wants(tags=frozenset({"asia"})))
    assert (choice.account, choice.until) == (None, None)
    assert choice.reason == "no account has one of the caller's tags"
    assert choice.barred
    assert not chosen(wants=Wants(tags=frozenset({"asia"}))).barred


@pytest.mark.parametrize(
    "wants", [{"pin": "us"}, {"bound": "acct_us"}, {"last": "acct_us", "tried": {"acct_eu"}}]
)
def test_neither_pin_nor_binding_nor_affinity_leads_to_an_account_of_other_tags(
    wants: dict[str, Any],
) -> None:
    only = Wants(tags=frozenset({"eu"}), **wants)
    choice = chosen(replace(EU, state=State.PAUSED), US, wants=only)
    assert choice.account is None
    assert choice.barred is ("last" not in wants)
    assert name_of(chosen(EU, US, wants=replace(only, tried=frozenset()))) == (
        "eu" if "last" in wants else None
    )


def test_the_operators_pin_lifts_no_rule_of_a_caller() -> None:
    wants = Wants(tags=frozenset({"eu"}))
    choice = chosen(EU, US, wants=wants, pinned="acct_us")
    assert (choice.account, choice.barred) == (None, True)
    assert choice.reason.startswith("the operator pinned it, but it cannot be used: the caller")


def test_the_reset_that_is_told_is_that_of_an_account_with_the_callers_tags() -> None:
    later = Obstacle(reason="usage_limit_reached", until=NOW + 900)
    choice = chosen(
        replace(EU, obstacles=(later,)),
        replace(US, obstacles=(SAID,)),
        wants=Wants(tags=frozenset({"eu"})),
    )
    assert (choice.account, choice.until, choice.barred) == (None, NOW + 900, False)
    assert choice.reason == "no account may be used now"


def test_a_question_about_an_account_is_asked_whatever_limit_stands_but_not_twice() -> None:
    limited = account("a", obstacles=(SAID,))
    asking = Wants(bound="acct_a", question=True)
    assert name_of(chosen(limited, account("b"), wants=asking)) == "a"
    assert name_of(chosen(limited, wants=replace(asking, tried=frozenset({"acct_a"})))) is None
    assert name_of(chosen(limited, wants=Wants(bound="acct_a"))) is None
    draining = account("a", obstacles=(SAID,), state=State.DRAINING)
    assert name_of(chosen(draining, wants=asking)) == "a"


@pytest.mark.parametrize("state", [State.PAUSED, State.ENDED])
def test_no_question_is_asked_with_an_account_that_is_out_of_use(state: State) -> None:
    out = account("a", obstacles=(SAID,), state=state)
    assert name_of(chosen(out, wants=Wants(bound="acct_a", question=True))) is None


def test_after_a_wait_an_account_is_used_if_it_still_may_be() -> None:
    first = chosen(account("a"), account("b"))
    assert first.account == "acct_a"
    assert after_wait(first, later := chosen(account("a", calls=9))) is later
    busy = chosen(account("a", running=3), account("b"))
    assert busy.account == "acct_b"
    kept = after_wait(first, busy)
    assert kept is not None
    assert (kept.account, kept.reason, kept.considered) == ("acct_a", first.reason, busy.considered)
    assert after_wait(first, chosen(account("a", state=State.PAUSED), account("b"))) is None
    assert after_wait(first, chosen(account("b"))) is None
