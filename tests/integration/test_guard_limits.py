"""Requests that are too large, by what they declare, send, or turn into."""

import asyncio
import contextlib
import gzip
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psutil  # type: ignore[import-untyped]
import pytest

from tests.conftest import Scripted, Start
from tests.raw_http import (
    CHUNKED,
    CREATE,
    GOOD,
    Reply,
    Wire,
    ask,
    chunked,
    connected,
    get,
    head,
    post,
)

MIB = 1 << 20
SMALL = {"toml": "[server]\nmax_body_bytes = 1048576\n"}
PIECE = b"x" * 65_536


class Memory:
    """The most that this process has grown by, looked at again and again."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._size()
        self.peak = 0

    def _size(self) -> int:
        return int(self._process.memory_info().rss)

    async def watch(self) -> None:
        """Look, until cancelled."""
        while True:
            self.peak = max(self.peak, self._size() - self._before)
            await asyncio.sleep(0.002)


@asynccontextmanager
async def watched() -> AsyncIterator[Memory]:
    """Memory, watched while the block runs."""
    memory = Memory()
    watching = asyncio.create_task(memory.watch())
    try:
        yield memory
    finally:
        watching.cancel()


async def pour(wire: Wire, pieces: Iterator[bytes], *, most: int) -> int:
    """Send until the server has had enough, or `most` bytes are gone; how many went."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            await wire.send(piece)
            sent += len(piece)
            if sent >= most:
                break
    return sent


async def poured(port: int, start: bytes, piece: bytes, *, most: int) -> tuple[int, Reply | None]:
    """The answer to `start` and endlessly many `piece`, and how many bytes it took."""
    async with connected(port) as wire:
        await wire.send(start)
        sent, reply = await asyncio.gather(
            pour(wire, itertools.repeat(piece), most=most), wire.reply()
        )
        await wire.rest()
        return sent, reply


ENDLESS = {
    "header line": (head(b"GET /v1/models HTTP/1.1")[:-2] + b"X: ", PIECE, 431),
    "header name": (head(b"GET /v1/models HTTP/1.1")[:-2], PIECE, 431),
    "headers": (head(b"GET /v1/models HTTP/1.1")[:-2], b"A: b\r\n" * 10_000, 431),
    "URL": (b"GET /v1/models?", PIECE, 414),
    "method": (b"G", b"E" * 65_536, 414),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_an_endless_head_is_cut_off_after_its_bound(start: Start, what: str) -> None:
    begin, piece, status = ENDLESS[what]
    async with start() as gateway, watched() as memory:
        sent, reply = await poured(gateway.port, begin, piece, most=64 * MIB)
        assert reply is not None
        assert (reply.status, reply.headers["connection"]) == (status, "close")
        assert reply.error["type"] == "invalid_request_error"
        assert sent < 32 * MIB
        assert memory.peak < 32 * MIB
        assert (await ask(gateway.port, get("/healthz"))) is not None


async def test_a_hundred_thousand_headers_are_a_431(start: Start, upstream: Scripted) -> None:
    many = [b"X-%d: y" % number for number in range(100_000)]
    async with start() as gateway:
        for request in (post(GOOD, *many), get("/healthz", *many)):
            reply = await ask(gateway.port, request)
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (431, "headers_too_large")
        assert upstream.seen.calls == 0


async def test_a_head_and_a_url_may_be_as_large_as_their_bounds_and_no_larger(
    start: Start,
) -> None:
    async with start() as gateway:
        bare = len(head(b"GET /healthz HTTP/1.1", b"X: ", kind=None))
        for size, status in ((65_536, 200), (65_537, 431)):
            reply = await ask(gateway.port, get("/healthz", b"X: " + b"y" * (size - bare)))
            assert reply is not None
            assert reply.status == status
        for size, status in ((8_192, 200), (8_193, 414), (100_000, 414)):
            target = "/healthz?".ljust(size, "y")
            reply = await ask(gateway.port, get(target))
            assert reply is not None
            assert reply.status == status


async def test_a_declared_oversize_is_refused_before_it_is_sent(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        for length in (32 * MIB + 1, 10 << 30, 10**17):
            declared = b"Content-Length: %d" % length
            for fields in ((declared,), (declared, b"Expect: 100-continue")):
                began = time.monotonic()
                reply = await ask(gateway.port, head(CREATE, *fields))
                assert reply is not None
                assert (reply.status, reply.error["code"]) == (413, "payload_too_large")
                assert time.monotonic() - began < 3
        assert upstream.seen.calls == 0


async def test_the_bound_on_bodies_is_exact_and_set_by_the_settings(
    start: Start, upstream: Scripted
) -> None:
    async with start(**SMALL) as gateway:
        for size, status in ((MIB, 200), (MIB + 1, 413)):
            body = GOOD.ljust(size)
            for request in (
                post(body),
                head(CREATE, CHUNKED) + chunked(body),
                post(gzip.compress(body), b"Content-Encoding: gzip"),
            ):
                reply = await ask(gateway.port, request)
                assert reply is not None
                assert reply.status == status
        assert upstream.seen.calls == 3


async def test_an_endless_chunked_body_is_refused_at_its_bound(
    start: Start, upstream: Scripted
) -> None:
    async with start(**SMALL) as gateway, watched() as memory:
        begin = head(CREATE, CHUNKED)
        sent, reply = await poured(gateway.port, begin, chunked(PIECE)[:-5], most=64 * MIB)
        assert reply is not None
        assert (reply.status, reply.error["code"]) == (413, "payload_too_large")
        assert sent < 32 * MIB
        assert memory.peak < 32 * MIB
        assert upstream.seen.calls == 0


async def test_a_body_in_chunks_of_one_byte_costs_little(start: Start, upstream: Scripted) -> None:
    body = GOOD.ljust(MIB)
    tiny = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    async with start() as gateway, watched() as memory:
        began = time.process_time()
        reply = await ask(gateway.port, head(CREATE, CHUNKED) + tiny)
        assert reply is not None
        assert reply.status == 200
        assert time.process_time() - began < 3
        assert memory.peak < 32 * MIB
        assert upstream.seen.calls == 1


async def test_an_expectation_is_met_only_for_who_may_send(start: Start) -> None:
    fields = (b"Expect: 100-continue", b"Content-Length: %d" % len(GOOD))
    async with start() as gateway:
        async with connected(gateway.port) as wire:
            await wire.send(head(CREATE, *fields))
            interim = await wire.reply()
            assert interim is not None
            assert interim.status == 100
            await wire.send(GOOD)
            reply = await wire.reply()
            assert reply is not None
            assert reply.status == 200
        for options in ({"key": None}, {"kind": b"text/plain"}):
            reply = await ask(gateway.port, head(CREATE, *fields, **options))
            assert reply is not None
            assert reply.status in (401, 415)
        reply = await ask(gateway.port, head(CREATE, b"Expect: 200-ok", fields[1]))
        assert reply is not None
        assert (reply.status, reply.error["code"]) == (417, "expectation_failed")


async def has_room(port: int) -> bool:
    """Whether a new connection is served."""
    reply = await ask(port, get("/healthz"))
    return reply is not None and reply.status == 200


async def test_one_connection_too_many_is_a_503_that_says_when_to_come_back(start: Start) -> None:
    options = {"toml": "[server]\nmax_connections = 3\n"}
    async with start(**options) as gateway, contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(gateway.port)) for _ in range(3)]
        for wire in idle:
            first = await (await wire.send(get("/healthz"))).reply()
            assert first is not None
            assert first.status == 200
        for _ in range(3):
            refused = await ask(gateway.port, get("/healthz"))
            assert refused is not None
            assert (refused.status, refused.error["code"]) == (503, "too_many_connections")
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["connection"] == "close"
        served = await (await idle[0].send(post())).reply()
        assert served is not None
        assert served.status == 200
        await idle[1].close()
        async with asyncio.timeout(5):
            while not await has_room(gateway.port):
                await asyncio.sleep(0.01)


