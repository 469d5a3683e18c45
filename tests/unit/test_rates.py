"""Rate limits by hand: what is counted of which call, and what an operator is shown."""

from collections.abc import Mapping
from typing import Any

import pytest

from handrail.core.budgets import Work
from handrail.core.rates import Each, RateLimit, RateWindow
from handrail.core.retry import Cause
from handrail.core.usage import Usage
from handrail.engine.meter import Attribution, CallRecord, Outcome
from handrail.engine.rates import SHOWN, Rates
from handrail.errors import RateLimited
from tests.clocks import HandClock

WORK = Work(caller="ann", project=None, models=("m",))


def limit(**keys: Any) -> RateLimit:
    return RateLimit(**{"name": "team", "window": RateWindow.MINUTE, **keys})


class Limited:
    """Rates under a clock that goes by hand; `limits` are the settings' own."""

    def __init__(self, *limits: RateLimit) -> None:
        self.clock = HandClock()
        self.limits = limits
        self.rates = Rates(limits=lambda: self.limits, monotonic=self.clock.monotonic)

    def admits(self, count: int, work: Work = WORK) -> int:
        """How many of so many requests are let in."""
        return sum(self.admitted(work) for _ in range(count))

    def told(self) -> Mapping[str, str]:
        """What the next request hears of the limits, let in or not."""
        try:
            return self.rates.admit(WORK)
        except RateLimited as refused:
            return refused.fault.headers

    def admitted(self, work: Work) -> bool:
        try:
            self.rates.admit(work)
        except RateLimited:
            return False
        return True


def record(**keys: Any) -> CallRecord:
    values = {
        "attribution": Attribution(caller="ann", mode="stateless", response_id="r"),
        "target": "t",
        "account": None,
        "model": "m",
        "sent_models": ("m",),
        "endpoint": "responses",
        "cause": Cause.FIRST,
        "status": 200,
        "outcome": Outcome.COMPLETED,
        "usage": Usage(input=60, output=40),
        "tier": None,
        "started_at": 0.0,
        "ended_at": 1.0,
        "seconds": 1.0,
    }
    return CallRecord(**{**values, **keys})


def test_a_sliding_minute_never_holds_more_than_the_limit() -> None:
    made = Limited(limit(max_requests=3))
    assert made.admits(5) == 3
    made.clock.passes(59.9)
    assert made.admits(5) == 0
    made.clock.passes(0.2)
    assert made.admits(5) == 3


def test_of_several_limits_the_longest_wait_is_told_and_counted_against() -> None:
    made = Limited(
        limit(name="second", window=RateWindow.SECOND, max_requests=1), limit(max_requests=1)
    )
    assert made.admits(1) == 1
    with pytest.raises(RateLimited) as caught:
        made.rates.admit(WORK)
    assert "'team'" in caught.value.fault.message
    assert caught.value.fault.retry_after == 60.0
    assert [shown["refused"] for shown in made.rates.shown()] == [0, 1]


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        ({}, 900),
        ({"outcome": Outcome.LEFT, "usage": None}, 0),
        ({"usage": Usage(input=60)}, 0),
        ({"outcome": Outcome.REFUSED, "usage": None}, 1_000),
        ({"outcome": Outcome.UNREACHED, "usage": None}, 1_000),
        ({"endpoint": "input_tokens"}, 1_000),
        ({"endpoint": "compact"}, 900),
        ({"sent_models": ("m", "other")}, 1_000),  # another model's call, after a fallback
    ],
)
def test_what_a_call_has_used_is_taken_from_the_bucket_of_its_model(
    keys: dict[str, Any], left: int
) -> None:
    made = Limited(limit(max_tokens=1_000, each=(Each.MODEL,)))
    made.rates.heard(record(**keys))
    assert made.told()["x-ratelimit-remaining-tokens"] == str(left)


def test_a_fallback_is_charged_to_the_model_that_was_let_in() -> None:
    made = Limited(limit(max_tokens=1_000, each=(Each.MODEL,)))
    made.rates.heard(record(sent_models=("m", "other")), work=WORK)
    assert made.told()["x-ratelimit-remaining-tokens"] == "900"


def test_limits_that_are_equal_after_a_reload_go_on_and_others_begin_anew() -> None:
    made = Limited(limit(max_requests=2), limit(name="gone", max_requests=9))
    assert made.admits(3) == 2
    made.limits = (limit(name="new", max_requests=5), limit(max_requests=2))
    assert made.admits(1) == 0
    made.limits = ()
    assert made.admits(9) == 9
    made.limits = (limit(max_requests=2),)
    assert made.admits(3) == 2


def test_an_operator_is_shown_those_with_the_least_left() -> None:
    made = Limited(limit(max_requests=9, each=(Each.CALLER,)))
    for number in range(SHOWN + 20):
        made.admits(1 + (number == 50) * 5, Work(caller=f"c{number}", project=None, models=("m",)))
    (shown,) = made.rates.shown()
    assert (shown["in_use"], len(shown["used"])) == (SHOWN + 20, SHOWN)
    assert shown["used"][0] == {
        "caller": "c50",
        "requests_left": 3,
        "requests_reset_seconds": 60.0,
    }
    made.clock.passes(61)
    assert made.rates.shown()[0]["used"] == []


def test_more_labels_than_are_counted_apart_are_shown_together() -> None:
    made = Limited(limit(max_requests=1, each=(Each.CALLER, Each.PROJECT)))
    works = [Work(caller="ann", project=f"p{n}", models=("m",)) for n in range(10_050)]
    assert sum(made.admitted(work) for work in works) == 10_001
    (shown,) = made.rates.shown()
    assert shown["in_use"] == 10_001
    assert shown["refused"] == 49
