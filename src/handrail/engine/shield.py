"""Work that is not left half done when whoever asked for it goes away."""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

T = TypeVar("T")

_LAST_SECONDS: Final = 1.0


async def to_the_end(work: Awaitable[T]) -> T:
    """What `work` gives, awaited to its end even if this task is cancelled; then be cancelled.

    A store that does not take an end may keep `work` waiting for ever, so after a cancellation it
    has a second more: a process that is to stop must stop, and the next start ends the run.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_LAST_SECONDS)
        task.cancel()
        raise
