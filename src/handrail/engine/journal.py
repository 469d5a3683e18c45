"""The event log of a run under way: numbered at once, durable in groups, shown only then.

One loop flushes every run's new events together a few milliseconds after they came, so a hundred
streams cost one commit and not a hundred.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from handrail.core.events import Event
from handrail.core.fold import Fold
from handrail.core.lifecycle import LAST_OPENING, State
from handrail.core.responses import RunError
from handrail.core.retry import Cause
from handrail.engine.clock import Clock
from handrail.engine.closing import closing
from handrail.engine.tail import Tails
from handrail.errors import StoreFailed
from handrail.store.base import Run, Segment, Store
from handrail.telemetry import get_logger

FLUSH_SECONDS: Final = 0.010
PENDING_BYTES: Final = 1 << 20


class RunLog:
    """What one execution writes. Every write carries its fence; `fenced` says it was shut out.

    `begun` says that the attempt under way was sent, `last_seq` is the number of the last event
    that is durable.
    """

    def __init__(self, run: Run, *, store: Store, tails: Tails, clock: Clock) -> None:
        self.run = run
        self.fold = Fold()
        self.begun = False
        self.fenced = False
        self.problem: StoreFailed | None = None
        self.bytes = 0
        self._abort: Callable[[], object] = lambda: None
        self._store = store
        self._tails = tails
        self._clock = clock
        self.last_seq = run.last_seq
        self.next_number = run.last_seq + 1
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._lock = asyncio.Lock()

    @property
    def pending(self) -> bool:
        """Whether events wait to be made durable."""
        return bool(self._pending)

    @property
    def crowded(self) -> bool:
        """Whether so much is waiting for the disk that the upstream should not be read on."""
        return self._pending_bytes > PENDING_BYTES

    @contextmanager
    def aborting(self, abort: Callable[[], object]) -> Iterator[None]:
        """Within the block, a write that fails or is shut out calls `abort`, which stops it.

        Not after it: the end is decided then, and whoever is stopped while it is being written
        leaves the run without one.
        """
        self._abort = abort
        try:
            yield
        finally:
            self._abort = lambda: None

    def add(self, event: Event) -> None:
        """Number an event and take it in; `Journal` makes it durable."""
        frame = event.frame_numbered(self.next_number)
        self.next_number += 1
        self._pending.append(frame)
        self._pending_bytes += len(frame)
        self.bytes += len(frame)

    async def begin(self, event: Event) -> bool:
        """Make the run `in_progress`, durably, with `event`. False when fenced."""
        segment = Segment(first=self.next_number, frames=(event.frame,))
        now = self._clock.now()
        if not await self._store.begin(self.run.id, self.run.fence, now=now, segment=segment):
            self.fenced = True
            return False
        self.begun = True
        self.run = replace(self.run, state=State.IN_PROGRESS, attempt=1)
        self.last_seq = self.next_number
        self.next_number += 1
        self._tails.published(self.run.id, segment)
        return True

    async def call_again(self, cause: Cause) -> bool:
        """Record one more call of the attempt under way. False when fenced."""
        now = self._clock.now()
        kept = await self._store.call_again(self.run.id, self.run.fence, now=now, cause=cause)
        self.fenced = not kept
        return kept

    async def begin_again(self, cause: Cause) -> bool:
        """Record the first call of a new attempt, and go on under its fence. False when fenced."""
        now = self._clock.now()
        run = self.run
        fence = await self._store.begin_again(run.id, run.fence, now=now, cause=cause)
        if fence is None:
            self.fenced = True
            return False
        self.run = replace(run, fence=fence, attempt=run.attempt + 1)
        self.begun = True
        return True

    async def start_over(self) -> bool:
        """Forget what the attempt under way has read, so that another can take its place.

        False, and nothing is forgotten, when something of it is durable: somebody may have seen it.
        """
        async with self._lock:  # a write under way decides
            if self.last_seq > LAST_OPENING:
                return False
            self._take()
            self.fold = Fold()
            self.bytes = 0
            self.next_number = self.last_seq + 1
            self.begun = False
            return True

    async def flush(self) -> None:
        """Make what is pending durable; on failure remember it and abort the execution."""
        async with self._lock:
            if not self._pending or self.fenced or self.problem is not None:
                return
            segment = self._take()
            try:
                kept = await self._store.append(self.run.id, self.run.fence, segment)
            except StoreFailed as error:
                self._put_back(segment)
                self.problem = error
            else:
                if kept:
                    self.last_seq = segment.last
                    self._tails.published(self.run.id, segment)
                self.fenced = not kept
            if self.fenced or self.problem is not None:
                self._abort()

    async def close(self, state: State, error: RunError | None = None) -> bool:
        """End the run with what is pending and a terminal event. False when fenced.

        Raises StoreFailed when even that cannot be written; it can be called again then, and
        after any other exception.
        """
        async with self._lock:
            segment = self._take()
            try:
                end = closing(
                    self.run,
                    state,
                    fold=self.fold,
                    now=self._clock.now(),
                    pending=segment,
                    error=error,
                )
                kept = await self._store.finish(self.run.id, self.run.fence, end)
            except Exception:
                self._put_back(segment)
                raise
            if kept:
                self._tails.published(self.run.id, end.segment)
            self.fenced = not kept
            return kept

    def _take(self) -> Segment:
        # Not "after the last durable one": a write may be under way, whose numbers are taken.
        first = self.next_number - len(self._pending)
        segment = Segment(first=first, frames=tuple(self._pending))
        self._pending.clear()
        self._pending_bytes = 0
        return segment

    def _put_back(self, segment: Segment) -> None:
        self._pending[:0] = segment.frames
        self._pending_bytes += sum(map(len, segment.frames))


class Journal:
    """The loop that makes every run's events durable."""

    def __init__(self, *, store: Store, tails: Tails, clock: Clock) -> None:
        self._store = store
        self._tails = tails
        self._clock = clock
        self._dirty: dict[RunLog, None] = {}  # in the order in which they came
        self._wake = asyncio.Event()

    def open(self, run: Run) -> RunLog:
        """The log of a run that has just been claimed."""
        return RunLog(run, store=self._store, tails=self._tails, clock=self._clock)

    def touched(self, log: RunLog) -> None:
        """`log` has something pending."""
        self._dirty[log] = None
        self._wake.set()

    async def loop(self) -> None:
        """Flush for ever; ends only by cancellation."""
        logger = get_logger()
        while True:
            await self._wake.wait()
            await self._clock.sleep(FLUSH_SECONDS)
            self._wake.clear()
            dirty, self._dirty = self._dirty, {}
            outcomes = await asyncio.gather(*(log.flush() for log in dirty), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    logger.error("flush_failed", exc_info=outcome)
