"""Limits that are told inside a response: in what ends it, whatever form that has."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.stream_limits import StreamLimit, limit_in

NOW = 1_000_000.0
WORDS = "Rate limit reached for gpt-5.4. Please try again in 1.5s."


def found(said: Any) -> StreamLimit | None:
    return limit_in(msgspec.json.encode(said), now=NOW)


def failed(**error: Any) -> dict[str, Any]:
    response = {"id": "resp_1", "status": "failed", "error": error, "output": []}
    return {"type": "response.failed", "response": response}


@pytest.mark.parametrize(
    "said",
    [
        failed(code="rate_limit_exceeded", message=WORDS),
        failed(code="server_error", type="rate_limit_exceeded", message=WORDS),
        {"type": "error", "code": "rate_limit_exceeded", "message": WORDS},
        {"type": "error", "error": {"code": "rate_limit_exceeded", "message": WORDS}},
        {"error": {"code": "rate_limit_exceeded", "message": WORDS}},
    ],
)
def test_a_limit_is_found_wherever_an_error_stands_and_how_long_it_lasts_in_its_words(
    said: dict[str, Any],
) -> None:
    assert found(said) == StreamLimit(code="rate_limit_exceeded", lasting=False, wait=1.5)


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        ({"resets_in_seconds": 90}, 90.0),
        ({"resets_at": NOW + 60}, 60.0),
        ({"headers": {"Retry-After": "7", "x": 5}}, 7.0),
        ({"headers": ["Retry-After"]}, None),
        ({}, None),
    ],
)
def test_a_spent_quota_lasts_until_its_reset(error: dict[str, Any], wait: float | None) -> None:
    said = {"type": "error", "error": {"type": "usage_limit_reached", **error}}
    assert found(said) == StreamLimit(code="usage_limit_reached", lasting=True, wait=wait)


def test_one_of_its_words_is_enough_for_a_limit_to_last() -> None:
    said = failed(code="server_error", type="usage_limit_reached", message="no_quota left")
    assert found(said) == StreamLimit(code="usage_limit_reached", lasting=True)


def test_a_header_that_is_no_text_is_left_out() -> None:
    headers = {"Retry-After": ["7"], "x-codex-primary-reset-at": {}, "retry-after-ms": 5}
    said = {"type": "error", "error": {"code": "rate_limit_exceeded", "headers": headers}}
    assert found(said) == StreamLimit(code="rate_limit_exceeded", lasting=False)


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
def test_what_somebody_has_to_pay_for_is_a_limit_that_lasts(code: str) -> None:
    assert found(failed(code=code)) == StreamLimit(code=code, lasting=True)


@pytest.mark.parametrize(
    "said",
    [
        failed(code="server_error", message="the rate_limit was not the reason"),
        failed(code="usage_not_included", message="not in your plan_limit"),
        failed(code=["rate_limit_exceeded"]),
        {"type": "response.failed", "response": {"error": None, "of": "rate_limit_exceeded"}},
        {"type": "error", "error": "rate_limit_exceeded"},
        ["rate_limit_exceeded"],
        {"type": "response.completed", "response": {"output": [{"code": "rate_limit_exceeded"}]}},
        {"type": "error", "message": "no"},
    ],
)
def test_anything_else_is_none(said: Any) -> None:
    assert found(said) is None


@pytest.mark.parametrize(
    "data", [b"", b"rate_limit_exceeded", b"\xff_limit", b"[" * 100_000 + b"rate_limit_exceeded"]
)
def test_what_is_no_json_is_none(data: bytes) -> None:
    assert limit_in(data, now=NOW) is None


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "response", "code", "type", "resets_at", "headers"]), inner
        )
    ),
    max_leaves=12,
)


@given(said=_ANY)
def test_nothing_is_raised_whatever_comes(said: Any) -> None:
    data = msgspec.json.encode({"error": {"code": "rate_limit_exceeded", "resets_at": said}})
    limit = limit_in(data, now=NOW)
    assert limit is not None
    assert limit.wait is None or limit.wait > 0
    limit_in(msgspec.json.encode([said, "_limit"]), now=NOW)
    limit_in(msgspec.json.encode({"response": said, "of": "_quota"}), now=NOW)
