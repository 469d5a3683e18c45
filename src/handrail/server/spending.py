"""The routes under /admin about what is spent: usage, budgets, rate limits."""

from datetime import datetime
from typing import Any

import msgspec

from handrail.core.admin import check_query
from handrail.core.usage_query import BY, SINCE, read_query
from handrail.engine.charging import Charging
from handrail.engine.clock import Clock
from handrail.engine.usage_report import UsageReport
from handrail.server.exchange import Exchange
from handrail.settings.model import Settings

_QUERY = frozenset({"since", "until", "by"})


class Spending:
    """Handlers. Each takes the exchange and the settings of that moment."""

    def __init__(self, charging: Charging, usage: UsageReport, *, clock: Clock) -> None:
        self._charging = charging
        self._usage = usage
        self._clock = clock

    async def usage(self, exchange: Exchange, settings: Settings) -> None:
        """GET /admin/usage: what `handrail usage --json` shows, by the same code."""
        asked = exchange.query()
        check_query(asked, _QUERY)
        zone = settings.accounting.zone
        query = read_query(
            since=asked.get("since", SINCE),
            until=asked.get("until"),
            by=asked.get("by", BY),
            now=datetime.fromtimestamp(self._clock.now(), zone),
        )
        await exchange.reply(200, await self._usage.of(query, zone=zone))

    async def budgets(self, exchange: Exchange, _: Settings) -> None:
        """GET /admin/budgets: every budget in force, and what is used and reserved of it."""
        check_query(exchange.query(), frozenset())
        await _reply(exchange, data=self._charging.budgets.shown())

    async def limits(self, exchange: Exchange, settings: Settings) -> None:
        """GET /admin/limits: every rate limit in force, and the foreground requests under way."""
        check_query(exchange.query(), frozenset())
        foreground = [
            {
                "caller": name,
                "max_foreground": caller.policy.max_foreground,
                "under_way": self._charging.concurrency.under_way(name),
            }
            for name, caller in settings.callers.items()
        ]
        await _reply(exchange, data=self._charging.rates.shown(), foreground=foreground)


async def _reply(exchange: Exchange, **body: Any) -> None:
    await exchange.reply(200, msgspec.json.encode({"object": "list", **body}))
