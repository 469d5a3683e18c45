"""Destroys runs whose retention is over."""

from typing import Final

from handrail.engine.clock import Clock
from handrail.errors import StoreFailed
from handrail.store.base import Store
from handrail.telemetry import get_logger

SWEEP_SECONDS: Final = 30.0
BATCH: Final = 100


class Retention:
    """The sweeping loop. An expired run is unreadable at once; sweeping frees its bytes."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def loop(self) -> None:
        """Sweep for ever; ends only by cancellation."""
        logger = get_logger()
        while True:
            try:
                # In small batches, so that no other write waits long behind a big deletion.
                swept = await self._store.sweep(limit=BATCH)
            except StoreFailed as error:
                logger.error("sweep_failed", why=error.fault.code)
                swept = 0
            if swept:
                logger.info("runs_expired", count=swept)
            if swept < BATCH:
                await self._clock.sleep(SWEEP_SECONDS)
