"""Reads rate limits: the tables `[[limits]]` of the settings."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from handrail.core.rates import Each, RateLimit, RateWindow
from handrail.errors import ConfigInvalid
from handrail.settings.tables import amount, check_name, check_unique, entries

MAX_REQUESTS: Final = 100_000
"""Most requests of one limit: the time of each is kept for as long as the window."""

# What each key means, in the order of docs/reference/settings.md.
LIMIT_MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "name": "What errors and the admin API call it.",
        "window": "second or minute; it slides. What is for longer is a budget.",
        "caller": "Whose requests it is for; by default everybody's together.",
        "project": "Only requests with this label in the header `handrail-project`.",
        "model": "Only requests for models that this pattern with `*` fits, by any of their names.",
        "each": "Of caller, project and model, those that are counted apart, so that each has the "
        "whole limit.",
        "max_requests": "Most requests within any such time.",
        "max_tokens": "Tokens, input and output together, that are refilled within such a time.",
    }
)


class LimitEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of `[[limits]]`."""

    name: str
    window: RateWindow
    caller: str | None = None
    project: str | None = None
    model: str | None = None
    each: tuple[Each, ...] = ()
    max_requests: int | None = None
    max_tokens: int | None = None


def read_limits(tables: Any, file: str) -> tuple[RateLimit, ...]:
    """The rate limits of a list of tables. Raises ConfigInvalid that names the place."""
    found = entries(tables, LimitEntry, word="limits", file=file)
    limits = tuple(_limit(entry, place) for place, entry in found)
    check_unique([limit.name for limit in limits], word="limits", file=file)
    return limits


def _limit(entry: LimitEntry, place: str) -> RateLimit:
    check_name(entry.name, place)
    if entry.max_requests is None and entry.max_tokens is None:
        raise ConfigInvalid(f"{place}: needs max_requests or max_tokens.")
    amount(entry.max_requests, f"{place}.max_requests", most=MAX_REQUESTS)
    amount(entry.max_tokens, f"{place}.max_tokens")
    if len(set(entry.each)) < len(entry.each):
        raise ConfigInvalid(f"{place}.each: names one of them twice.")
    for each, one in ((Each.CALLER, entry.caller), (Each.PROJECT, entry.project)):
        if each in entry.each and one is not None:
            raise ConfigInvalid(f"{place}.each: there is but one {each} that the limit is for.")
    return RateLimit(**{name: getattr(entry, name) for name in LimitEntry.__struct_fields__})
