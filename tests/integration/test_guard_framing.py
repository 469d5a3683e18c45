"""Requests whose end two programs could see in two places, and lines that are no HTTP."""

import asyncio
from contextlib import suppress

import pytest

from tests.conftest import Running, Scripted, Start
from tests.raw_http import (
    CHUNKED,
    CREATE,
    GOOD,
    Reply,
    ask,
    chunked,
    connected,
    everything,
    faults,
    get,
    head,
    post,
)

SMUGGLED = post()
"""A create that follows each attack: it must never come out as a request of its own."""

LENGTH = b"Content-Length: %d" % len(GOOD)

LENGTHS = {
    "length and coding": (LENGTH, CHUNKED),
    "coding and length": (CHUNKED, LENGTH),
    "length 0 and coding": (b"Content-Length: 0", CHUNKED),
    "the same length twice": (LENGTH, LENGTH),
    "two lengths": (LENGTH, b"Content-Length: 5"),
    "two lengths, the other order": (b"Content-Length: 5", LENGTH),
    "a list of lengths": (b"Content-Length: 26, 26",),
    "a list of two lengths": (b"Content-Length: 26, 5",),
    "hexadecimal": (b"Content-Length: 0x1a",),
    "hexadecimal digits": (b"Content-Length: 1a",),
    "plus": (b"Content-Length: +26",),
    "minus": (b"Content-Length: -26",),
    "minus zero": (b"Content-Length: -0",),
    "underscore in the number": (b"Content-Length: 2_6",),
    "space in the number": (b"Content-Length: 2 6",),
    "fraction": (b"Content-Length: 26.0",),
    "exponent": (b"Content-Length: 26e0",),
    "no number": (b"Content-Length:",),
    "words": (b"Content-Length: many",),
    "other digits": ("Content-Length: ٢٦".encode(),),
    "20 digits": (b"Content-Length: 99999999999999999999",),
    "wraps to 26 in 64 bits": (b"Content-Length: 18446744073709551642",),
    "wraps to 26 in 32 bits": (b"Content-Length: 4294967322",),
    "30 leading zeros": (b"Content-Length: " + b"0" * 30 + b"26",),
    "vertical tab": (b"Content-Length: \x0b26",),
    "space before the colon": (b"Content-Length : 26",),
    "underscore in the name": (b"Content_Length: 26",),
    "folded": (b"Content-Length:\r\n 26",),
    "comment": (b"Content-Length: 26;a",),
}

CODINGS = {
    "another word": (b"Transfer-Encoding: xchunked",),
    "longer word": (b"Transfer-Encoding: chunkedx",),
    "identity": (b"Transfer-Encoding: identity",),
    "cow": (b"Transfer-Encoding: cow",),
    "gzip first": (b"Transfer-Encoding: gzip, chunked",),
    "gzip": (b"Transfer-Encoding: gzip",),
    "chunked not last": (b"Transfer-Encoding: chunked, identity",),
    "identity first": (b"Transfer-Encoding: identity, chunked",),
    "chunked twice": (b"Transfer-Encoding: chunked, chunked",),
    "a list that begins empty": (b"Transfer-Encoding: , chunked",),
    "two headers": (CHUNKED, CHUNKED),
    "two that differ": (CHUNKED, b"Transfer-Encoding: identity"),
    "two that differ, the other order": (b"Transfer-Encoding: identity", CHUNKED),
    "parameter": (b"Transfer-Encoding: chunked;q=1",),
    "quoted": (b'Transfer-Encoding: "chunked"',),
    "split": (b"Transfer-Encoding: chun ked",),
    "vertical tab": (b"Transfer-Encoding: \x0bchunked",),
    "form feed behind": (b"Transfer-Encoding: chunked\x0c",),
    "carriage return inside": (b"Transfer-Encoding: chunked\rX: y",),
    "nothing": (b"Transfer-Encoding:",),
    "space before the colon": (b"Transfer-Encoding : chunked",),
    "tab before the colon": (b"Transfer-Encoding\t: chunked",),
    "underscore in the name": (b"Transfer_Encoding: chunked",),
    "folded": (b"Transfer-Encoding:\r\n chunked",),
    "folded behind": (CHUNKED, b" , identity"),
    "space before the name": (b" Transfer-Encoding: chunked",),
}

