"""An HTTP client that sends exactly the bytes it is given, and takes replies to the letter."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from tests.conftest import CALLER_KEY

GOOD = b'{"model":"m","input":"hi"}'
CREATE = b"POST /v1/responses HTTP/1.1"
CHUNKED = b"Transfer-Encoding: chunked"
SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. Of a repeated header the last value; names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error object, after holding the whole body against the envelope."""
        assert 400 <= self.status < 600, (self.status, self.body)
        assert self.headers["content-type"] == "application/json"
        body: dict[str, Any] = json.loads(self.body)
        assert set(body) == {"error"}
        error: dict[str, Any] = body["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
        assert isinstance(error["type"], str)
        assert all(
            error[name] is None or isinstance(error[name], str) for name in ("param", "code")
        )
        return error


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, *segments: bytes) -> Self:
        """Send each segment in a packet of its own, as far as the network allows."""
        for segment in segments:
            self._writer.write(segment)
            await self._writer.drain()
            await asyncio.sleep(0)
        return self

    async def reply(self, *, seconds: float = SECONDS) -> Reply | None:
        """The next whole reply; None when the server ends the connection instead."""
        async with asyncio.timeout(seconds):
            try:
                status, headers = await self.head()
                return Reply(status, headers, await self._body(status, headers))
            except (asyncio.IncompleteReadError, ConnectionError):
                return None

    async def head(self) -> tuple[int, Mapping[str, str]]:
        """Status and headers of the next reply; its body is left to be read."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = text.rstrip("\r\n").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = (field.partition(":") for field in fields)
        return int(status), {name.lower(): value.strip() for name, _, value in pairs}

    async def _body(self, status: int, headers: Mapping[str, str]) -> bytes:
        if status < 200:
            return b""
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") == "chunked":
            return b"".join([chunk async for chunk in self.chunks()])
        return await self.reader.read()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks of a body, to its last."""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)

    async def rest(self, *, seconds: float = SECONDS) -> bytes:
        """Whatever still comes until the server ends the connection."""
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""

    def stop_reading(self) -> None:
        """Take nothing more from the network, not even ahead of being asked."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on listening."""
        with contextlib.suppress(OSError, RuntimeError):  # the server may have been faster
            self._writer.write_eof()

    def reset(self) -> None:
        """Leave with a RST instead of a FIN."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        """Leave."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def connected(port: int, *, receive_buffer: int | None = None) -> AsyncIterator[Wire]:
    """A connection to loopback, closed when the block is left."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    wire = Wire(*await asyncio.open_connection(sock=sock))
    try:
        yield wire
    finally:
        await wire.close()


async def ask(port: int, *segments: bytes) -> Reply | None:
    """The reply to one request on a connection of its own; None for a closed connection."""
    async with connected(port) as wire:
        with contextlib.suppress(ConnectionError):
            await wire.send(*segments)
        return await wire.reply()


async def everything(port: int, *segments: bytes, seconds: float = SECONDS) -> list[Reply]:
    """All that the server has to say to `segments`.

    The client half-closes after the first reply, so that a second one, to what the first request
    smuggled in, would be heard as well.
    """
    async with connected(port) as wire:
        with contextlib.suppress(ConnectionError):
            await wire.send(*segments)
        replies = []
        while (reply := await wire.reply(seconds=seconds)) is not None:
            replies.append(reply)
            wire.half_close()
        return replies


def head(
    line: bytes = CREATE,
    *fields: bytes,
    key: str | None = CALLER_KEY,
    host: bytes | None = b"127.0.0.1",
    kind: bytes | None = b"application/json",
) -> bytes:
    """The head of a request."""
    lines = [line]
    if host is not None:
        lines.append(b"Host: " + host)
    if key is not None:
        lines.append(b"Authorization: Bearer " + key.encode())
    if kind is not None:
        lines.append(b"Content-Type: " + kind)
    return b"\r\n".join([*lines, *fields, b"", b""])


def post(body: bytes = GOOD, *fields: bytes, line: bytes = CREATE, **options: Any) -> bytes:
    """A request with a body of a declared length; a create, unless `line` says otherwise."""
    return head(line, *fields, b"Content-Length: %d" % len(body), **options) + body


def get(target: str, *fields: bytes, method: str = "GET", **options: Any) -> bytes:
    """A request without a body."""
    line = f"{method} {target} HTTP/1.1".encode("latin-1")
    return head(line, *fields, kind=None, **options)


def chunked(*parts: bytes) -> bytes:
    """A body in chunks, the last one included."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


def faults(answers: Iterable[tuple[str, list[Reply]]]) -> dict[str, str]:
    """Which of the named attacks were not refused cleanly, and what was said to them.

    Clean is one 4xx or 505 in the envelope, or a connection closed without a word.
    """
    found = {}
    for name, replies in answers:
        if len(replies) > 1:
            found[name] = f"answered {len(replies)} times"
        elif replies and not (400 <= replies[0].status < 500 or replies[0].status == 505):
            found[name] = f"answered {replies[0].status}"
        elif replies:
            assert replies[0].error["type"] == "invalid_request_error", name
    return found
