"""Background responses as a caller sees them: submit, read, follow, cancel, delete."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from handrail.core import events, idempotency, items, responses, wire
from handrail.core.admission import Limits
from handrail.core.events import MalformedEvent
from handrail.core.fold import Fold
from handrail.core.lifecycle import CANCEL_REFUSED, State, is_final
from handrail.core.policy import Plan
from handrail.core.responses import RunError
from handrail.core.rewrite import upstream_request
from handrail.core.steps import Step
from handrail.core.wire import Body, CreateRequest
from handrail.engine.clock import Clock
from handrail.engine.closing import closing, fold_frames, object_of
from handrail.engine.executors import Executor
from handrail.engine.tail import Tails
from handrail.errors import ResponseNotFound, StateConflict
from handrail.settings.model import Target
from handrail.store.base import Closing, NewRun, Repeat, Run, Segment, Store
from handrail.telemetry import get_logger

MAX_ITEM_IDS: Final = 10_000
BATCH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A run that is kept: its id, the response as JSON, what will be changed upstream.

    `repeated` says that an earlier create of the same Idempotency-Key made it.
    """

    id: str
    response: bytes
    steps: tuple[Step, ...]
    repeated: bool = False


class Background:
    """The verbs on runs. Every one takes the caller's name; a foreign id is an unknown id."""

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        tails: Tails,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._executor = executor
        self._tails = tails
        self._clock = clock
        self._new_id = new_id
        self._logger = get_logger()

    async def submit(
        self,
        request: CreateRequest,
        *,
        plan: Plan,
        caller: str,
        target: Target,
        limits: Limits,
        key: str | None = None,
    ) -> Accepted:
        """Keep the run, durably, before returning; or find the one that `key` has made before.

        Raises RequestRejected for what the target could never take, for an `item_reference` to
        nothing we keep and for a full queue, and StoreFailed when it cannot be kept.
        """
        now = self._clock.now()
        repeat = None
        if key is not None:
            until = now + idempotency.KEPT_SECONDS
            repeat = Repeat(key=key, digest=idempotency.digest(request), kept_until=until)
        request = await self._with_references(request, caller)
        # What the upstream can never take is refused now, not after the caller has gone.
        steps = upstream_request(
            request, profile=target.profile, stream=True, extra_fields=target.extra_fields
        ).steps
        run = self._new_run(request, plan=plan, caller=caller, target=target, now=now)
        run = replace(run, repeat=repeat)
        stands = await self._store.accept(run, limits=limits)
        if stands != run.id:
            earlier = await self.retrieve(stands, caller=caller)
            return Accepted(id=stands, response=earlier, steps=steps, repeated=True)
        self._executor.wake()
        self._logger.info("run_accepted", run=run.id, caller=caller, decision=plan.header())
        return Accepted(id=run.id, response=run.response, steps=steps)

    def _new_run(
        self, request: CreateRequest, *, plan: Plan, caller: str, target: Target, now: float
    ) -> NewRun:
        run_id = self._new_id()
        response = responses.opening(request, plan=plan, response_id=run_id, created_at=int(now))
        opening = (
            events.lifecycle_event(events.CREATED, response, number=0),
            events.lifecycle_event(events.QUEUED, response, number=1),
        )
        return NewRun(
            id=run_id,
            caller=caller,
            created_at=now,
            target=target.name,
            plan=msgspec.json.encode(plan),
            request=wire.encode(request.body),
            response=wire.encode(response),
            opening=Segment(first=0, frames=tuple(event.frame for event in opening)),
            items=_item_ids(request),
        )

    async def _with_references(self, request: CreateRequest, caller: str) -> CreateRequest:
        value = request.body.get("input")
        if value is None or wire.kind_of(value) is not wire.Kind.ARRAY:
            return request
        given = items.as_items(value)
        wanted = items.references(given)
        if not wanted:
            return request
        found = await self._store.find_items(caller, frozenset(wanted))
        kept = {item_id: msgspec.json.decode(item, type=Body) for item_id, item in found.items()}
        whole = items.resolve_references(given, kept)
        return replace(request, body={**request.body, "input": wire.raw(whole)})

    async def retrieve(self, run_id: str, *, caller: str) -> bytes:
        """The response object as it is now, as JSON. Raises ResponseNotFound."""
        return wire.encode(object_of(await self._get(run_id, caller)))

    async def follow(
        self, run_id: str, *, caller: str, after: int, obfuscation: bool = True
    ) -> AsyncGenerator[bytes, None]:
        """The events after number `after` (-1: all), then live. Raises ResponseNotFound."""
        await self._get(run_id, caller)
        return self._tails.follow(run_id, caller=caller, after=after, obfuscation=obfuscation)

    async def input_items(self, run_id: str, *, caller: str, page: items.PageRequest) -> bytes:
        """One page of the kept input, as JSON. Raises ResponseNotFound and RequestRejected."""
        run = await self._get(run_id, caller)
        body = msgspec.json.decode(run.request, type=Body)
        given = items.as_items(body["input"]) if wire.is_set(body, "input") else []
        return wire.encode(items.page(items.listed(given, run_id=run_id), page))

    async def cancel(self, run_id: str, *, caller: str) -> bytes:
        """Stop a run, for good; the cancelled response as JSON. Idempotent.

        On return its upstream call is closed. Raises ResponseNotFound, and StateConflict when
        the run ended otherwise before: what lost the race stays what it is.
        """
        run = await self._conclude_cancelled(run_id, caller)
        if run is None:
            raise ResponseNotFound(run_id)
        if run.state in CANCEL_REFUSED:
            raise StateConflict(CANCEL_REFUSED[run.state], param="response_id")
        return wire.encode(object_of(run))

    async def delete(self, run_id: str, *, caller: str) -> bytes:
        """Destroy a run and all that is kept of it, stopping it first. Raises ResponseNotFound."""
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

    async def recover(self, *, owner: str) -> None:
        """Take over from a process that died: nothing is sent twice, nothing waits for ever.

        What had not begun goes back into the queue; what had begun ends `failed` with the cause
        `worker_lost`, its partial output kept, because its upstream call may have run.
        """
        for part in _batches(await self._store.abandoned(owner=owner)):
            await asyncio.gather(*(self._recover(run_id) for run_id in part))
            self._executor.wake()

    async def _recover(self, run_id: str) -> None:
        # One run that cannot be recovered must not keep the others from it, or the gateway down.
        try:
            await self._recover_one(run_id)
        except Exception as error:
            self._logger.error("run_not_recovered", run=run_id, exc_info=error)

    async def _recover_one(self, run_id: str) -> None:
        await self._store.requeue(run_id)
        run = await self._store.conclude(run_id, caller=None, close=self._lost, events=True)
        self._tails.changed(run_id)
        self._logger.warning("run_recovered", run=run_id, state=run.state if run else None)

    def _lost(self, run: Run, frames: Sequence[bytes]) -> Closing | None:
        if run.state is not State.IN_PROGRESS:
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
        # The store has spoken; now the upstream call is closed and readers are told.
        await self._executor.cancel(run_id)
        self._tails.changed(run_id)
        return run

    async def _get(self, run_id: str, caller: str) -> Run:
        run = await self._store.get(run_id, caller=caller)
        if run is None:
            raise ResponseNotFound(run_id)
        return run


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    # Together, so that one disk flush serves many; not all together, so that reads get a turn.
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


def _item_ids(request: CreateRequest) -> tuple[str, ...]:
    value = request.body.get("input")
    if value is None or wire.kind_of(value) is not wire.Kind.ARRAY:
        return ()
    ids = (items.item_id(item) for item in items.as_items(value))
    return tuple(dict.fromkeys(item_id for item_id in ids if item_id))[:MAX_ITEM_IDS]
