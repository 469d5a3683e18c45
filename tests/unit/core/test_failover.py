"""What a failed call means for its account, and whether the call may be made once more."""

from typing import Any

import pytest

from handrail.core.failover import Consequence, consequence, is_open, limit_reached
from handrail.core.limits import ALL
from handrail.core.stream_limits import StreamLimit
from handrail.core.upstream_errors import refusal
from handrail.errors import Code, HandrailError, UpstreamFailed, fault

NOW = 1_000.0


def refused(status: int, error: dict[str, Any] | None = None, **headers: str) -> HandrailError:
    import msgspec

    body = msgspec.json.encode({"error": error or {"message": "no"}})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(status, named, body, now=NOW)


def of(error: HandrailError, **rest: Any) -> Consequence:
    return consequence(error, model="m", **rest)


def test_what_was_never_reached_may_be_asked_elsewhere() -> None:
    means = of(UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "no", sent=False))
    assert means.again
    assert (means.scope, means.seconds, means.guessed, means.fails) == (ALL, 6.0, True, True)


def test_a_lost_call_may_have_run_and_is_not_made_again() -> None:
    means = of(UpstreamFailed(Code.UPSTREAM_ENDED_EARLY, "no"))
    assert (means.again, means.seconds, means.fails) == (False, 0.0, True)


def test_what_is_not_the_upstreams_word_says_nothing_about_the_account() -> None:
    means = of(HandrailError(fault(Code.INTERNAL_ERROR, "no")))
    assert means == Consequence(reason="no word about the account")


def test_a_refused_credential_may_be_an_old_one() -> None:
    means = of(refused(401))
    assert means.again
    assert means.renew
    assert means.seconds == 30.0
    assert not means.ended


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Your authentication token has been invalidated"},
        {"message": "no", "code": "token_revoked"},
        {"message": "no", "code": "account_deactivated"},
    ],
)
def test_a_withdrawn_credential_ends_the_account_and_no_other_is_tried(
    error: dict[str, Any],
) -> None:
    means = of(refused(401, error))
    assert means.ended
    assert not means.again
    assert not means.renew


@pytest.mark.parametrize("status", [402, 403])
def test_an_account_that_may_not_is_set_aside_for_a_while(status: int) -> None:
    means = of(refused(status))
    assert (means.again, means.seconds, means.guessed) == (False, 300.0, True)


@pytest.mark.parametrize("status", [402, 403])
@pytest.mark.parametrize(
    "error",
    [
        {"message": "no", "code": "deactivated_workspace"},
        {"message": "no", "code": "workspace_disabled"},
        {"message": "Your workspace has been deactivated."},
        {"message": "This Workspace is disabled"},
        {"message": "no", "code": "workspace_expired"},
        {"message": "The workspace has expired."},
    ],
)
def test_a_workspace_that_is_gone_is_set_aside_for_long_and_the_operator_is_told(
    status: int, error: dict[str, Any]
) -> None:
    means = of(refused(status, error))
    assert means == Consequence(
        reason="its workspace is deactivated, disabled or expired", seconds=3_600.0, kept=True
    )


@pytest.mark.parametrize("message", ["workspace limit", "an expired card", "your workspace"])
def test_other_words_about_a_workspace_say_nothing_of_its_end(message: str) -> None:
    means = of(refused(403, {"message": message}))
    assert (means.seconds, means.kept) == (300.0, False)


def test_a_limit_with_its_end_holds_for_its_model() -> None:
    means = of(refused(429, {"message": "slow", "code": "rate_limit_exceeded"}, retry_after="7"))
    assert means == Consequence(
        reason="rate_limit_exceeded", again=True, scope="m", seconds=7.0, guessed=False
    )


def test_a_spent_quota_holds_for_every_model() -> None:
    error = {"message": "spent", "type": "usage_limit_reached", "resets_at": 4_600}
    means = of(refused(429, error))
    assert (means.scope, means.seconds, means.guessed) == (ALL, 3_600.0, False)
    assert means.reason == "usage_limit_reached"
    means = of(refused(404, {"message": "m", "code": "usage_limit_reached"}))
    assert (means.again, means.seconds, means.guessed) == (True, 300.0, True)


