"""Answers questions about usage from the ledger's file, beside whoever writes it.

On a thread of its own with a connection that only reads: neither the event loop nor the writing of
rows waits for it. Time and result are bounded, because an operator may ask for years.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from handrail.core.report import lines
from handrail.core.usage_query import UsageQuery, answer
from handrail.errors import Code, ConfigInvalid, StoreFailed
from handrail.store.ledger import read_usage

MAX_SECONDS: Final = 10.0
MAX_LINES: Final = 10_000


class UsageReport:
    """Reads the ledger at `path`, one question at a time. `monotonic` is in seconds."""

    def __init__(
        self,
        path: Path,
        *,
        monotonic: Callable[[], float],
        max_seconds: float = MAX_SECONDS,
        max_lines: int = MAX_LINES,
    ) -> None:
        self._path = path
        self._monotonic = monotonic
        self._max_seconds = max_seconds
        self._max_lines = max_lines
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="handrail-usage")

    async def of(self, query: UsageQuery, *, zone: tzinfo) -> bytes:
        """The answer as JSON; days are those of `zone`.

        Raises RequestRejected for more lines than there may be, and StoreFailed when the ledger
        cannot be read, or not in the time that it may take.
        """
        work = partial(self._read, query, zone)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Answer nothing more."""
        self._closed = True
        self._thread.shutdown(cancel_futures=True)

    def _read(self, query: UsageQuery, zone: tzinfo) -> bytes:
        end = self._monotonic() + self._max_seconds

        def expired() -> bool:
            return self._closed or self._monotonic() > end

        sums = read_usage(
            self._path,
            since=query.since.timestamp(),
            until=query.until.timestamp(),
            by=query.by,
            expired=expired,
        )
        try:
            with closing(sums):
                found = lines(sums, by=query.by, zone=zone, most=self._max_lines)
        except ConfigInvalid as error:
            why = "be read now"
            if expired():
                why = f"be summed up within {self._max_seconds:g} seconds; ask for a shorter time"
            raise StoreFailed(
                Code.LEDGER_UNAVAILABLE,
                f"The gateway's usage ledger cannot {why}.",
                detail=str(error),
            ) from None
        return msgspec.json.encode({"object": "usage", **answer(found, query)})
