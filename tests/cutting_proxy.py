"""A proxy in front of the gateway that cuts a connection when a test says so."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

ASKED = "as soon as the request has been passed on"
ANSWERED = "when the reply is there, unread"


@dataclass
class CuttingProxy:
    """Cuts the first connections as `cuts` says, one each, and passes the others on."""

    to_port: int
    cuts: list[str]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, client: socket.socket) -> None:
        """One connection."""
        loop = asyncio.get_running_loop()
        cut = self.cuts.pop(0) if self.cuts else ""
        with client, socket.socket() as there:
            for side in (client, there):
                side.setblocking(False)
            with contextlib.suppress(OSError):
                await loop.sock_connect(there, ("127.0.0.1", self.to_port))
                if not cut:
                    await asyncio.gather(_pass_on(client, there), _pass_on(there, client))
                    return
                await self._pass_request(client, there)
                if cut == ANSWERED:
                    await _readable(there)
            # Closing with unread input resets the connection, as a proxy does that has no longer
            # anybody to pass the reply on to.

    async def _pass_request(self, client: socket.socket, there: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        held = b""
        while not _is_whole(held):
            held += await loop.sock_recv(client, 65_536)
        self.requests.append(held)
        await loop.sock_sendall(there, held)


def _is_whole(request: bytes) -> bool:
    head, blank, body = request.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(blank) and len(body) >= int(lengths[0].partition(b":")[2])


async def _readable(side: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(side, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(side)


async def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, 65_536):
        await loop.sock_sendall(sink, data)
    sink.shutdown(socket.SHUT_WR)


@asynccontextmanager
async def cutting_proxy(to_port: int, cuts: Sequence[str]) -> AsyncIterator[CuttingProxy]:
    """Such a proxy on a free port of loopback."""
    proxy = CuttingProxy(to_port=to_port, cuts=list(cuts))
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        proxy.port = listening.getsockname()[1]
        async with asyncio.TaskGroup() as group:

            async def accept() -> None:
                while True:
                    client, _ = await loop.sock_accept(listening)
                    serving.append(group.create_task(proxy.serve(client)))

            serving: list[asyncio.Task[None]] = []
            accepting = group.create_task(accept())
            yield proxy
            for task in (accepting, *serving):
                task.cancel()
