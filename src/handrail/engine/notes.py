"""What is learnt about accounts and written down beside the calls, so many notes at most.

A file that another process holds must hold no call up. So notes wait in memory, one at a time is
written, and after one that fails the others wait for the next occasion.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from handrail.errors import StoreFailed
from handrail.telemetry import get_logger

Write = Callable[[], Awaitable[None]]

MOST: Final = 1_000
"""How many notes wait at most; then the oldest go, first of those that are told again anyway."""


class Notes:
    """Of one process. Nothing here raises StoreFailed."""

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._kept: deque[Write] = deque()
        self._latest: dict[Hashable, Write] = {}
        self._task: asyncio.Task[None] | None = None
        self._logger = get_logger()

    def __len__(self) -> int:
        return len(self._kept) + len(self._latest)

    def add(self, write: Write, *, instead: Hashable | None = None) -> None:
        """Have `write` called soon, again if it raises StoreFailed.

        With `instead` it takes the place of the one that waits under the same name, and is the
        first to go when there are too many.
        """
        if instead is None:
            self._kept.append(write)
        else:
            self._latest[instead] = write
        if len(self) > self._most:
            self._drop()
        self.write()

    def _drop(self) -> None:
        if self._latest:
            del self._latest[next(iter(self._latest))]
        else:
            self._kept.popleft()
        self._logger.error("account_note_dropped", waiting=len(self))

    def write(self) -> None:
        """Begin to write what waits, if nobody does."""
        if len(self) and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._write(), name="account notes")

    async def settle(self, *, seconds: float) -> None:
        """Try once to write all that waits, so long at most."""
        self.write()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)

    async def _write(self) -> None:
        while len(self):
            name = None if self._kept else next(iter(self._latest))
            write = self._kept[0] if name is None else self._latest[name]
            try:
                await write()
            except StoreFailed as error:
                self._logger.error("account_not_noted", why=error.detail, waiting=len(self))
                return self._failed(name, write, final=error.final)
            except Exception as error:  # a defect, which must not keep the others waiting
                self._logger.error("account_note_broke", exc_info=error)
            self._forget(name, write)

    def _failed(self, name: Hashable | None, write: Write, *, final: bool) -> None:
        if final:
            self._kept.clear()
            self._latest.clear()
        elif self._forget(name, write):
            # It goes behind the others: it may be the only one that is never taken.
            if name is None:
                self._kept.append(write)
            else:
                self._latest[name] = write

    def _forget(self, name: Hashable | None, write: Write) -> bool:
        """Whether it still waited; meanwhile another may have taken its place, or it had to go."""
        if name is not None:
            return self._latest.get(name) is write and self._latest.pop(name) is write
        with contextlib.suppress(ValueError):
            self._kept.remove(write)
            return True
        return False
