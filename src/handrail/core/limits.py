"""What is known about when an account may be used: cool-downs, and the upstream's own windows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from handrail.core.retry_after import MAX_RETRY_AFTER
from handrail.core.select import Obstacle

ALL: Final = ""
"""The scope of a cool-down that holds for every model."""

NEARLY_USED_UP: Final = 95.0
"""Percent of a window from which on other accounts come first."""

_UNIX_MILLISECONDS_FROM: Final = 1e11
_NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{1,9})?")
_HEADER: Final = re.compile(
    r"x-([a-z0-9-]{1,40})-(primary|secondary)-"
    r"(used-percent|window-minutes|reset-after-seconds|reset-at)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooldown:
    """Not to be used for `scope` (a model, or ALL) until a moment in unix seconds.

    `guessed`: nobody but us said so, and who has no other account is served all the same.
    """

    scope: str
    until: float
    reason: str
    guessed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One of the upstream's own limits: percent used, when it begins anew, how long it is (s)."""

    name: str
    used_percent: float
    resets_at: float | None = None
    seconds: int | None = None
    seen_at: float = 0.0

    def stands(self, now: float) -> bool:
        """Whether it still says something: its reset has not passed, if it has one."""
        return self.resets_at is None or self.resets_at > now


def read_windows(headers: Mapping[str, str], *, now: float) -> tuple[Window, ...]:
    """The windows that reply headers tell, by name; those whose use is not told are left out.

    `headers` has lower-case names; they are those of the Codex backend,
    `x-codex-primary-used-percent` and so on. `reset-after-seconds` wins over `reset-at`, which
    needs both clocks to be right. `now` is in unix seconds.
    """
    told: dict[str, dict[str, str]] = {}
    for name, value in headers.items():
        found = _HEADER.fullmatch(name)
        if found is not None:
            told.setdefault(f"{found[1]}-{found[2]}", {})[found[3]] = value.strip()
    return tuple(
        window
        for name, said in sorted(told.items())
        if (window := _window(name, said, now=now)) is not None
    )


def _window(name: str, said: Mapping[str, str], *, now: float) -> Window | None:
    used = _number(said.get("used-percent"))
    if used is None:
        return None
    after = _number(said.get("reset-after-seconds"))
    resets_at = now + after if after is not None else _moment(said.get("reset-at", ""))
    if resets_at is not None:
        resets_at = min(resets_at, now + MAX_RETRY_AFTER)
    minutes = _number(said.get("window-minutes"))
    return Window(
        name=name,
        used_percent=used,
        resets_at=resets_at,
        seconds=None if minutes is None else int(minutes * 60),
        seen_at=now,
    )


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None


def _moment(text: str) -> float | None:
    number = _number(text)
    if number is not None:
        return number / 1_000 if number >= _UNIX_MILLISECONDS_FROM else number
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def left(quota: Sequence[Window], *, now: float) -> float:
    """The share of its quota that an account has left, 0 to 1: that of its fullest window."""
    used = [window.used_percent for window in quota if window.stands(now)]
    return max(0.0, 1.0 - max(used, default=0.0) / 100)


def obstacles(
    cooldowns: Sequence[Cooldown], quota: Sequence[Window], *, model: str, now: float
) -> Iterator[Obstacle]:
    """What stands against using an account for `model` now."""
    for cooldown in cooldowns:
        if cooldown.scope in (ALL, model) and cooldown.until > now:
            yield Obstacle(reason=cooldown.reason, until=cooldown.until, guessed=cooldown.guessed)
    for window in quota:
        if window.used_percent >= NEARLY_USED_UP and window.stands(now):
            reason = f"its quota {window.name} is used to {window.used_percent:g} %"
            # The upstream has not refused anything yet.
            yield Obstacle(reason=reason, until=window.resets_at, guessed=True)
