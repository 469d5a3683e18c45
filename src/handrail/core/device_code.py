"""Signing in with a code that is typed in elsewhere, as Codex CLI and its issuer do it.

Like RFC 8628, with other names: the issuer polls nobody's grant but an authorization code, which is
then exchanged as after a sign-in in a browser.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from handrail.core.oauth import UnusableReply, is_credential
from handrail.core.oauth_refusals import error_code

SECONDS: Final = 15 * 60.0
"""How long an issuer waits for somebody to type a code in."""

_INTERVAL: Final = 5.0
_INTERVALS: Final = (1.0, 60.0)
_USER_CODE: Final = re.compile(r"[A-Za-z0-9-]{4,32}")
_DIGITS: Final = re.compile(r"[0-9]{1,4}")
_PENDING_CODES: Final = frozenset({"authorization_pending", "slow_down"})
_ENDING_CODES: Final = frozenset({"access_denied", "expired_token"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """What a person types in at the issuer, and how often to ask whether it was (seconds)."""

    device_id: str = field(repr=False)
    user_code: str = field(repr=False)
    interval: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What an issuer gives once the code was typed in: a code to exchange, and its verifier."""

    code: str = field(repr=False)
    verifier: str = field(repr=False)


def read_device_code(body: bytes) -> DeviceCode:
    """The code in the answer to the first request. Raises UnusableReply."""
    said = _object(body)
    user_code = said.get("user_code", said.get("usercode"))
    if not isinstance(user_code, str) or not _USER_CODE.fullmatch(user_code):
        raise UnusableReply("it has no code that a person could type in")
    return DeviceCode(
        device_id=_text(said, "device_auth_id"),
        user_code=user_code,
        interval=_interval(said.get("interval")),
    )


def is_pending(status: int, body: bytes) -> bool:
    """Whether a reply to a poll says that nobody has typed the code in yet.

    Codex's issuer says so by a 403 or 404, whatever is in it; RFC 8628's by a word.
    """
    code = error_code(body)
    if code in _ENDING_CODES:
        return False
    return status in (403, 404) or code in _PENDING_CODES


def read_approval(body: bytes) -> Approval:
    """The answer to the poll that succeeds. Raises UnusableReply."""
    said = _object(body)
    return Approval(code=_text(said, "authorization_code"), verifier=_text(said, "code_verifier"))


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnusableReply("it is no JSON") from None
    if not isinstance(said, dict):
        raise UnusableReply("it is no JSON object")
    return said


def _text(said: dict[str, Any], name: str) -> str:
    value = said.get(name)
    if not is_credential(value):
        raise UnusableReply(f"it has no usable {name}")
    return str(value)


def _interval(value: object) -> float:
    # Codex's issuer has been seen to say it as a text.
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _INTERVAL
    low, high = _INTERVALS
    return float(min(max(value, low), high))
