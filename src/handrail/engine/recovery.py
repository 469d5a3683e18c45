"""Ends what nobody else would end: the runs of a process that died, and of callers who are gone."""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from handrail.engine.background import Background
from handrail.engine.clock import Clock
from handrail.errors import StoreFailed
from handrail.telemetry import get_logger

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 30.0


class Recovery:
    """The loop that takes over. `callers` gives the names of the callers of the moment.

    Both halves are tried until they are done: a store that is locked or full at the start must not
    leave a run under way for ever, or until the start after.
    """

    def __init__(
        self,
        background: Background,
        *,
        owner: str,
        callers: Callable[[], Collection[str]],
        clock: Clock,
    ) -> None:
        self._background = background
        self._owner = owner
        self._callers = callers
        self._clock = clock
        self._wake = asyncio.Event()
        self._taken_over = False
        self._logger = get_logger()

    def wake(self) -> None:
        """The callers have changed, and ending the runs of those who are gone has failed."""
        self._wake.set()

    async def loop(self) -> None:
        """Take over, then wait to be woken, for ever; ends only by cancellation."""
        wait = FIRST_WAIT
        while True:
            self._wake.clear()
            if await self._done():
                wait = FIRST_WAIT
                await self._wake.wait()
            else:
                await self._clock.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    async def _done(self) -> bool:
        try:
            if not self._taken_over:
                self._taken_over = await self._background.recover(owner=self._owner)
            await self._background.revoke_all_but(self._callers())
        except StoreFailed as error:
            self._logger.error("recovery_failed", why=error.fault.code)
            return False
        return self._taken_over