def test_a_limit_without_its_end_is_guessed_longer_each_time() -> None:
    error = refused(429)
    guesses = [of(error, limited=before).seconds for before in range(7)]
    assert guesses == [2, 4, 8, 16, 32, 60, 60]
    assert of(error).guessed


def test_an_overloaded_upstream_may_be_asked_through_another_account() -> None:
    means = of(refused(503))
    assert (means.again, means.seconds, means.guessed, means.fails) == (True, 4.0, True, True)
    assert of(refused(503, retry_after="9")).seconds == 9.0


@pytest.mark.parametrize(("status", "fails"), [(400, False), (404, False), (500, True)])
def test_another_answer_is_an_answer(status: int, fails: bool) -> None:
    means = of(refused(status))
    assert (means.again, means.seconds, means.fails) == (False, 0.0, fails)


def test_three_failures_in_a_minute_hold_an_account_back_for_half_a_minute() -> None:
    assert is_open((10.0, 20.0), now=21.0) is None
    assert is_open((10.0, 20.0, 30.0), now=31.0) == 60.0
    assert is_open((10.0, 20.0, 30.0), now=60.0) is None
    assert is_open((10.0, 20.0, 71.0), now=72.0) is None
    assert is_open((10.0, 20.0, 30.0, 50.0), now=51.0) == 80.0


def test_an_operator_reads_why_an_account_is_held_back() -> None:
    told = {
        of(UpstreamFailed(Code.UPSTREAM_ENDED_EARLY, "no")).reason,
        of(UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "no", sent=False)).reason,
        *(of(refused(status)).reason for status in (401, 403, 499, 500, 503)),
    }
    assert told == {
        "its call was lost",
        "not reached",
        "credential refused",
        "refused by the upstream",
        "answered 499",
        "answered 500",
        "overloaded",
    }


def test_only_what_fails_counts_for_the_breaker_and_the_first_limit_is_the_first() -> None:
    assert not of(refused(499)).fails
    assert not of(refused(401)).fails
    assert of(refused(429)) == of(refused(429), limited=0)


def test_a_limit_in_a_stream_holds_its_account_back_and_makes_no_other_call() -> None:
    told = StreamLimit(code="rate_limit_exceeded", lasting=False, wait=1.5)
    assert limit_reached(told, model="m") == Consequence(
        reason="rate_limit_exceeded", scope="m", seconds=1.5, guessed=False
    )
    spent = StreamLimit(code="usage_limit_reached", lasting=True)
    assert limit_reached(spent, model="m") == Consequence(
        reason="usage_limit_reached", scope=ALL, seconds=300.0
    )


@pytest.mark.parametrize(("limited", "seconds"), [(0, 2.0), (4, 32.0), (5, 60.0), (5_000, 60.0)])
def test_a_guessed_wait_has_an_end_however_often_it_was_guessed(
    limited: int, seconds: float
) -> None:
    untold = StreamLimit(code="rate_limit_exceeded", lasting=False)
    assert limit_reached(untold, model="m", limited=limited).seconds == seconds


GONE = {"message": "no", "code": "deactivated_workspace"}


@pytest.mark.parametrize("status", [402, 403])
@pytest.mark.parametrize("error", [None, GONE])
def test_a_refusal_that_may_be_about_the_account_is_followed_by_another_only_by_setting(
    status: int, error: dict[str, Any] | None
) -> None:
    refusal = refused(status, error)
    assert not of(refusal).again
    assert not of(refusal, also={402, 403} - {status}).again
    assert of(refusal, also={status}).again
    assert of(refusal, also={status}).seconds == of(refusal).seconds > 0


@pytest.mark.parametrize("status", [400, 404, 500, 502, 504])
def test_no_setting_repeats_what_may_have_run(status: int) -> None:
    assert not of(refused(status), also={402, 403, status}).again
