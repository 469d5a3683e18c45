"""One HTTP request and its reply, over plain ASGI."""

import asyncio
import math
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import aclosing
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import msgspec

from handrail.engine.charging import Admission
from handrail.errors import Code, Fault, RequestRejected
from handrail.server.inflate import CODINGS, inflate, too_large, unknown_coding

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_SECONDS: Final = 20.0
BODY_BYTES_PER_SECOND: Final = 16 * 1024
MAX_QUERY_FIELDS: Final = 32

JSON_TYPE: Final = (b"content-type", b"application/json")
STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_ALWAYS: Final = ((b"x-content-type-options", b"nosniff"),)
_NO_STORE: Final = (b"cache-control", b"no-store")
_LIMITS: Final = b"x-ratelimit-"


class Connection(Protocol):
    """The client's connection, as the guard gives it."""

    on_lost: Callable[[], None] | None
    on_reset: Callable[[], None] | None

    def drop(self) -> None:
        """Cut it without another byte."""


class Exchange:
    """A request as handlers see it. `headers` are as the guard checked them, names lower-case."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, request_id: str) -> None:
        self.request_id = request_id
        self.method: str = scope["method"]
        self.path: bytes = scope["raw_path"]
        self.query_string: bytes = scope["query_string"]
        self.headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self._http_version: str = scope["http_version"]
        self.connection: Connection = scope["handrail.connection"]
        self.started = False
        self.left = False
        self._admission: Admission | None = None
        self._receive = receive
        self._send = send

    def header(self, name: bytes) -> str:
        """A request header as latin-1 text, "" when absent."""
        for other, value in self.headers:
            if other == name:
                return value.decode("latin-1")
        return ""

    def has_header(self, name: bytes) -> bool:
        """Whether the header is there, empty or not."""
        return any(other == name for other, _ in self.headers)

    def query(self) -> dict[str, str]:
        """The query's fields. Raises RequestRejected for one that stands twice or is no text."""
        return dict(self.query_pairs())

    def query_pairs(self) -> list[tuple[str, str]]:
        """The same in its order, with each of a repeated `include`."""
        try:
            pairs = parse_qsl(
                self.query_string.decode("ascii"),
                keep_blank_values=True,
                max_num_fields=MAX_QUERY_FIELDS,
                errors="strict",
            )
        except ValueError:
            raise RequestRejected(
                Code.INVALID_VALUE, "The query string cannot be read.", param="query"
            ) from None
        for name, _ in pairs:
            # `include[]` is the one that SDKs repeat.
            if sum(other == name for other, _ in pairs) > 1 and name not in (
                "include[]",
                "include",
            ):
                raise RequestRejected(
                    Code.DUPLICATE_PARAMETER,
                    f"The query parameter '{name[:80]}' is given twice.",
                    param=name[:80],
                )
        return pairs

    def require_streaming(self) -> None:
        """Raise RequestRejected for a client that cannot read a stream of unknown length."""
        if self._http_version == "1.0":
            raise RequestRejected(Code.HTTP_VERSION, "A stream needs HTTP/1.1.", param="stream")

    def admitted(self, admission: Admission) -> None:
        """Some limits have let it through: tell how they stand, whatever the reply is."""
        self._admission = admission

    def over(self) -> None:
        """The reply is whole, or never will be. May be called again.

        Before its last byte goes out: whoever has it may ask again at once, and what is still to be
        put away here is no request under way.
        """
        if self._admission is not None:
            admission, self._admission = self._admission, None
            admission.over()

    # --- body ------------------------------------------------------------------------------

    async def body(self, *, limit: int, inflating: asyncio.Semaphore) -> bytes:
        """The whole body, decompressed.

        `inflating` bounds how many bodies are decompressed at once. Raises RequestRejected beyond
        `limit` bytes or the time that so many bytes may take.
        """
        coding = self.header(b"content-encoding").strip().lower() or "identity"
        if coding != "identity" and coding not in CODINGS:
            raise unknown_coding()
        data = await self._read(limit)
        if coding == "identity":
            return data
        async with inflating:
            return await asyncio.to_thread(inflate, data, coding=coding, limit=limit)

    async def _read(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(BODY_SECONDS) as deadline:
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise asyncio.CancelledError
                    part: bytes = message.get("body", b"")
                    parts.append(part)
                    size += len(part)
                    if size > limit:
                        raise too_large(limit)
                    if not message.get("more_body", False):
                        return b"".join(parts)
                    deadline.reschedule(started + BODY_SECONDS + size / BODY_BYTES_PER_SECOND)
        except TimeoutError:
            raise RequestRejected(
                Code.REQUEST_TIMEOUT, "The body took too long to arrive."
            ) from None

    # --- reply -----------------------------------------------------------------------------

    async def reply(
        self, status: int, body: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with JSON."""
        await self._start(
            status,
            [
                JSON_TYPE,
                (b"content-length", b"%d" % len(body)),
                _NO_STORE,
                *_encoded(headers or {}),
            ],
        )
        self.over()
        await self._send({"type": "http.response.body", "body": body})

    async def fail(self, fault: Fault) -> None:
        """Answer with an error."""
        extra = dict(fault.headers)
        if fault.retry_after is not None:
            # Whole seconds, never fewer than asked for; SDKs read the exact ones first.
            extra["retry-after"] = str(math.ceil(fault.retry_after))
            if fault.retry_after % 1:
                extra["retry-after-ms"] = str(math.ceil(fault.retry_after * 1_000))
        if fault.should_retry is not None:
            extra["x-should-retry"] = str(fault.should_retry).lower()
        await self.reply(fault.status, msgspec.json.encode(fault.body()), headers=extra)

    async def stream(
        self, chunks: AsyncGenerator[bytes, None], *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with server-sent events, each chunk in one write.

        Waits while the reader is slow, so nothing piles up here.
        """
        await self._start(200, [*STREAM_HEADERS, *_encoded(headers or {})])
        await self._write(chunks)

    async def through(
        self, status: int, chunks: AsyncGenerator[bytes, None], *, headers: Mapping[str, str]
    ) -> None:
        """Answer with a body of any kind as it comes, which `headers` describe."""
        await self._start(status, [_NO_STORE, *_encoded(headers)])
        await self._write(chunks)

    async def _write(self, chunks: AsyncGenerator[bytes, None]) -> None:
        async with aclosing(chunks):
            async for chunk in chunks:
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
                del chunk  # or it would stay in memory until the next one comes
        self.over()
        await self._send({"type": "http.response.body", "body": b""})

    async def finish(self, chunk: bytes) -> None:
        """The last bytes of a stream that was interrupted."""
        await self._send({"type": "http.response.body", "body": chunk})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        own = [(b"x-request-id", self.request_id.encode()), *_ALWAYS]
        if self._admission is not None and self._admission.headers:
            # The upstream's are about its own limits, and half of each would be a riddle.
            headers = [field for field in headers if not field[0].startswith(_LIMITS)]
            own += _encoded(self._admission.headers)
        await self._send(
            {"type": "http.response.start", "status": status, "headers": [*headers, *own]}
        )


def require_json(exchange: Exchange) -> None:
    """Raise RequestRejected unless the body is said to be JSON."""
    # Also what keeps a web page from calling without a preflight: a form cannot send this type.
    kind = exchange.header(b"content-type").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestRejected(
            Code.UNSUPPORTED_MEDIA_TYPE,
            "Content-Type must be application/json.",
            param="content-type",
        )


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    # As the upstream's were decoded: what it says of a file may be in any letters.
    return [
        (name.encode("latin-1"), value.encode("utf-8", "surrogateescape"))
        for name, value in headers.items()
    ]
