"""Relays an upstream's stream to the caller who is waiting for it."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from handrail.core import events, responses, wire
from handrail.core.events import Event, MalformedEvent
from handrail.core.lifecycle import State
from handrail.core.responses import RunError
from handrail.core.sse import COMMENT
from handrail.core.wire import Body
from handrail.engine.clock import Clock
from handrail.engine.reading import EventReader
from handrail.errors import Code, HandrailError, UpstreamFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayManner:
    """How one stream is relayed.

    `base` gives the response as far as it is known without the upstream, for when that ends before
    it has begun one. `completes`: the upstream is only half compatible. `numbered_heartbeat`:
    silence is filled with `keepalive` events instead of comments (Codex CLI's idle timer does not
    see comments). `previous` is what the caller named as `previous_response_id`.
    """

    base: Callable[[], Body]
    completes: bool
    numbered_heartbeat: bool
    previous: str | None = None

    def stamped(self, response: Body) -> Body:
        """A response with what is true of it here, whatever the upstream echoed (G7).

        Nothing keeps it; and where Handrail has put in what it goes on from, the upstream does not
        know the id of that.
        """
        response = responses.without_secrets(response)
        if self.previous is None:
            return {**response, "store": wire.FALSE}
        previous = wire.raw(self.previous)
        return {**response, "store": wire.FALSE, "previous_response_id": previous}


class Relay:
    """Turns upstream events into the bytes of the caller's stream.

    Upstream bytes and numbers pass untouched until something has to be inserted or numbered here;
    from then on later events are numbered on from there. Whatever happens upstream, the stream
    ends with a terminal event.
    """

    def __init__(
        self, reader: EventReader, *, manner: RelayManner, clock: Clock, patience: float
    ) -> None:
        self._reader = reader
        self._manner = manner
        self._clock = clock
        self._patience = patience
        self._next = 0
        self._renumber = False
        self._opened: set[str] = set()
        self._state: State | None = None
        self._latest: Event | None = None  # a lifecycle event; its bytes, not a parsed snapshot
        self._error: RunError | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The stream, in whole events, until its terminal event."""
        written = self._clock.monotonic()
        while self._state is None:
            quiet = self._clock.monotonic() - written
            out = await self._read(patience=max(0.0, self._patience - quiet))
            if not out and self._clock.monotonic() - written >= self._patience:
                out = self._heartbeat()
            if out:
                yield out
                written = self._clock.monotonic()
            out = b""  # or the last event would stay in memory until the next one comes

    async def _read(self, *, patience: float) -> bytes:
        try:
            batch = await self._reader.read(patience=patience)
        except UpstreamFailed as error:
            return self._end(error)
        if batch is None:
            message = "The upstream's stream ended without a terminal event."
            return self._end(UpstreamFailed(Code.UPSTREAM_ENDED_EARLY, message))
        return self._frames(batch)

    def _frames(self, batch: list[Event]) -> bytes:
        frames = []
        for event in batch:
            try:
                frames.append(self._take(event))
            except MalformedEvent as error:
                problem = UpstreamFailed(Code.UPSTREAM_PROTOCOL_ERROR, str(error))
                frames.append(self._end(problem))
        return b"".join(frames)

    def _take(self, event: Event) -> bytes:
        if self._state is not None:  # nothing follows a terminal event
            return b""
        if event.type in events.LIFECYCLE or event.type == events.METADATA:
            event = events.without_model_header(event)
        if event.type in events.LIFECYCLE:
            if self._repeats(event):
                return b""
            if event.type in events.CLOSING:
                self._state = events.closing_state(event)
            event = self._latest = self._stamped(event)
        elif event.type == events.ERROR:
            # Remembered, and sent on in the flat form that SDKs yield; Codex CLI ignores it, so
            # the stream still ends with `response.failed`.
            self._error = responses.error_event(event)
            event = events.event(
                events.ERROR,
                {
                    "code": wire.raw(self._error.code),
                    "message": wire.raw(self._error.message),
                    "param": wire.NULL,
                    "sequence_number": wire.raw(event.number or self._next),
                },
            )
        if event.number is None or self._renumber:
            self._renumber = True
            event = event.numbered(self._next)
        self._next = (event.number or 0) + 1
        return event.frame

    def _stamped(self, event: Event) -> Event:
        response = event.response()
        true = self._manner.stamped(response)
        if not response or true == response:
            return event
        return events.event(event.type, {**event.body(), "response": wire.raw(true)})

    def _repeats(self, event: Event) -> bool:
        # llama.cpp's server (build 11434) sends `created` and `in_progress` again before every
        # delta; clients take a second `created` for a second response.
        if not self._manner.completes or event.type not in events.OPENING:
            return False
        again = event.type in self._opened
        self._opened.add(event.type)
        self._renumber = self._renumber or again
        return again

    def _heartbeat(self) -> bytes:
        if not self._manner.numbered_heartbeat:
            return COMMENT
        self._renumber = True
        beat = events.event(events.KEEPALIVE, {"sequence_number": wire.raw(self._next)})
        self._next += 1
        return beat.frame

    def end(self, error: HandrailError) -> bytes:
        """The terminal event of a stream that `error` cut off; b"" when it has one already."""
        return b"" if self._state is not None else self._end(error)

    def _end(self, error: HandrailError) -> bytes:
        cause = RunError(cause=error.fault.code or "upstream_failed", message=error.fault.message)
        seen = self._latest.response() if self._latest else {}
        snapshot = self._manner.stamped({**self._manner.base(), **seen})
        opened = b""
        if self._latest is None:
            # The Node SDK's stream helper refuses a stream that does not begin with this event.
            opened = events.lifecycle_event(events.CREATED, snapshot, number=self._next).frame
            self._next += 1
        snapshot["status"] = wire.raw(State.FAILED)
        snapshot["error"] = wire.raw((self._error or cause).body())
        self._state = State.FAILED
        return opened + events.lifecycle_event(events.FAILED, snapshot, number=self._next).frame
