"""The loopback address to which an issuer sends a browser back (RFC 8252, 7.3).

Bound to 127.0.0.1 and nothing else. The one request that carries this sign-in's state is taken;
whatever else arrives (a favicon, a socket opened in advance, another page's guess) gets a 4xx and
changes nothing. The page that answers holds nothing of what came.
"""

import asyncio
import contextlib
import html
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from handrail.core.callback_url import CALLBACK_PATH, CallbackRefused, read_callback

_HOST: Final = "127.0.0.1"
_MAX_HEAD: Final = 32 * 1024
_HEAD_SECONDS: Final = 10.0
_MAX_CONNECTIONS: Final = 16
_TAKEN: Final = "Handrail has what it needs. Look at the terminal, and close this page."
_PAGE: Final = (
    '<!doctype html><meta charset="utf-8"><title>Handrail</title>'
    '<p style="font: 1.2rem/1.5 sans-serif; max-width: 40rem; margin: 4rem auto">{text}</p>'
)
_HEADERS: Final = (
    "content-type: text/html; charset=utf-8\r\n"
    "cache-control: no-store\r\n"
    "content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
    "referrer-policy: no-referrer\r\n"
    "x-content-type-options: nosniff\r\n"
    "connection: close\r\n"
)


class PortTaken(Exception):
    """Something else listens where the issuer would send the browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: HTTPStatus
    text: str


class Callback:
    """The listening side of one sign-in. `refused` is told of each address that was not taken."""

    def __init__(self, *, state: str, refused: Callable[[str], None]) -> None:
        self._state = state
        self._refused = refused
        self._connections: set[asyncio.Task[None]] = set()
        self._code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.port = 0

    async def code(self) -> str:
        """The authorization code. Raises CallbackRefused when the issuer ended the sign-in."""
        return await self._code

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close the connection."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a server's handler is one
        if len(self._connections) >= _MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            with contextlib.suppress(
                OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
            ):
                async with asyncio.timeout(_HEAD_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    await _write(writer, self._answer(head.decode("latin-1")))
        finally:
            self._connections.discard(task)
            writer.close()

    def _answer(self, head: str) -> _Answer:
        line, *fields = head.split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or words[0] != "GET":
            return _Answer(status=HTTPStatus.METHOD_NOT_ALLOWED, text="Only GET is answered here.")
        if not self._is_for_us(_header(fields, "host")):
            # A name that somebody else owns and points at this machine (DNS rebinding).
            return _Answer(status=HTTPStatus.MISDIRECTED_REQUEST, text="This is another host.")
        path, _, query = words[1].partition("?")
        if path != CALLBACK_PATH:
            return _Answer(status=HTTPStatus.NOT_FOUND, text="There is nothing here.")
        if self._code.done():
            return _Answer(status=HTTPStatus.GONE, text="This sign-in is over.")
        return self._taken(query)

    def _is_for_us(self, host: str) -> bool:
        return host.lower() in (f"localhost:{self.port}", f"{_HOST}:{self.port}")

    def _taken(self, query: str) -> _Answer:
        try:
            self._code.set_result(read_callback(f"?{query}", state=self._state))
        except CallbackRefused as error:
            if error.final:
                self._code.set_exception(error)
            else:
                self._refused(str(error))
            return _Answer(status=HTTPStatus.BAD_REQUEST, text=str(error))
        return _Answer(status=HTTPStatus.OK, text=_TAKEN)

    async def close(self) -> None:
        """Let the answers under way go out, and end what is left."""
        tasks = set(self._connections)
        if tasks:
            await asyncio.wait(tasks, timeout=0.25)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self._code.cancel() and not self._code.cancelled():
            self._code.exception()  # looked at, so that nobody complains that it was not


@asynccontextmanager
async def listening(
    port: int, *, state: str, refused: Callable[[str], None]
) -> AsyncIterator[Callback]:
    """A callback address on `port` (0: any free one) until the block is left. Raises PortTaken."""
    callback = Callback(state=state, refused=refused)
    try:
        server = await asyncio.start_server(callback.serve, _HOST, port, limit=_MAX_HEAD)
    except OSError as error:
        raise PortTaken(
            f"Nothing can listen on port {port} of {_HOST}: {error.strerror}. Perhaps another "
            "sign-in waits there; end it, or use --paste or --device-code."
        ) from None
    callback.port = server.sockets[0].getsockname()[1]
    try:
        yield callback
    finally:
        server.close()
        await callback.close()


def _header(fields: list[str], name: str) -> str:
    pairs: Mapping[str, str] = {
        key.strip().lower(): value.strip()
        for key, _, value in (field.partition(":") for field in fields)
    }
    return pairs.get(name, "")


async def _write(writer: asyncio.StreamWriter, answer: _Answer) -> None:
    page = _PAGE.format(text=html.escape(answer.text)).encode()
    status = f"{answer.status.value} {answer.status.phrase}"
    head = f"HTTP/1.1 {status}\r\n{_HEADERS}content-length: {len(page)}\r\n\r\n"
    writer.write(head.encode("latin-1") + page)
    await writer.drain()
