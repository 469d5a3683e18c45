"""Never paid twice by accident: when another upstream call may be made, and when not."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from handrail.core.caller_policy import CrashPolicy
from handrail.core.retry import MAX_ATTEMPTS, MAX_CALLS, Cause, Verdict, attempt_verdict, verdict
from handrail.errors import (
    Code,
    Fault,
    HandrailError,
    RequestRejected,
    StoreFailed,
    UpstreamFailed,
    UpstreamRefused,
    fault,
)


def refused(status: int, retry_after: float | None = None, **extra: Any) -> UpstreamRefused:
    """What an upstream answered."""
    kind = extra.pop("type", "server_error")
    fault = Fault(
        status=status,
        type=kind,
        code=extra.pop("code", None),
        message="m",
        retry_after=retry_after,
        extra=extra,
    )
    return UpstreamRefused(fault, upstream_status=status)


def unreached() -> UpstreamFailed:
    """A call that failed before its last byte was handed over."""
    return UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "refused", sent=False)


@pytest.mark.parametrize("status", [429, 503])
def test_an_upstream_that_did_not_run_the_call_is_asked_again(status: int) -> None:
    decision = verdict(refused(status), calls=1)
    assert decision.again
    assert str(status) in decision.reason


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 422, 500, 501, 502, 504, 529])
def test_any_other_answer_is_final(status: int) -> None:
    assert not verdict(refused(status, retry_after=1.0), calls=1).again


@pytest.mark.parametrize(
    "code",
    [
        Code.UPSTREAM_UNREACHABLE,
        Code.UPSTREAM_ENDED_EARLY,
        Code.UPSTREAM_STALLED,
        Code.UPSTREAM_PROTOCOL_ERROR,
    ],
)
def test_a_call_is_repeated_only_on_proof_that_it_was_never_sent(code: Code) -> None:
    sent = verdict(UpstreamFailed(code, "m"), calls=1)
    assert not sent.again
    assert "may have run" in sent.reason
    assert verdict(UpstreamFailed(code, "m", sent=False), calls=1).again


def test_errors_that_are_not_the_upstreams_are_final() -> None:
    errors: list[HandrailError] = [
        StoreFailed(Code.STORE_UNAVAILABLE, "m"),
        RequestRejected(Code.INVALID_VALUE, "m"),
        HandrailError(Fault(status=503, type="server_error", code=None, message="m")),
    ]
    assert not [error for error in errors if verdict(error, calls=1).again]


@pytest.mark.parametrize("error", [unreached(), refused(429), refused(503, retry_after=1.0)])
def test_there_are_at_most_five_calls(error: HandrailError) -> None:
    again = [verdict(error, calls=calls).again for calls in range(1, 8)]
    assert again == [True] * 4 + [False] * 3
    assert MAX_CALLS == 5
    assert "5 times" in verdict(error, calls=5).reason


@pytest.mark.parametrize(
    ("asked", "again"), [(0.5, True), (60.0, True), (60.1, False), (9e9, False)]
)
def test_the_upstreams_own_wait_is_kept_or_the_call_is_given_up(asked: float, again: bool) -> None:
    decision = verdict(refused(429, retry_after=asked), calls=1)
    assert decision.again is again
    if again:
        assert decision.wait == asked
    else:
        assert f"{asked:.0f} s" in decision.reason


@pytest.mark.parametrize("error", [unreached(), refused(429)])
def test_waits_grow_and_stay_bounded(error: HandrailError) -> None:
    waits = [verdict(error, calls=calls).wait for calls in range(1, 5)]
    assert all(0 < a < b <= 30 for a, b in itertools.pairwise(waits))


@pytest.mark.parametrize(
    "error",
    [
        refused(429, type="usage_limit_reached", resets_in_seconds=3_600),
        refused(429, type="usage_limit_reached", resets_at=4_102_444_800),
        refused(429, type="insufficient_quota", code="insufficient_quota"),
    ],
    ids=["resets in an hour", "resets at a time", "quota used up"],
)
def test_a_limit_that_waiting_does_not_lift_is_obeyed(error: HandrailError) -> None:
    assert not verdict(error, calls=1).again


def test_the_words_that_stand_in_the_store_never_change() -> None:
    assert [cause.value for cause in Cause] == [
        "first",
        "unreached",
        "refused",
        "mended",
        "other_account",
        "other_target",
        "ended_early",
        "stalled",
        "server_error",
        "worker_lost",
    ]


@pytest.mark.parametrize(
    ("error", "calls", "reason"),
    [
        (unreached(), 1, "the upstream was never reached"),
        (unreached(), 5, "the upstream was never reached, 5 times"),
        (refused(503), 1, "the upstream answered 503 without running the call"),
        (refused(429, code="insufficient_quota"), 1, "the limit will not pass soon"),
        (refused(400), 1, "the answer is final"),
        # Only an upstream's own refusal is about a limit of its.
        (RequestRejected(Code.QUEUE_FULL, "m"), 1, "the answer is final"),
    ],
)
def test_a_verdict_says_why(error: HandrailError, calls: int, reason: str) -> None:
    assert verdict(error, calls=calls).reason == reason


def test_a_call_within_an_attempt_says_why_it_is_made() -> None:
    assert verdict(unreached(), calls=1).cause is Cause.UNREACHED
    assert verdict(refused(503), calls=1).cause is Cause.REFUSED


# --- attempts --------------------------------------------------------------------------------


def lost(code: Code = Code.UPSTREAM_ENDED_EARLY) -> UpstreamFailed:
    """A call that may have run."""
    return UpstreamFailed(code, "m")


def attempt(
    error: HandrailError | None,
    *,
    policy: CrashPolicy = CrashPolicy.RETRY,
    attempts: int = 1,
    last_seq: int = 2,
) -> Verdict:
    """The verdict on a run of which nothing is visible, unless told otherwise."""
    return attempt_verdict(error, policy=policy, attempts=attempts, last_seq=last_seq)


LOSSES: list[tuple[HandrailError | None, Cause]] = [
    (None, Cause.WORKER_LOST),
    (lost(Code.UPSTREAM_ENDED_EARLY), Cause.ENDED_EARLY),
    (lost(Code.UPSTREAM_STALLED), Cause.STALLED),
    (refused(500), Cause.SERVER_ERROR),
    (refused(502), Cause.SERVER_ERROR),
    (refused(504), Cause.SERVER_ERROR),
]


@pytest.mark.parametrize(("error", "cause"), LOSSES)
def test_what_was_lost_is_tried_again_only_under_retry(
    error: HandrailError | None, cause: Cause
) -> None:
    decision = attempt(error)
    assert (decision.again, decision.cause) == (True, cause)
    assert cause in decision.reason
    safe = attempt(error, policy=CrashPolicy.SAFE)
    assert not safe.again
    assert "may have run" in safe.reason


@pytest.mark.parametrize(("error", "_"), LOSSES)
def test_nothing_is_tried_again_once_a_part_of_the_answer_is_visible(
    error: HandrailError | None, _: Cause
) -> None:
    assert not attempt(error, last_seq=3).again
    assert "visible" in attempt(error, last_seq=3).reason


@pytest.mark.parametrize(("error", "_"), LOSSES)
def test_there_are_at_most_three_attempts(error: HandrailError | None, _: Cause) -> None:
    again = [attempt(error, attempts=n).again for n in range(1, 6)]
    assert again == [True] * 2 + [False] * 3
    assert MAX_ATTEMPTS == 3
    assert "3 attempts" in attempt(error, attempts=3).reason


@pytest.mark.parametrize(
    "error",
    [
        unreached(),
        lost(Code.UPSTREAM_PROTOCOL_ERROR),
        *(refused(status) for status in (400, 401, 404, 408, 422, 429, 501, 503, 520, 529)),
        # What the upstream said as a 500, and what we understood.
        UpstreamRefused(refused(400).fault, upstream_status=500),
        # A redirect: no answer of an upstream that was asked.
        UpstreamRefused(refused(502).fault, upstream_status=307),
        StoreFailed(Code.STORE_UNAVAILABLE, "m"),
        RequestRejected(Code.INVALID_VALUE, "m"),
    ],
)
def test_an_answer_and_a_failure_of_our_own_are_final_under_every_policy(
    error: HandrailError,
) -> None:
    for policy in CrashPolicy:
        decision = attempt(error, policy=policy)
        assert (decision.again, decision.reason) == (False, "the answer is final")


def test_attempts_are_ever_further_apart_but_not_after_a_restart() -> None:
    assert [attempt(lost(), attempts=n).wait for n in (1, 2)] == [0.5, 1.0]
    assert [attempt(None, attempts=n).wait for n in (1, 2)] == [0, 0]


@pytest.mark.parametrize(("asked", "again"), [(7.5, True), (60.0, True), (60.1, False)])
def test_a_wait_that_the_upstream_asks_for_is_kept_or_the_run_ends(
    asked: float, again: bool
) -> None:
    decision = attempt(refused(502, retry_after=asked))
    assert decision.again is again
    if again:
        assert decision.wait == asked


@pytest.mark.parametrize(
    ("wait", "again", "waits"), [(2.0, True, 2.0), (60.0, True, 60.0), (61.0, False, 0.0)]
)
def test_a_run_waits_for_an_account_to_be_free_again_if_that_is_soon(
    wait: float, again: bool, waits: float
) -> None:
    problem = replace(fault(Code.ACCOUNTS_EXHAUSTED, "m"), retry_after=wait)
    decision = verdict(HandrailError(problem), calls=0)
    assert (decision.again, decision.wait) == (again, waits)
    assert decision.reason.startswith("no account may be used now")
