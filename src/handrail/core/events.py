"""The events of a response stream: what they are called, what they carry, how they are numbered."""

import re
from functools import lru_cache
from typing import Final

import msgspec

from handrail.core import sse, wire
from handrail.core.lifecycle import State
from handrail.core.wire import Body

CREATED: Final = "response.created"
QUEUED: Final = "response.queued"
IN_PROGRESS: Final = "response.in_progress"
COMPLETED: Final = "response.completed"
INCOMPLETE: Final = "response.incomplete"
FAILED: Final = "response.failed"
ERROR: Final = "error"
KEEPALIVE: Final = "keepalive"
METADATA: Final = "response.metadata"

OPENING: Final = frozenset({CREATED, QUEUED, IN_PROGRESS})
# `response.done` is what older Codex backends end with.
CLOSING: Final = frozenset({COMPLETED, INCOMPLETE, FAILED, "response.done"})
LIFECYCLE: Final = OPENING | CLOSING

_CLOSING_STATE: Final = {
    COMPLETED: State.COMPLETED,
    "response.done": State.COMPLETED,
    INCOMPLETE: State.INCOMPLETE,
    FAILED: State.FAILED,
}


class MalformedEvent(ValueError):
    """The data of an event is no JSON object with a type."""


class _Tap(msgspec.Struct):
    type: str
    sequence_number: int | None = None


_NUMBER: Final = b'"sequence_number":'
_TYPE: Final = re.compile(r"[A-Za-z0-9_.\-]{1,100}")
_TAP: Final = msgspec.json.Decoder(_Tap)


class Event(msgspec.Struct, frozen=True):
    """One event, and how it goes out.

    `data` is its JSON. `frame` is what is written, which may be the upstream's own bytes.
    `number` is its sequence number, None where the upstream gave none.
    """

    type: str
    number: int | None
    data: bytes
    frame: bytes

    def body(self) -> Body:
        """The event as an object, values raw. Raises MalformedEvent when it is none."""
        return _object(self.data)

    def response(self) -> Body:
        """The snapshot inside a lifecycle event, {} when it has none."""
        body = self.body()
        if not wire.is_set(body, "response"):
            return {}
        return _object(bytes(body["response"]))

    def numbered(self, number: int) -> "Event":
        """The same event under another number; itself when it has that number already."""
        if number == self.number:
            return self
        place = self._place_of_number()
        if place is not None:
            data = b"%b%d%b" % (self.data[: place[0]], number, self.data[place[1] :])
            return Event(self.type, number, data, sse.encode(self.type, data))
        return event(self.type, {**self.body(), "sequence_number": wire.raw(number)})

    def frame_numbered(self, number: int) -> bytes:
        """What `numbered(number).frame` is, without making the event."""
        frame = self.frame
        if number == self.number:
            return frame
        before = len(frame) - len(self.data) - 2  # where the data begins if nothing follows it
        place = self._place_of_number()
        if place is None or not frame.startswith(self.data, before):
            return self.numbered(number).frame
        return b"%b%d%b" % (frame[: before + place[0]], number, frame[before + place[1] :])

    def _place_of_number(self) -> tuple[int, int] | None:
        # Decoding and encoding an event only to change its number costs most of what a durable
        # event costs. The key standing once is the event's own: inside a text its quotes would be
        # escaped, and where the key itself could be written with escapes we decode after all.
        data = self.data
        start = data.find(_NUMBER) + len(_NUMBER)
        if self.number is None or start < len(_NUMBER) or data.find(_NUMBER, start) >= 0:
            return None
        digits = b"%d" % self.number
        # Zero may be written as -0.
        if not data.startswith(digits, start) or data.find(b"\\u00") >= 0:
            return None
        return start, start + len(digits)


def _object(data: bytes) -> Body:
    try:
        return msgspec.json.decode(data, type=Body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedEvent(f"no JSON object: {error}") from None


@lru_cache(maxsize=256)
def _is_word(text: str) -> bool:
    return _TYPE.fullmatch(text) is not None


def event(type_: str, body: Body) -> Event:
    """An event of ours: `body` with its type, encoded once."""
    fields = {**body, "type": wire.raw(type_)}
    data = wire.encode(fields)
    number = int(bytes(body["sequence_number"])) if wire.is_set(body, "sequence_number") else None
    return Event(type_, number, data, sse.encode(type_, data))


def lifecycle_event(type_: str, response: Body, *, number: int) -> Event:
    """A lifecycle event around a snapshot."""
    return event(type_, {"response": wire.raw(response), "sequence_number": wire.raw(number)})


def read(frame: sse.Frame) -> Event | None:
    """The event in a frame; None for comments and for `[DONE]`.

    Raises MalformedEvent for data that is no JSON object with a string `type`.
    """
    if not frame.data or frame.data == b"[DONE]":
        return None
    # JSON holds a line feed only between values, so data on several lines is one line as well. The
    # log relies on that: a blank line ends a frame and nothing else does.
    data = frame.data.replace(b"\n", b" ") if b"\n" in frame.data else frame.data
    try:
        tap = _TAP.decode(data)
        data.decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedEvent(f"no event: {error}") from None
    # The type goes into a line of its own: one with a line feed in it would forge frames.
    if not _is_word(tap.type):
        raise MalformedEvent("no event: the type is not a word")
    out = frame.raw
    if frame.event != tap.type:  # transformers' server sends `data:` lines alone
        out = sse.encode(tap.type, data)
    return Event(tap.type, tap.sequence_number, data, out)


def without_obfuscation(item: Event) -> Event:
    """The event without the padding that `include_obfuscation=false` asks to leave out."""
    if b'"obfuscation"' not in item.data:
        return item
    body = item.body()
    if body.pop("obfuscation", None) is None:
        return item
    return event(item.type, body)


def without_model_header(item: Event) -> Event:
    """The event without the model that the Codex backend says it used, among its `headers`.

    Codex CLI tells its user that the account was flagged when that is not the model it asked for;
    after a fallback of the gateway's own it is not. Raises MalformedEvent.
    """
    if b"headers" not in item.data:
        return item
    body, response = item.body(), item.response()
    inner, outer = _without_model(response), _without_model(body)
    if inner is response and outer is body:
        return item
    if inner is not response:
        outer = {**outer, "response": wire.raw(inner)}
    return event(item.type, outer)


def _without_model(body: Body) -> Body:
    """`body` without the model among its `headers`; the very same one when none is named."""
    if "headers" not in body or wire.kind_of(body["headers"]) is not wire.Kind.OBJECT:
        return body
    headers = _object(bytes(body["headers"]))
    kept = {name: value for name, value in headers.items() if "openai-model" not in name.lower()}
    return body if len(kept) == len(headers) else {**body, "headers": wire.raw(kept)}


def closing_state(item: Event) -> State:
    """The end that a closing event means, judged by its content first.

    vLLM ends a run that was cut short with `response.completed` and status `incomplete`
    (facts seen on 0.32.0).
    """
    by_type = _CLOSING_STATE[item.type]
    response = item.response()
    status = wire.string(response, "status")
    if status in (State.COMPLETED, State.INCOMPLETE, State.FAILED, State.CANCELLED):
        return State(status)
    return by_type
