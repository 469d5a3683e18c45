"""The usage endpoint of the Codex backend: where it is, and what it says of an account's quota.

As Codex CLI asks and reads it (codex-rs/backend-client/src/client.rs): `rate_limit` is the limit
`codex`, which counts all calls, `additional_rate_limits` are further ones by their
`metered_feature`, mostly of one model.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from handrail.core.limits import BESIDE, Told, Window, credits_of, window, word

MAX_BYTES: Final = 256 * 1024
"""Of an answer; one has a few kilobytes."""

_MAX_LIMITS: Final = 16
_CHATGPT: Final = "/backend-api"
_OWN: Final = "codex"
_REVIEW: Final = "code-review"
_WINDOWS: Final = {"primary": "primary_window", "secondary": "secondary_window"}
_MAX_NUMBER: Final = 1e15
_NONE: Final[Mapping[str, Any]] = {}


def usage_place(url: str) -> tuple[str, str]:
    """The base URL and the path at which a target with the base URL `url` tells its usage."""
    base = url.rstrip("/")
    root = base.removesuffix("/codex")
    if root.endswith(_CHATGPT):
        return root, "/wham/usage"
    return base, "/api/codex/usage"


def read_usage_endpoint(body: bytes, *, now: float) -> Told | None:
    """What an answer tells; None when it is no JSON object. `now` is in unix seconds.

    What is of the wrong kind in it is left out, and limits beyond the sixteenth are.
    """
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    paid = _object(said.get("credits"))
    windows = [*_windows(_OWN, said.get("rate_limit"), called=None, now=now)]
    windows += _windows(
        f"{BESIDE}{_REVIEW}", said.get("code_review_rate_limit"), called=None, now=now
    )
    further = said.get("additional_rate_limits")
    for entry in further[:_MAX_LIMITS] if isinstance(further, list) else []:
        found = _object(entry)
        feature = word(found.get("metered_feature"))
        if feature is not None:
            windows += _windows(
                _limit_id(feature), found.get("rate_limit"), called=found.get("limit_name"), now=now
            )
    return Told(
        # Twice the same would be written twice: the last says it.
        windows=tuple({each.name: each for each in windows}.values()),
        credits=credits_of(paid.get("has_credits"), paid.get("unlimited"), paid.get("balance")),
        plan=word(said.get("plan_type")),
    )


def _limit_id(feature: str) -> str:
    """A metered feature as headers spell it; none but the account's own is for all calls."""
    spelt = feature.lower().replace("_", "-")
    return spelt if spelt == _OWN or spelt.startswith(BESIDE) else f"{BESIDE}{spelt}"


def _windows(limit: str, said: object, *, called: object, now: float) -> Iterator[Window]:
    details = _object(said)
    for which, name in _WINDOWS.items():
        told = _object(details.get(name))
        # A 0 beside a `reset_at` says nothing.
        after = _number(told.get("reset_after_seconds")) or None
        found = window(
            limit,
            which,
            used=_number(told.get("used_percent")),
            resets_at=now + after if after is not None else _number(told.get("reset_at")),
            seconds=_number(told.get("limit_window_seconds")) or None,
            called=called,
            now=now,
        )
        if found is not None:
            yield found


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _NONE


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _MAX_NUMBER else None
