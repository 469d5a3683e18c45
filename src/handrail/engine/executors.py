"""Who carries runs out. The port, and the executor inside this process.

Several machines come later behind the same port: a dispatcher then calls the same `Execution`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from handrail.core.admission import Limits
from handrail.errors import Code, HandrailError, StoreFailed, fault
from handrail.store.base import Run, Store
from handrail.telemetry import get_logger

Work = Callable[[], Awaitable[None]]

_FALLBACK_SECONDS: Final = 1.0


class Executor(Protocol):
    """Starts waiting runs and stops running ones."""

    def wake(self) -> None:
        """There may be something to start. A hint; a lost one costs at most a second."""

    async def cancel(self, run_id: str) -> None:
        """Stop a run that has been ended in the store: its upstream call is closed on return."""

    async def start(self) -> None:
        """Claim and run until cancelled."""

    async def drain(self, seconds: float) -> None:
        """Claim nothing more, let runs go on for that long, then interrupt the rest."""


class Adopter(Protocol):
    """Carries out what was not claimed, beside what was. `owner` is whose runs they are."""

    owner: str

    def adopt(self, run_id: str, work: Work) -> asyncio.Task[None]:
        """Carry `work` out as this run. Raises HandrailError when nothing new is begun."""


def _untold(_: str) -> None:
    return None


class LocalExecutor:
    """Runs in this process, as many as the limits of the current settings allow.

    `ended` is told of every run that is no longer carried out here.
    """

    def __init__(
        self,
        *,
        owner: str,
        store: Store,
        execute: Callable[[Run], Awaitable[None]],
        limits: Callable[[], Limits],
        ended: Callable[[str], None] = _untold,
    ) -> None:
        self.owner = owner
        self._store = store
        self._execute = execute
        self._limits = limits
        self._ended = ended
        self._wake = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._draining = False
        self._claiming = asyncio.Lock()
        self._logger = get_logger()

    @property
    def running(self) -> int:
        """How many runs are under way here."""
        return len(self._running)

    def wake(self) -> None:
        """See the port."""
        self._wake.set()

    async def cancel(self, run_id: str) -> None:
        """See the port."""
        task = self._running.get(run_id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def start(self) -> None:
        """See the port. Each run is a task of one group, so none can outlive the executor."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            while not self._draining:
                # Cleared before looking: a run submitted while we look must wake us again.
                self._wake.clear()
                try:
                    while not self._draining and await self._start_one(group):
                        pass
                except StoreFailed as error:
                    self._logger.error("claim_failed", why=error.fault.code)
                try:
                    async with asyncio.timeout(_FALLBACK_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _start_one(self, group: asyncio.TaskGroup) -> bool:
        async with self._claiming:
            run = await self._store.claim(owner=self.owner, limits=self._limits())
            if run is None:
                return False
            if self._draining:  # since the claim was asked for: what may not start goes back
                await self._store.release(run.id, run.fence)
                return False
        self._add(group, run.id, partial(self._execute, run))
        return True

    def adopt(self, run_id: str, work: Work) -> asyncio.Task[None]:
        """Carry out a run that was not claimed here; it is cancelled and drained like the others.

        Raises HandrailError while draining.
        """
        if self._group is None or self._draining:
            self._ended(run_id)
            raise HandrailError(fault(Code.SHUTTING_DOWN, "The gateway is shutting down."))
        return self._add(self._group, run_id, work)

    def _add(self, group: asyncio.TaskGroup, run_id: str, work: Work) -> asyncio.Task[None]:
        task = group.create_task(self._guarded(run_id, work), name=f"run {run_id}")
        self._running[run_id] = task
        # Not in `_guarded`: what is cancelled before its first step never gets there.
        task.add_done_callback(lambda _: self._left(run_id))
        return task

    async def _guarded(self, run_id: str, work: Work) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            pass  # one run was stopped; the group goes on
        except Exception as error:
            self._logger.error("execution_broke", run=run_id, exc_info=error)

    def _left(self, run_id: str) -> None:
        self._running.pop(run_id, None)
        self._ended(run_id)
        self._wake.set()

    async def drain(self, seconds: float) -> None:
        """See the port."""
        self._draining = True
        self._wake.set()
        # A claim under way would else come back to an executor that is gone, or start a run that
        # nobody waits for. A store that does not answer must not hold up the end.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FALLBACK_SECONDS), self._claiming:
                pass
        if self._running:
            await asyncio.wait(self._running.values(), timeout=seconds)
        left = list(self._running.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