CHUNKS = {
    "minus": b"-1a\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "plus": b"+1a\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "0x": b"0x1a\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "no digit": b"g\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "nothing": b"\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "underscore": b"1_a\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "17 digits": b"1000000000000001a\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "space before": b" 1a\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "space behind": b"1a \r\n" + GOOD + b"\r\n0\r\n\r\n",
    "NUL behind": b"1a\x00\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "bare line feed": b"1a\n" + GOOD + b"\r\n0\r\n\r\n",
    "bare carriage return": b"1a\r" + GOOD + b"\r\n0\r\n\r\n",
    "line feed in an extension": b"1a;a\nb\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "two bytes instead of the line end": b"1a\r\n" + GOOD + b"XX0\r\n\r\n",  # CVE-2025-43859
    "no line end": b"1a\r\n" + GOOD + b"0\r\n\r\n",
    "line feed instead of the line end": b"1a\r\n" + GOOD + b"\n0\r\n\r\n",
    "shorter than said": b"1b\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "longer than said": b"19\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "junk behind the last": b"1a\r\n" + GOOD + b"\r\n0\r\nX\r\n\r\n",
    "bare line feeds behind the last": b"1a\r\n" + GOOD + b"\r\n0\n\n",
}

FIELDS = {
    "carriage return in a value": b"X: a\rY: b",
    "carriage return at its end": b"X: a\r",
    "line feed as a line end": b"X: a\nY: b",
    "NUL in a value": b"X: a\x00b",
    "NUL in a name": b"X\x00: a",
    "control character in a value": b"X: a\x01b",
    "delete in a value": b"X: a\x7fb",
    "space before the colon": b"X : a",
    "tab before the colon": b"X\t: a",
    "space in a name": b"X Y: a",
    "folded": b"X: a\r\n b",
    "folded with a tab": b"X: a\r\n\tb",
    "folded before everything": b" X: a",
    "no colon": b"X",
    "no name": b": a",
    "parenthesis in a name": b"X(: a",
    "other letters in a name": "Ünder: a".encode(),
    "two hosts": b"Host: 127.0.0.1",
    "two keys": b"Authorization: Bearer other",
    "two content types": b"Content-Type: application/json",
    "two origins": b"Origin: a\r\nOrigin: b",
    "two expectations": b"Expect: 100-continue\r\nExpect: 100-continue",
    "another expectation": b"Expect: 200-ok",
}

LINES = {
    "two spaces before the target": b"POST  /v1/responses HTTP/1.1",
    "two spaces behind the target": b"POST /v1/responses  HTTP/1.1",
    "space at the end": b"POST /v1/responses HTTP/1.1 ",
    "space at the beginning": b" POST /v1/responses HTTP/1.1",
    "line end at the beginning": b"\r\nPOST /v1/responses HTTP/1.1",
    "tabs": b"POST\t/v1/responses\tHTTP/1.1",
    "space in the target": b"POST /v1/ responses HTTP/1.1",
    "NUL in the target": b"POST /v1/responses\x00 HTTP/1.1",
    "carriage return in the target": b"POST /v1/responses\r HTTP/1.1",
    "byte above 127 in the target": b"POST /v1/responses\xff HTTP/1.1",
    "absolute target": b"POST http://127.0.0.1/v1/responses HTTP/1.1",
    "absolute target of another host": b"POST http://evil.test/v1/responses HTTP/1.1",
    "network path": b"POST //evil.test/v1/responses HTTP/1.1",
    "network path to us": b"POST //v1/responses HTTP/1.1",
    "asterisk": b"POST * HTTP/1.1",
    "authority": b"POST 127.0.0.1:80 HTTP/1.1",
    "no slash": b"POST v1/responses HTTP/1.1",
    "no target": b"POST HTTP/1.1",
    "HTTP/0.9": b"POST /v1/responses",
    "HTTP/1": b"POST /v1/responses HTTP/1",
    "HTTP/1.2": b"POST /v1/responses HTTP/1.2",
    "HTTP/2.0": b"POST /v1/responses HTTP/2.0",
    "HTTP/9.9": b"POST /v1/responses HTTP/9.9",
    "HTTP/1.10": b"POST /v1/responses HTTP/1.10",
    "HTTP/01.1": b"POST /v1/responses HTTP/01.1",
    "lower-case version": b"POST /v1/responses http/1.1",
    "lower-case method": b"post /v1/responses HTTP/1.1",
    "no such method": b"BREW /v1/responses HTTP/1.1",
    "method with a NUL": b"POST\x00 /v1/responses HTTP/1.1",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "TRACE": b"TRACE /v1/responses HTTP/1.1",
    "CONNECT": b"CONNECT /v1/responses HTTP/1.1",
    "CONNECT to an authority": b"CONNECT evil.test:443 HTTP/1.1",
    "OPTIONS": b"OPTIONS /v1/responses HTTP/1.1",
    "OPTIONS *": b"OPTIONS * HTTP/1.1",
    "PUT": b"PUT /v1/responses HTTP/1.1",
    "PATCH": b"PATCH /v1/responses HTTP/1.1",
    "HEAD": b"HEAD /v1/responses HTTP/1.1",
}

