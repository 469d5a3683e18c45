"""Who is calling: a key, in any spelling, against digests."""

import hmac
from typing import Final

from handrail.core.caller_keys import key_digest
from handrail.engine.caller_keys import CallerKeys
from handrail.errors import Code, RequestRejected
from handrail.server.exchange import Exchange
from handrail.settings.model import Caller, Settings

_MAX_KEY: Final = 512
# Beside Authorization: what SDKs of other APIs, and those of Azure, put a key into.
_PLAIN: Final = (b"x-api-key", b"api-key")


class Callers:
    """Tells callers by their keys: those of the settings, and those that `keys` has.

    Only SHA-256 digests are compared, each in constant time, so the time taken says nothing about a
    key.
    """

    def __init__(self, keys: CallerKeys | None = None) -> None:
        self._keys = keys

    def identify(self, exchange: Exchange, settings: Settings) -> Caller:
        """The caller whose key a header carries.

        Raises RequestRejected (401) for a missing, malformed, unknown, expired or revoked key, and
        for two different ones. The words never tell these apart.
        """
        digest = key_digest(offered_key(exchange))
        found = None
        for caller in settings.callers.values():
            if caller.digest is not None and hmac.compare_digest(caller.digest, digest):
                found = caller
        if found is None and self._keys is not None:
            name = self._keys.caller_of(digest, settings.callers)
            found = None if name is None else settings.callers[name]
        if found is None:
            raise incorrect()
        return found


def offered_key(exchange: Exchange) -> str:
    """The key in `Authorization: Bearer`, `x-api-key` or `api-key`; in several if they agree.

    Raises RequestRejected (401) for none, and for what is none.
    """
    bearer = exchange.header(b"authorization")
    scheme, _, credential = bearer.partition(" ")
    if bearer and scheme.lower() != "bearer":
        raise RequestRejected(
            Code.INVALID_API_KEY, "The Authorization header must be 'Bearer' and an API key."
        )
    named = (credential, *(exchange.header(name) for name in _PLAIN))
    offered = {key.strip() for key in named if key.strip()}
    if not offered:
        raise RequestRejected(
            Code.INVALID_API_KEY,
            "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'.",
        )
    key = offered.pop()
    if offered or len(key) > _MAX_KEY:
        raise incorrect()
    return key


def incorrect() -> RequestRejected:
    """The one answer to every key that opens nothing here."""
    return RequestRejected(Code.INVALID_API_KEY, "Incorrect API key provided.")
