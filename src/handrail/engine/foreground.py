"""Stateless calls: one upstream call, relayed as a stream or folded into one JSON answer.

Nothing is kept. The upstream call lives exactly as long as its caller: leaving the block closes
it, also before its first byte.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from handrail.core import events, responses, wire
from handrail.core.complete import Completer
from handrail.core.events import Event
from handrail.core.fold import Fold
from handrail.core.lifecycle import State
from handrail.core.policy import Plan
from handrail.core.responses import RunError
from handrail.core.rewrite import UpstreamRequest, upstream_request
from handrail.core.sse import COMMENT
from handrail.core.wire import Body, CreateRequest
from handrail.engine.clock import Clock
from handrail.engine.dispatch import Dispatcher
from handrail.engine.reading import MAX_REPLY_BYTES, EventReader, read_response
from handrail.errors import Code, Fault, HandrailError, UpstreamFailed
from handrail.settings.model import Target
from handrail.upstream.client import UpstreamReply

# Status of a failed stream when its caller wanted JSON: as the API would have answered at once.
_FAILED_STATUS: Final[Mapping[str, int]] = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "usage_limit_reached": 429,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "server_is_overloaded": 503,
    "slow_down": 503,
}


@dataclass(slots=True, kw_only=True)
class StatelessCall:
    """One create to be answered statelessly, ready to leave.

    `base` is the response as far as it is known without the upstream: it completes the events of
    half-compatible servers, and is shown when the upstream ends before it has begun one.
    `numbered_heartbeat`: silence is filled with `keepalive` events instead of comments (Codex CLI's
    idle timer does not see comments).
    """

    target: Target
    headers: Mapping[str, str]
    base: Body
    numbered_heartbeat: bool
    _outgoing: UpstreamRequest | None

    def take_outgoing(self) -> UpstreamRequest:
        """The upstream request, once: whoever relays for hours must not keep it for as long."""
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is None:
            raise RuntimeError("a call is made once")
        return outgoing


def prepare(
    request: CreateRequest,
    *,
    plan: Plan,
    target: Target,
    headers: Mapping[str, str],
    response_id: str,
    created_at: int,
    numbered_heartbeat: bool = False,
) -> StatelessCall:
    """The call for a request; `response_id` is for when the upstream never gives one.

    Raises RequestRejected for what the target's profile cannot take.
    """
    if target.profile.completes:
        opening = responses.opening(
            request, plan=plan, response_id=response_id, created_at=created_at
        )
        base = responses.in_progress(opening)
    else:
        base = responses.unopened(
            model=request.model, response_id=response_id, created_at=created_at
        )
    return StatelessCall(
        target=target,
        headers=headers,
        base=base,
        numbered_heartbeat=numbered_heartbeat,
        _outgoing=upstream_request(
            request,
            profile=target.profile,
            stream=plan.stream,
            extra_fields=target.extra_fields,
        ),
    )


class Foreground:
    """Answers stateless calls."""

    def __init__(self, dispatcher: Dispatcher, *, clock: Clock, heartbeat_seconds: float) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds

    async def answer(self, call: StatelessCall) -> tuple[bytes, Mapping[str, str]]:
        """The response as JSON, and the upstream's headers. Raises HandrailError."""
        async with self._open(call) as reply:
            if "event-stream" in reply.headers.get("content-type", ""):
                body = await self._collect(call, reply)
            else:
                idle = call.target.idle_seconds
                body = read_response(await reply.read(limit=MAX_REPLY_BYTES, idle_seconds=idle))
                completer = _completer(call)
                body = completer.response(body) if completer else body
            return wire.encode({**body, "store": wire.FALSE}), reply.headers

    @asynccontextmanager
    async def stream(self, call: StatelessCall) -> AsyncIterator[tuple["Relay", Mapping[str, str]]]:
        """A relay of the upstream's events, and its headers. Raises HandrailError on opening."""
        async with self._open(call) as reply:
            relay = Relay(
                call,
                self._reader(call, reply),
                clock=self._clock,
                heartbeat_seconds=self._heartbeat_seconds,
            )
            yield relay, reply.headers
            # The caller has everything by now; this only saves the next call a handshake.
            await reply.finish()

    @asynccontextmanager
    async def _open(self, call: StatelessCall) -> AsyncIterator[UpstreamReply]:
        async with self._dispatcher.create(
            call.target, call.take_outgoing(), headers=call.headers
        ) as reply:
            yield reply

    def _reader(self, call: StatelessCall, reply: UpstreamReply) -> EventReader:
        return EventReader(
            reply,
            clock=self._clock,
            idle_seconds=call.target.idle_seconds,
            completer=_completer(call),
        )

    async def _collect(self, call: StatelessCall, reply: UpstreamReply) -> Body:
        reader = self._reader(call, reply)
        fold = Fold()
        said: RunError | None = None
        while (batch := await reader.read(patience=call.target.idle_seconds)) is not None:
            for event in batch:
                try:
                    if event.type == events.ERROR:
                        said = responses.error_event(event)
                    fold.apply(event)
                except events.MalformedEvent as error:
                    raise UpstreamFailed(Code.UPSTREAM_PROTOCOL_ERROR, str(error)) from error
            if fold.state is not None:
                break
        if fold.state is None and said is None:
            raise UpstreamFailed(
                Code.UPSTREAM_ENDED_EARLY, "The upstream's stream ended without a terminal event."
            )
        if fold.state in (None, State.FAILED):
            raise _failed(said or responses.upstream_error(fold.snapshot))
        return {**fold.snapshot, "output": wire.raw(fold.output())}


