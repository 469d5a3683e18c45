"""Rate limits: exact in every window, and no more than a limit of labels."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.budgets import Work
from handrail.core.rates import (
    MAX_BUCKETS,
    SECOND,
    UNKNOWN_TOKENS,
    Bucket,
    Buckets,
    Each,
    Kind,
    RateLimit,
    RateWindow,
    SlidingLog,
    Standing,
    TokenBucket,
    headers,
    reset_text,
)

MINUTE = 60 * SECOND
WORK = Work(caller="ann", project="site", models=("gpt-5", "GPT-5.5 "))


def limit(**keys: Any) -> RateLimit:
    return RateLimit(**{"name": "team", "window": RateWindow.MINUTE, **keys})


# --- requests -----------------------------------------------------------------------------------


@given(
    most=st.integers(0, 8),
    window=st.integers(1, 50),
    gaps=st.lists(st.integers(0, 30), max_size=200),
)
def test_never_more_than_the_limit_in_any_window_and_never_fewer_than_fit(
    most: int, window: int, gaps: list[int]
) -> None:
    log = SlidingLog(most, window)
    taken: list[int] = []
    now = 1_000
    for gap in gaps:
        now += gap
        inside = [at for at in taken if at > now - window]
        wait = log.wait(now)
        assert (wait == 0) == (len(inside) < most)
        assert log.left(now) == most - len(inside)
        assert log.reset(now) == (inside[-1] + window - now if inside else 0)
        if wait:
            assert wait <= window
            # It fits when it says so, and not a nanosecond sooner.
            assert not most or sum(at > now + wait - window for at in inside) < most
            assert sum(at > now + wait - 1 - window for at in inside) >= most
        else:
            log.take(now)
            taken.append(now)
    for start in taken:
        assert sum(start <= at < start + window for at in taken) <= most


@given(
    most=st.integers(1, 50),
    window=st.integers(1, MINUTE),
    late=st.lists(st.integers(0, 1_000), min_size=100, max_size=100),
    start=st.integers(0, 10**18),
)
def test_what_comes_evenly_at_the_rate_is_never_refused(
    most: int, window: int, late: list[int], start: int
) -> None:
    log = SlidingLog(most, window)
    now = start
    for more in late:
        assert log.wait(now) == 0
        log.take(now)
        now += -(-window // most) + more


def test_a_whole_limit_may_come_at_once_and_then_nothing_until_the_first_is_a_window_old() -> None:
    log = SlidingLog(50, MINUTE)
    for number in range(50):
        assert log.wait(number) == 0
        log.take(number)
    assert log.wait(50) == MINUTE - 50
    assert log.wait(MINUTE - 1) == 1
    assert (log.wait(MINUTE), log.left(MINUTE), log.reset(MINUTE)) == (0, 1, 49)


def test_what_is_a_window_old_is_gone_whatever_is_asked_first() -> None:
    for asked, answer in ((SlidingLog.left, 3), (SlidingLog.reset, 0), (SlidingLog.wait, 0)):
        log = SlidingLog(3, MINUTE)
        log.take(0)
        assert asked(log, MINUTE) == answer


# --- tokens -------------------------------------------------------------------------------------


@given(
    most=st.integers(1, 1_000),
    window=st.integers(1, 1_000),
    steps=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 3_000)), max_size=60),
)
def test_a_bucket_of_tokens_is_exact_and_remembers_every_debt(
    most: int, window: int, steps: list[tuple[int, int]]
) -> None:
    bucket = TokenBucket(most, window)
    level, now = Fraction(most), 0
    for gap, used in steps:
        now += gap
        level = min(Fraction(most), level + Fraction(gap * most, window))
        wait = bucket.wait(now)
        assert (wait == 0) == (level >= 1)
        if wait:
            assert level + Fraction(wait * most, window) >= 1
            assert level + Fraction((wait - 1) * most, window) < 1
        assert bucket.left(now) == max(0, level.__floor__())
        assert bucket.reset(now) == ((most - level) * Fraction(window, most)).__ceil__()
        bucket.add(used, now)
        level -= used


@given(
    most=st.integers(1, 1_000),
    calls=st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 50)), max_size=60),
)
def test_over_a_long_time_it_is_no_more_than_the_rate_and_one_call_beyond_a_full_bucket(
    most: int, calls: list[tuple[int, int]]
) -> None:
    window = 1_000
    bucket = TokenBucket(most, window)
    now = used = 0
    for tokens, gap in calls:
        now += gap + bucket.wait(now + gap)
        # Before the last call nothing was used beyond what a full bucket and its refilling give.
        assert used <= most + Fraction(now * most, window)
        bucket.add(tokens, now)
        used += tokens


def test_a_clock_that_stands_still_refills_nothing() -> None:
    bucket = TokenBucket(10, 10)
    bucket.add(10, 5)
    assert (bucket.wait(5), bucket.wait(4), bucket.left(5), bucket.reset(5)) == (1, 1, 0, 10)


def test_limits_of_nothing_let_nothing_through_and_ask_for_a_whole_window() -> None:
    bucket = Bucket(limit(max_requests=0, max_tokens=0))
    assert bucket.wait(7) == (MINUTE, Kind.REQUESTS)
    assert TokenBucket(0, MINUTE).wait(7) == MINUTE
    nothing = Standing(limit=0, left=0, reset=0)
    assert bucket.standing(Kind.TOKENS, 7) == bucket.standing(Kind.REQUESTS, 7) == nothing
    told = headers([bucket, Bucket(limit(max_requests=9))], 7)
    assert told["x-ratelimit-limit-requests"] == "0"


# --- a limit ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "covers"),
    [
        ({}, True),
        ({"caller": "ann"}, True),
        ({"caller": "bob"}, False),
        ({"project": "site"}, True),
        ({"project": "other"}, False),
        ({"model": "GPT-5*"}, True),
        ({"model": "gpt-5"}, True),
        ({"model": "o3"}, False),
    ],
)
def test_a_limit_is_for_what_all_its_keys_fit(scope: dict[str, str], covers: bool) -> None:
    assert limit(**scope).covers(WORK) is covers


def test_what_is_counted_apart_has_a_key_of_its_own() -> None:
    assert limit().key(WORK) == ()
    assert limit(each=(Each.CALLER,)).key(WORK) == ("ann",)
    assert limit(each=(Each.MODEL, Each.PROJECT)).key(WORK) == ("gpt-5.5", "site")
    unlabelled = Work(caller="ann", project=None, models=("x" * 300,))
    assert limit(each=tuple(Each)).key(unlabelled) == ("ann", "", "x" * 200)


def test_a_limit_in_words() -> None:
    some = limit(max_requests=60, max_tokens=9, each=(Each.CALLER, Each.MODEL))
    assert some.said(Kind.REQUESTS) == "60 requests a minute for each caller and model"
    plain = limit(max_tokens=9, window=RateWindow.SECOND)
    assert plain.said(Kind.TOKENS) == "9 tokens a second"


def test_a_window_is_as_long_as_it_says() -> None:
    for window, length in ((RateWindow.SECOND, SECOND), (RateWindow.MINUTE, MINUTE)):
        bucket = Bucket(limit(window=window, max_requests=1))
        bucket.take(0)
        assert bucket.wait(0) == (length, Kind.REQUESTS)


def test_the_longer_wait_of_requests_and_tokens_counts() -> None:
    bucket = Bucket(limit(max_requests=1, max_tokens=60))
    assert bucket.wait(0)[0] == 0
    bucket.take(0)
    bucket.charge(30, 0)
    assert bucket.wait(0) == (MINUTE, Kind.REQUESTS)
    bucket.charge(130, 0)
    assert bucket.wait(0) == (101 * SECOND, Kind.TOKENS)
    assert bucket.standing(Kind.TOKENS, 0) == Standing(limit=60, left=0, reset=160 * SECOND)


def test_a_limit_of_one_kind_counts_nothing_of_the_other() -> None:
    requests, tokens = Bucket(limit(max_requests=9)), Bucket(limit(max_tokens=9))
    for bucket in (requests, tokens):
        bucket.take(0)
        bucket.charge(5, 0)
    assert requests.standing(Kind.TOKENS, 0) is tokens.standing(Kind.REQUESTS, 0) is None
    assert (requests.wait(0)[0], tokens.wait(0)[0]) == (0, 0)
    assert (requests.idle(0), tokens.idle(0)) == (False, False)
    assert (requests.idle(MINUTE), tokens.idle(MINUTE)) == (True, True)


def test_a_use_that_nobody_knows_is_no_way_around_a_limit() -> None:
    for most, counted in ((30, 30), (3 * UNKNOWN_TOKENS, UNKNOWN_TOKENS)):
        bucket = Bucket(limit(max_tokens=most))
        bucket.charge(None, 0)
        standing = bucket.standing(Kind.TOKENS, 0)
        assert standing is not None
        assert standing.left == most - counted


def test_the_figures_are_those_of_the_docs() -> None:
    assert (SECOND, UNKNOWN_TOKENS, MAX_BUCKETS) == (10**9, 10_000, 10_000)


# --- many of them -------------------------------------------------------------------------------


def test_each_key_has_a_bucket_of_its_own() -> None:
    buckets = Buckets(limit(max_requests=1))
    buckets.of(("ann",), 0).take(0)
    assert buckets.of(("ann",), 0).wait(0)[0] > 0
    assert buckets.of(("bob",), 0).wait(0)[0] == 0
    assert [key for key, _ in buckets.busy(0)] == [("ann",)]
    assert buckets.busy(MINUTE) == []


def test_a_bucket_with_a_debt_makes_no_room_although_its_requests_are_long_ago() -> None:
    buckets = Buckets(limit(max_requests=5, max_tokens=60), most=1)
    buckets.of(("ann",), 0).charge(120, 0)
    assert buckets.of(("bob",), MINUTE) is not buckets.of(("bob",), 2 * MINUTE)
    assert buckets.of(("ann",), 2 * MINUTE).wait(2 * MINUTE)[0] == 0


def test_labels_without_end_share_a_bucket_and_take_no_memory() -> None:
    buckets = Buckets(limit(max_requests=1), most=10)
    allowed = 0
    for number in range(1_000):
        bucket = buckets.of((str(number),), 0)
        if not bucket.wait(0)[0]:
            bucket.take(0)
            allowed += 1
    assert allowed == 11
    assert len(buckets.busy(0)) == 11
    assert buckets.busy(0)[-1][0] == ("*",)
    assert buckets.of(("3",), 0).wait(0)[0] > 0  # those that were first keep what they have


def test_an_idle_bucket_makes_room_and_one_that_is_asked_for_stays() -> None:
    buckets = Buckets(limit(max_requests=5), most=2)
    buckets.of(("first",), 0).take(0)
    buckets.of(("second",), 0).take(0)
    buckets.of(("first",), MINUTE).take(MINUTE)
    third = buckets.of(("third",), MINUTE)
    third.take(MINUTE)
    assert {key for key, _ in buckets.busy(MINUTE)} == {("first",), ("third",)}
    assert len(buckets) == 2


def test_a_busy_bucket_does_not_keep_an_idle_one_from_making_room() -> None:
    buckets = Buckets(limit(max_requests=5), most=3)
    for name in ("busy", "idle", "idle too"):
        buckets.of((name,), 0)
    buckets.of(("busy",), 0)
    buckets.of(("idle",), 0)
    buckets.of(("idle too",), 0)
    buckets.of(("busy",), 0).take(0)
    for name in ("idle", "idle too"):
        buckets.of((name,), 0)
    shared = buckets.of(("a fourth",), 0)
    shared.take(0)
    assert {key for key, _ in buckets.busy(0)} == {("busy",), ("a fourth",)}


# --- what a caller is told ----------------------------------------------------------------------


def test_the_headers_are_those_of_the_limit_that_is_nearest() -> None:
    wide, narrow = Bucket(limit(max_requests=100)), Bucket(limit(max_requests=4, max_tokens=600))
    for bucket in (wide, wide, wide, narrow):
        bucket.take(0)
    narrow.charge(60, 0)
    assert headers([wide, narrow], SECOND) == {
        "x-ratelimit-limit-requests": "4",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "59s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "550",
        "x-ratelimit-reset-tokens": "5s",
    }
    assert list(headers([wide], 0)) == [
        f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")
    ]
    only_tokens = headers([Bucket(limit(max_tokens=9))], 0)
    assert only_tokens["x-ratelimit-limit-tokens"] == "9"
    assert "x-ratelimit-limit-requests" not in only_tokens
    assert headers([], 0) == {}


def test_the_nearest_is_the_one_with_the_smallest_part_left_and_not_the_smallest_number() -> None:
    large, small = Bucket(limit(max_requests=100)), Bucket(limit(max_requests=10))
    for _ in range(60):
        large.take(0)
    small.take(0)
    assert headers([small, large], 0)["x-ratelimit-limit-requests"] == "100"


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (20_000_000, "20ms"),
        (20_000_001, "21ms"),
        (999_000_000, "999ms"),
        (999_000_001, "1s"),
        (1_500_000_000, "1.5s"),
        (59_999_000_000, "59.999s"),
        (360 * SECOND, "6m0s"),
        (89_999_999_999, "1m30s"),
        (3_600 * SECOND, "60m0s"),
    ],
)
def test_a_time_is_written_as_openai_writes_it_and_rounded_up(wait: int, text: str) -> None:
    assert reset_text(wait) == text
