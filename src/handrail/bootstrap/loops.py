"""The loops that run for as long as a gateway serves, each of them watched."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final

from handrail.bootstrap.parts import Parts
from handrail.errors import StoreFailed
from handrail.telemetry import get_logger

Loop = Callable[[], Awaitable[None]]

_NONE: Final[Mapping[str, Loop]] = MappingProxyType({})


@asynccontextmanager
async def running(
    parts: Parts, *, broken: Callable[[], None], beside: Mapping[str, Loop] = _NONE
) -> AsyncIterator[None]:
    """Every loop of `parts`, and those `beside` them by name, while the block is open.

    Then comes the end of its readers and client.
    `broken` is called when one of them fails: a gateway whose journal or executor has died must
    not go on answering as if all were well.
    """
    logger = get_logger()

    async def watched(name: str, loop: Loop) -> None:
        try:
            await loop()
        except Exception as error:
            logger.error("loop_broke", loop=name, exc_info=error)
            broken()

    loops = {
        "journal": parts.journal.loop,
        "executor": parts.executor.start,
        "retention": parts.retention.loop,
        "replies": parts.background.replies.loop,
        "recovery": parts.recovery.loop,
        **beside,
    }
    if parts.accounts is not None:
        loops["accounts"] = parts.accounts.loop
    if parts.ledger is not None:
        await parts.ledger.start()
        loops["ledger"] = parts.ledger.loop
    try:
        await parts.background.resume_reservations(parts.targets)
    except StoreFailed as error:
        logger.error("reservations_not_resumed", why=error.fault.code)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watched(name, loop), name=name) for name, loop in loops.items()]
        yield
        parts.tails.close()
        for task in tasks:
            task.cancel()
    if parts.accounts is not None:
        await parts.accounts.settle()
    await parts.client.close()
    if parts.ledger is not None:
        await parts.ledger.close()
