"""Kept foreground responses: who waits hears of the end, whatever becomes of the work."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from handrail.core.policy import Mode, Plan
from handrail.engine.kept import KeptCall, KeptForeground
from handrail.engine.ways import Held
from handrail.errors import Code, HandrailError
from tests.contract.runs import limits
from tests.unit.test_journal import new_run


class Stopping:
    """An executor that is told to stop before what it has just adopted has had a turn."""

    owner = "me"

    def adopt(self, run_id: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def working() -> None:
            await work()

        task = asyncio.create_task(working(), name=run_id)
        task.cancel()
        return task


async def test_a_call_whose_work_is_cancelled_before_its_first_step_is_refused() -> None:
    unused: Any = None
    kept = KeptForeground(
        store=unused,
        execution=unused,
        executor=Stopping(),
        journal=unused,
        tails=unused,
        clock=unused,
    )
    call = KeptCall(
        plan=Plan(mode=Mode.KEPT, stream=False, store=True, retention_seconds=1, reasons=()),
        id="resp_1",
        caller="ann",
        run=Held(new_run("resp_1")),
        limits=limits(),
        numbered_heartbeat=False,
        ways=unused,
    )
    with pytest.raises(HandrailError) as caught:
        async with asyncio.timeout(5), kept.open(call, left=lambda: False):
            pass
    assert caught.value.fault.code == Code.SHUTTING_DOWN
