"""The model server of the benchmark: as little work for each byte as Python can do.

A bare `asyncio.Protocol` on uvloop with a C parser and prepared bytes, so that what is measured is
the gateway in front of it. What it does is said in the model name of the request, in words:

    events=N   how many deltas a streamed answer has (8), a multiple of burst
    rate=R     writes a second; 0 is one a turn of the event loop, as fast as they are read (0)
    burst=N    how many deltas are in one write (1)
    hold=head  never answer       hold=body  send the headers of a stream and nothing more
    tag=NAME   remember when this call arrived and when its connection was lost before its end

Each delta is a chunk of its own and holds the monotonic clock of its sending, in nanoseconds, so a
reader on the same machine knows how long it was on its way. `GET /seen` tells what happened to
tagged calls since the last time it was asked.
"""

import argparse
import asyncio
import itertools
import json
import re
import time
from typing import Final

import httptools
import uvloop

_MODEL: Final = re.compile(rb'"model":"bench([^"]*)"')
_STREAM: Final = b'"stream":true'
_GOLDEN: Final = 0.618034  # spreads the phases of paced streams, so that they do not tick at once

_RESPONSE: Final = {
    "id": "resp_bench",
    "object": "response",
    "created_at": 1_700_000_000,
    "status": "in_progress",
    "model": "bench",
    "output": [],
    "instructions": "You are terse. " * 40,
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "temperature": 1.0,
    "top_p": 1.0,
    "error": None,
    "incomplete_details": None,
    "metadata": {},
    "usage": None,
    "store": False,
}
_PART: Final = {"type": "output_text", "text": "A terse answer.", "annotations": []}
_ITEM: Final = {"type": "message", "id": "msg_bench", "role": "assistant", "status": "completed"}
_DONE: Final = {**_ITEM, "content": [_PART]}
_WHOLE: Final = {
    **_RESPONSE,
    "status": "completed",
    "output": [_DONE],
    "usage": {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 16,
    },
}
_AT: Final = {"item_id": "msg_bench", "output_index": 0, "content_index": 0}


def _event(kind: str, number: int, **fields: object) -> bytes:
    data = json.dumps({"type": kind, "sequence_number": number, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _reply(value: object) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


_OBJECT: Final = _reply(_WHOLE)
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_OPENING: Final = _chunk(
    _event("response.created", 0, response=_RESPONSE)
    + _event("response.in_progress", 1, response=_RESPONSE)
    + _event("response.output_item.added", 2, output_index=0, item={**_ITEM, "content": []})
    + _event("response.content_part.added", 3, **_AT, part=_PART)
)


def _closing(number: int) -> bytes:
    events = (
        _event("response.output_text.done", number, **_AT, text=_PART["text"], logprobs=[]),
        _event("response.content_part.done", number + 1, **_AT, part=_PART),
        _event("response.output_item.done", number + 2, output_index=0, item=_DONE),
        _event("response.completed", number + 3, response=_WHOLE),
    )
    return _chunk(b"".join(events)) + b"0\r\n\r\n"


def _delta(number: int, clock: int) -> bytes:
    return (
        b"event: response.output_text.delta\n"
        b'data: {"type":"response.output_text.delta","sequence_number":%d,"item_id":"msg_bench",'
        b'"output_index":0,"content_index":0,"delta":"%d ","logprobs":[]}\n\n' % (number, clock)
    )


class Seen:
    """What happened to tagged calls: (tag, "called" or "closed", monotonic seconds)."""

    def __init__(self) -> None:
        self._happened: list[tuple[str, str, float]] = []

    def note(self, tag: str, what: str) -> None:
        """Remember it, unless the call has no tag."""
        if tag:
            self._happened.append((tag, what, time.monotonic()))

    def tell(self) -> bytes:
        """Everything since the last time, as a reply."""
        told, self._happened = self._happened, []
        return _reply(told)


class Stream:
    """One streamed answer."""

    def __init__(self, transport: asyncio.Transport, words: dict[str, str], *, phase: float):
        self._transport = transport
        self._events = int(words.get("events", 8))
        self._burst = int(words.get("burst", 1))
        self._rate = rate = float(words.get("rate", 0))
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time() + (phase / rate if rate else 0.0)
        self._sent = 0
        self._paused = False
        self._waiting = False
        self.done = False

    def next(self) -> None:
        """Write what is due, then come again; the end after the last delta."""
        self._waiting = self._paused
        if self.done or self._paused or self._transport.is_closing():
            return
        if self._sent >= self._events:
            self.done = True
            self._transport.write(_closing(4 + self._events))
            return
        data = _chunk(_delta(4 + self._sent, time.monotonic_ns()))
        self._sent += 1
        while self._sent % self._burst:
            data += _chunk(_delta(4 + self._sent, time.monotonic_ns()))
            self._sent += 1
        self._transport.write(data)
        if self._rate:
            due = self._start + self._sent / self._burst / self._rate
            self._loop.call_at(due, self.next)
        else:
            self._loop.call_soon(self.next)

    def pause(self) -> None:
        """The reader is slow."""
        self._paused = True

    def resume(self) -> None:
        """The reader has caught up."""
        self._paused = False
        if self._waiting:
            self.next()

    def begin(self) -> None:
        """Send the opening events, and the first delta at its time."""
        self._transport.write(_OPENING)
        self._loop.call_at(self._start, self.next)


class Upstream(asyncio.Protocol):
    """One connection."""

    _phases = itertools.count()

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._tag = ""
        self._stream: Stream | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self._tag and (self._stream is None or not self._stream.done):
            self._seen.note(self._tag, "closed")
        if self._stream is not None:
            self._stream.done = True

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def pause_writing(self) -> None:
        if self._stream is not None:
            self._stream.pause()

    def resume_writing(self) -> None:
        if self._stream is not None:
            self._stream.resume()

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        self._stream = None
        if self._url == b"/seen":
            self._transport.write(self._seen.tell())
            return
        found = _MODEL.search(body)
        words = dict(word.split("=") for word in found[1].decode().split()) if found else {}
        self._tag = words.get("tag", "")
        self._seen.note(self._tag, "called")
        if words.get("hold") == "head":
            return
        if _STREAM not in body:
            self._tag = ""
            self._transport.write(_OBJECT)
            return
        self._stream = Stream(
            self._transport,
            words,
            phase=next(self._phases) * _GOLDEN % 1,
        )
        self._transport.write(_STREAM_HEAD)
        if words.get("hold") != "body":
            self._stream.begin()


async def _main(port: int) -> None:
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(
        lambda: Upstream(seen), "127.0.0.1", port, backlog=2_048
    )
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_main(parser.parse_args().port))
