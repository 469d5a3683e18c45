"""Background responses as a caller sees them: submit, read, follow, cancel, delete."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import msgspec

from handrail.core import idempotency, items, wire
from handrail.core.admission import Limits
from handrail.core.events import MalformedEvent
from handrail.core.fold import Fold
from handrail.core.lifecycle import CANCEL_REFUSED, CANCEL_SYNCHRONOUS, State, is_final
from handrail.core.policy import Mode, Plan
from handrail.core.request_options import RequestOptions
from handrail.core.responses import RunError
from handrail.core.retry import attempt_verdict
from handrail.core.rewrite import upstream_request
from handrail.core.steps import Step
from handrail.core.wire import Body, CreateRequest
from handrail.engine.budgets import Budgets
from handrail.engine.charging import work_of
from handrail.engine.clock import Clock
from handrail.engine.closing import closing, fold_frames, object_of, plan_of
from handrail.engine.execution import attribution_of
from handrail.engine.executors import Executor
from handrail.engine.history import Conversation
from handrail.engine.opening import Opening
from handrail.engine.replies import Replies
from handrail.engine.shield import to_the_end
from handrail.engine.tail import Tails
from handrail.engine.targets import Targets
from handrail.engine.ways import Place, ways_of
from handrail.errors import ResponseNotFound, StateConflict
from handrail.settings.model import Target
from handrail.store.base import Closing, Repeat, Resend, Run, Store
from handrail.telemetry import get_logger

BATCH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A run that is kept: its id, the response as JSON, what will be changed upstream.

    `opening` are its first events. `repeated` says that an earlier create made it, under the same
    Idempotency-Key or because this one is its blind repeat; there are no events then.
    `resendable` that whether the reply arrives is to be noted.
    """

    id: str
    response: bytes
    steps: tuple[Step, ...]
    opening: tuple[bytes, ...] = ()
    repeated: bool = False
    resendable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """A response as it is now, as JSON, and how many attempts at it have been sent."""

    body: bytes
    attempts: int


