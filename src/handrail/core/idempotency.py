"""`Idempotency-Key`: the same create, sent twice, is one background response.

A caller whose connection broke cannot know whether its create arrived. With a key it may simply
send it again: the same key and body give the same response, the same key with another body is an
error, and a key whose response was deleted is not used up silently.
"""

import hashlib
import re
from contextlib import suppress
from dataclasses import replace
from typing import Final

import msgspec

from handrail.core import wire
from handrail.core.policy import Mode, Plan, Reason
from handrail.core.wire import CreateRequest
from handrail.errors import Code, RequestRejected

KEPT_SECONDS: Final = 86_400
"""How long a key is known at least; longer, as long as its response is kept."""

HEADER: Final = "idempotency-key"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


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


def digest(request: CreateRequest) -> bytes:
    """What two creates have in common that ask for the same, however they are spelled."""
    data = wire.encode(request.body)
    # A part that nobody reads may be one that cannot be read, such as 1e999: then the bytes count.
    with suppress(msgspec.DecodeError, RecursionError):
        data = msgspec.json.encode(msgspec.json.decode(data), order="deterministic")
    return hashlib.sha256(data).digest()


def noted(plan: Plan, key: str | None) -> Plan:
    """The plan with what a key means for it: nothing, unless the gateway keeps the response."""
    if key is None or plan.mode is Mode.BACKGROUND:
        return plan
    text = "The Idempotency-Key has no meaning here: the gateway keeps nothing of this response."
    reason = Reason(name=f"{HEADER}=ignored", text=text)
    return replace(plan, reasons=(*plan.reasons, reason))
