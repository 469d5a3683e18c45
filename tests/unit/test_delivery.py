"""What was written to a connection whose other side ends: did it get there?"""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import cast

import pytest

from handrail.server.delivery import undelivered

REPLY = b"HTTP/1.1 200 OK\r\n\r\nwhole"


class Server(asyncio.Protocol):
    """Answers the first byte; `late` waits for the client's end to be there before."""

    def __init__(self, client: socket.socket, verdict: "asyncio.Future[bool]", *, late: bool):
        self._client = client
        self._verdict = verdict
        self._late = late

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, _: bytes) -> None:
        if self._late:
            self._client.close()  # nothing has told this side yet
        self._transport.write(REPLY)

    def eof_received(self) -> None:
        self._verdict.set_result(undelivered(self._transport))


@pytest.fixture
async def client() -> AsyncIterator[socket.socket]:
    with socket.socket() as sock:
        sock.setblocking(False)
        yield sock


async def asked(client: socket.socket, *, late: bool) -> bool:
    """What the server finds when its client's end comes."""
    loop = asyncio.get_running_loop()
    verdict: asyncio.Future[bool] = loop.create_future()
    server = await loop.create_server(lambda: Server(client, verdict, late=late), "127.0.0.1", 0)
    async with server, asyncio.timeout(5):
        await loop.sock_connect(client, server.sockets[0].getsockname())
        await loop.sock_sendall(client, b"?")
        if not late:
            got = b""
            while len(got) < len(REPLY):
                got += await loop.sock_recv(client, 100)
            client.close()
        return await verdict


async def test_a_reply_that_was_read_before_the_client_closed_was_delivered(
    client: socket.socket,
) -> None:
    assert not await asked(client, late=False)


async def test_a_reply_that_met_a_closed_client_was_not(client: socket.socket) -> None:
    assert await asked(client, late=True)
