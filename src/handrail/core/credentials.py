"""What is kept of an account, as the bytes that are sealed, and what a call shows of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import msgspec

from handrail.core.oauth import Grant
from handrail.errors import Code, StoreFailed

OAUTH: Final = "oauth"
KEY: Final = "key"
SETTINGS: Final = "settings"

_ACCOUNT_HEADER: Final = "chatgpt-account-id"


_GRANT: Final = msgspec.json.Decoder(Grant)


def pack(grant: Grant) -> bytes:
    """The bytes of a grant, to be sealed."""
    return msgspec.json.encode(grant)


def unpack(stored: bytes) -> Grant:
    """What `pack` was given. Raises StoreFailed for anything else."""
    try:
        return _GRANT.decode(stored)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise StoreFailed(
            Code.STORE_UNAVAILABLE, "A stored credential cannot be read.", detail="accounts"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a call shows its upstream: the credential, and headers that say whose it is."""

    secret: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False, default_factory=lambda: MappingProxyType({}))


def shown(kind: str, stored: bytes) -> Shown:
    """What a call with a kept credential shows. Raises StoreFailed for one that cannot be read."""
    if kind != OAUTH:
        return Shown(secret=stored.decode())
    grant = unpack(stored)
    if grant.called_for is None:
        return Shown(secret=grant.access)
    headers = MappingProxyType({_ACCOUNT_HEADER: grant.called_for})
    return Shown(secret=grant.access, headers=headers)
