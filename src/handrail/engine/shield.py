"""Work that is not left half done when whoever asked for it goes away."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: Awaitable[T]) -> T:
    """What `work` gives, awaited to its end even if this task is cancelled; then be cancelled.

    A second cancellation meanwhile reaches the work itself: a process that must end at once does.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
