"""Which creates got their reply: what tells a client's blind repeat from a new create.

Whether a reply arrived is known only after the run was accepted, and sometimes changes: written
whole, and then the connection turns out to have been reset. So a note is written a little later,
and before anybody asks; what a crash loses of them counts as no reply, which errs on the side of
not running twice.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from handrail.engine.clock import Clock
from handrail.errors import StoreFailed
from handrail.store.base import Store
from handrail.telemetry import get_logger

SETTLE_SECONDS: Final = 1.0


class Replies:
    """Takes notes, and the loop that makes them durable."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._notes: dict[str, bool] = {}
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()

    def note(self, run_id: str, *, answered: bool) -> None:
        """The reply to the create of `run_id` was written whole; or, after all, was lost."""
        self._notes[run_id] = answered
        self._wake.set()

    async def settle(self) -> None:
        """Make every note durable before returning, as far as the store takes it."""
        await self._write(list(self._notes))

    async def _write(self, run_ids: Iterable[str]) -> None:
        async with self._lock:
            notes = {id_: self._notes.pop(id_) for id_ in run_ids if id_ in self._notes}
            if not notes:
                return
            try:
                await self._store.answered(notes)
            except StoreFailed as error:
                get_logger().error("replies_not_noted", why=error.fault.code)

    async def loop(self) -> None:
        """Write for ever; ends only by cancellation."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            old_enough = list(self._notes)
            await self._clock.sleep(SETTLE_SECONDS)
            await self._write(old_enough)
            if self._notes:
                self._wake.set()
