"""Who is calling: a key, in any spelling, against the digests of the settings."""

import hmac

from handrail.errors import Code, RequestRejected
from handrail.server.exchange import Exchange
from handrail.settings.load import key_digest
from handrail.settings.model import Caller, Settings

_MAX_KEY = 512


def identify(exchange: Exchange, settings: Settings) -> Caller:
    """The caller whose key `Authorization: Bearer` or `x-api-key` carries.

    Raises RequestRejected (401) for a missing, malformed or unknown key, and for two different
    ones. Only SHA-256 digests are compared, each in constant time, so the time taken says nothing
    about a key.
    """
    key = _offered_key(exchange)
    digest = key_digest(key)
    found = None
    for caller in settings.callers.values():
        if caller.digest is not None and hmac.compare_digest(caller.digest, digest):
            found = caller
    if found is None:
        raise RequestRejected(Code.INVALID_API_KEY, "Incorrect API key provided.")
    return found


def _offered_key(exchange: Exchange) -> str:
    bearer = exchange.header(b"authorization")
    scheme, _, credential = bearer.partition(" ")
    other = exchange.header(b"x-api-key")
    if bearer and scheme.lower() != "bearer":
        raise RequestRejected(
            Code.INVALID_API_KEY, "The Authorization header must be 'Bearer' and an API key."
        )
    offered = {key for key in (credential.strip(), other.strip()) if key}
    if not offered:
        raise RequestRejected(
            Code.INVALID_API_KEY,
            "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'.",
        )
    key = offered.pop()
    if offered or len(key) > _MAX_KEY:
        raise RequestRejected(Code.INVALID_API_KEY, "Incorrect API key provided.")
    return key
