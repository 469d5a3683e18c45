"""Stateless calls: one upstream call, relayed as a stream or folded into one JSON answer.

Nothing is kept. The upstream call lives exactly as long as its caller: leaving the block closes
it, also before its first byte.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from handrail.core import responses, wire
from handrail.core.collect import Collector
from handrail.core.complete import Completer
from handrail.core.policy import Plan
from handrail.core.rewrite import upstream_request
from handrail.core.shaping import UNSHAPED, Shaping
from handrail.core.wire import Body
from handrail.engine.clock import Clock
from handrail.engine.compaction import Compactor
from handrail.engine.dispatch import Answered, Dispatcher, Said
from handrail.engine.history import Conversation
from handrail.engine.meter import Attribution
from handrail.engine.reading import MAX_REPLY_BYTES, EventReader, read_response
from handrail.engine.relay import Relay, RelayManner
from handrail.engine.ways import Held, Place, Ways, ways_of
from handrail.settings.model import Target


@dataclass(slots=True, kw_only=True)
class StatelessCall:
    """One create to be answered statelessly, ready to leave.

    `target` is the one that is asked, or has answered. `manner.base()` also completes the responses
    of half-compatible servers.
    """

    target: Target
    attribution: Attribution
    manner: RelayManner
    ways: Held[Ways]

    def number_heartbeats(self) -> None:
        """Fill silence with events: this client's idle timer does not see comments."""
        self.manner = replace(self.manner, numbered_heartbeat=True)

    def answered_by(self, target: Target) -> None:
        """From now on it is about this target's answer."""
        self.target = target
        self.manner = replace(self.manner, completes=target.profile.completes)


def prepare(
    conversation: Conversation,
    *,
    plan: Plan,
    places: Sequence[Place],
    attribution: Attribution,
    created_at: int,
    shaping: Shaping = UNSHAPED,
) -> StatelessCall:
    """The call for a create; the attribution's id is for when the upstream never gives one.

    Raises RequestRejected for what the first target's profile cannot take.
    """
    request, response_id = conversation.own, attribution.response_id
    base: Callable[[], Body] = partial(
        responses.unopened, model=request.model, response_id=response_id, created_at=created_at
    )
    if any(place.target.profile.completes for place in places):
        opening = responses.opening(
            request, plan=plan, response_id=response_id, created_at=created_at
        )
        base = partial(responses.in_progress, opening)
    target = places[0].target
    return StatelessCall(
        target=target,
        attribution=attribution,
        manner=RelayManner(
            base=base,
            completes=target.profile.completes,
            numbered_heartbeat=False,
            previous=request.previous_response_id,
        ),
        ways=Held(
            ways_of(
                conversation,
                places,
                partial(upstream_request, stream=plan.stream, shaping=shaping),
            )
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointCall:
    """One call to an endpoint beside create, ready to leave."""

    ways: Ways
    attribution: Attribution
    path: str


class Foreground:
    """Answers stateless calls."""

    def __init__(self, dispatcher: Dispatcher, *, clock: Clock, heartbeat_seconds: float) -> None:
        self._dispatcher = dispatcher
        self._compactor = Compactor(dispatcher)
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds

    async def answer(self, call: StatelessCall) -> tuple[bytes, Said]:
        """The response as JSON, and what was said beside it. Raises HandrailError."""
        async with self._open(call) as answered:
            reply = answered.reply
            if "event-stream" in reply.headers.get("content-type", ""):
                body = await self._collect(call, answered)
            else:
                idle = call.target.idle_seconds
                body = read_response(await reply.read(limit=MAX_REPLY_BYTES, idle_seconds=idle))
                answered.meter.read(body)
                completer = _completer(call)
                body = completer.response(body) if completer else body
            return wire.encode(call.manner.stamped(body)), answered.said

    async def pass_on(self, call: EndpointCall) -> tuple[bytes, Said]:
        """The upstream's JSON object, and what was said beside it. Raises HandrailError."""
        async with self._dispatcher.create(
            call.ways, attribution=call.attribution, path=call.path
        ) as answered:
            idle = answered.target.idle_seconds
            said = await answered.reply.read(limit=MAX_REPLY_BYTES, idle_seconds=idle)
            body = read_response(said)
            answered.meter.read(body)
            return wire.encode(body), answered.said

    @asynccontextmanager
    async def stream(self, call: StatelessCall) -> AsyncIterator[tuple[Relay, Said]]:
        """A relay of the upstream's events. Raises HandrailError on opening."""
        async with self._open(call) as answered:
            relay = Relay(
                self._reader(call, answered),
                manner=call.manner,
                clock=self._clock,
                patience=self._heartbeat_seconds,
            )
            yield relay, answered.said
            # The caller has everything by now; this only saves the next call a handshake.
            await answered.reply.finish()

    @asynccontextmanager
    async def _open(self, call: StatelessCall) -> AsyncIterator[Answered]:
        async with self._dispatcher.create(
            # Given a name here, the request would live as long as the stream.
            await self._compactor.fulfilled(call.ways.take(), attribution=call.attribution),
            attribution=call.attribution,
        ) as answered:
            call.answered_by(answered.target)
            yield answered

    def _reader(self, call: StatelessCall, answered: Answered) -> EventReader:
        return EventReader(
            answered.reply,
            clock=self._clock,
            idle_seconds=call.target.idle_seconds,
            completer=_completer(call),
            meter=answered.meter,
        )

    async def _collect(self, call: StatelessCall, answered: Answered) -> Body:
        reader = self._reader(call, answered)
        whole = Collector()
        while (batch := await reader.read(patience=call.target.idle_seconds)) is not None:
            if any(whole.take(event) for event in batch):
                break
        return whole.response(now=self._clock.now())


def _completer(call: StatelessCall) -> Completer | None:
    return Completer(call.manner.base()) if call.manner.completes else None
