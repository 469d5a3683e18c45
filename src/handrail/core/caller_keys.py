"""Keys of callers: what is kept of one, who holds an offered one, and what a new one may say.

A key itself is shown once, when it is made. What is kept is its SHA-256 digest: of 256 random bits
that tells nothing, and nobody can find a key for it.
"""

import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from handrail.core.durations import read_duration
from handrail.core.redact import scrub
from handrail.errors import Code, RequestRejected

MAX_LABEL: Final = 80
MAX_LIFETIME: Final = 3_660 * 86_400
MAX_OVERLAP: Final = 30 * 86_400
_PREFIX: Final = 8


class Standing(StrEnum):
    """Whether a key opens anything, and if not, why."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerKey:
    """What is kept of a key. Times in unix seconds, None where it has not or will not happen.

    `id` is its public name, `caller` whose it is, `label` what its maker calls it.
    """

    id: str
    caller: str
    digest: bytes = field(repr=False)
    label: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None

    def standing(self, now: float) -> Standing:
        """What the key is worth at `now`."""
        if self.revoked_at is not None:
            return Standing.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return Standing.EXPIRED
        return Standing.ACTIVE


def key_digest(key: str) -> bytes:
    """What is kept of a caller key, and what an offered key is compared by."""
    return hashlib.sha256(key.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The keys of one moment. Looking one up costs the same for any number of them."""

    by_prefix: Mapping[bytes, tuple[CallerKey, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: Iterable[CallerKey]) -> "Keyring":
        """A ring of these."""
        found: dict[bytes, tuple[CallerKey, ...]] = {}
        for key in keys:
            prefix = key.digest[:_PREFIX]
            found[prefix] = (*found.get(prefix, ()), key)
        return cls(by_prefix=MappingProxyType(found))

    def find(self, digest: bytes) -> CallerKey | None:
        """The key of that digest, whatever it is worth; None for one that nobody was given.

        The time that it takes can tell at most whether the first 64 bits of the digest of some key
        are those of the offered one, and whoever can choose those does not need to be told.
        """
        found = None
        for key in self.by_prefix.get(digest[:_PREFIX], ()):
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a new key is to be: whose, for how many seconds (None: without end), called what."""

    caller: str
    label: str = ""
    lifetime: int | None = None

    def __post_init__(self) -> None:
        if len(self.label) > MAX_LABEL or not self.label.isprintable():
            raise _refused(f"'label' must be one line of at most {MAX_LABEL} characters.", "label")


def read_lifetime(text: str, *, param: str = "expires") -> int:
    """How many seconds a key is to live. Raises RequestRejected that names `param`."""
    return _read_seconds(text, low=1, high=MAX_LIFETIME, param=param)


def read_overlap(text: str, *, param: str = "overlap") -> int:
    """How many seconds an old key lives on beside its successor, likewise."""
    return _read_seconds(text, low=0, high=MAX_OVERLAP, param=param)


def _read_seconds(text: str, *, low: int, high: int, param: str) -> int:
    seconds = read_duration(text.strip())
    if seconds is None or not low <= seconds <= high:
        most = f"{high // 86_400}d"
        raise _refused(f"'{param}' must be a duration such as 24h or 30d, up to {most}.", param)
    return seconds


def check_caller(caller: str, callers: Collection[str]) -> None:
    """Raise RequestRejected for a caller whom the settings do not name."""
    if caller not in callers:
        shown = shown_name(caller)
        raise _refused(
            f"There is no caller '{shown}' in the settings, which have "
            f"{', '.join(sorted(callers)) or 'none'}. Add [callers.NAME] first.",
            "caller",
        )


def shown_name(text: str) -> str:
    """What somebody gave as a name, fit to be shown; a key that stands there by mistake is not."""
    return scrub(text)[:64].encode("unicode_escape").decode()


def made(wish: Wish, *, key_id: str, digest: bytes, now: float) -> CallerKey:
    """The new key."""
    return CallerKey(
        id=key_id,
        caller=wish.caller,
        digest=digest,
        label=wish.label,
        created_at=now,
        expires_at=None if wish.lifetime is None else now + wish.lifetime,
    )


def rotated(
    old: CallerKey, *, key_id: str, digest: bytes, now: float, overlap: float
) -> tuple[CallerKey, float]:
    """The successor of a key, and when the old one ends.

    The new one has the old one's caller and label, and lives as long as that was to live. The old
    one ends after `overlap` seconds, or before that when it would have ended anyway. Raises
    RequestRejected for one that opens nothing any more.
    """
    standing = old.standing(now)
    if standing is not Standing.ACTIVE:
        raise _refused(f"The key {old.id} is {standing}; make a new one instead.", "id")
    lifetime = None if old.expires_at is None else old.expires_at - old.created_at
    new = CallerKey(
        id=key_id,
        caller=old.caller,
        digest=digest,
        label=old.label,
        created_at=now,
        expires_at=None if lifetime is None else now + lifetime,
    )
    end = now + overlap
    return new, end if old.expires_at is None else min(end, old.expires_at)


def _refused(message: str, param: str) -> RequestRejected:
    return RequestRejected(Code.INVALID_VALUE, message, param=param)
