"""Never paid twice by accident: when another upstream call may be made, and when not."""

import itertools
from typing import Any

import pytest

from handrail.core.retry import MAX_CALLS, verdict
from handrail.errors import (
    Code,
    Fault,
    HandrailError,
    RequestRejected,
    StoreFailed,
    UpstreamFailed,
    UpstreamRefused,
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
