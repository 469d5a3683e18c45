"""A question about usage, as people and programs ask it, and its answer as JSON has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final

from handrail.core.durations import read_duration
from handrail.core.report import COUNTS, GROUPS, Line, total
from handrail.errors import Code, RequestRejected

SINCE: Final = "30d"
BY: Final = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """What the calls that ended from `since` on, and before `until`, have used, by groups."""

    since: datetime
    until: datetime
    by: tuple[str, ...]


def read_query(*, since: str, until: str | None, by: str, now: datetime) -> UsageQuery:
    """The question in these words; days are those of the zone of `now`.

    Raises RequestRejected that names the parameter.
    """
    return UsageQuery(
        since=_moment(since, now, param="since"),
        until=now if until is None else _moment(until, now, param="until"),
        by=_groups(by),
    )


def counts(line: Line) -> dict[str, Any]:
    """The figures of a line; a cost that nobody knows is None."""
    found = {name: getattr(line, count) for count, name in COUNTS.items()}
    usd = None if line.usd is None else round(line.usd, 9)
    return {**found, "cost_usd": usd, "unpriced_calls": line.unpriced}


def answer(found: Sequence[Line], query: UsageQuery) -> dict[str, Any]:
    """The lines as one JSON object."""
    return {
        "since": query.since.isoformat(timespec="seconds"),
        "until": query.until.isoformat(timespec="seconds"),
        "by": query.by,
        "rows": [{**dict(zip(query.by, line.key, strict=True)), **counts(line)} for line in found],
        "total": counts(total(found)),
    }


def _moment(text: str, now: datetime, *, param: str) -> datetime:
    seconds = read_duration(text.strip())
    try:
        if seconds is not None:
            return now - timedelta(seconds=seconds)
        return datetime.combine(date.fromisoformat(text.strip()), time(), now.tzinfo)
    except (ValueError, OverflowError):
        raise RequestRejected(
            Code.INVALID_VALUE,
            f"'{param}' must be a day such as 2026-11-01, or a duration such as 12h or 7d.",
            param=param,
        ) from None


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(part.strip() for part in text.split(",") if part.strip())
    if not groups or len(set(groups)) < len(groups) or not set(groups) <= set(GROUPS):
        raise RequestRejected(
            Code.INVALID_VALUE, f"'by' must be some of {', '.join(GROUPS)}, each once.", param="by"
        )
    return groups
