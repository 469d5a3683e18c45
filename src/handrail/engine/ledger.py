"""Keeps account of upstream calls: prices each, charges budgets, and writes rows in batches.

Answering never waits for it. Where the file cannot be written, rows wait in memory, up to a bound;
traffic goes on, but for what a budget would have to allow.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from handrail.engine.budgets import Budgets, Sums, settle, unsound
from handrail.engine.clock import Clock
from handrail.engine.meter import CallRecord
from handrail.errors import StoreFailed
from handrail.settings.accounting import Accounting
from handrail.store.ledger import Ledger, LedgerRow
from handrail.telemetry import get_logger

FLUSH_SECONDS: Final = 0.2
RETRY_SECONDS: Final = 2.0
PRUNE_SECONDS: Final = 3_600.0
BATCH: Final = 1_000
MAX_WAITING: Final = 100_000
"""Most rows that wait in memory for a file that cannot be written; the oldest go first."""

Result = TypeVar("Result")


class LedgerKeeper:
    """Hears of every call that is over. `loop` writes, `start` and `use` give budgets their past.

    Build it inside the running event loop.
    """

    def __init__(
        self,
        store: Ledger,
        *,
        accounting: Callable[[], Accounting],
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self.budgets = Budgets(now=clock.now)
        self.lost = 0
        """How many rows were given up: too many were waiting, or they could not be written."""
        self._store = store
        self._accounting = accounting
        self._clock = clock
        self._new_id = new_id
        self._waiting: deque[LedgerRow] = deque()
        self._wake = asyncio.Event()
        self.budgets.wants_past = self._wake.set
        self._writing = asyncio.Lock()
        # One thread, so that the file is never used by two, also when a wait for it is cancelled.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="handrail-ledger")
        self._pruned_at = float("-inf")
        self._logger = get_logger()

    def heard(self, record: CallRecord) -> None:
        """A call is over."""
        row = self._row(record)
        charge = row.charge if self.budgets.any else None
        if charge is not None:
            self.budgets.charge(charge, work_id=row.response_id)
        self._waiting.append(row)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self.lost += 1
        self._wake.set()

    def _row(self, record: CallRecord) -> LedgerRow:
        usage, whose = record.usage, record.attribution
        counts = record.counts
        cost = self._accounting().prices.cost(
            record.sent_models, at=record.ended_at, tier=record.tier, usage=usage
        )
        return LedgerRow(
            id=self._new_id(),
            started_at=record.started_at,
            ended_at=record.ended_at,
            seconds=record.seconds,
            caller=whose.caller,
            project=whose.project,
            target=record.target,
            account=record.account,
            model=record.model,
            sent_model=record.sent_models[-1],
            mode=whose.mode,
            endpoint=record.endpoint,
            response_id=whose.response_id,
            cause=record.cause,
            status=record.status,
            outcome=record.outcome,
            input=None if usage is None else usage.input,
            cached=None if usage is None else usage.cached,
            output=None if usage is None else usage.output,
            reasoning=None if usage is None else usage.reasoning,
            tier=record.tier,
            cost=cost if counts else 0,
            counts=counts,
        )

    # --- the past ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Before anything is served: the budgets of the settings, with their past."""
        await self.use(self._accounting())

    async def use(self, accounting: Accounting) -> None:
        """Make the budgets of `accounting` those in force, and sum up what was used before.

        Where the ledger cannot be read they stop everything that they are for, until it can.
        """
        coming = self.budgets.coming(accounting.budgets, accounting.zone)
        await self._settle(coming)
        self.budgets.install(coming)

    async def _settle(self, sums: list[Sums]) -> None:
        waiting = unsound(sums)
        if not waiting:
            return
        async with self._writing:
            try:
                spent = {
                    since: await self._in_thread(partial(self._store.spent, since=since))
                    for since in sorted({one.window.start for one in waiting})
                }
            except StoreFailed as problem:
                return self._failed(problem)
            # From here to the end nothing else runs: what waits now is all that is not in `spent`.
            rows = ((row.ended_at, row.charge) for row in self._waiting)
            settle(sums, spent, [(ended, charge) for ended, charge in rows if charge is not None])

    # --- writing -----------------------------------------------------------------------------

    async def loop(self) -> None:
        """Write for ever; ends only by cancellation, and `close` writes the rest."""
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            self._wake.clear()
            if await self.flush() and await self._in_order():
                await self._rest()
            elif self.budgets.problem is not None:
                await self._clock.sleep(RETRY_SECONDS)

    async def _in_order(self) -> bool:
        """Do what else there is to do; False when there is more of it."""
        await self._settle(self.budgets.in_force)
        return await self._prune() and not self._waiting and self.budgets.problem is None

    async def _rest(self) -> None:
        # No longer than until old rows are to be pruned.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PRUNE_SECONDS):
                await self._wake.wait()

    async def flush(self) -> bool:
        """Write what waits; False when the file does not take it."""
        async with self._writing:
            while self._waiting or self.budgets.problem is not None:
                count = min(BATCH, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(count)]
                try:
                    # Without a row it tries whether the file can be written again.
                    await self._write(batch)
                except StoreFailed as problem:
                    self._waiting.extendleft(reversed(batch))
                    self._failed(problem)
                    return False
                except BaseException:  # cancelled: written or not, writing it again adds nothing
                    self._waiting.extendleft(reversed(batch))
                    raise
                if self.budgets.problem is not None:
                    self.budgets.problem = None
                    self._logger.info("ledger_works_again", rows_lost=self.lost)
            return True

    async def _write(self, batch: list[LedgerRow]) -> None:
        try:
            await self._in_thread(partial(self._store.append, batch))
        except StoreFailed:
            raise
        except Exception as defect:
            if len(batch) > 1:  # one row that cannot be written must not take the others with it
                for row in batch:
                    await self._write([row])
                return
            self.lost += 1
            self._logger.error("ledger_row_broke", exc_info=defect)

    async def _prune(self) -> bool:
        """Destroy some of the rows whose time is over; False when there may be more."""
        now = self._clock.monotonic()
        if now - self._pruned_at < PRUNE_SECONDS:
            return True
        before = self._clock.now() - self._accounting().retention_seconds
        async with self._writing:
            try:
                gone = await self._in_thread(partial(self._store.prune, before=before))
            except StoreFailed as problem:
                self._failed(problem)
                return False
        if not gone:
            self._pruned_at = now
        return not gone

    async def close(self) -> None:
        """Write the rest, and close the file."""
        if not await self.flush():
            self._logger.error("ledger_rows_lost", rows=len(self._waiting))
        await self._in_thread(self._store.close)
        self._thread.shutdown()

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _failed(self, problem: StoreFailed) -> None:
        if self.budgets.problem is None:
            self._logger.error("ledger_unavailable", why=problem.detail)
        self.budgets.problem = problem
