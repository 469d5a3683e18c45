"""What the query of a route says, read and checked."""

from collections.abc import Mapping
from typing import Final

from handrail.core.items import DEFAULT_PAGE, MAX_PAGE, PageRequest
from handrail.errors import Code, RequestRejected
from handrail.server.exchange import Exchange

MAX_CURSOR: Final = 2**53 - 1

# What of a query is for whoever keeps the response.
_QUERY: Final = frozenset(
    {
        "after",
        "include",
        "include[]",
        "include_obfuscation",
        "limit",
        "order",
        "starting_after",
        "stream",
    }
)


def passed_on(exchange: Exchange) -> list[tuple[str, str]]:
    """The pairs that are for whoever keeps the response."""
    return [(name, value) for name, value in exchange.query_pairs() if name in _QUERY]


def flag(query: Mapping[str, str], name: str, *, default: bool) -> bool:
    """A yes or no. Raises RequestRejected for anything else."""
    value = query.get(name)
    if value is None:
        return default
    if value not in ("true", "false"):
        raise RequestRejected(Code.INVALID_VALUE, f"'{name}' must be true or false.", param=name)
    return value == "true"


def cursor(query: Mapping[str, str]) -> int:
    """The number to resume after, -1 for all. Raises RequestRejected for what is no number."""
    text = query.get("starting_after")
    if text is None:
        return -1
    if not _is_number(text, digits=16) or int(text) > MAX_CURSOR:
        raise RequestRejected(
            Code.INVALID_VALUE,
            "'starting_after' must be an integer from 0 to 9007199254740991.",
            param="starting_after",
        )
    return int(text)


def _is_number(text: str, *, digits: int) -> bool:
    # Length first: Python refuses to read an integer of thousands of digits, with a ValueError.
    return 0 < len(text) <= digits and text.isascii() and text.isdigit()


def page(query: Mapping[str, str]) -> PageRequest:
    """The part of a list that is asked for. Raises RequestRejected for what is none."""
    limit = query.get("limit", str(DEFAULT_PAGE))
    if not _is_number(limit, digits=3) or not 1 <= int(limit) <= MAX_PAGE:
        raise RequestRejected(
            Code.INVALID_VALUE, f"'limit' must be an integer from 1 to {MAX_PAGE}.", param="limit"
        )
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise RequestRejected(Code.INVALID_VALUE, "'order' must be asc or desc.", param="order")
    return PageRequest(
        limit=int(limit), descending=order == "desc", after=query.get("after") or None
    )
