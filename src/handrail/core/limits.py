"""What is known about when an account may be used: cool-downs, and the upstream's own windows.

The names of headers and of limits are those of the Codex backend, as Codex CLI reads them
(codex-rs/codex-api/src/rate_limits.rs): the limit `codex` is the account's own, `codex-NAME` is one
beside it, mostly of a single model, which its `limit-name` tells.
"""

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
"""Percent of a window from which on other accounts come first, unless the settings say another."""

BESIDE: Final = "codex-"
"""How the id of a limit begins that is not of all calls of an account."""

_MAX_PERCENT: Final = 1_000.0
_MAX_WINDOW: Final = 10 * 366 * 86_400.0
_UNIX_MILLISECONDS_FROM: Final = 1e11
_NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{1,9})?")
_HEADER: Final = re.compile(
    r"x-([a-z0-9-]{1,40})-(primary|secondary)-"
    r"(used-percent|window-minutes|reset-after-seconds|reset-at)"
)
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}


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
    """One of the upstream's own limits: percent used, when it begins anew, how long it is (s).

    `about` names the model that alone it holds for, None for a limit of all calls.
    """

    name: str
    used_percent: float
    resets_at: float | None = None
    seconds: int | None = None
    about: str | None = None
    seen_at: float = 0.0

    def stands(self, now: float) -> bool:
        """Whether it still says something: its reset has not passed, if it has one."""
        return self.resets_at is None or self.resets_at > now

    def concerns(self, model: str) -> bool:
        """Whether a call for `model` counts in it."""
        return self.about is None or self.about.casefold() == model.casefold()


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an upstream has said about an account: its windows, its plan, and what it has paid for.

    `credits` is `none`, `unlimited`, or the balance as the upstream writes it; None for not told.
    """

    windows: tuple[Window, ...] = ()
    credits: str | None = None
    plan: str | None = None


def read_told(headers: Mapping[str, str], *, now: float) -> Told:
    """What reply headers tell. `headers` has lower-case names, `now` is in unix seconds."""
    has, unlimited = (
        _TRUTH.get(headers.get(f"x-codex-credits-{name}", "").strip().lower())
        for name in ("has-credits", "unlimited")
    )
    return Told(
        windows=read_windows(headers, now=now),
        credits=credits_of(has, unlimited, headers.get("x-codex-credits-balance")),
        plan=word(headers.get("x-codex-plan-type")),
    )


def credits_of(has: object, unlimited: object, balance: object) -> str | None:
    """How `Told.credits` is written, from what was said, of whatever kind it is."""
    if unlimited is True:
        return "unlimited"
    if has is False:
        return "none"
    written = _number(str(balance).strip())
    if has is not True or written is None:
        return None
    return f"{written:.2f}".rstrip("0").rstrip(".")


def word(value: object) -> str | None:
    """A short name as it may be shown and kept, None for anything else."""
    found = value.strip() if isinstance(value, str) else ""
    return found if _WORD.fullmatch(found) else None


def read_windows(headers: Mapping[str, str], *, now: float) -> tuple[Window, ...]:
    """The windows that reply headers tell, by name; those whose use is not told are left out.

    `headers` has lower-case names; they are those of the Codex backend,
    `x-codex-primary-used-percent` and so on. `reset-after-seconds` wins over `reset-at`, which
    needs both clocks to be right. `now` is in unix seconds.
    """
    told: dict[tuple[str, str], dict[str, str]] = {}
    for name, value in headers.items():
        found = _HEADER.fullmatch(name)
        if found is not None:
            told.setdefault((found[1], found[2]), {})[found[3]] = value.strip()
    windows = (
        window(
            limit,
            which,
            used=_number(said.get("used-percent")),
            resets_at=_reset(said, now=now),
            seconds=_minutes(said.get("window-minutes")),
            called=headers.get(f"x-{limit}-limit-name"),
            now=now,
        )
        for (limit, which), said in sorted(told.items())
    )
    return tuple(each for each in windows if each is not None)


def window(
    limit: str,
    which: str,
    *,
    used: float | None,
    resets_at: float | None,
    seconds: float | None,
    called: object,
    now: float,
) -> Window | None:
    """One window of a limit, None when its use is not told. `called` is what the limit is named."""
    if used is None:
        return None
    return Window(
        name=f"{limit}-{which}",
        used_percent=min(used, _MAX_PERCENT),
        resets_at=None if resets_at is None else min(resets_at, now + MAX_RETRY_AFTER),
        seconds=None if seconds is None else int(min(seconds, _MAX_WINDOW)),
        about=(word(called) or limit) if limit.startswith(BESIDE) else None,
        seen_at=now,
    )


def _reset(said: Mapping[str, str], *, now: float) -> float | None:
    after = _number(said.get("reset-after-seconds"))
    return _moment(said.get("reset-at", "")) if after is None else now + after


def _minutes(text: str | None) -> float | None:
    minutes = _number(text)
    return None if minutes is None else minutes * 60


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


def left(quota: Sequence[Window], *, model: str, now: float) -> float:
    """The share of its quota that an account has left, 0 to 1: that of its fullest window."""
    used = [each.used_percent for each in quota if each.stands(now) and each.concerns(model)]
    return max(0.0, 1.0 - max(used, default=0.0) / 100)


def obstacles(
    cooldowns: Sequence[Cooldown],
    quota: Sequence[Window],
    *,
    model: str,
    now: float,
    nearly_used_up: float = NEARLY_USED_UP,
) -> Iterator[Obstacle]:
    """What stands against using an account for `model` now.

    `nearly_used_up` is the percent of a window from which on other accounts come first.
    """
    for cooldown in cooldowns:
        if cooldown.scope in (ALL, model) and cooldown.until > now:
            yield Obstacle(reason=cooldown.reason, until=cooldown.until, guessed=cooldown.guessed)
    for each in quota:
        if each.used_percent >= nearly_used_up and each.stands(now) and each.concerns(model):
            reason = f"its quota {each.name} is used to {each.used_percent:g} %"
            # The upstream has not refused anything yet.
            yield Obstacle(reason=reason, until=each.resets_at, guessed=True)
