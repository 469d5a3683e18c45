"""The same create, sent twice, is one background response: `Idempotency-Key`, and blind repeats.

A caller whose connection broke cannot know whether its create arrived. With a key it may simply
send it again: the same key and body give the same response, the same key with another body is an
error, and a key whose response was deleted is not used up silently. SDKs send it again by
themselves, without a key, but count how often.
"""

import hashlib
import re
from contextlib import suppress
from typing import Final

import msgspec

from handrail.core import wire
from handrail.core.wire import CreateRequest
from handrail.errors import Code, RequestRejected

KEPT_SECONDS: Final = 86_400
"""How long a key is known at least; longer, as long as its response is kept."""

REPEATED_SECONDS: Final = 900
"""How long a create without a key whose reply was lost is recognised when it is sent again."""

HEADER: Final = "idempotency-key"
RETRY_COUNT: Final = "x-stainless-retry-count"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_COUNT: Final = re.compile(r"[0-9]{1,9}")


def read_key(text: str) -> str | None:
    """The key in a header's value, None where there is none.

    Raises RequestRejected for what is not 1 to 255 visible ASCII characters.
    """
    if not text:
        return None
    if _KEY.fullmatch(text) is None:
        raise RequestRejected(
            Code.INVALID_VALUE,
            "'Idempotency-Key' must be 1 to 255 visible ASCII characters.",
            param=HEADER,
        )
    return text


def key_expired() -> RequestRejected:
    """The refusal of a key whose response was deleted, or whose time is over."""
    return RequestRejected(
        Code.IDEMPOTENCY_KEY_EXPIRED,
        "The response that was made under this Idempotency-Key is no longer kept.",
        param=HEADER,
    )


def read_retry_count(text: str) -> int | None:
    """How often an SDK has sent this request before; None where no SDK says so.

    The header is the SDKs' own, so a value that is no count is nobody's mistake, and none.
    """
    return int(text) if _COUNT.fullmatch(text) else None


def digest(request: CreateRequest) -> bytes:
    """What two creates have in common that ask for the same, however they are spelled."""
    data = wire.encode(request.body)
    # A part that nobody reads may be one that cannot be read, such as 1e999: then the bytes count.
    with suppress(msgspec.DecodeError, RecursionError):
        data = msgspec.json.encode(msgspec.json.decode(data), order="deterministic")
    return hashlib.sha256(data).digest()
