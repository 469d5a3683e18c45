"""One connection, several requests: reuse, upgrades, pipelines, garbage, and early answers."""

import asyncio
import json
import time
from contextlib import suppress
from itertools import product

import pytest

from tests.conftest import Scripted, Start, eventually
from tests.raw_http import CHUNKED, CREATE, GOOD, Wire, ask, chunked, connected, get, head, post

SLOW = b'{"model":"m","input":"[[words=500 delay=0.05]]","stream":true}'
SHORT = b'{"model":"m","input":"[[words=20 delay=0.01]]","stream":true}'
JAVA = (
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)
WEBSOCKET = (
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: WebSocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
GARBAGE = [
    b"garbage",
    b"\x00\x01\x02\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    b"X" * 300_000,
    b"\r\n",
    post(),
]


async def answered(wire: Wire, *segments: bytes) -> tuple[int, bytes]:
    """Status and body of the reply to a request."""
    reply = await (await wire.send(*segments)).reply()
    assert reply is not None
    return reply.status, reply.body


async def test_one_connection_serves_many_requests_of_every_kind(
    start: Start, upstream: Scripted
) -> None:
    kinds = [
        (200, post()),
        (200, post(SHORT)),
        (200, head(CREATE, CHUNKED) + chunked(GOOD)),
        (200, get("/v1/models")),
        (200, get("/healthz")),
        (400, post(b"{")),
        (401, post(key="wrong")),
        (404, get("/nowhere")),
        (404, get("/v1/responses/resp_unknown")),
        (405, post(line=b"DELETE /v1/responses HTTP/1.1")),
        (415, post(kind=b"text/plain")),
    ]
    async with start() as gateway, connected(gateway.port) as wire:
        for _ in range(3):
            for status, request in kinds:
                assert (await answered(wire, request))[0] == status
        assert upstream.seen.calls == 9


async def test_a_connection_stays_open_unless_somebody_said_otherwise(start: Start) -> None:
    cases: list[tuple[bytes, tuple[bytes, ...], bool]] = [
        (b"1.1", (), True),
        (b"1.1", (b"Connection: keep-alive",), True),
        (b"1.1", (b"Connection: close",), False),
        (b"1.1", (b"Connection: Close",), False),
        (b"1.0", (), False),
        (b"1.0", (b"Connection: keep-alive",), False),
    ]
    async with start() as gateway:
        for version, fields, stays in cases:
            async with connected(gateway.port) as wire:
                request = post(GOOD, *fields, line=b"POST /v1/responses HTTP/" + version)
                reply = await (await wire.send(request)).reply()
                assert reply is not None
                assert json.loads(reply.body)["status"] == "completed"
                assert (reply.headers.get("connection") == "close") is not stays
                if stays:
                    assert (await answered(wire, post()))[0] == 200
                else:
                    assert await wire.rest() == b""


async def test_a_stream_is_refused_to_an_http_1_0_client_who_could_not_read_its_chunks(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        reply = await ask(gateway.port, post(SHORT, line=b"POST /v1/responses HTTP/1.0"))
        assert reply is not None
        assert reply.status == 505
        assert b"A stream needs HTTP/1.1" in reply.body
        assert upstream.seen.calls == 0


async def test_an_offer_of_http_2_is_an_ordinary_request(start: Start, upstream: Scripted) -> None:
    short = (b"Connection: upgrade", b"Upgrade:h2c")
    async with start() as gateway, connected(gateway.port) as wire:
        for fields, body in product((JAVA, short), (GOOD, SHORT)):
            begin = head(CREATE, *fields, b"Content-Length: %d" % len(body))
            for parts in ((begin, body), (begin + body,)):
                status, said = await answered(wire, *parts)
                assert (status, b"completed" in said) == (200, True)
            begin = head(CREATE, *fields, CHUNKED)
            assert (await answered(wire, begin, chunked(body)))[0] == 200
            assert (await answered(wire, get("/v1/models", *fields)))[0] == 200
        assert upstream.seen.calls == 12


async def test_a_websocket_is_answered_with_426_so_that_clients_fall_back(
    start: Start, upstream: Scripted
) -> None:
    frame = b'\x81\x7e\x00\x40{"type":"response.create","model":"m","background":true}'
    async with start() as gateway:
        for trailing in (b"", frame):
            async with connected(gateway.port) as wire:
                await wire.send(get("/v1/responses", *WEBSOCKET) + trailing)
                reply = await wire.reply()
                assert reply is not None
                assert (reply.status, reply.error["code"]) == (426, "upgrade_required")
                assert reply.error["param"] == "upgrade"
                await wire.send(frame)
                wire.half_close()
                assert b"HTTP/1.1 2" not in await wire.rest()
        assert upstream.seen.calls == 0
        assert (await ask(gateway.port, post())) is not None


async def test_a_second_request_in_the_same_segment_does_not_hide_that_the_client_left(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        for leave in ("close", "half-close", "reset"):
            async with connected(gateway.port) as wire:
                await wire.send(post(SLOW) + post(SLOW))
                status, _ = await wire.head()
                assert (status, upstream.seen.open) == (200, 1)
                if leave == "half-close":
                    wire.half_close()
                elif leave == "reset":
                    wire.reset()
                else:
                    await wire.close()
                await eventually(lambda: upstream.seen.open == 0, seconds=1.0)
        assert upstream.seen.calls == 3


@pytest.mark.parametrize("together", [False, True])
async def test_of_two_requests_at_once_the_first_is_answered_whole_and_the_second_not_run(
    start: Start, upstream: Scripted, *, together: bool
) -> None:
    segments = [post(SHORT) + post()] if together else [post(SHORT), post()]
    async with start() as gateway, connected(gateway.port) as wire:
        status, body = await answered(wire, *segments)
        assert (status, b"response.completed" in body) == (200, True)
        assert await wire.rest() == b""
        assert upstream.seen.calls == 1


async def test_garbage_during_a_reply_is_not_spliced_into_it(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        for garbage in GARBAGE:
            async with connected(gateway.port) as wire:
                await wire.send(post(SHORT))
                status, _ = await wire.head()
                assert status == 200
                chunks = []
                async for chunk in wire.chunks():
                    chunks.append(chunk)
                    if len(chunks) in (1, 5):
                        await wire.send(garbage)
                body = b"".join(chunks)
                assert b"HTTP/1.1" not in body
                assert body.count(b"event: response.completed") == 1
                assert await wire.rest() == b""
        assert upstream.seen.calls == len(GARBAGE)


async def test_a_half_close_is_leaving(start: Start, upstream: Scripted) -> None:
    phases = ["before=60", "first=60", "words=500 delay=0.05"]
    async with start() as gateway:
        for phase, stream in product(phases, (False, True)):
            body = {"model": "m", "input": f"[[{phase}]]", "stream": stream}
            async with connected(gateway.port) as wire:
                await wire.send(post(json.dumps(body).encode()))
                await eventually(lambda: upstream.seen.open == 1)
                wire.half_close()
                await eventually(lambda: upstream.seen.open == 0, seconds=1.0)


async def test_nothing_is_served_behind_a_refusal(start: Start, upstream: Scripted) -> None:
    refused = [post(host=b"evil.test"), head(CREATE, b"Content-Length: x"), b"garbage\r\n\r\n"]
    async with start() as gateway:
        for request in refused:
            async with connected(gateway.port) as wire:
                status, _ = await answered(wire, request)
                assert 400 <= status < 500
                with suppress(ConnectionError):
                    await wire.send(post())
                wire.half_close()
                assert await wire.rest() == b""
        assert upstream.seen.calls == 0


LONG = b"Content-Length: 20000000"
EARLY = {
    401: head(CREATE, LONG, key="wrong"),
    413: head(CREATE, b"Content-Length: 20000000000"),
    415: head(CREATE, CHUNKED, kind=b"text/plain") + b"ffffff\r\n",
    421: head(CREATE, LONG, host=b"evil.test"),
}


async def early(port: int, begin: bytes) -> int:
    """Send on for 2 MiB after a request that is refused by its head; the answer's status."""
    async with connected(port) as wire:
        await wire.send(begin)
        for _ in range(32):
            await wire.send(b"x" * 65_536)
        reply = await wire.reply()
        assert reply is not None
        assert reply.error["type"] == "invalid_request_error"
        return reply.status


async def test_an_early_answer_can_be_read_by_a_client_that_is_still_sending(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        for status, begin in EARLY.items():
            assert await early(gateway.port, begin) == status
        assert upstream.seen.calls == 0


async def test_an_early_answer_can_be_read_by_a_client_that_wanted_no_other(start: Start) -> None:
    async with start() as gateway:
        for version in (b"1.0", b"1.1"):
            line = b"POST /v1/responses HTTP/" + version
            begin = head(line, LONG, b"Connection: close", key="wrong")
            assert await early(gateway.port, begin) == 401


async def test_a_client_that_dribbles_on_after_an_early_answer_is_gone_in_seconds(
    start: Start,
) -> None:
    async def dribble(port: int, begin: bytes) -> float:
        async with connected(port) as wire:
            await wire.send(begin)
            assert await wire.reply() is not None
            began = time.monotonic()
            with suppress(ConnectionError):
                while time.monotonic() - began < 8:
                    await wire.send(b"x")
                    await asyncio.sleep(0.05)
            return time.monotonic() - began

    async with start() as gateway:
        took = await asyncio.gather(*(dribble(gateway.port, begin) for begin in EARLY.values()))
        assert max(took) < 6