def _failed(error: RunError) -> HandrailError:
    status = _FAILED_STATUS.get(error.code) or _FAILED_STATUS.get(error.cause) or 502
    kind = "invalid_request_error" if status == 400 else "server_error"
    return HandrailError(
        Fault(
            status=status,
            type="rate_limit_error" if status == 429 else kind,
            code=error.code,
            message=error.message,
        )
    )


def _completer(call: StatelessCall) -> Completer | None:
    return Completer(call.base) if call.target.profile.completes else None


class Relay:
    """Turns upstream events into the bytes of the caller's stream.

    Upstream bytes and numbers pass untouched until something has to be inserted or numbered here;
    from then on later events are numbered on from there. Whatever happens upstream, the stream
    ends with a terminal event.
    """

    def __init__(
        self,
        call: StatelessCall,
        reader: EventReader,
        *,
        clock: Clock,
        heartbeat_seconds: float,
    ) -> None:
        self._patience = heartbeat_seconds
        self._call = call
        self._reader = reader
        self._clock = clock
        self._next = 0
        self._renumber = False
        self._opened: set[str] = set()
        self._fold = Fold()
        self._error: RunError | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The stream, in whole events, until its terminal event."""
        written = self._clock.monotonic()
        while self._fold.state is None:
            quiet = self._clock.monotonic() - written
            try:
                batch = await self._reader.read(patience=max(0.0, self._patience - quiet))
                if batch is None:
                    raise UpstreamFailed(
                        Code.UPSTREAM_ENDED_EARLY,
                        "The upstream's stream ended without a terminal event.",
                    )
            except UpstreamFailed as error:
                yield self._end(error)
                return
            out = self._frames(batch)
            if not out and self._clock.monotonic() - written >= self._patience:
                out = self._heartbeat()
            if out:
                yield out
                written = self._clock.monotonic()

    def _frames(self, batch: list[Event]) -> bytes:
        frames = []
        for event in batch:
            try:
                frames.append(self._take(event))
            except events.MalformedEvent as error:
                problem = UpstreamFailed(Code.UPSTREAM_PROTOCOL_ERROR, str(error))
                frames.append(self._end(problem))
        return b"".join(frames)

    def _take(self, event: Event) -> bytes:
        if self._fold.state is not None:  # nothing follows a terminal event
            return b""
        if event.type in events.LIFECYCLE:
            if self._repeats(event):
                return b""
            self._fold.apply(event)
            event = _stateless(event)
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

    def _repeats(self, event: Event) -> bool:
        # llama.cpp's server (build 11434) sends `created` and `in_progress` again before every
        # delta; clients take a second `created` for a second response.
        if not self._call.target.profile.completes or event.type not in events.OPENING:
            return False
        again = event.type in self._opened
        self._opened.add(event.type)
        self._renumber = self._renumber or again
        return again

    def _heartbeat(self) -> bytes:
        if not self._call.numbered_heartbeat:
            return COMMENT
        self._renumber = True
        beat = events.event(events.KEEPALIVE, {"sequence_number": wire.raw(self._next)})
        self._next += 1
        return beat.frame

    def end(self, error: HandrailError) -> bytes:
        """The terminal event of a stream that `error` cut off; b"" when it has one already."""
        return b"" if self._fold.state is not None else self._end(error)

    def _end(self, error: HandrailError) -> bytes:
        cause = RunError(cause=error.fault.code or "upstream_failed", message=error.fault.message)
        snapshot = {**self._call.base, **self._fold.snapshot, "store": wire.FALSE}
        opened = b""
        if not self._fold.snapshot:
            # The Node SDK's stream helper refuses a stream that does not begin with this event.
            opened = events.lifecycle_event(events.CREATED, snapshot, number=self._next).frame
            self._next += 1
        snapshot["status"] = wire.raw(State.FAILED)
        snapshot["error"] = wire.raw((self._error or cause).body())
        failed = events.lifecycle_event(events.FAILED, snapshot, number=self._next)
        self._fold.apply(failed)
        return opened + failed.frame


def _stateless(event: Event) -> Event:
    """The event with `store:false` in its snapshot, whatever the upstream echoed (G7)."""
    response = event.response()
    if not response or wire.boolean(response, "store") is False:
        return event
    body = {**event.body(), "response": wire.raw({**response, "store": wire.FALSE})}
    return events.event(event.type, body)