ATTACKS = {
    "lengths": {name: head(CREATE, *fields) + GOOD for name, fields in LENGTHS.items()},
    "codings": {name: head(CREATE, *fields) + chunked(GOOD) for name, fields in CODINGS.items()},
    "fields": {name: head(CREATE, field, LENGTH) + GOOD for name, field in FIELDS.items()},
    "lines": {name: head(line, LENGTH) + GOOD for name, line in LINES.items()},
    "others": {
        "bare line feeds only": head(CREATE, LENGTH).replace(b"\r\n", b"\n") + GOOD,
        "carriage returns only": head(CREATE, LENGTH).replace(b"\r\n", b"\r") + GOOD + b"\r\n\r\n",
        "HTTP/0.9 and nothing else": b"GET /v1/models\r\n",
        "HTTP/0.9 and an empty line": b"GET /v1/models\r\n\r\n",
        "chunks in HTTP/1.0": head(b"POST /v1/responses HTTP/1.0", CHUNKED) + chunked(GOOD),
        "a bad request behind a good one": get("/healthz") + b"GET / HTTP/1.1\r\nX : y\r\n\r\n",
    },
}


async def still_serves(gateway: Running, upstream: Scripted) -> None:
    """The upstream has seen nothing so far, and a good request reaches it."""
    assert upstream.seen.calls == 0
    reply = await ask(gateway.port, post())
    assert reply is not None
    assert (reply.status, upstream.seen.calls) == (200, 1)


@pytest.mark.parametrize("table", [name for name in ATTACKS if name != "others"])
async def test_what_could_be_read_in_two_ways_is_refused_and_never_sent_on(
    start: Start, upstream: Scripted, table: str
) -> None:
    async with start() as gateway:
        answers = [
            (name, await everything(gateway.port, attack + SMUGGLED))
            for name, attack in ATTACKS[table].items()
        ]
        assert faults(answers) == {}
        await still_serves(gateway, upstream)


