"""Secrets that are planted, and a detector that finds them in the spellings they may take."""

import base64
import hashlib
import json
from collections.abc import Collection, Iterator
from urllib.parse import quote

PIECE = 12
"""Bytes. So many of a secret in a row are a leak; a display may show its last four characters."""


class Canaries:
    """What was planted, by name."""

    def __init__(self) -> None:
        self._planted: dict[str, bytes] = {}
        self._needles: dict[str, dict[bytes, str]] = {}

    def __len__(self) -> int:
        return len(self._planted)

    def plant(self, name: str, secret: bytes | str = "", *, form: str = "{}") -> str:
        """Watch for a secret; without one it is made up, in that form, always the same."""
        if not secret:
            secret = form.format(hashlib.sha256(name.encode()).hexdigest()[:40])
        data = secret.encode() if isinstance(secret, str) else secret
        self._planted[name] = data
        self._needles[name] = dict(_spellings(data))
        return data.decode("latin-1")

    def found(self, data: bytes, *, but: Collection[str] = ()) -> list[str]:
        """Which of them are in `data`, and how they are spelled there, but for those named."""
        return [
            f"{name} {how}"
            for name, needles in self._needles.items()
            if name not in but
            for needle, how in needles.items()
            if needle in data
        ]

    def those(self, *parts: str) -> list[str]:
        """The names that hold one of these words."""
        return [name for name in self._planted if any(part in name for part in parts)]


def _spellings(secret: bytes) -> Iterator[tuple[bytes, str]]:
    for spelled in (secret, secret.lower(), secret.upper()):
        yield from ((piece, "as it is") for piece in _pieces(spelled))
    yield from ((piece, "in hex") for piece in _pieces(secret.hex().encode()))
    yield from ((piece, "in hex") for piece in _pieces(secret.hex().upper().encode()))
    for escaped in (quote(secret, safe=""), json.dumps(secret.decode("latin-1"))[1:-1]):
        if escaped.encode() != secret:
            yield escaped.encode(), "escaped"
    for ahead in range(3):  # where it begins within a group of three bytes
        padded = b"\0" * ahead + secret
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            inside = encode(padded)[-(-ahead * 8 // 6) : len(padded) * 8 // 6]
            yield from ((piece, "in base64") for piece in _pieces(inside, size=PIECE + 4))


def _pieces(secret: bytes, *, size: int = PIECE) -> Iterator[bytes]:
    # One after another: whatever is nearly twice as long holds a whole one.
    if len(secret) <= size:
        yield secret
    else:
        yield from (secret[n : n + size] for n in range(0, len(secret) - size + 1, size))
