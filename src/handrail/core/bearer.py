"""A credential that a command has printed, and how long it may be used."""

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

MAX_BYTES: Final = 64 * 1024
"""Of a command's output."""

MARGIN_SECONDS: Final = 60.0
"""How long before its end a credential is used no more: the call that it is for takes a while."""

_MAX_SECRET: Final = 16 * 1024
_NAMES: Final = ("accessToken", "access_token", "token")


class Unusable(Exception):
    """Why an output is no credential; the message shows nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """A credential, and until when it may be used, in unix seconds."""

    secret: str = field(repr=False)
    until: float


def read_bearer(output: bytes, *, now: float, lifetime: float) -> Bearer:
    """The credential in an output: plain text, or the JSON of `az account get-access-token`.

    `now` is in unix seconds. Its end is what `expires_on` (unix seconds) or `expires_in` (seconds)
    say, less a margin, else `lifetime` seconds from now. Raises Unusable.
    """
    if len(output) > MAX_BYTES:
        raise Unusable(f"it printed more than {MAX_BYTES} bytes")
    try:
        text = output.decode().strip()
    except UnicodeDecodeError:
        raise Unusable("it printed no text") from None
    until = now + lifetime
    if text.startswith("{"):
        text, until = _of_json(text, now=now, until=until)
    if not text or len(text) > _MAX_SECRET or not _is_header_value(text):
        raise Unusable("it printed no credential")
    return Bearer(secret=text, until=until)


def _of_json(text: str, *, now: float, until: float) -> tuple[str, float]:
    try:
        said: dict[str, Any] = msgspec.json.decode(text)  # it begins as an object
    except (msgspec.DecodeError, RecursionError):
        raise Unusable("it printed JSON that cannot be read") from None
    secret = next((said[name] for name in _NAMES if isinstance(said.get(name), str)), "")
    if "expires_on" in said:
        until = _number(said["expires_on"]) - MARGIN_SECONDS
    elif "expires_in" in said:
        until = now + _number(said["expires_in"]) - MARGIN_SECONDS
    if until + MARGIN_SECONDS <= now:
        raise Unusable("it printed a credential that has ended")
    return secret, until


def _number(value: object) -> float:
    try:
        return float(msgspec.convert(value, int | float, strict=False))
    except (msgspec.ValidationError, OverflowError):
        raise Unusable("it printed an end that is no number") from None


def _is_header_value(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text
