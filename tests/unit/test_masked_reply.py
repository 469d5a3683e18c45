"""A reply is shown without the credential that it was asked with, in header and body."""

from collections.abc import Mapping

from handrail.core.masking import Mask
from handrail.core.redact import MASK
from handrail.upstream.masked import MaskedReply

SECRET = "a-credential-of-the-test"


class Scripted:
    """A reply that comes in these slices."""

    status = 200

    def __init__(self, *slices: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.headers = headers or {}
        self.slices = list(slices)
        self.ended: list[str] = []

    async def read(self, *, limit: int, idle_seconds: float) -> bytes:
        assert (limit, idle_seconds) == (9, 1.0)
        return b"".join(self.slices)

    async def slice(self) -> bytes:
        return self.slices.pop(0) if self.slices else b""

    async def finish(self) -> None:
        self.ended.append("finished")

    def close(self) -> None:
        self.ended.append("closed")


async def slices_of(reply: MaskedReply) -> list[bytes]:
    found = []
    while data := await reply.slice():
        found.append(data)
    return found


async def test_a_body_in_slices_is_masked_and_ends_only_when_it_ends() -> None:
    half = SECRET[:9].encode()
    reply = MaskedReply(Scripted(half, SECRET[9:].encode() + b"\n", b"and " + half), Mask([SECRET]))
    assert await slices_of(reply) == [f"{MASK}\n".encode(), b"and ", half]


async def test_a_whole_body_is_masked() -> None:
    reply = MaskedReply(Scripted(b"x ", SECRET.encode()), Mask([SECRET]))
    assert await reply.read(limit=9, idle_seconds=1.0) == b"x " + MASK.encode()


async def test_headers_are_masked_and_stay_what_they_are_otherwise() -> None:
    said = {"X-Request-Id": f"for {SECRET}", "Retry-After": "1"}
    reply = MaskedReply(Scripted(headers=said), Mask([SECRET]))
    assert (reply.headers["x-request-id"], reply.headers["retry-after"]) == (f"for {MASK}", "1")
    clean = {"a": "b"}
    assert MaskedReply(Scripted(headers=clean), Mask([SECRET])).headers is clean


async def test_its_end_is_that_of_the_reply_itself() -> None:
    inner = Scripted()
    reply = MaskedReply(inner, Mask([SECRET]))
    await reply.finish()
    reply.close()
    assert (reply.status, inner.ended) == (200, ["finished", "closed"])
