"""Server-sent events, decoded from any chunking and encoded one event at a time.

Follows the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream": LF, CRLF and CR end
a line, a BOM may lead, comments and unknown fields are ignored, `data` lines are joined by LF, and
an event that the stream's end cuts off is not delivered.
"""

import re
from typing import Final

import msgspec

_LINE_END: Final = re.compile(rb"\r\n|\r")
_BOM: Final = b"\xef\xbb\xbf"


class FrameTooLarge(ValueError):
    """One event is larger than the decoder's bound."""


class Frame(msgspec.Struct, frozen=True):
    """One event as it stood in the stream, line ends as LF. `data` is b"" for comments only.

    A Struct because a stream makes thousands, and a frozen dataclass takes four times as long.
    """

    event: str
    data: bytes
    raw: bytes


class Decoder:
    """Cuts a byte stream into frames; holds at most `limit` bytes of an unfinished one."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._held = 0
        self._carriage_return = b""
        self._started = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes. Raises FrameTooLarge beyond the bound."""
        if self._carriage_return or b"\r" in chunk:
            # Rare, so line ends are made LF here and the ordinary path searches for LF LF alone.
            # A CR at the very end waits: the next chunk may start with its LF.
            chunk = self._carriage_return + chunk
            self._carriage_return = b"\r" if chunk.endswith(b"\r") else b""
            chunk = _LINE_END.sub(b"\n", chunk.removesuffix(b"\r"))
        return self._cut(chunk)

    def finish(self) -> list[Frame]:
        """The frame that a CR at the very end of the stream completes, if any."""
        ending, self._carriage_return = self._carriage_return, b""
        return self._cut(b"\n") if ending else []

    def _cut(self, chunk: bytes) -> list[Frame]:
        frames = []
        start = 0
        # Of what is held only the last byte matters for finding LF LF. Searching the whole of it
        # again for each chunk would be quadratic in the length of an endless line.
        if self._parts and self._parts[-1].endswith(b"\n") and chunk.startswith(b"\n"):
            frames.append(self._complete(b"\n"))
            start = 1
        while (end := chunk.find(b"\n\n", start)) >= 0:
            frames.append(self._complete(chunk[start : end + 2]))
            start = end + 2
        if start < len(chunk):
            self._parts.append(chunk[start:])
            self._held += len(chunk) - start
        if self._held > self._limit:
            raise FrameTooLarge(f"an event is larger than {self._limit} bytes")
        return [frame for frame in frames if frame.raw != b"\n"]

    def _complete(self, end: bytes) -> Frame:
        raw = end
        if self._parts:
            raw = b"".join([*self._parts, end])
            self._parts.clear()
            self._held = 0
        if not self._started:
            self._started = True
            raw = raw.removeprefix(_BOM)
        return parse_frame(raw.lstrip(b"\n") or b"\n")


def parse_frame(raw: bytes) -> Frame:
    """The event in one block of LF-ended lines."""
    if raw.startswith(b"event: "):
        # What nearly every frame is: one event line, one data line.
        cut = raw.find(b"\n")
        if raw.startswith(b"\ndata: ", cut) and raw.find(b"\n", cut + 1) == len(raw) - 2:
            return Frame(raw[7:cut].decode(errors="replace"), raw[cut + 7 : -2], raw)
    event = ""
    data: list[bytes] = []
    for line in raw.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            event = value.removeprefix(b" ").decode(errors="replace")
    return Frame(event, b"\n".join(data), raw)


def encode(event: str, data: bytes) -> bytes:
    """One event, to be written in one piece. `data` is one line of JSON."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)


COMMENT: Final = b": keep-alive\n\n"
"""What idle readers get: parsers skip it, proxies see traffic."""
