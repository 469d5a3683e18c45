"""What a request to the admin API says, read as strictly as any other."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from handrail.core import wire
from handrail.core.caller_keys import Wish, read_lifetime
from handrail.core.wire import Body, Kind
from handrail.errors import Code, RequestRejected

_NEW_KEY: Final[Mapping[str, tuple[Kind, ...]]] = MappingProxyType(
    {"caller": (Kind.STRING,), "label": (Kind.STRING,), "expires": (Kind.STRING,)}
)


def read_new_key(data: bytes) -> Wish:
    """The body of a request for a key: `caller`, and perhaps `label` and `expires`, such as "30d".

    Raises RequestRejected, which names the field.
    """
    body = _read(data, _NEW_KEY)
    caller = wire.string(body, "caller")
    if not caller:
        raise RequestRejected(
            Code.MISSING_PARAMETER, "Missing required parameter: 'caller'.", param="caller"
        )
    expires = wire.string(body, "expires")
    return Wish(
        caller=caller,
        label=wire.string(body, "label") or "",
        lifetime=None if expires is None else read_lifetime(expires),
    )


def read_nothing(data: bytes) -> None:
    """The body of a request that has none, or `{}`. Raises RequestRejected for any field."""
    if data:
        _read(data, {})


def check_query(query: Mapping[str, str], known: frozenset[str]) -> None:
    """Raise RequestRejected for the first field of a query that its route does not have."""
    for name in query:
        if name not in known:
            raise _unknown(name)


def _read(data: bytes, fields: Mapping[str, tuple[Kind, ...]]) -> Body:
    body = wire.parse_object(data)
    for name in body:
        if name not in fields:
            raise _unknown(name)
    wire.check_kinds(body, fields)
    return body


def _unknown(name: str) -> RequestRejected:
    shown = name[:80]
    return RequestRejected(
        Code.UNSUPPORTED_PARAMETER, f"Unknown parameter: '{shown}'.", param=shown
    )