async def test_refused_connections_take_nobodys_place(start: Start) -> None:
    options = {"toml": "[server]\nmax_connections = 3\n"}
    async with start(**options) as gateway, contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connected(gateway.port)) for _ in range(6)]
        for wire in wires[3:]:
            refused = await wire.reply()
            assert refused is not None
            assert refused.status == 503
        for wire in wires[:3]:
            await wire.close()
        async with asyncio.timeout(1):
            while not await has_room(gateway.port):
                await asyncio.sleep(0.05)


async def test_hundreds_of_idle_connections_hold_up_nobody(start: Start) -> None:
    async with start() as gateway, contextlib.AsyncExitStack() as stack:
        async with watched() as memory:
            for number in range(400):
                wire = await stack.enter_async_context(connected(gateway.port))
                if number % 2:
                    await wire.send(b"POST /v1/responses HTTP/1.1\r\nHo")
            began = time.monotonic()
            reply = await ask(gateway.port, post())
            assert reply is not None
            assert reply.status == 200
            assert time.monotonic() - began < 2
        assert memory.peak < 32 * MIB


async def test_endless_trailers_take_no_memory(start: Start, upstream: Scripted) -> None:
    async with start() as gateway, watched() as memory, connected(gateway.port) as wire:
        await wire.send(head(CREATE, CHUNKED) + chunked(GOOD)[:-2])
        await pour(wire, itertools.repeat(b"a:b\r\n" * 10_000), most=8 * MIB)
        assert memory.peak < 32 * MIB
        wire.half_close()
        await wire.rest()
        assert upstream.seen.calls == 0


async def test_an_endless_chunk_extension_takes_no_memory(start: Start, upstream: Scripted) -> None:
    async with start() as gateway, watched() as memory, connected(gateway.port) as wire:
        await wire.send(head(CREATE, CHUNKED) + b"1;")
        await pour(wire, itertools.repeat(PIECE), most=16 * MIB)
        assert memory.peak < 32 * MIB
        wire.half_close()
        await wire.rest()
        assert upstream.seen.calls == 0
