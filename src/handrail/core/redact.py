"""What counts as secret, and how it is masked. Used on every log line and upstream message."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

MASK: Final = "[redacted]"

SECRET_NAMES: Final = frozenset(
    {
        "authorization",
        "api_key",
        "apikey",
        "access_token",
        "accesstoken",
        "api-key",
        "authorization_code",
        "chatgpt-account-id",
        "code_verifier",
        "cookie",
        "device_auth_id",
        "id_token",
        "key",
        "openai-organization",
        "password",
        "proxy-authorization",
        "refresh_token",
        "refreshtoken",
        "secret",
        "set-cookie",
        "token",
        "x-api-key",
    }
)

_PATTERNS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?i)\bbearer\s+[^\s\"',;]{4,}",
        r"\b(?:sk|hr|sess|whsec)[-_][A-Za-z0-9_\-]{8,}",
        r"\b(?:(?:rt|ac)[-_]|rt\.[0-9]\.)[A-Za-z0-9_.\-]{7,}[A-Za-z0-9_\-]",
        r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}(?:\.[A-Za-z0-9_\-]*)?",
        r"\b[A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9.\-]{1,255}\.[A-Za-z]{2,24}\b",
    )
)


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with the given secrets, and whatever looks like a key, JWT or e-mail, masked."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(MASK, text)
    return text


def redacted(name: str, value: object) -> object:
    """`value` without secrets, as it may be logged under `name`; lists and mappings all through."""
    if name.lower() in SECRET_NAMES:
        return MASK
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {key: redacted(str(key), inner) for key, inner in value.items()}
    if type(value) in (list, tuple):  # a named tuple or another sequence stays what it is
        return [redacted("", inner) for inner in value]  # type: ignore[attr-defined]
    return value


def masked(value: str) -> str:
    """A secret for display: its last four characters, when it is long enough to spare them."""
    return f"…{value[-4:]}" if len(value) >= 20 else "…"


def hidden(value: Any) -> Any:
    """Decoded JSON for display: texts that are secret by their name or their look are masked.

    Names are those of SECRET_NAMES, in any case, and all of an object called `headers`.
    """
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, list):
        return [hidden(entry) for entry in value]
    if isinstance(value, dict):
        return {name: _hidden_field(name, entry) for name, entry in value.items()}
    return value


def _hidden_field(name: str, value: Any) -> Any:
    if isinstance(value, str) and name.lower() in SECRET_NAMES:
        return MASK
    if isinstance(value, dict) and name.lower() == "headers":
        return {key: MASK if isinstance(text, str) else hidden(text) for key, text in value.items()}
    return hidden(value)
