"""A whole stream as one response: for callers of JSON whose upstream only streams."""

from typing import Final

from handrail.core import events, responses, sse, wire
from handrail.core.fold import Fold
from handrail.core.lifecycle import State
from handrail.core.responses import RunError
from handrail.core.upstream_errors import failure
from handrail.core.wire import Body
from handrail.errors import Code, UpstreamFailed

MAX_EVENT_BYTES: Final = 8 << 20
MAX_STREAM_BYTES: Final = 256 << 20


class Collector:
    """Takes a stream in, as bytes or as events, and gives the response that it amounts to.

    A stream of more than `limit` bytes is none.
    """

    def __init__(self, *, limit: int = MAX_STREAM_BYTES) -> None:
        self._limit = limit
        self._decoder = sse.Decoder(limit=MAX_EVENT_BYTES)
        self._fold = Fold()
        self._said: RunError | None = None
        self._size = 0

    def feed(self, chunk: bytes) -> bool:
        """Take bytes in, in any chunks; whether the terminal event has come.

        Raises UpstreamFailed for what is no event, and beyond the limit.
        """
        self._size += len(chunk)
        if self._size > self._limit:
            raise _no_event(f"the stream is larger than {self._limit} bytes")
        try:
            for frame in self._decoder.feed(chunk):
                self._take_frame(frame)
        except (events.MalformedEvent, sse.FrameTooLarge) as error:
            raise _no_event(str(error)) from None
        return self._fold.state is not None

    def _take_frame(self, frame: sse.Frame) -> None:
        # What follows the end is not read at all, in the same chunk or in another.
        event = None if self._fold.state is not None else events.read(frame)
        if event is not None:
            self.take(event)

    def take(self, event: events.Event) -> bool:
        """Take one event in; whether it, or one before it, was the terminal event.

        Raises UpstreamFailed for an event of the wrong shape.
        """
        if self._fold.state is not None:
            return True
        try:
            if event.type == events.ERROR:
                self._said = responses.error_event(event)
            self._fold.apply(event)
        except events.MalformedEvent as error:
            raise _no_event(str(error)) from None
        return self._fold.state is not None

    def response(self, *, now: float) -> Body:
        """The response, with `store: false`, once the stream is over. `now` is in unix seconds.

        Raises UpstreamFailed when there was no end, and the upstream's own failure as a
        HandrailError when that was the end.
        """
        try:
            for frame in self._decoder.finish():  # a carriage return at the very end
                self._take_frame(frame)
        except events.MalformedEvent as error:
            raise _no_event(str(error)) from None
        if self._fold.state is None and self._said is None:
            raise UpstreamFailed(
                Code.UPSTREAM_ENDED_EARLY, "The upstream's stream ended without a terminal event."
            )
        if self._fold.state in (None, State.FAILED):
            reason = self._said or responses.upstream_error(self._fold.snapshot)
            raise failure(reason, now=now)
        if not self._fold.snapshot:
            raise _no_event("the stream ended without a response")
        return {
            **self._fold.snapshot,
            "output": wire.raw(self._fold.output()),
            "store": wire.FALSE,
        }


def _no_event(why: str) -> UpstreamFailed:
    return UpstreamFailed(
        Code.UPSTREAM_PROTOCOL_ERROR, f"The upstream sent what is no event: {why}."
    )
