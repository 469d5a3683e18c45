"""Background responses that the upstream itself runs and keeps.

Handrail keeps only where each one is and whose it is: the row is durable before the caller learns
the id. Polls, resumes, cancels and deletions go to the maker, and what it says is passed on as it
says it, its expiry included.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlencode

from handrail.core import items, responses, wire
from handrail.core.affinity import ITEM_DONE, sealed_in_event, sealed_in_items
from handrail.core.complete import Completer
from handrail.core.events import Event, MalformedEvent
from handrail.core.policy import Plan
from handrail.core.rewrite import upstream_run_request
from handrail.core.sse import COMMENT
from handrail.core.wire import Body
from handrail.engine.clock import Clock
from handrail.engine.dispatch import Answered, Dispatcher, Said
from handrail.engine.history import Conversation
from handrail.engine.meter import Attribution
from handrail.engine.reading import MAX_REPLY_BYTES, EventReader, read_response
from handrail.engine.targets import Targets
from handrail.engine.ways import Held, Place, Ways, ways_of
from handrail.errors import (
    Code,
    HandrailError,
    ResponseNotFound,
    StoreFailed,
    UpstreamFailed,
    UpstreamRefused,
    fault,
)
from handrail.settings.model import Target
from handrail.store.base import Remote, Store
from handrail.telemetry import get_logger
from handrail.upstream.client import UpstreamReply

REMEMBERED_SECONDS: Final = 90 * 86_400
"""How long a row is kept that nobody deleted; OpenAI keeps responses for at least 30 days."""

# What fits into the path of a route of ours.
_ID: Final = re.compile(r"[A-Za-z0-9_\-]{1,128}")

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRun:
    """One create to be run by the upstream, ready to leave."""

    attribution: Attribution
    ways: Held[Ways]


class UpstreamRuns:
    """Creates such responses and finds them again."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        store: Store,
        targets: Targets,
        clock: Clock,
        heartbeat_seconds: float,
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._targets = targets
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._logger = get_logger()

    def prepare(
        self,
        conversation: Conversation,
        *,
        plan: Plan,
        attribution: Attribution,
        places: Sequence[Place],
    ) -> UpstreamRun:
        """The create for a conversation. Raises RequestRejected for what cannot be sent."""
        rewrite = partial(upstream_run_request, stream=plan.stream)
        ways = Held(ways_of(conversation, places, rewrite))
        return UpstreamRun(attribution=attribution, ways=ways)

    async def create(self, run: UpstreamRun) -> tuple[bytes, Said]:
        """The response as the upstream gave it, as JSON; its place is durable by then."""
        async with self._opened(run) as answered:
            body = await self._read(answered)
            await self._remember(body, run, answered)
            return wire.encode(body), answered.said

    @asynccontextmanager
    async def stream(self, run: UpstreamRun) -> AsyncIterator[tuple[AsyncGenerator[bytes], Said]]:
        """The upstream's events; the place is durable before the first one is given."""
        async with self._opened(run) as answered:
            events = self._events(answered.reply, answered.target, run=run, answered=answered)
            yield events, answered.said

    @asynccontextmanager
    async def _opened(self, run: UpstreamRun) -> AsyncIterator[Answered]:
        async with self._dispatcher.create(
            run.ways.take(), attribution=run.attribution
        ) as answered:
            yield answered

    async def _remember(self, body: Body, run: UpstreamRun, answered: Answered) -> None:
        response_id = items.item_id(body) or ""
        if not _ID.fullmatch(response_id):
            raise UpstreamFailed(
                Code.UPSTREAM_PROTOCOL_ERROR, "The upstream gave its response no usable id."
            )
        remote = Remote(
            id=response_id,
            caller=run.attribution.caller,
            target=answered.target.name,
            created_at=self._clock.now(),
            account=answered.account,
        )
        try:
            if await self._store.remember(remote, kept_seconds=REMEMBERED_SECONDS):
                self._logger.info(
                    "upstream_run_made", run=response_id, caller=run.attribution.caller
                )
                return
        except StoreFailed:
            # Nobody could ever poll it: better that it does not run than that it is lost.
            await self._give_up(remote, answered.target)
            raise
        raise UpstreamFailed(
            Code.UPSTREAM_PROTOCOL_ERROR, "The upstream gave an id that another response has."
        )

    async def _give_up(self, remote: Remote, target: Target) -> None:
        try:
            path = _path(remote, "/cancel")
            await self._dispatcher.ask(
                target, path, method="POST", limit=MAX_REPLY_BYTES, account=remote.account
            )
        except HandrailError as error:
            self._logger.error("upstream_run_lost", run=remote.id, why=error.fault.code)

    # --- finding it again ------------------------------------------------------------------

    async def locate(self, response_id: str, *, caller: str) -> Remote:
        """Where a response of `caller` is. Raises ResponseNotFound."""
        remote = await self._store.locate(response_id, caller=caller)
        if remote is None:
            raise ResponseNotFound(response_id)
        return remote

    async def retrieve(self, remote: Remote, query: Query) -> bytes:
        """The response as the upstream has it now, as JSON."""
        return await self._ask(remote, query=query)

    async def cancel(self, remote: Remote) -> bytes:
        """Stop it, in the upstream's own way."""
        return await self._ask(remote, "/cancel", method="POST")

    async def input_items(self, remote: Remote, query: Query) -> bytes:
        """One page of the input, as the upstream lists it."""
        return await self._ask(remote, "/input_items", query=query, completes=False)

    async def delete(self, remote: Remote) -> bytes:
        """Delete it there, then forget where it was."""
        said = await self._ask(remote, method="DELETE", completes=False)
        await self._store.forget(remote.id, caller=remote.caller)
        return said

    @asynccontextmanager
    async def follow(self, remote: Remote, query: Query) -> AsyncIterator[AsyncGenerator[bytes]]:
        """Its events from where the query says, as the upstream replays them."""
        target = self._target(remote)
        try:
            async with self._dispatcher.listen(
                target, _path(remote, query=query), account=remote.account
            ) as reply:
                yield self._events(reply, target, run=None, remote=remote)
        except UpstreamRefused as error:
            raise _said_of(remote, error) from error

    async def _ask(
        self,
        remote: Remote,
        part: str = "",
        *,
        method: str = "GET",
        query: Query = (),
        completes: bool = True,
    ) -> bytes:
        target = self._target(remote)
        try:
            path = _path(remote, part, query)
            said = await self._dispatcher.ask(
                target, path, method=method, limit=MAX_REPLY_BYTES, account=remote.account
            )
        except UpstreamRefused as error:
            # A part that is not found may only be a route that the server does not have.
            raise (error if part else _said_of(remote, error)) from error
        body = read_response(said)
        if "output" in body:
            self._note(remote, target, sealed_in_items(bytes(body["output"])))
        completer = self._completer(target) if completes else None
        return wire.encode(completer.response(body) if completer else body)

    def _note(self, remote: Remote, target: Target, sealed: Sequence[str]) -> None:
        """What a caller may send back, only its maker can read."""
        if sealed:
            self._dispatcher.noted(target, remote.account, sealed)

    def _target(self, remote: Remote) -> Target:
        target = self._targets.find(remote.target)
        if target is None:
            raise HandrailError(
                fault(
                    Code.TARGET_GONE,
                    f"The upstream '{remote.target}', which keeps this response, is no longer "
                    "configured.",
                )
            )
        return target

    # --- reading ---------------------------------------------------------------------------

    async def _read(self, answered: Answered) -> Body:
        target = answered.target
        idle = target.idle_seconds
        body = read_response(await answered.reply.read(limit=MAX_REPLY_BYTES, idle_seconds=idle))
        answered.meter.read(body)
        completer = self._completer(target)
        return completer.response(body) if completer else body

    def _completer(self, target: Target) -> Completer | None:
        base = responses.unopened(model="", response_id="", created_at=int(self._clock.now()))
        return Completer(base) if target.profile.completes else None

    async def _events(
        self,
        reply: UpstreamReply,
        target: Target,
        *,
        run: UpstreamRun | None,
        answered: Answered | None = None,
        remote: Remote | None = None,
    ) -> AsyncGenerator[bytes]:
        """The frames of a stream as they come. `run`: a new one, to be remembered first.

        Raises UpstreamFailed when the stream breaks off: the response goes on upstream, so no end
        is made up for it; the reader sees a cut stream and can resume.
        """
        reader = EventReader(
            reply,
            clock=self._clock,
            idle_seconds=target.idle_seconds,
            completer=self._completer(target),
            meter=answered.meter if answered else None,
        )
        while True:
            batch = await reader.read(patience=self._heartbeat_seconds)
            if batch is None:
                return
            if run is not None and answered is not None and batch:
                await self._remember(_opening(batch[0]), run, answered)
                run = None
            if remote is not None:
                for event in batch:
                    if event.type == ITEM_DONE:
                        self._note(remote, target, sealed_in_event(event.data))
            yield b"".join(event.frame for event in batch) or COMMENT


def _said_of(remote: Remote, error: UpstreamRefused) -> HandrailError:
    # It has expired there, and that is the truth. The row stays: a 404 may be a proxy's as well.
    return ResponseNotFound(remote.id) if error.upstream_status == 404 else error


def _opening(event: Event) -> Body:
    try:
        return event.response()
    except MalformedEvent as error:
        raise UpstreamFailed(Code.UPSTREAM_PROTOCOL_ERROR, str(error)) from error


def _path(remote: Remote, part: str = "", query: Query = ()) -> str:
    asked = f"?{urlencode(query)}" if query else ""
    return f"/responses/{remote.id}{part}{asked}"
