"""Foreground responses that Handrail keeps: carried out like runs, answered like stateless calls.

What goes out is durable first, and the upstream still keeps nothing. The caller waits: until
something was shown, an error is its error, its leaving ends all, and nothing is kept.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from handrail.core import responses, wire
from handrail.core.admission import Limits
from handrail.core.lifecycle import State
from handrail.core.policy import Plan
from handrail.core.responses import RunError
from handrail.core.retry import Cause
from handrail.core.rewrite import upstream_request
from handrail.core.upstream_errors import failure
from handrail.engine.clock import Clock
from handrail.engine.closing import object_of
from handrail.engine.dispatch import Said
from handrail.engine.execution import (
    Execution,
    Fenced,
    Outcome,
    RunCall,
    attribution_of,
    run_error,
    this_task,
)
from handrail.engine.executors import Adopter
from handrail.engine.history import Conversation
from handrail.engine.journal import Journal, RunLog
from handrail.engine.meter import Attribution
from handrail.engine.opening import Opening
from handrail.engine.shield import to_the_end
from handrail.engine.tail import Tails
from handrail.engine.ways import Held, Place, Ways, ways_of
from handrail.errors import Code, HandrailError, StoreFailed, fault
from handrail.store.base import NewRun, Run, Store
from handrail.telemetry import get_logger

_RETRY_DISCARD_SECONDS: Final = 1.0

# What ends a run here, and the answer to a caller who has seen nothing of it.
_OWN_ENDS: Final = {
    "deadline_exceeded": Code.UPSTREAM_STALLED,
    "output_too_large": Code.UPSTREAM_PROTOCOL_ERROR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCall:
    """One create to be kept, ready to leave.

    `limits` are those of the settings that it was decided by. `numbered_heartbeat`: its reader does
    not see comments.
    """

    plan: Plan
    id: str
    caller: str
    run: Held[NewRun]
    limits: Limits
    numbered_heartbeat: bool
    ways: Held[Ways]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """What the upstream said beside the response; the response as JSON, None where it streams."""

    said: Said
    response: bytes | None


class _Waiting:
    """Whoever waits: gets an answer, once. `shown` says that something of the run was told.

    `decided` says that its end is known, and only has to be written: it is not stopped any more.
    """

    def __init__(self, *, stream: bool) -> None:
        self.answer: asyncio.Future[KeptAnswer] = asyncio.get_running_loop().create_future()
        self.shown = False
        self.left = False
        self.decided = False
        self._stream = stream
        self._said: Said | None = None

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """What happens in the block decides the end."""
        try:
            yield
        finally:
            self.decided = True

    def answered(self, said: Said) -> None:
        """The upstream has taken the call; from now on a stream is the caller's."""
        self._said = said
        if self._stream and not self.answer.done():
            self.shown = True
            self.answer.set_result(KeptAnswer(said=said, response=None))

    def ended(self, response: bytes) -> None:
        """The response is whole."""
        if self._said is not None and not self.answer.done():
            self.answer.set_result(KeptAnswer(said=self._said, response=response))

    def failed(self, problem: HandrailError) -> None:
        """There is none."""
        if not self.answer.done():
            self.answer.set_exception(problem)