async def test_what_is_no_request_is_refused_without_waiting_for_more(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        replies = {
            name: await everything(gateway.port, attack)
            for name, attack in ATTACKS["others"].items()
        }
        [good] = replies.pop("a bad request behind a good one")
        assert good.status == 200
        assert faults(replies.items()) == {}
        await still_serves(gateway, upstream)


async def test_a_method_or_version_that_is_not_spoken_is_named(start: Start) -> None:
    async with start() as gateway:
        for method in ("TRACE", "OPTIONS", "PUT", "PATCH", "HEAD"):
            reply = await ask(gateway.port, get("/v1/responses", method=method))
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (405, "method_not_allowed")
            assert method in reply.error["message"]
        for version in (b"1.2", b"2.0", b"9.9"):
            reply = await ask(gateway.port, head(b"GET /v1/models HTTP/" + version))
            assert reply is None or reply.status in (400, 505)


async def test_requests_that_differ_only_in_style_are_served(
    start: Start, upstream: Scripted
) -> None:
    small = [bytes([byte]) for byte in GOOD]
    variants = [
        [head(CREATE, b"tRANSFER-eNCODING: CHUNKED") + chunked(GOOD)],
        [head(CREATE, b"Transfer-Encoding:\t chunked") + chunked(GOOD)],
        [head(CREATE, CHUNKED) + chunked(*small)],
        [head(CREATE, CHUNKED), *(chunked(part)[:-5] for part in small), b"0\r\n\r\n"],
        [head(CREATE, CHUNKED) + b"001A;name=value\r\n" + GOOD + b"\r\n0\r\n\r\n"],
        [head(CREATE, b"content-length:   %d" % len(GOOD)) + GOOD],
        [bytes([byte]) for byte in post()],
        [post(GOOD, kind=b"Application/JSON; charset=utf-8")],
        [post(line=b"POST /v1/responses?beta=true HTTP/1.1")],
    ]
    async with start() as gateway:
        for segments in variants:
            reply = await ask(gateway.port, *segments)
            assert reply is not None
            assert reply.status == 200, segments[0]
        assert upstream.seen.calls == len(variants)


async def test_bad_chunks_never_reach_the_upstream(start: Start, upstream: Scripted) -> None:
    async with start() as gateway:
        for body in CHUNKS.values():
            async with connected(gateway.port) as wire:
                await wire.send(head(CREATE, CHUNKED) + body + SMUGGLED)
                wire.half_close()
                assert b" 200 " not in await wire.rest()
        await still_serves(gateway, upstream)


async def test_bad_chunks_are_refused_at_once(start: Start) -> None:
    async with start() as gateway:

        async def outcome(name: str, body: bytes) -> tuple[str, list[Reply]]:
            return name, await everything(gateway.port, head(CREATE, CHUNKED) + body, seconds=2)

        answers = await asyncio.gather(*(outcome(*chunk) for chunk in CHUNKS.items()))
        assert faults(answers) == {}


async def test_another_protocol_is_not_served(start: Start, upstream: Scripted) -> None:
    async with start() as gateway:
        reply = await ask(gateway.port, post(line=b"POST /v1/responses RTSP/1.0"))
        assert reply is None or reply.status in (400, 505)
        assert upstream.seen.calls == 0


async def test_a_trailer_is_no_header(start: Start, upstream: Scripted) -> None:
    async with start() as gateway:
        for name in ("Authorization: Bearer", "x-api-key:", "api-key:"):
            line = f"{name} {gateway.key}"
            body = chunked(GOOD)[:-2] + line.encode() + b"\r\n\r\n"
            reply = await ask(gateway.port, head(CREATE, CHUNKED, key=None) + body)
            assert reply is None or reply.status in (400, 401)
            assert upstream.seen.calls == 0


async def test_a_trailer_does_not_override_what_was_checked(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        trailer = f"Authorization: Bearer {gateway.key}\r\n\r\n".encode()
        request = head(CREATE, CHUNKED, key="wrong") + chunked(GOOD)[:-2] + trailer
        reply = await ask(gateway.port, request)
        assert reply is None or reply.status in (400, 401)
        assert upstream.seen.calls == 0


async def test_the_body_of_a_request_that_offers_an_upgrade_is_never_a_request(
    start: Start, upstream: Scripted
) -> None:
    length = b"Content-Length: %d" % len(SMUGGLED)
    async with start() as gateway:
        for upgrade in (b"websocket", b"foo", b"TLS/1.0", b"HTTP/2.0"):
            async with connected(gateway.port) as wire:
                fields = (b"Upgrade: " + upgrade, b"Connection: Upgrade", length)
                await wire.send(head(CREATE, *fields))
                refusal = await wire.reply()
                assert refusal is None or 400 <= refusal.status < 500
                with suppress(ConnectionError):
                    await wire.send(SMUGGLED)
                assert await wire.reply() is None
                assert upstream.seen.calls == 0


async def test_a_fragment_is_no_part_of_a_request_target(start: Start, upstream: Scripted) -> None:
    async with start() as gateway:
        reply = await ask(gateway.port, post(line=b"POST /v1/responses#/../x HTTP/1.1"))
        assert reply is None or reply.status in (400, 404)
        assert upstream.seen.calls == 0
