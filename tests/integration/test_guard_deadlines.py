"""The deadlines of a connection: the guard's sweep is told a later time, so nobody waits."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from handrail.server.exchange import Receive, Scope, Send
from handrail.server.guard import (
    BODY_BYTES_PER_SECOND,
    BODY_SECONDS,
    CLOSE_SECONDS,
    HEAD_SECONDS,
    IDLE_SECONDS,
    LINGER_BYTES,
    LINGER_SECONDS,
    WRITE_SECONDS,
    GuardRules,
)
from handrail.server.listen import Listener
from tests.conftest import Scripted, Start, eventually
from tests.raw_http import CREATE, Reply, Wire, connected, get, head, post

MARGIN = 1.5


class Application:
    """A small application behind the guard.

    /wait answers when `go` is set; /flood never stops; /unread answers without reading the body,
    with as many bytes as the query says; everything else answers once the body is there.
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.received = 0
        self.answered = 0
        self.lost = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for word in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{word}.complete"})
            return
        task = asyncio.current_task()

        def lost() -> None:
            self.lost += 1
            if task is not None:
                task.cancel()

        scope["handrail.connection"].on_lost = lost
        with suppress(asyncio.CancelledError):
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        size = int(scope["query_string"] or 0)
        if path != "/unread":
            await self._read(receive)
        if path == "/wait":
            await self.go.wait()
        fields = [] if path == "/flood" else [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        while path == "/flood":
            await send({"type": "http.response.body", "body": b"x" * 8_192, "more_body": True})
        await send({"type": "http.response.body", "body": b"x" * size})
        self.answered += 1

    async def _read(self, receive: Receive) -> None:
        more = True
        while more:
            message = await receive()
            self.received += len(message.get("body", b""))
            more = message.get("more_body", False)


class Guarded:
    """A guard on a real socket, and the application behind it."""

    def __init__(self, rules: GuardRules, application: Application, port: int) -> None:
        self.rules = rules
        self.application = application
        self.port = port

    def sweep(self, later: float) -> None:
        """Let the guard look at its connections as if it were that much later."""
        self.rules.sweep(asyncio.get_running_loop().time() + later)

    async def until(self, condition: Callable[[], bool], *, later: float) -> None:
        """Sweep, as if later, until something has happened."""

        def swept() -> bool:
            self.sweep(later)
            return condition()

        await eventually(swept)

    def deserted(self) -> bool:
        """Whether no connection is left."""
        return not self.rules.connections


@pytest.fixture
async def guarded() -> AsyncIterator[Guarded]:
    rules = GuardRules(
        allowed_hosts=frozenset({b"127.0.0.1"}), max_body_bytes=64 << 20, max_connections=100
    )
    application = Application()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # inherited by connections
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    listener = Listener(application, rules=rules, grace_seconds=1)
    listening = asyncio.Event()
    serving = asyncio.create_task(listener.serve(sock, started=listening.set))
    await listening.wait()
    yield Guarded(rules, application, sock.getsockname()[1])
    listener.stop()
    listener.stop(now=True)
    await serving


@asynccontextmanager
async def one_connection(guarded: Guarded) -> AsyncIterator[Wire]:
    """A connection that the guard already knows of."""
    async with connected(guarded.port, receive_buffer=4_096) as wire:
        await eventually(lambda: len(guarded.rules.connections) == 1)
        yield wire


async def served(wire: Wire, request: bytes) -> Reply:
    """The good answer to a request."""
    reply = await (await wire.send(request)).reply()
    assert reply is not None
    assert reply.status == 200
    return reply


async def test_an_idle_connection_is_closed_at_its_deadline_and_not_before(
    guarded: Guarded,
) -> None:
    async with one_connection(guarded) as wire:
        guarded.sweep(IDLE_SECONDS - MARGIN)
        await served(wire, get("/"))
        guarded.sweep(IDLE_SECONDS - MARGIN)
        await served(wire, post(b"{}"))
        await guarded.until(guarded.deserted, later=IDLE_SECONDS + MARGIN)
        assert await wire.rest() == b""


async def test_a_head_that_does_not_end_is_a_408(guarded: Guarded) -> None:
    for part in (b"G", b"GET / HTTP/1.1\r\n", head(CREATE)[:-1]):
        async with one_connection(guarded) as wire:
            await wire.send(part)
            answer = asyncio.create_task(wire.reply())
            await guarded.until(answer.done, later=HEAD_SECONDS + MARGIN)
            reply = answer.result()
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (408, "request_timeout")
            assert reply.headers["connection"] == "close"
            assert await wire.rest() == b""
        await eventually(guarded.deserted)


async def test_a_request_that_comes_byte_by_byte_but_in_time_is_served(guarded: Guarded) -> None:
    async with one_connection(guarded) as wire:
        for byte in post(b"{}"):
            await wire.send(bytes([byte]))
            guarded.sweep(HEAD_SECONDS - MARGIN)
        reply = await wire.reply()
        assert reply is not None
        assert reply.status == 200


async def test_a_body_that_stalls_is_cut_off_and_the_application_is_told(guarded: Guarded) -> None:
    application = guarded.application
    async with one_connection(guarded) as wire:
        await wire.send(head(CREATE, b"Content-Length: 1000") + b"x" * 500)
        await eventually(lambda: application.received == 500)
        guarded.sweep(BODY_SECONDS - MARGIN)
        assert not guarded.deserted()
        await guarded.until(guarded.deserted, later=BODY_SECONDS + MARGIN)
        assert application.lost == 1
        assert await wire.rest() == b""


async def test_a_large_body_earns_its_time_by_coming(guarded: Guarded) -> None:
    application = guarded.application
    earned = 100
    size = earned * BODY_BYTES_PER_SECOND
    async with one_connection(guarded) as wire:
        await wire.send(head(CREATE, b"Content-Length: %d" % (size + 2)), b"x" * size)
        await eventually(lambda: application.received == size)
        guarded.sweep(BODY_SECONDS + earned - MARGIN)
        await wire.send(b"xx")
        reply = await wire.reply()
        assert reply is not None
        assert (reply.status, application.received) == (200, size + 2)


async def test_a_body_that_earns_time_and_then_stalls_is_cut_off(guarded: Guarded) -> None:
    application = guarded.application
    earned = 100
    size = earned * BODY_BYTES_PER_SECOND
    async with one_connection(guarded) as wire:
        await wire.send(head(CREATE, b"Content-Length: %d" % (size + 2)), b"x" * size)
        await eventually(lambda: application.received == size)
        await guarded.until(guarded.deserted, later=BODY_SECONDS + earned + MARGIN)
        assert application.lost == 1


async def test_an_application_may_take_as_long_as_it_wants(guarded: Guarded) -> None:
    async with one_connection(guarded) as wire:
        await wire.send(post(b"{}", line=b"POST /wait?5 HTTP/1.1"))
        await eventually(lambda: guarded.application.received == 2)
        guarded.sweep(100_000)
        guarded.application.go.set()
        reply = await wire.reply()
        assert reply is not None
        assert (reply.status, reply.body) == (200, b"xxxxx")


async def test_a_reader_that_takes_nothing_is_cut_off_at_its_deadline(guarded: Guarded) -> None:
    application = guarded.application
    async with one_connection(guarded) as wire:
        await wire.send(get("/flood"))
        await guarded.until(guarded.deserted, later=WRITE_SECONDS + MARGIN)
        assert application.lost == 1


async def test_a_reader_that_takes_something_now_and_then_is_not_cut_off(guarded: Guarded) -> None:
    async with one_connection(guarded) as wire:
        await wire.send(get("/flood"))
        status, _ = await wire.head()
        assert status == 200
        for _ in range(50):
            await wire.reader.readexactly(100_000)
            guarded.sweep(WRITE_SECONDS - MARGIN)
        assert guarded.application.lost == 0
    await eventually(guarded.deserted)
    assert guarded.application.lost == 1


async def test_a_refused_client_that_goes_on_is_gone_soon(guarded: Guarded) -> None:
    for request in (get("/", host=b"evil.test"), post(line=b"POST /unread HTTP/1.1")[:-1]):
        async with one_connection(guarded) as wire:
            await wire.send(request)
            assert await wire.reply() is not None
            guarded.sweep(LINGER_SECONDS - MARGIN)
            assert not guarded.deserted()
            await guarded.until(guarded.deserted, later=LINGER_SECONDS + MARGIN)


async def test_a_refused_client_that_goes_on_fast_is_gone_at_once(guarded: Guarded) -> None:
    async with one_connection(guarded) as wire:
        await wire.send(get("/", host=b"evil.test"))
        assert await wire.reply() is not None
        with suppress(ConnectionError):
            for _ in range(2 * LINGER_BYTES // 65_536):
                await wire.send(b"x" * 65_536)
        await eventually(guarded.deserted, seconds=1.0)


async def test_an_answer_that_nobody_reads_is_given_up(guarded: Guarded) -> None:
    async with one_connection(guarded) as wire:
        wire.stop_reading()
        await wire.send(get("/unread?60000"))
        await eventually(lambda: guarded.application.answered == 1)
        guarded.sweep(IDLE_SECONDS + MARGIN)
        guarded.sweep(IDLE_SECONDS + MARGIN)
        assert not guarded.deserted()
        later = IDLE_SECONDS + CLOSE_SECONDS + 2 * MARGIN
        await guarded.until(guarded.deserted, later=later)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_last_answer_that_nobody_reads_is_given_up(
    guarded: Guarded, version: bytes
) -> None:
    request = head(b"GET /unread?60000 HTTP/" + version, b"Connection: close")
    async with one_connection(guarded) as wire:
        wire.stop_reading()
        await wire.send(request)
        await eventually(lambda: guarded.application.answered == 1)
        guarded.sweep(10 * IDLE_SECONDS)
        await eventually(guarded.deserted, seconds=1.0)


@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
async def test_the_application_is_told_when_its_client_leaves(guarded: Guarded, leave: str) -> None:
    requests = [
        head(CREATE, b"Content-Length: 100") + b"x",
        post(b"{}", line=b"POST /wait HTTP/1.1"),
        *([post(b"{}", line=b"POST /flood HTTP/1.1")] if leave != "half-close" else []),
    ]
    application = guarded.application
    for request in requests:
        application.received = application.lost = 0
        async with one_connection(guarded) as wire:
            await wire.send(request)
            await eventually(lambda: application.received > 0)
            if leave == "half-close":
                wire.half_close()
            elif leave == "reset":
                wire.reset()
            else:
                await wire.close()
            await eventually(guarded.deserted, seconds=1.0)
            assert application.lost == 1


async def test_a_half_close_in_a_flood_is_leaving_too(guarded: Guarded) -> None:
    async with one_connection(guarded) as wire:
        await wire.send(get("/flood"))
        await wire.reader.readexactly(1_000_000)
        wire.half_close()
        await wire.rest(seconds=2)
        assert guarded.application.lost == 1


@pytest.mark.slow
async def test_slow_clients_are_sent_away_in_real_time_too(
    start: Start, upstream: Scripted
) -> None:
    async def dribble(port: int, begin: bytes) -> tuple[float, Reply | None]:
        async with connected(port) as wire:
            began = time.monotonic()
            await wire.send(begin)
            answer = asyncio.create_task(wire.reply(seconds=40))
            while not answer.done():
                with suppress(ConnectionError):
                    await wire.send(b"x")
                await asyncio.wait([answer], timeout=0.5)
            return time.monotonic() - began, answer.result()

    async with start() as gateway:
        heads = [dribble(gateway.port, b"GET /v1/models HTTP/1.1\r\nX: ") for _ in range(50)]
        bodies = [
            dribble(gateway.port, head(CREATE, b"Content-Length: 10000")),
            dribble(gateway.port, head(CREATE, b"Transfer-Encoding: chunked") + b"1;"),
        ]
        began = time.monotonic()
        slow = asyncio.gather(*heads, *bodies)
        async with connected(gateway.port) as wire:
            while not slow.done():
                asked = time.monotonic()
                await served(wire, get("/healthz"))
                assert time.monotonic() - asked < 2
                await asyncio.wait([slow], timeout=0.5)
        assert time.monotonic() - began < 35
        for seconds, reply in slow.result():
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (408, "request_timeout")
            assert 9 < seconds < 25
        assert upstream.seen.calls == 0
