"""Holds requests to the rate limits of the settings, at the one place where a call is decided.

Everything happens on the event loop and nothing waits, so the check and the counting are one step.
What was counted lives in memory alone: it is never longer than a minute, so every start begins with
nothing used, and a sick ledger is no reason to refuse anybody.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final

from handrail.core.budgets import Work
from handrail.core.rates import (
    SECOND,
    Bucket,
    Buckets,
    Each,
    Kind,
    RateLimit,
    headers,
    reset_text,
)
from handrail.engine.meter import CallRecord
from handrail.errors import RateLimited

SHOWN: Final = 100
"""How many buckets of a limit an operator is shown, those with the least left."""

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class Counted:
    """A limit in force, and what it counts. `refused` are the requests that it stopped."""

    limit: RateLimit
    buckets: Buckets
    refused: int = 0


class Rates:
    """The rate limits of the current settings. `monotonic` is in seconds.

    `limits` gives them. After a reload one that is the same keeps what was counted.
    """

    def __init__(
        self,
        *,
        limits: Callable[[], Sequence[RateLimit]],
        monotonic: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._known: Sequence[RateLimit] = ()
        self._counted: tuple[Counted, ...] = ()

    def admit(self, work: Work) -> Mapping[str, str]:
        """Count a request, and tell how its limits stand, as headers; none without a limit.

        A request that is refused is counted by no limit. Raises RateLimited.
        """
        found = self._covering(work)
        if not found:
            return NO_HEADERS
        now = self._now()
        buckets = [(counted, counted.buckets.of(counted.limit.key(work), now)) for counted in found]
        waits = [(*bucket.wait(now), counted) for counted, bucket in buckets]
        # Of several, the one that stands in the way for longest says when to come back.
        wait, kind, counted = max(waits, key=itemgetter(0))
        every = [bucket for _, bucket in buckets]
        if wait:
            counted.refused += 1
            raise _limited(counted.limit, kind, wait=wait, told=headers(every, now))
        for bucket in every:
            bucket.take(now)
        return headers(every, now)

    def heard(self, record: CallRecord, *, work: Work | None = None) -> None:
        """A call is over: count the tokens that it has used.

        `work` is what was let in; without it the record says whose call it was.
        """
        if not self._in_force() or not record.counts:
            return
        whose = record.attribution
        work = work or Work(
            caller=whose.caller,
            project=whose.project,
            models=(record.model, record.sent_models[-1]),
        )
        now = self._now()
        used = None if record.usage is None else record.usage.total
        for counted in self._covering(work):
            if counted.limit.max_tokens is not None:
                counted.buckets.of(counted.limit.key(work), now).charge(used, now)

    def shown(self) -> list[dict[str, Any]]:
        """Every limit in force as an operator is shown it, with what is taken of it now."""
        now = self._now()
        return [_shown(counted, now) for counted in self._in_force()]

    def _covering(self, work: Work) -> list[Counted]:
        return [counted for counted in self._in_force() if counted.limit.covers(work)]

    def _in_force(self) -> tuple[Counted, ...]:
        limits = self._limits()
        if limits is not self._known:
            before = {counted.limit: counted for counted in self._counted}
            self._counted = tuple(
                before.get(limit) or Counted(limit=limit, buckets=Buckets(limit))
                for limit in limits
            )
            self._known = limits
        return self._counted

    def _now(self) -> int:
        return int(self._monotonic() * SECOND)


def _limited(limit: RateLimit, kind: Kind, *, wait: int, told: Mapping[str, str]) -> RateLimited:
    return RateLimited(
        f"The limit '{limit.name}' is reached: {limit.said(kind)}. Please try again in "
        f"{reset_text(wait)}.",
        retry_after=wait / SECOND,
        headers=told,
    )


def _shown(counted: Counted, now: int) -> dict[str, Any]:
    limit = counted.limit
    busy = [
        {**_named(limit.each, key), **_standings(bucket, now)}
        for key, bucket in counted.buckets.busy(now)
    ]
    busy.sort(key=_least)
    return {
        "object": "rate_limit",
        "name": limit.name,
        "window": limit.window,
        "caller": limit.caller,
        "project": limit.project,
        "model": limit.model,
        "each": limit.each,
        "max_requests": limit.max_requests,
        "max_tokens": limit.max_tokens,
        "refused": counted.refused,
        "in_use": len(busy),
        "used": busy[:SHOWN],
    }


def _named(each: Sequence[Each], key: Sequence[str]) -> dict[str, str]:
    # Where there are too many, the others are counted together and have no names of their own.
    return dict(zip(each, key if len(key) == len(each) else "*" * len(each), strict=True))


def _standings(bucket: Bucket, now: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in Kind:
        standing = bucket.standing(kind, now)
        if standing is not None:
            found[f"{kind}_left"] = standing.left
            found[f"{kind}_reset_seconds"] = round(standing.reset / SECOND, 3)
    return found


def _least(shown: Mapping[str, Any]) -> int:
    return min(int(shown[name]) for name in shown if name.endswith("_left"))
