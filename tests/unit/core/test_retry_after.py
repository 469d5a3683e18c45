"""How long to wait: every form in which an upstream has been seen to say it."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.retry_after import MAX_RETRY_AFTER, retry_after
from tests.unit.core.generated import JSON

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
IN_A_MINUTE = "Tue, 14 Nov 2023 22:14:20 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "99999999"}, MAX_RETRY_AFTER),
        ({"retry-after": "12abc"}, None),
        ({"retry-after": "6m0s"}, 360.0),
        ({"retry-after": IN_A_MINUTE}, 60.0),
        # D-26: the reference reads the next two as 14 and 2023 seconds
        ({"retry-after": "14 Nov 2023 22:14:20 GMT"}, 60.0),
        ({"retry-after": "2023-11-14T22:14:20Z"}, 60.0),
        ({"retry-after": "2023-11-14T22:14:20.500"}, 60.5),
        ({"retry-after": " 2023-11-14T22:14:20Z "}, 60.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 -0000"}, 60.0),
        ({"retry-after": "Tue, 14 Nov 2023 23:14:20 +0100"}, 60.0),
        ({"retry-after": "Mon, 13 Nov 2023 22:14:20 GMT"}, None),
        ({"retry-after": "Tue, 14 Nov 2033 22:14:20 GMT"}, MAX_RETRY_AFTER),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 +" + "9" * 20}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "0", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": IN_A_MINUTE}, None),
    ],
)
def test_a_header_may_say_it_outright(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, {}, now=NOW) == seconds


def test_a_date_without_a_zone_is_in_utc_wherever_the_gateway_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        monkeypatch.setenv("TZ", "EST5")
        time.tzset()
        assert retry_after({"retry-after": "2023-11-14T22:14:20"}, {}, now=NOW) == 60.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        ({"retry_after_ms": 2_500}, 2.5),
        ({"retry_after_ms": "2500"}, 2.5),
        ({"retry_after_ms": 0, "retry_after": 3}, 3.0),
        ({"retry_after_ms": None, "retry_after": "3.5"}, 3.5),
        ({"retry_after": True}, None),
        ({"retry_after": [5]}, None),
        ({"retry_after": 10**400}, None),
        ({"retry_after": 10**18}, None),
        ({"retry_after": 10**17}, MAX_RETRY_AFTER),
        ({"retry_after_ms": 99_000_000_000}, MAX_RETRY_AFTER),
        ({"resets_in_seconds": 30}, 30.0),
        ({"resets_at": 1_700_000_060}, 60.0),
        ({"resets_at": 1_700_000_060_500}, 60.5),
        ({"resets_at": "2023-11-14T22:14:20Z"}, 60.0),
        ({"resets_at": 1_600_000_000}, None),
        # seconds of the year 2286, or milliseconds of 1970
        ({"resets_at": 9_999_999_999}, MAX_RETRY_AFTER),
        ({"resets_at": 10_000_000_000}, None),
        ({"reset_at": 1_700_000_060}, 60.0),
    ],
)
def test_the_body_may_say_it(error: dict[str, Any], seconds: float | None) -> None:
    assert retry_after({}, error, now=NOW) == seconds


def test_a_header_wins_over_the_body_and_both_over_windows_and_words() -> None:
    windows = {"x-codex-primary-reset-after-seconds": "30"}
    error = {"message": "try again in 40s"}
    assert retry_after({"retry-after": "5"}, {"retry_after": 9}, now=NOW) == 5
    assert retry_after(windows, {"retry_after": 9, **error}, now=NOW) == 9
    assert retry_after(windows, error, now=NOW) == 30
    assert retry_after({}, error, now=NOW) == 40


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        # A healthy weekly window is not what one waits for (issue 617 of the reference).
        (
            {
                "x-codex-primary-used-percent": "100",
                "x-codex-primary-reset-after-seconds": "30",
                "x-codex-secondary-used-percent": "12.5",
                "x-codex-secondary-reset-after-seconds": "500000",
            },
            30.0,
        ),
        (
            {
                "x-codex-primary-used-percent": "100.0",
                "x-codex-primary-reset-at": "1700000060",
                "x-codex-secondary-used-percent": "101",
                "x-codex-secondary-reset-at": "1700000090",
            },
            90.0,
        ),
        (
            {
                "x-codex-primary-used-percent": "99.9",
                "x-codex-primary-reset-after-seconds": "30",
            },
            None,
        ),
        # The windows of two models have the same two names.
        (
            {
                "x-gpt-5-spark-primary-used-percent": "100",
                "x-gpt-5-spark-primary-reset-after-seconds": "70",
                "x-codex-primary-used-percent": "40",
                "x-codex-primary-reset-after-seconds": "30",
            },
            70.0,
        ),
        (
            {
                "x-codex-primary-reset-after-seconds": "30",
                "x-codex-secondary-reset-after-seconds": "600000",
            },
            30.0,
        ),
        ({"x-codex-primary-reset-at": "2023-11-14T22:14:20Z"}, 60.0),
        ({"x-codex-primary-reset-at": "soon"}, None),
        ({"x-codex-primary-reset-after-seconds-before": "5"}, None),
        (
            {
                "x-codex-primary-reset-at": "soon",
                "x-codex-secondary-reset-after-seconds": "30",
                "x-codex-secondary-used-percent": "most",
            },
            30.0,
        ),
        (
            {"x-gpt-5-spark-primary-used-percent": "100", "x-gpt-5-spark-primary-reset-at": "x"},
            None,
        ),
        (
            {
                "x-gpt-5-spark-primary-used-percent": "100",
                "x-gpt-5-spark-primary-reset-at": "1700000060",
            },
            60.0,
        ),
    ],
)
def test_of_the_quota_windows_the_one_that_binds_counts(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers, {}, now=NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-tokens": "149",
                "x-ratelimit-reset-tokens": "12h",
            },
            360.0,
        ),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "6s"}, None),
        ({"x-ratelimit-remaining-tokens": "1", "x-ratelimit-reset-tokens": "6s"}, None),
        ({"x-ratelimit-remaining-tokens": "?", "x-ratelimit-reset-tokens": "6s"}, 6.0),
        ({"x-ratelimit-remaining-tokens": "5s", "x-ratelimit-reset-tokens": "6s"}, 6.0),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-reset-tokens_before": "5s"}, None),
        ({"x-ratelimit-reset": "1s"}, 1.0),
        ({"x-ratelimit-reset": "30"}, 30.0),
        ({"x-ratelimit-reset": "1700000060"}, 60.0),
        # more than three years of seconds, or a moment of 1973
        ({"x-ratelimit-reset": "99999999"}, MAX_RETRY_AFTER),
        ({"x-ratelimit-reset": "100000000"}, None),
        ({"x-ratelimit-reset": IN_A_MINUTE}, 60.0),
        ({"x-ratelimit-reset": "soon"}, None),
    ],
)
def test_of_the_rate_limits_the_empty_one_counts(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers, {}, now=NOW) == seconds


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        # D-26: OpenAI's own usual words
        ("Please try again in 1.2s.", 1.2),
        ("Please try again in 6m0s. Visit …", 360.0),
        ("Please try again in 20ms.", 0.02),
        ("Please try again in 20 milliseconds.", 0.02),
        ("try again in 5 seconds", 5.0),
        ("Retry again in 2 days", 172_800.0),
        ("Please retry after 12 seconds.", 12.0),
        ("Try again in 1 hour and 5 minutes, or upgrade", 3_900.0),
        ("try again in 1h, 2m", 3_720.0),
        ("try again in 3 months", None),
        ("try again in a while", None),
        ("try again in 0s", None),
        ("Try again at 11:45 PM", 5_500.0),
        ("try again at 10 pm.", 85_600.0),
        ("try again at 12 am", 6_400.0),
        ("try again at 0 pm", None),
        ("try again at 1 am", 10_000.0),
        ("try again at 13pm", None),
        ("try again at 10:59 pm", 2_740.0),
        ("try again at 10:60 pm", None),
        ("try again at 3:75 pm", None),
        ("try again in 11 pm", None),
        ("try again at noon", None),
        ("in 5 seconds", None),
        (5, None),
    ],
)
def test_words_may_say_it(message: object, seconds: float | None) -> None:
    assert retry_after({}, {"message": message}, now=NOW) == seconds


def test_nobody_waits_for_more_than_a_week() -> None:
    assert retry_after({"retry-after": "604801"}, {}, now=NOW) == 604_800 == MAX_RETRY_AFTER


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (NOW - 20.5, 0.5),  # half a second before 22:13
        (NOW - 20, 86_400.0),
        (NOW - 19.5, 86_399.5),
    ],
)
def test_a_time_of_day_is_the_next_one_to_the_very_instant(now: float, seconds: float) -> None:
    assert retry_after({}, {"message": "Try again at 10:13 PM"}, now=now) == seconds


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40), JSON)
def test_nothing_that_an_upstream_says_breaks_the_reading(text: str, value: Any) -> None:
    names = ("retry-after", "retry-after-ms", "x-codex-primary-reset-at", "x-ratelimit-reset")
    error = {"message": f"try again in {text}", "retry_after": value, "resets_at": value}
    seconds = retry_after(dict.fromkeys(names, text), error, now=NOW)
    assert seconds is None or 0 < seconds <= MAX_RETRY_AFTER
