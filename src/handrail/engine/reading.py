"""Reads an upstream's stream event by event, whoever it is for."""

import asyncio
from typing import Final

import msgspec

from handrail.core import events, sse, wire
from handrail.core.collect import MAX_EVENT_BYTES
from handrail.core.complete import Completer
from handrail.core.events import Event, MalformedEvent
from handrail.core.lifecycle import TERMINAL_EVENT, State
from handrail.engine.clock import Clock
from handrail.engine.meter import Meter
from handrail.errors import Code, UpstreamFailed
from handrail.upstream.client import UpstreamReply

MAX_REPLY_BYTES: Final = 64 << 20

# The only events that a meter is told of.
_TOLD: Final = events.CLOSING | {events.ERROR}


class EventReader:
    """The events of one upstream reply, in order.

    A server that answers a streaming request with one JSON object is understood too: its object
    becomes the terminal event. `meter` is shown what the upstream itself said, before anything is
    filled in.
    """

    def __init__(
        self,
        reply: UpstreamReply,
        *,
        clock: Clock,
        idle_seconds: float,
        completer: Completer | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._reply = reply
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._completer = completer
        self._meter = meter
        self._decoder = sse.Decoder(limit=MAX_EVENT_BYTES)
        self._heard = clock.monotonic()
        self._is_json = "json" in reply.headers.get("content-type", "")
        self._ended = False
        self._problem: UpstreamFailed | None = None
        self._latest = (0, 0)  # number and hash of an event; the event itself may be large
        self._counts = False  # the upstream's sequence numbers

    async def read(self, *, patience: float) -> list[Event] | None:
        """The next events; [] after `patience` seconds without any, None at the end.

        Raises UpstreamFailed when the upstream breaks off, is silent for longer than its idle
        bound, or sends what is no event.
        """
        if self._problem is not None:
            raise self._problem
        if self._ended:
            return None
        if self._is_json:
            return await self._read_object()
        left = self._idle_seconds - (self._clock.monotonic() - self._heard)
        if left <= 0:
            raise UpstreamFailed(
                Code.UPSTREAM_STALLED, f"The upstream was silent for {self._idle_seconds:.0f} s."
            )
        try:
            # Cancelling a read loses nothing: what has arrived stays in the reply's buffer.
            async with asyncio.timeout(min(patience, left)):
                chunk = await self._reply.slice()
        except TimeoutError:
            return []
        self._heard = self._clock.monotonic()
        self._ended = not chunk
        found, self._problem = self._take(chunk)
        if not found and self._problem is not None:
            raise self._problem
        return found if found or chunk else None

    def _take(self, chunk: bytes) -> tuple[list[Event], UpstreamFailed | None]:
        # What came whole before something malformed is handed on; the problem is raised next.
        found: list[Event] = []
        try:
            for frame in self._decoder.feed(chunk) if chunk else self._decoder.finish():
                event = events.read(frame)
                if event is None or self._is_repeated(event):
                    continue
                if event.type in _TOLD and self._meter is not None:
                    self._meter.heard(event)
                if self._completer is not None:
                    event = self._completer.complete(event)
                found.append(event)
        except (MalformedEvent, sse.FrameTooLarge) as error:
            return found, UpstreamFailed(
                Code.UPSTREAM_PROTOCOL_ERROR, f"The upstream sent what is no event: {error}."
            )
        return found, None

    def _is_repeated(self, event: Event) -> bool:
        # Two deltas may well say the same; but not under one number, where numbers count at all.
        if event.number is None:
            return False
        before, self._latest = self._latest, (event.number, hash(event.data))
        self._counts = self._counts or event.number > before[0]
        return self._counts and self._latest == before

    async def _read_object(self) -> list[Event]:
        body = await self._reply.read(limit=MAX_REPLY_BYTES, idle_seconds=self._idle_seconds)
        self._ended = True
        response = read_response(body)
        if self._meter is not None:
            self._meter.read(response)
        status = wire.string(response, "status")
        if status in (State.QUEUED, State.IN_PROGRESS):
            raise UpstreamFailed(
                Code.UPSTREAM_PROTOCOL_ERROR,
                f"The upstream answered with a response that is {status}, and with no stream.",
            )
        kind = TERMINAL_EVENT.get(status, events.COMPLETED)  # type: ignore[call-overload]
        event = events.lifecycle_event(kind, response, number=0)
        return [event if self._completer is None else self._completer.complete(event)]


def read_response(body: bytes) -> wire.Body:
    """A JSON reply of an upstream, as an object. Raises UpstreamFailed when it is none."""
    try:
        body.decode()
        return msgspec.json.decode(body, type=wire.Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamFailed(
            Code.UPSTREAM_PROTOCOL_ERROR,
            "The upstream answered 200 with a body that is no JSON object.",
        ) from None
