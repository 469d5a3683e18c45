"""Carries out one claimed run: one stateless upstream call, its events into the log, one end."""

import asyncio
from collections.abc import Awaitable
from typing import Final

from handrail.core import events, responses, wire
from handrail.core.complete import Completer
from handrail.core.events import Event
from handrail.core.fold import Fold
from handrail.core.lifecycle import State
from handrail.core.responses import RunError
from handrail.core.rewrite import upstream_request
from handrail.engine.clock import Clock
from handrail.engine.closing import object_of
from handrail.engine.dispatch import Dispatcher
from handrail.engine.journal import Journal, RunLog
from handrail.engine.reading import EventReader
from handrail.engine.targets import Targets
from handrail.errors import (
    Code,
    HandrailError,
    StoreFailed,
    UpstreamFailed,
    UpstreamRefused,
)
from handrail.settings.model import Target
from handrail.store.base import Run, Store
from handrail.telemetry import get_logger
from handrail.upstream.client import UpstreamReply

_RETRY_CLOSE_SECONDS: Final = 1.0

Outcome = tuple[State, RunError | None]

_INTERNAL: Final = RunError(cause="internal_error", message="The gateway failed on this run.")


class Fenced(Exception):
    """Somebody else decides about the run now; this execution has nothing more to say."""


class Execution:
    """Runs what has been claimed. `max_seconds` and `max_bytes` bound one run."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        journal: Journal,
        store: Store,
        targets: Targets,
        clock: Clock,
        max_seconds: float,
        max_bytes: int,
    ) -> None:
        self._dispatcher = dispatcher
        self._journal = journal
        self._store = store
        self._targets = targets
        self._clock = clock
        self._max_seconds = max_seconds
        self._max_bytes = max_bytes
        self._logger = get_logger()

    async def run(self, run: Run) -> None:
        """Bring `run` to its end, whatever happens.

        Cancelling it closes the upstream call. A run that has begun then ends `failed` with the
        cause `worker_lost`, unless whoever cancelled has ended it already; one that has not
        begun goes back into the queue.
        """
        log = self._journal.open(run)
        task = asyncio.current_task()
        if task is not None:
            log.abort = task.cancel
        try:
            outcome = await self._attempt(run, log)
        except Fenced:
            return
        except asyncio.CancelledError:
            await _to_the_end(self._interrupted(log))
            raise
        except HandrailError as error:
            outcome = State.FAILED, _run_error(error)
        except Exception as error:
            self._logger.error("run_broke", run=run.id, exc_info=error)
            outcome = State.FAILED, _INTERNAL
        await _to_the_end(self._close(log, outcome))

    async def _interrupted(self, log: RunLog) -> None:
        if log.problem is not None:
            code = log.problem.fault.code or "store_unavailable"
            error = RunError(cause=code, message=log.problem.fault.message)
            return await self._close(log, (State.FAILED, error))
        if log.fenced:
            return None
        if not log.begun:
            await self._store.release(log.run.id, log.run.fence)
            return None
        message = "The gateway stopped while the response was under way."
        return await self._close(
            log, (State.FAILED, RunError(cause="worker_lost", message=message))
        )

    async def _close(self, log: RunLog, outcome: Outcome) -> None:
        # An end that cannot be written now is written as soon as the store takes it: telling
        # nobody, or something else, would be a lie. A process that dies before leaves the run to
        # the next start, which ends it as `worker_lost`.
        state, error = outcome
        while True:
            try:
                kept = await log.close(state, error)
                break
            except StoreFailed as problem:
                self._logger.error("run_end_not_kept", run=log.run.id, why=problem.fault.code)
                await self._clock.sleep(_RETRY_CLOSE_SECONDS)
            except Exception as defect:
                # The end could not be built from what the upstream said; there must be one.
                self._logger.error("run_end_broke", run=log.run.id, exc_info=defect)
                log.fold = Fold()
                state, error = State.FAILED, _INTERNAL
        if kept:
            self._logger.info(
                "run_ended",
                run=log.run.id,
                caller=log.run.caller,
                state=state.value,
                cause=error.cause if error else None,
                attempt=log.run.attempt,
            )

    async def _attempt(self, run: Run, log: RunLog) -> Outcome:
        target = self._targets.find(run.target)
        if target is None:
            message = f"The upstream '{run.target}' is no longer configured."
            return State.FAILED, RunError(cause="target_gone", message=message)
        request = upstream_request(
            wire.read_create(run.request),
            profile=target.profile,
            stream=True,
            extra_fields=target.extra_fields,
            catalogue=target.catalogue,
        )

        async def before_send() -> None:
            if not await self._may_send(run, log):
                raise Fenced

        try:
            async with (
                asyncio.timeout(self._max_seconds),
                self._dispatcher.create(
                    target, request, headers={}, before_send=before_send, persistent=True
                ) as answered,
            ):
                return await self._read(run, log, target=target, reply=answered.reply)
        except TimeoutError:
            message = f"The response took longer than {self._max_seconds:.0f} s."
            return State.FAILED, RunError(cause="deadline_exceeded", message=message)

    async def _may_send(self, run: Run, log: RunLog) -> bool:
        if log.begun:
            return await self._store.call_again(run.id, run.fence)
        snapshot = responses.in_progress(object_of(run))
        event = events.lifecycle_event(events.IN_PROGRESS, snapshot, number=log.next_number)
        return await log.begin(event)

    async def _read(
        self, run: Run, log: RunLog, *, target: Target, reply: UpstreamReply
    ) -> Outcome:
        completes = target.profile.completes
        reader = EventReader(
            reply,
            clock=self._clock,
            idle_seconds=target.idle_seconds,
            completer=Completer(responses.in_progress(object_of(run))) if completes else None,
        )
        while True:
            batch = await reader.read(patience=target.idle_seconds)
            if batch is None:
                raise UpstreamFailed(
                    Code.UPSTREAM_ENDED_EARLY,
                    "The upstream's stream ended without a terminal event.",
                )
            for event in batch:
                outcome = _take(event, log)
                if outcome is not None:
                    return outcome
            if log.pending:
                self._journal.touched(log)
            if log.bytes > self._max_bytes:
                message = f"The response is larger than {self._max_bytes} bytes."
                return State.FAILED, RunError(cause="output_too_large", message=message)
            if log.crowded:
                await log.flush()


def _take(event: Event, log: RunLog) -> Outcome | None:
    """Take one upstream event in; the run's end when this is it.

    Lifecycle events and keepalives are folded, never appended: the gateway writes its own.
    Vendor events (`codex.rate_limits`, `response.metadata`) are about the connection.
    """
    try:
        if event.type == events.ERROR:
            return State.FAILED, responses.error_event(event)
        if event.type in events.LIFECYCLE:
            log.fold.apply(event)
            return None if log.fold.state is None else (log.fold.state, None)
        if event.type.startswith("response.") and event.type != events.METADATA:
            log.fold.apply(event)
            log.add(event)
    except events.MalformedEvent as error:
        raise UpstreamFailed(Code.UPSTREAM_PROTOCOL_ERROR, str(error)) from error
    return None


def _run_error(error: HandrailError) -> RunError:
    fault = error.fault
    if isinstance(error, UpstreamRefused) and fault.status == 429:
        return RunError(cause=fault.type, message=fault.message, code="rate_limit_exceeded")
    code = fault.code if fault.code in responses.ERROR_CODES else "server_error"
    return RunError(cause=fault.code or fault.type, message=fault.message, code=code)


async def _to_the_end(work: Awaitable[None]) -> None:
    """Await `work` to its end even if this task is cancelled meanwhile; then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
