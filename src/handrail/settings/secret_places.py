"""Where a secret stands that no settings file may hold: a variable, a file, or an OS keyring."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PLACES: Final = "'env:VARIABLE', 'file:PATH' or 'keyring:SERVICE/USER'"

_PLACE: Final = re.compile(
    r"env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00]+|keyring:[^\x00-\x1f/]{1,256}/[^\x00-\x1f]{1,256}"
)
_MAX: Final = 16 * 1024
_EXTRA: Final = "it needs the extra: pip install 'handrail[keyring]'"


class Unreadable(Exception):
    """Why nothing can be read, or kept, at a place; holds no secret."""


def is_place(said: object) -> bool:
    """Whether that names a place."""
    return isinstance(said, str) and _PLACE.fullmatch(said) is not None


def read_place(place: str, environment: Mapping[str, str]) -> str:
    """The text at a place, without blanks around it; "" for none. Raises Unreadable.

    A keyring that is locked may ask the person at the screen, and waits for the answer.
    """
    kind, _, where = place.partition(":")
    if kind == "env":
        return environment.get(where, "").strip()
    if kind == "keyring":
        return _of_keyring(where).strip()
    try:
        with Path(where).expanduser().open(encoding="utf-8", errors="replace") as file:
            return file.read(_MAX).strip()
    except OSError as error:
        raise Unreadable(error.strerror or "it cannot be read") from None


def _of_keyring(where: str) -> str:
    try:
        # Most have no use for it, and it looks for every backend that there is.
        import keyring  # noqa: PLC0415
        from keyring.errors import KeyringError  # noqa: PLC0415
    except ImportError:
        raise Unreadable(_EXTRA) from None
    service, _, user = where.partition("/")
    try:
        return keyring.get_password(service, user) or ""
    except KeyringError as error:  # its words may be anything
        raise Unreadable(f"the keyring cannot be used: {type(error).__name__}") from None


def keep_in_keyring(place: str, secret: str) -> None:
    """Put a secret at a place in the keyring. Raises Unreadable."""
    try:
        import keyring  # noqa: PLC0415
        from keyring.errors import KeyringError  # noqa: PLC0415
    except ImportError:
        raise Unreadable(_EXTRA) from None
    service, _, user = place.partition(":")[2].partition("/")
    try:
        keyring.set_password(service, user, secret)
    except KeyringError as error:
        raise Unreadable(f"the keyring cannot be used: {type(error).__name__}") from None
