"""Carries out one claimed run: a stateless upstream call, its events into the log, one end.

Where a call was lost and the run's crash policy allows it, another attempt takes its place.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from handrail.core import events, responses, wire
from handrail.core.complete import Completer
from handrail.core.events import Event
from handrail.core.fold import Fold
from handrail.core.lifecycle import State
from handrail.core.responses import RunError
from handrail.core.retry import Cause, Verdict, attempt_verdict
from handrail.core.rewrite import upstream_request
from handrail.engine.clock import Clock
from handrail.engine.closing import object_of, plan_of
from handrail.engine.dispatch import Answered, BeforeSend, Dispatcher, Said
from handrail.engine.history import Conversation, Histories
from handrail.engine.journal import Journal, RunLog
from handrail.engine.meter import Attribution
from handrail.engine.reading import EventReader
from handrail.engine.shield import to_the_end
from handrail.engine.targets import Targets
from handrail.engine.ways import Held, Place, Ways, ways_of
from handrail.errors import (
    Code,
    HandrailError,
    RequestRejected,
    StoreFailed,
    UpstreamFailed,
    UpstreamRefused,
)
from handrail.store.base import Run, Store
from handrail.telemetry import get_logger

_RETRY_CLOSE_SECONDS: Final = 1.0

Outcome = tuple[State, RunError | None]

_INTERNAL: Final = RunError(cause="internal_error", message="The gateway failed on this run.")


def _unheard(_: Said) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCall:
    """One upstream call of a run, ready to leave.

    `before_send` is awaited before each try, of which there may be several if it is `persistent`.
    `answered` is told what the upstream's reply says, before its body is read.
    """

    ways: Held[Ways]
    attribution: Attribution
    before_send: BeforeSend
    persistent: bool = True
    answered: Callable[[Said], None] = _unheard


class Fenced(Exception):
    """Somebody else decides about the run now; this execution has nothing more to say."""


class Execution:
    """Runs what has been claimed.

    `max_seconds` bounds all attempts of a run in this process together, on the monotonic clock; a
    process that takes a run over counts anew. `max_bytes` bounds the events of an attempt.
    """

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
        self._histories = Histories(store)
        self._clock = clock
        self._max_seconds = max_seconds
        self._max_bytes = max_bytes
        self._logger = get_logger()

    async def run(self, run: Run) -> None:
        """Bring `run` to its end, whatever happens.

        Cancelling it closes the upstream call. A run that has begun then ends `failed` with the
        cause `worker_lost`, unless whoever cancelled has ended it already; one that has not
        begun, or may have another attempt, goes back into the queue.
        """
        log = self._journal.open(run)
        try:
            with log.aborting(this_task().cancel):
                outcome = await self._attempts(log)
        except Fenced:
            return
        except asyncio.CancelledError:
            await to_the_end(self._interrupted(log))
            raise
        except HandrailError as error:
            outcome = State.FAILED, run_error(error)
        except Exception as error:
            self._logger.error("run_broke", run=run.id, exc_info=error)
            outcome = State.FAILED, _INTERNAL
        await to_the_end(self.close(log, outcome))

    async def _interrupted(self, log: RunLog) -> None:
        if log.problem is not None:
            code = log.problem.fault.code or "store_unavailable"
            error = RunError(cause=code, message=log.problem.fault.message)
            return await self.close(log, (State.FAILED, error))
        if log.fenced:
            return None
        unsent = not log.begun
        if unsent or await self._may_start_over(log, self._verdict(log, None)):
            released = await self._store.release(log.run.id, log.run.fence)
            self._logger.info("run_put_back", run=log.run.id, attempt=log.run.attempt)
            if unsent or released:
                return None
        message = "The gateway stopped while the response was under way."
        return await self.close(log, (State.FAILED, RunError(cause="worker_lost", message=message)))

    async def close(self, log: RunLog, outcome: Outcome) -> None:
        """Write the end of a run, unless somebody else has."""
        # An end that cannot be written now is written as soon as the store takes it: telling
        # nobody, or something else, would be a lie. A process that dies before, or a store that is
        # broken for good, leaves the run to the next start, which ends it as `worker_lost`.
        state, error = outcome
        while True:
            try:
                kept = await log.close(state, error)
                break
            except StoreFailed as problem:
                self._logger.error(
                    "run_end_not_kept",
                    run=log.run.id,
                    why=problem.fault.code,
                    detail=problem.detail,
                )
                if problem.final:
                    return
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

    async def _attempts(self, log: RunLog) -> Outcome:
        run = log.run
        places = [Place(target=target) for target in self._targets.of(run.target, plan_of(run))]
        if not places:
            message = f"The upstream '{run.target}' is no longer configured."
            return State.FAILED, RunError(cause="target_gone", message=message)
        # A run that has begun was taken over from a worker that was lost.
        cause = Cause.FIRST if run.state is State.QUEUED else Cause.WORKER_LOST
        try:
            async with asyncio.timeout(self._max_seconds):
                while True:
                    try:
                        return await self._attempt(log, places, cause=cause)
                    except HandrailError as error:
                        decision = self._verdict(log, error)
                        if not await self._may_start_over(log, decision):
                            raise
                    cause = decision.cause
                    self._logger.warning(
                        "run_attempt_again",
                        run=run.id,
                        attempt=log.run.attempt + 1,
                        reason=decision.reason,
                        wait=decision.wait,
                    )
                    await self._clock.sleep(decision.wait)
        except TimeoutError:
            return self._too_long()

    def _verdict(self, log: RunLog, error: HandrailError | None) -> Verdict:
        return attempt_verdict(
            error,
            policy=plan_of(log.run).crash,
            attempts=log.run.attempt,
            last_seq=log.last_seq,
        )

    async def _may_start_over(self, log: RunLog, decision: Verdict) -> bool:
        return decision.again and await log.start_over()

    async def _attempt(self, log: RunLog, places: Sequence[Place], *, cause: Cause) -> Outcome:
        run = log.run
        try:
            ways = Held(await self._ways(run, places))
        except RequestRejected as gone:  # it was all there when the run was accepted
            error = RunError(cause="previous_response_gone", message=gone.fault.message)
            return State.FAILED, error

        async def before_send(why: Cause) -> None:
            if not await _may_send(log, cause if why is Cause.FIRST else why):
                raise Fenced

        call = RunCall(ways=ways, attribution=attribution_of(run), before_send=before_send)
        return await self._exchange(log, call)

    async def _ways(self, run: Run, places: Sequence[Place]) -> Ways:
        whole = await self._histories.before(
            Conversation.alone(wire.read_create(run.request)),
            caller=run.caller,
            targets=[place.target for place in places],
        )
        return ways_of(whole, places, partial(upstream_request, stream=True))

    async def carry_out(self, log: RunLog, call: RunCall) -> Outcome:
        """Make one upstream call and take its events in; how the run is to end.

        Raises HandrailError when the upstream refuses or breaks off, and what `before_send` raises.
        """
        try:
            async with asyncio.timeout(self._max_seconds):
                return await self._exchange(log, call)
        except TimeoutError:
            return self._too_long()

    def _too_long(self) -> Outcome:
        message = f"The response took longer than {self._max_seconds:.0f} s."
        return State.FAILED, RunError(cause="deadline_exceeded", message=message)

    async def _exchange(self, log: RunLog, call: RunCall) -> Outcome:
        async with self._dispatcher.create(
            call.ways.take(),
            attribution=call.attribution,
            before_send=call.before_send,
            persistent=call.persistent,
        ) as answered:
            call.answered(answered.said)
            return await self._read(log.run, log, answered)

    async def _read(self, run: Run, log: RunLog, answered: Answered) -> Outcome:
        target = answered.target
        completes = target.profile.completes
        reader = EventReader(
            answered.reply,
            clock=self._clock,
            idle_seconds=target.idle_seconds,
            completer=Completer(responses.in_progress(object_of(run))) if completes else None,
            meter=answered.meter,
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
                # If it failed, it has asked this task to stop, which must happen here: what comes
                # next may never wait, and the stop would meet the end that is being written.
                await asyncio.sleep(0)


def attribution_of(run: Run) -> Attribution:
    """Whom the calls of a run are charged to."""
    plan = plan_of(run)
    return Attribution(
        caller=run.caller,
        mode=plan.mode,
        response_id=run.id,
        project=plan.project,
        account=plan.account,
        account_tags=plan.account_tags,
    )


async def _may_send(log: RunLog, cause: Cause) -> bool:
    """Write down, durably, that a call is about to be sent. False when fenced."""
    if log.begun:
        return await log.call_again(cause)
    if log.run.state is not State.QUEUED:
        return await log.begin_again(cause)
    snapshot = responses.in_progress(object_of(log.run))
    event = events.lifecycle_event(events.IN_PROGRESS, snapshot, number=log.next_number)
    return await log.begin(event)


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


def this_task() -> asyncio.Task[object]:
    """The task that asks."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a run is carried out in a task")
    return task


def run_error(error: HandrailError) -> RunError:
    """What a failed response says of an error."""
    fault = error.fault
    if isinstance(error, UpstreamRefused) and fault.status == 429:
        return RunError(cause=fault.type, message=fault.message, code="rate_limit_exceeded")
    code = fault.code if fault.code in responses.ERROR_CODES else "server_error"
    return RunError(cause=fault.code or fault.type, message=fault.message, code=code)
