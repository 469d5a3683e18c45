"""Compressed bodies: what is understood, what is damaged, and what is a bomb."""

import asyncio
import gzip
import sys
import zlib

import psutil  # type: ignore[import-untyped]
import pytest

from tests.conftest import Scripted, Start, eventually
from tests.integration.test_guard_limits import MIB, SMALL, watched
from tests.raw_http import CHUNKED, CREATE, GOOD, Reply, ask, chunked, head, post

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def gzip_of(size: int) -> bytes:
    """Blanks, packed a thousand times smaller."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(b" " * min(MIB, size - at)) for at in range(0, size, MIB)]
    return b"".join(parts) + packer.flush()


def zstd_of(size: int, *, window_log: int) -> bytes:
    """Blanks, packed so that a decoder needs a window of 2**window_log bytes."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    parts = [packer.compress(b" " * min(MIB, size - at)) for at in range(0, size, MIB)]
    return b"".join(parts) + packer.flush()


PACKED = gzip.compress(GOOD)
PACKED_ZSTD = zstd.compress(GOOD)

DAMAGED = {
    "gzip that is none": ("gzip", GOOD),
    "nothing": ("gzip", b""),
    "one byte": ("gzip", PACKED[:1]),
    "cut off": ("gzip", PACKED[:-9]),
    "checksum cut off": ("gzip", PACKED[:-1]),
    "wrong checksum": ("gzip", PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:]),
    "wrong length": ("gzip", PACKED[:-4] + b"\xff\xff\xff\xff"),
    "garbage behind": ("gzip", PACKED + b"garbage"),
    "a second member": ("gzip", PACKED + PACKED),
    "zlib as gzip": ("gzip", zlib.compress(GOOD)),
    "zstd as gzip": ("gzip", PACKED_ZSTD),
    "gzip in gzip": ("gzip", gzip.compress(PACKED)),
    "a bomb in gzip in gzip": ("gzip", gzip.compress(gzip_of(64 * MIB))),
    "zstd that is none": ("zstd", GOOD),
    "zstd, nothing": ("zstd", b""),
    "zstd, one byte": ("zstd", PACKED_ZSTD[:1]),
    "zstd cut off": ("zstd", PACKED_ZSTD[:-1]),
    "zstd, garbage behind": ("zstd", PACKED_ZSTD + b"garbage"),
    "zstd, a second frame": ("zstd", PACKED_ZSTD + PACKED_ZSTD),
    "gzip as zstd": ("zstd", PACKED),
    "zstd in zstd": ("zstd", zstd.compress(PACKED_ZSTD)),
    "a window of 2 GiB": ("zstd", b"\x28\xb5\x2f\xfd\x00\xa8" + PACKED_ZSTD[6:]),
    "an unknown dictionary": ("zstd", b"\x28\xb5\x2f\xfd\x21\x07\x1a" + PACKED_ZSTD[6:]),
}

UNKNOWN = [
    "br", "deflate", "compress", "lz4", "snappy", "aws-chunked", "utf-8", "*", "chunked", "none",
    "gzip, gzip", "gzip,identity", "identity, gzip", "gzip;q=1", "gzip gzip", '"gzip"', "x-zstd",
]  # fmt: skip


async def test_a_body_in_a_known_coding_is_understood(start: Start, upstream: Scripted) -> None:
    body = b'{"model":"m","input":"%b"}' % (b"word " * 20_000)
    packed = {
        **dict.fromkeys(("gzip", "GZip", "x-gzip"), gzip.compress(body)),
        **dict.fromkeys(("zstd", "ZSTD"), zstd.compress(body)),
        **dict.fromkeys(("identity", ""), body),
    }
    async with start(**SMALL) as gateway:
        for coding, data in packed.items():
            field = b"Content-Encoding: " + coding.encode()
            parts = chunked(data[:99], data[99:])
            for request in (post(data, field), head(CREATE, field, CHUNKED) + parts):
                reply = await ask(gateway.port, request)
                assert reply is not None
                assert reply.status == 200, coding
                assert len(upstream.last["input"]) == 100_000
        assert upstream.seen.calls == 2 * len(packed)


async def test_a_damaged_body_is_a_400(start: Start, upstream: Scripted) -> None:
    async with start() as gateway:
        for name, (coding, data) in DAMAGED.items():
            reply = await ask(gateway.port, post(data, b"Content-Encoding: " + coding.encode()))
            assert reply is not None
            assert (reply.status, reply.error["type"]) == (400, "invalid_request_error"), name
            assert reply.error["code"] in ("malformed_request", "invalid_json"), name
        assert upstream.seen.calls == 0


async def test_an_unknown_coding_is_a_415_that_names_the_known_ones(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        for coding in UNKNOWN:
            for data in (GOOD, PACKED):
                reply = await ask(gateway.port, post(data, b"Content-Encoding: " + coding.encode()))
                assert reply is not None
                assert (reply.status, reply.error["param"]) == (415, "content-encoding"), coding
                assert "identity, gzip or zstd" in reply.error["message"]
        assert upstream.seen.calls == 0


async def test_two_codings_are_refused(start: Start, upstream: Scripted) -> None:
    fields = (b"Content-Encoding: gzip", b"Content-Encoding: identity")
    async with start() as gateway:
        for pair in (fields, fields[::-1]):
            reply = await ask(gateway.port, post(PACKED, *pair))
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (400, "malformed_request")
        assert upstream.seen.calls == 0


BOMBS = {
    "gzip, just over the bound": ("gzip", gzip_of(32 * MIB + 1)),
    "gzip": ("gzip", gzip_of(64 * MIB)),
    "gzip by its other name": ("x-gzip", gzip_of(33 * MIB)),
    "zstd, just over the bound": ("zstd", zstd_of(32 * MIB + 1, window_log=21)),
    "zstd": ("zstd", zstd_of(64 * MIB, window_log=21)),
    "zstd with a large window": ("zstd", zstd_of(64 * MIB, window_log=27)),
}


def is_refused(reply: Reply | None, name: str) -> bool:
    """Whether a bomb was too large, or damaged by a window that is one in itself."""
    return reply is not None and reply.status in ((400, 413) if "window" in name else (413,))


async def test_a_bomb_is_refused_at_the_bound_and_leaves_nothing_behind(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        process = psutil.Process()
        before = process.memory_info().rss
        for name, (coding, bomb) in BOMBS.items():
            request = post(bomb, b"Content-Encoding: " + coding.encode())
            for _ in range(3):
                assert is_refused(await ask(gateway.port, request), name), name
        await eventually(lambda: process.memory_info().rss - before < 64 * MIB)
        assert upstream.seen.calls == 0


@pytest.mark.parametrize("name", ["gzip", "zstd", "zstd with a large window"])
async def test_ten_bombs_at_once_take_little_more_than_one(start: Start, name: str) -> None:
    coding, bomb = BOMBS[name]
    request = post(bomb, b"Content-Encoding: " + coding.encode())
    async with start() as gateway, watched() as memory:
        replies = await asyncio.gather(*(ask(gateway.port, request) for _ in range(10)))
        assert all(is_refused(reply, name) for reply in replies)
        assert memory.peak < 128 * MIB
