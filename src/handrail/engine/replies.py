"""Which creates got their reply: what tells a client's blind repeat from a new create.

Whether a reply arrived is known only after the run was accepted, and sometimes changes: written
whole, and then the connection turns out to have been reset. Each change is noted at once and
written in the background, so that no reply waits for it.
"""

import asyncio

from handrail.errors import StoreFailed
from handrail.store.base import Store
from handrail.telemetry import get_logger


class Replies:
    """Takes notes, and the loop that makes them durable. A lost note counts as no reply."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._notes: dict[str, bool] = {}
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()

    def note(self, run_id: str, *, answered: bool) -> None:
        """The reply to the create of `run_id` was written whole; or, after all, was lost."""
        self._notes[run_id] = answered
        self._wake.set()

    async def settle(self) -> None:
        """Make every note durable before returning, as far as the store takes it."""
        async with self._lock:
            notes, self._notes = self._notes, {}
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
            await self.settle()
