"""The load: keep-alive HTTP/1.1 connections as bare protocols with a C parser.

One request here costs about a tenth of what it costs a gateway, so with the load on a core of its
own it is not what is measured. Where it could be (requests a second, events a second), the figure
to trust is the CPU time of the gateway's process, which no load on another core can change.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any, Final

import httptools

KEYS: Final = ("hr_bench-0123456789-abcdefghij", "hr_bench-9876543210-jihgfedcba")
"""The keys of two callers: each may have 32 runs at once, which the gateway is fair between."""

_CLOCK: Final = re.compile(rb'"delta":"([0-9]+) "')

Take = Callable[[bytes], object]


class BenchFailed(Exception):
    """Something answered in a way that makes the measurement worthless."""


class Connection(asyncio.Protocol):
    """One connection, asked one thing at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._take: Take = self._parts.append
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._take(body)

    def on_message_complete(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or BenchFailed("the connection was closed"))

    async def ask(self, request: bytes, take: Take | None = None) -> bytes:
        """Send a request and wait for the whole reply; `take` gets its body as it comes."""
        self._parts.clear()
        self._take = take or self._parts.append
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self._done
        status = self._parser.get_status_code()
        body = b"".join(self._parts)
        if status != 200:
            raise BenchFailed(f"answered {status}: {body[:300]!r}")
        return body

    def begin(self, request: bytes, take: Take) -> None:
        """Send a request whose reply nobody will wait for to its end."""
        self._take = take
        self.transport.write(request)

    def leave(self) -> None:
        """Go away, also in the middle."""
        self.transport.abort()


async def connect(port: int) -> Connection:
    """A new connection to a loopback port."""
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, "127.0.0.1", port
    )
    return connection


async def ask_once(port: int, request: bytes, take: Take | None = None) -> bytes:
    """One request on a connection of its own."""
    connection = await connect(port)
    try:
        return await connection.ask(request, take)
    finally:
        connection.leave()


def post(port: int, body: bytes, *, key: str = KEYS[0]) -> bytes:
    """A create request as it goes over the wire, the same bytes for everyone but the port."""
    return (
        f"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def get(port: int, path: str) -> bytes:
    """A GET request."""
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()


class DeltaLag:
    """Reads the sender's clock in each delta: how long each was on its way, in ms."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self._rest = b""

    def take(self, data: bytes) -> None:
        """More of the stream."""
        now = time.monotonic_ns()
        data = self._rest + data
        end = 0
        for found in _CLOCK.finditer(data):
            self.lags.append((now - int(found[1])) / 1e6)
            end = found.end()
        self._rest = data[max(end, len(data) - 64) :]


def all_lags(readers: list[DeltaLag], *, deltas: int) -> list[float]:
    """The lags of all readers. Raises BenchFailed unless each has read every delta."""
    for reader in readers:
        if len(reader.lags) != deltas:
            raise BenchFailed(f"a reader got {len(reader.lags)} deltas of {deltas}")
    return [lag for reader in readers for lag in reader.lags]


class EventCount:
    """Counts events by the blank lines that end them."""

    def __init__(self) -> None:
        self.events = 0
        self._last = b""

    def check(self, deltas: int) -> None:
        """Raise BenchFailed when there were fewer events than deltas."""
        if self.events < deltas:
            raise BenchFailed(f"only {self.events} events came of {deltas}")

    def take(self, data: bytes) -> None:
        """More of the stream."""
        self.events += data.count(b"\n\n") + (self._last == b"\n" == data[:1])
        self._last = data[-1:] if not data.endswith(b"\n\n") else b""


class Seen:
    """What the upstream has seen of tagged calls: when called, when lost, in monotonic seconds."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.called: dict[str, float] = {}
        self.closed: dict[str, float] = {}

    async def ask(self) -> None:
        """Bring it up to date."""
        told: list[Any] = json.loads(await ask_once(self._port, get(self._port, "/seen")))
        for tag, what, moment in told:
            (self.called if what == "called" else self.closed)[tag] = moment

    async def until(self, ready: Callable[[], bool], *, seconds: float) -> bool:
        """Ask until `ready`, for that long at most; whether it is."""
        deadline = time.monotonic() + seconds
        await self.ask()
        while not ready() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            await self.ask()
        return ready()
