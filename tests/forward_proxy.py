"""A forward proxy on a real socket: absolute URIs and CONNECT, and what it was asked."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class ForwardProxy:
    """Takes every host to one port of this machine, as only it can resolve the names.

    `login` is the Proxy-Authorization that it demands. `refuses` is what it answers to CONNECT
    instead of a tunnel.
    """

    to_port: int
    login: str | None = None
    refuses: str | None = None
    port: int = 0
    asked: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request or tunnel."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.rstrip("\r\n").split("\r\n")
            pairs = (entry.partition(":") for entry in fields)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            self.asked.append(line)
            self.headers.append(headers)
            await self._answer(line, headers, reader, writer)
        writer.close()

    async def _answer(
        self,
        line: str,
        headers: Mapping[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        method, target, _ = line.split(" ")
        if self.login is not None and headers.get("proxy-authorization") != self.login:
            return await _refuse(writer, "407 Proxy Authentication Required")
        if method == "CONNECT" and self.refuses is not None:
            return await _refuse(writer, self.refuses)
        there, back = await asyncio.open_connection("127.0.0.1", self.to_port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            kept = {k: v for k, v in headers.items() if not k.startswith("proxy-")}
            lines = [f"{k}: {v}" for k, v in {**kept, "connection": "close"}.items()]
            path = urlsplit(target).path
            back.write("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())
        await _both_ways((reader, writer), (there, back))
        return None


async def _refuse(writer: asyncio.StreamWriter, status: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
    await writer.drain()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _both_ways(client: Streams, server: Streams) -> None:
    """Carry everything until either of them ends its connection."""
    pumps = [
        asyncio.create_task(_pump(client[0], server[1])),
        asyncio.create_task(_pump(server[0], client[1])),
    ]
    try:
        await asyncio.wait(pumps, return_when="FIRST_COMPLETED")
    finally:
        for pump in pumps:
            pump.cancel()
        server[1].close()
        client[1].close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def forward_proxy(
    to_port: int,
    *,
    login: str | None = None,
    refuses: str | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[ForwardProxy]:
    """A proxy that listens on loopback until the block is left, with TLS if there is a context."""
    proxy = ForwardProxy(to_port=to_port, login=login, refuses=refuses)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=context)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()


@asynccontextmanager
async def tls_in_front_of(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a server that takes the TLS off for another one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await _both_ways((reader, writer), (there, back))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