class Background:
    """The verbs on runs. Every one takes the caller's name; a foreign id is an unknown id."""

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        tails: Tails,
        clock: Clock,
        budgets: Budgets,
    ) -> None:
        self.replies = Replies(store, clock=clock)
        self._store = store
        self._executor = executor
        self._tails = tails
        self._clock = clock
        self._budgets = budgets
        self._logger = get_logger()

    async def submit(
        self,
        conversation: Conversation,
        *,
        plan: Plan,
        caller: str,
        targets: Sequence[Target],
        limits: Limits,
        options: RequestOptions,
        response_id: str,
    ) -> Accepted:
        """Keep the run, durably, before returning; or find the one that the same create has made.

        Of a conversation only its own part is kept, and its link to what was before: that has its
        own life, and deleting it must leave nothing of it. Raises RequestRejected for what the
        first target could never take and for a full queue, and StoreFailed when it cannot be kept.
        """
        repeat, resend = _same_as_before(conversation.given, options)
        # What the upstream can never take is refused now, not after the caller has gone.
        places = [Place(target=target) for target in targets]
        ways = ways_of(conversation, places, partial(upstream_request, stream=True))
        opening = Opening(
            id=response_id,
            caller=caller,
            target=ways.target,
            others=tuple(way.target for way in ways.others),
            now=self._clock.now(),
        )
        run = replace(opening.run(conversation.own, plan), repeat=repeat, resend=resend)
        if resend is not None and resend.again:
            await self.replies.settle()  # or a create that was answered just now would be taken
        stands = await self._store.accept(run, limits=limits)
        self._executor.wake()
        repeated, response = stands != run.id, run.response
        if repeated:
            self._logger.info("run_repeated", run=stands, caller=caller)
            try:
                response = (await self.retrieve(stands, caller=caller)).body
            except ResponseNotFound:  # it went just now
                raise idempotency.key_expired() from None
        else:
            self._logger.info("run_accepted", run=run.id, caller=caller, decision=plan.header())
        return Accepted(
            id=stands,
            response=response,
            steps=ways.request.steps,
            opening=() if repeated else run.opening.frames,
            repeated=repeated,
            resendable=resend is not None,
        )

    async def retrieve(self, run_id: str, *, caller: str) -> Retrieved:
        """The response as it is now. Raises ResponseNotFound."""
        run = await self._get(run_id, caller)
        return Retrieved(body=wire.encode(object_of(run)), attempts=run.attempt)

    async def follow(
        self, run_id: str, *, caller: str, after: int, obfuscation: bool = True
    ) -> AsyncGenerator[bytes, None]:
        """The events after number `after` (-1: all), then live. Raises ResponseNotFound."""
        await self._get(run_id, caller)
        return self._tails.follow(run_id, caller=caller, after=after, obfuscation=obfuscation)

    async def stream(self, accepted: Accepted, *, caller: str) -> AsyncGenerator[bytes, None]:
        """The events of a run that was just accepted, from the first, then live.

        The first ones are durable and at hand. Asking the store for them could fail, and a caller
        who was told so would send the create again although its run is kept.
        """
        if accepted.opening:
            yield b"".join(accepted.opening)
        after = len(accepted.opening) - 1
        async with aclosing(self._tails.follow(accepted.id, caller=caller, after=after)) as rest:
            async for chunk in rest:
                yield chunk

    async def input_items(self, run_id: str, *, caller: str, page: items.PageRequest) -> bytes:
        """One page of the kept input, as JSON. Raises ResponseNotFound and RequestRejected."""
        run = await self._get(run_id, caller)
        body = msgspec.json.decode(run.request, type=Body)
        given = items.as_items(body["input"]) if wire.is_set(body, "input") else []
        return wire.encode(items.page(items.listed(given, run_id=run_id), page))

    async def cancel(self, run_id: str, *, caller: str) -> bytes:
        """Stop a run, for good; the cancelled response as JSON. Idempotent.

        On return its upstream call is closed; that happens also if nobody waits for it any more.
        Raises ResponseNotFound, and StateConflict when the run ended otherwise before: what lost
        the race stays what it is.
        """
        run = await to_the_end(self._conclude_cancelled(run_id, caller))
        if run is None:
            raise ResponseNotFound(run_id)
        if run.state in CANCEL_REFUSED:
            synchronous = plan_of(run).mode is Mode.KEPT
            words = CANCEL_SYNCHRONOUS if synchronous else CANCEL_REFUSED[run.state]
            raise StateConflict(words, param="response_id")
        return wire.encode(object_of(run))

    async def stop(self, run_id: str) -> Run:
        """Cancel a run, whoever made it, and give it as it is then. Raises as `cancel` does."""
        run = await to_the_end(self._conclude_cancelled(run_id, None))
        if run is None:
            raise ResponseNotFound(run_id)
        if run.state is not State.CANCELLED:
            raise StateConflict(f"The run has ended: it is {run.state}.", param="response_id")
        return run

    async def delete(self, run_id: str, *, caller: str) -> bytes:
        """Destroy a run and all that is kept of it, stopping it first. Raises ResponseNotFound."""
        return await to_the_end(self._delete(run_id, caller))

    async def _delete(self, run_id: str, caller: str) -> bytes:
        if await self._conclude_cancelled(run_id, caller) is None:
            raise ResponseNotFound(run_id)
        await self._store.delete(run_id, caller=caller)
        self._tails.changed(run_id)
        self._logger.info("run_deleted", run=run_id, caller=caller)
        return wire.encode({"id": run_id, "object": "response", "deleted": True})

    async def revoke_all_but(self, callers: Collection[str]) -> int:
        """Cancel the unfinished runs of everybody not in `callers`; how many there were."""
        ids = await self._store.unfinished_of_others(callers)
        for part in _batches(ids):
            await asyncio.gather(*(self._conclude_cancelled(run_id, None) for run_id in part))
        return len(ids)

    async def recover(self, *, owner: str) -> bool:
        """Take over from a process that died: nothing is sent twice, nothing waits for ever.

        What had not begun goes back into the queue; what had begun ends `failed` with the cause
        `worker_lost`, its partial output kept, because its upstream call may have run. Where its
        crash policy allows a new attempt, it goes back into the queue too. False when one of them
        could not be ended: it is to be tried again. Raises StoreFailed.
        """
        whole = True
        for part in _batches(await self._store.abandoned(owner=owner)):
            whole &= all(await asyncio.gather(*(self._recover(run_id) for run_id in part)))
            self._executor.wake()
        return whole

    async def resume_reservations(self, targets: Targets) -> None:
        """Reserve again for what was accepted before this process began. Raises StoreFailed.

        A run that cannot be read is left to recovery.
        """
        if not self._budgets.any:
            return
        for part in _batches(await self._store.unfinished_of_others(())):
            await asyncio.gather(*(self._reserve(run_id, targets) for run_id in part))

    async def _reserve(self, run_id: str, targets: Targets) -> None:
        try:
            run = await self._store.conclude(run_id, caller=None, close=lambda *_: None)
            if run is None or is_final(run.state):
                return
            found = targets.of(run.target, plan_of(run))
            model = wire.read_create(run.request).model
            work = work_of(attribution_of(run), model=model, targets=found)
        except Exception as error:
            self._logger.error("run_not_reserved_for", run=run_id, exc_info=error)
        else:
            self._budgets.resume(run_id, work)

    async def _recover(self, run_id: str) -> bool:
        # One run that cannot be recovered must not keep the others from it, or the gateway down.
        try:
            await self._recover_one(run_id)
        except Exception as error:
            self._logger.error("run_not_recovered", run=run_id, exc_info=error)
            return False
        return True

    async def _recover_one(self, run_id: str) -> None:
        run = await self._store.conclude(run_id, caller=None, close=self._lost, events=True)
        if run is not None and not is_final(run.state):
            await self._store.requeue(run_id)
        else:
            self._budgets.release(run_id)
        self._tails.changed(run_id)
        self._logger.warning("run_recovered", run=run_id, state=run.state if run else None)

    def _lost(self, run: Run, frames: Sequence[bytes]) -> Closing | None:
        if run.state is not State.IN_PROGRESS:
            return None
        crash = plan_of(run).crash
        if attempt_verdict(None, policy=crash, attempts=run.attempt, last_seq=run.last_seq).again:
            return None
        message = "The gateway stopped while the response was under way; its upstream call may "
        error = RunError(cause="worker_lost", message=message + "have run, so it is not repeated.")
        try:
            fold = fold_frames(frames)
        except MalformedEvent:  # its own events cannot be read: it must end all the same
            fold = Fold()
        return closing(run, State.FAILED, fold=fold, now=self._clock.now(), error=error)

    async def _conclude_cancelled(self, run_id: str, caller: str | None) -> Run | None:
        def close(run: Run, _frames: Sequence[bytes]) -> Closing | None:
            if is_final(run.state):
                return None
            return closing(run, State.CANCELLED, fold=Fold(), now=self._clock.now())

        run = await self._store.conclude(run_id, caller=caller, close=close)
        if run is None:  # not there, or not this caller's: nothing of it may be touched
            return None
        if is_final(run.state):
            self._budgets.release(run_id)
        # The store has spoken; now the upstream call is closed and readers are told.
        await self._executor.cancel(run_id)
        self._tails.changed(run_id)
        return run

    async def _get(self, run_id: str, caller: str) -> Run:
        run = await self._store.get(run_id, caller=caller)
        if run is None:
            raise ResponseNotFound(run_id)
        return run


def _same_as_before(
    request: CreateRequest, options: RequestOptions
) -> tuple[Repeat | None, Resend | None]:
    """By what a create is known when it comes again: its key, or else what an SDK says of it."""
    if options.key is not None:
        digest, seconds = idempotency.digest(request), idempotency.KEPT_SECONDS
        return Repeat(key=options.key, digest=digest, kept_seconds=seconds), None
    if options.retry_count is None:
        return None, None
    digest, seconds = idempotency.digest(request), idempotency.REPEATED_SECONDS
    return None, Resend(digest=digest, again=options.retry_count > 0, kept_seconds=seconds)


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    # Together, so that one disk flush serves many; not all together, so that reads get a turn.
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]
