"""The executor of one process: what it has under way, and what becomes of a cancelled run."""

import asyncio
from typing import Any

from handrail.engine.executors import LocalExecutor
from handrail.store.base import Run
from tests.contract.runs import limits
from tests.unit.test_journal import new_run


class OneRun:
    """A store with one run to claim; it is cancelled before its execution has had a turn."""

    def __init__(self, run: Run) -> None:
        self.executor: LocalExecutor
        self.asked = 0
        self._run = run

    async def claim(self, **_: Any) -> Run | None:
        self.asked += 1
        if self.asked == 1:
            return self._run
        if self.asked == 2:
            await self.executor.cancel(self._run.id)
        return None


async def test_a_run_that_is_cancelled_before_its_first_step_is_forgotten() -> None:
    store = OneRun(claimed())

    async def execute(_: Run) -> None:
        raise AssertionError("it was cancelled before")

    executor = LocalExecutor(owner="a", store=store, execute=execute, limits=limits)  # type: ignore[arg-type]
    store.executor = executor
    working = asyncio.create_task(executor.start())
    async with asyncio.timeout(5):
        # It looks once more at once, because a place has become free.
        while store.asked < 3:
            await asyncio.sleep(0)
    assert executor.running == 0
    working.cancel()
    await asyncio.wait([working])


def claimed() -> Run:
    """A run as a claim gives it."""
    new = new_run("run")
    return Run(
        id=new.id,
        caller=new.caller,
        state="queued",  # type: ignore[arg-type]
        created_at=new.created_at,
        target=new.target,
        plan=new.plan,
        request=new.request,
        response=new.response,
        attempt=1,
        fence=1,
        calls=0,
        last_seq=1,
        sent_at=None,
        finished_at=None,
    )