class KeptForeground:
    """Answers foreground creates whose response is kept."""

    def __init__(
        self,
        *,
        store: Store,
        execution: Execution,
        executor: Adopter,
        journal: Journal,
        tails: Tails,
        clock: Clock,
    ) -> None:
        self._store = store
        self._execution = execution
        self._executor = executor
        self._journal = journal
        self._tails = tails
        self._clock = clock
        self._left: Counter[str] = Counter()
        self._logger = get_logger()

    def prepare(
        self,
        conversation: Conversation,
        *,
        plan: Plan,
        attribution: Attribution,
        places: Sequence[Place],
        limits: Limits,
        numbered_heartbeat: bool = False,
    ) -> KeptCall:
        """The call for a create. Raises RequestRejected for what the first target cannot take."""
        ways = ways_of(conversation, places, partial(upstream_request, stream=True))
        opening = Opening(
            id=attribution.response_id,
            caller=attribution.caller,
            target=ways.target,
            now=self._clock.now(),
        )
        return KeptCall(
            plan=plan,
            id=attribution.response_id,
            caller=attribution.caller,
            run=Held(opening.run(conversation.own, plan)),
            limits=limits,
            numbered_heartbeat=numbered_heartbeat,
            ways=Held(ways),
        )

    @asynccontextmanager
    async def open(self, call: KeptCall, *, left: Callable[[], bool]) -> AsyncIterator[KeptAnswer]:
        """Carry the call out, and give the answer as soon as there is one.

        `left` is asked, when the block is cancelled, whether that is because the caller has gone.
        Raises HandrailError when the upstream or the store refuses; nothing is kept then.
        """
        waiting = _Waiting(stream=call.plan.stream)
        work = partial(self._carry_out, call, waiting)
        task = self._executor.adopt(call.id, work)
        # A task that is cancelled before its first step tells nobody.
        task.add_done_callback(lambda _: waiting.failed(_stopped()))
        try:
            yield await waiting.answer
        except asyncio.CancelledError:
            if left():  # otherwise the process stops, and the executor ends the run
                self._leave(call, waiting, task)
            raise
        except Exception:  # the reply cannot go on; for the run that is the same
            self._leave(call, waiting, task)
            raise

    def events(self, call: KeptCall) -> AsyncGenerator[bytes, None]:
        """The events of a stream from its beginning, each once it is durable."""
        return self._tails.follow(
            call.id,
            caller=call.caller,
            after=-1,
            numbered_heartbeat=call.numbered_heartbeat,
        )

    def _leave(self, call: KeptCall, waiting: _Waiting, task: asyncio.Task[None]) -> None:
        if task.done():
            return
        caller = call.caller
        # Nobody holds a connection for it any more, so something else must bound how many go on.
        room = min(
            call.limits.running(caller) - self._left[caller],
            call.limits.max_running - self._left.total(),
        )
        if waiting.shown and call.plan.outlives_reader and room > 0:
            self._left[caller] += 1
            task.add_done_callback(lambda _: self._left.subtract([caller]))
            self._logger.info("run_goes_on", run=call.id, caller=caller)
            return
        waiting.left = True
        if not waiting.decided:
            task.cancel()

    # --- the run -----------------------------------------------------------------------------

    async def _carry_out(self, call: KeptCall, waiting: _Waiting) -> None:
        run = await self._begin(call, waiting)
        if run is None:
            return
        log = self._journal.open(run)
        try:
            with waiting.deciding(), log.aborting(this_task().cancel):
                outcome = await self._execution.carry_out(log, self._call(call, waiting, run))
        except asyncio.CancelledError:
            await to_the_end(self._interrupted(log, waiting))
            raise
        except Fenced:
            return await to_the_end(self._fail(log, waiting, problem=_stopped()))
        except HandrailError as error:
            return await to_the_end(self._fail(log, waiting, problem=error))
        except Exception as error:
            self._logger.error("run_broke", run=run.id, exc_info=error)
            message = f"The gateway failed on this request; its run is {run.id}."
            problem = HandrailError(fault(Code.INTERNAL_ERROR, message))
            return await to_the_end(self._fail(log, waiting, problem=problem))
        return await to_the_end(self._end(log, waiting, outcome=outcome))

    async def _begin(self, call: KeptCall, waiting: _Waiting) -> Run | None:
        keeping = asyncio.ensure_future(
            self._store.keep(call.run.take(), owner=self._executor.owner)
        )
        try:
            run = await asyncio.shield(keeping)
        except asyncio.CancelledError:
            # It is on its way to the disk all the same, and nobody would ever end it.
            await asyncio.wait([keeping])
            if keeping.exception() is None:
                await to_the_end(self._discard(keeping.result(), waiting, problem=_stopped()))
            waiting.failed(_stopped())
            raise
        except HandrailError as error:
            waiting.failed(error)
            return None
        except Exception as error:
            self._logger.error("run_not_kept", run=call.id, exc_info=error)
            message = "The gateway failed on this request."
            waiting.failed(HandrailError(fault(Code.INTERNAL_ERROR, message)))
            return None
        decision = call.plan.header()
        self._logger.info("run_kept", run=run.id, caller=run.caller, decision=decision)
        return run

    def _call(self, call: KeptCall, waiting: _Waiting, run: Run) -> RunCall:
        first = True

        async def before_send(cause: Cause) -> None:
            nonlocal first
            now = self._clock.now()
            if not first and not await self._store.call_again(
                run.id, run.fence, now=now, cause=cause
            ):
                raise Fenced
            first = False  # the first call was counted when the run was kept

        return RunCall(
            ways=call.ways,
            attribution=attribution_of(run),
            before_send=before_send,
            persistent=False,  # whoever waits decides itself whether to try again
            answered=waiting.answered,
        )

    async def _interrupted(self, log: RunLog, waiting: _Waiting) -> None:
        if log.problem is not None:
            await self._fail(log, waiting, problem=log.problem)
        elif waiting.left and waiting.shown:
            await self._execution.close(log, (State.CANCELLED, None))
        else:
            message = "The gateway stopped while the response was under way."
            error = RunError(cause="worker_lost", message=message)
            await self._fail(log, waiting, problem=_stopped(), error=error)

    async def _end(self, log: RunLog, waiting: _Waiting, *, outcome: Outcome) -> None:
        state, error = outcome
        if state is State.FAILED:
            reason = error or responses.upstream_error(log.fold.snapshot)
            return await self._fail(log, waiting, problem=self._problem(reason), error=error)
        await self._execution.close(log, outcome)
        run = await self._store.get(log.run.id, caller=log.run.caller)
        if run is None:
            return waiting.failed(_stopped())  # deleted in the same moment
        return waiting.ended(wire.encode(object_of(run)))

    def _problem(self, reason: RunError) -> HandrailError:
        if reason.cause in _OWN_ENDS:
            return HandrailError(fault(_OWN_ENDS[reason.cause], reason.message))
        return failure(reason, now=self._clock.now())

    async def _fail(
        self,
        log: RunLog,
        waiting: _Waiting,
        *,
        problem: HandrailError,
        error: RunError | None = None,
    ) -> None:
        if not waiting.shown:
            return await self._discard(log.run, waiting, problem=problem)
        # Without an error of ours the end tells what the upstream said.
        said = log.fold.state is State.FAILED
        return await self._execution.close(
            log, (State.FAILED, error or (None if said else run_error(problem)))
        )

    async def _discard(self, run: Run, waiting: _Waiting, *, problem: HandrailError) -> None:
        while True:
            try:
                await self._store.delete(run.id, caller=run.caller)
            except StoreFailed as failed:
                self._logger.error("run_not_discarded", run=run.id, why=failed.fault.code)
                waiting.failed(problem)  # it need not wait for a sick store
                await self._clock.sleep(_RETRY_DISCARD_SECONDS)
            else:
                return waiting.failed(problem)


def _stopped() -> HandrailError:
    message = "The gateway stopped before the response was there."
    return HandrailError(fault(Code.SHUTTING_DOWN, message))
