"""How long an upstream asks to wait, in whichever of its many ways it says so.

One parser for all paths. A header that says it outright wins over the body, the body over quota
windows, and those over words, because that is the order in which they are exact.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

MAX_RETRY_AFTER: Final = 7 * 86_400.0
"""Seconds. One absurd value must not bench anybody for decades (reference, issue 617)."""

_NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{1,9})?")
_PART: Final = re.compile(
    r"(\d{1,15}(?:\.\d{1,9})?)\s*"
    r"(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])"
)
_BETWEEN: Final = re.compile(r"(?:\s|,|and\b)*")
_UNITS: Final[Mapping[str, float]] = MappingProxyType({"s": 1, "m": 60, "h": 3_600, "d": 86_400})
_WORDS: Final = re.compile(r"\b(?:try|retry)(?: again)? (in|after|at) (.{1,60})", re.DOTALL)
_CLOCK: Final = re.compile(r"(\d{1,2})(?::(\d{2}))? ?([ap])\.?m\b")
_WINDOW: Final = re.compile(
    r"x-([a-z0-9-]{1,40})-(primary|secondary)-(used-percent|reset-at|reset-after-seconds)"
)
_BUCKET: Final = re.compile(r"x-ratelimit-(remaining|reset)-([a-z-]{1,20})")

# The smallest unix time in milliseconds that is taken for one, rather than for seconds.
_MILLISECONDS_FROM: Final = 1e10
_UNIX_FROM: Final = 1e8


def retry_after(
    headers: Mapping[str, str], error: Mapping[str, Any], *, now: float
) -> float | None:
    """Seconds to wait, above 0 and at most MAX_RETRY_AFTER; None when nothing readable says it.

    `headers` has lower-case names, `error` is the upstream's error object, `now` in unix seconds.
    A time in the past, a zero or a negative number counts as not given.
    """
    sources = chain(
        _outright(headers, now),
        _in_body(error, now),
        _windows(headers, now),
        _buckets(headers, now),
        _in_words(error, now),
    )
    for seconds in sources:
        if seconds is not None and 0 < seconds < float("inf"):
            return min(seconds, MAX_RETRY_AFTER)
    return None


def _outright(headers: Mapping[str, str], now: float) -> Iterator[float | None]:
    milliseconds = _number(headers.get("retry-after-ms"))
    yield None if milliseconds is None else milliseconds / 1_000
    said = headers.get("retry-after")
    seconds = _number(said)
    yield _moment(said, now) if seconds is None else seconds
    yield _duration(said or "")


def _in_body(error: Mapping[str, Any], now: float) -> Iterator[float | None]:
    milliseconds = _number(error.get("retry_after_ms"))
    yield None if milliseconds is None else milliseconds / 1_000
    yield _number(error.get("retry_after"))
    yield _number(error.get("resets_in_seconds"))
    yield _moment(error.get("resets_at"), now)
    yield _moment(error.get("reset_at"), now)


def _windows(headers: Mapping[str, str], now: float) -> Iterator[float | None]:
    """The quota windows of the Codex backend: when the one that binds is reset.

    A window that is not used up is not what one waits for, however far off its end is.
    """
    used: dict[str, float] = {}
    ends: dict[str, float] = {}
    for name, value in headers.items():
        found = _WINDOW.fullmatch(name)
        if found is None:
            continue
        window = f"{found[1]}-{found[2]}"
        read = _moment(value, now) if found[3] == "reset-at" else _number(value)
        if read is not None:
            (used if found[3] == "used-percent" else ends)[window] = read
    yield _binding(ends, {window for window, percent in used.items() if percent >= 100}, bool(used))


def _buckets(headers: Mapping[str, str], now: float) -> Iterator[float | None]:
    """OpenAI's request and token buckets: when the empty one is filled again."""
    left: dict[str, float] = {}
    ends: dict[str, float] = {}
    for name, value in headers.items():
        found = _BUCKET.fullmatch(name)
        if found is None:
            continue
        read = _number(value) if found[1] == "remaining" else _wait(value, now)
        if read is not None:
            (left if found[1] == "remaining" else ends)[found[2]] = read
    yield _binding(ends, {bucket for bucket, count in left.items() if count == 0}, bool(left))
    yield _wait(headers.get("x-ratelimit-reset", ""), now)


def _binding(ends: Mapping[str, float], spent: set[str], known: bool) -> float | None:
    # Several may bind: all of them must be over. When nobody says which does, the soonest might.
    if known:
        return max((seconds for name, seconds in ends.items() if name in spent), default=None)
    return min(ends.values(), default=None)


def _in_words(error: Mapping[str, Any], now: float) -> Iterator[float | None]:
    """`Please try again in 6m0s.`, `retry after 5 seconds`, `try again at 3:45 PM`."""
    message = error.get("message")
    found = _WORDS.search(message.lower()) if isinstance(message, str) else None
    if found is None:
        return
    if found[1] == "at":
        yield _clock(found[2], now)
    yield _duration(found[2])


def _wait(text: str, now: float) -> float | None:
    """A duration, seconds, or a unix time or date."""
    number = _number(text)
    if number is not None and number < _UNIX_FROM:
        return number
    return _duration(text) or _moment(text, now)


def _number(value: object) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e18 else None


def _moment(value: object, now: float) -> float | None:
    """Seconds until a unix time (s or ms), an ISO 8601 date or an HTTP date."""
    number = _number(value)
    if number is not None:
        return (number / 1_000 if number >= _MILLISECONDS_FROM else number) - now
    if not isinstance(value, str):
        return None
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(value.strip())
        except (ValueError, OverflowError):
            continue
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return aware.timestamp() - now
    return None


def _duration(text: str) -> float | None:
    """The duration that a text begins with: `1.2s`, `6m0s`, `1 hour and 5 minutes`."""
    total: float | None = None
    at = 0
    while (part := _PART.match(text, at)) is not None:
        unit = part[2]
        scale = 0.001 if unit.startswith(("ms", "milli")) else _UNITS[unit[0]]
        total = (total or 0.0) + float(part[1]) * scale
        gap = _BETWEEN.match(text, part.end())
        at = part.end() if gap is None else gap.end()
    return total


def _clock(text: str, now: float) -> float | None:
    """Seconds until a time of day comes next, in UTC: the text names no zone."""
    found = _CLOCK.match(text)
    if found is None or not 1 <= int(found[1]) <= 12 or int(found[2] or 0) > 59:
        return None
    hour = int(found[1]) % 12 + (12 if found[3] == "p" else 0)
    today = datetime.fromtimestamp(now, UTC)
    then = today.replace(hour=hour, minute=int(found[2] or 0), second=0, microsecond=0)
    if then <= today:
        then += timedelta(days=1)
    return (then - today).total_seconds()
