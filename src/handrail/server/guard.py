"""What a connection must be before anything of ours looks at a request.

The only file that names uvicorn's internals: a subclass of its httptools protocol, handed over as
`Config(http=...)`. Stock uvicorn bounds neither a head nor a body in size or time, takes any Host,
and forgets about a pipelining client that leaves; each rule here closes one such hole. A connection
has one phase and one deadline; a single sweep a second looks at all of them, so no request arms a
timer of its own. Everything this file refuses is answered in OpenAI's envelope, half-closed and
lingered: closing with unread input would send a reset that eats the answer.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handrail.errors import Code, fault

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_TARGET_BYTES: Final = 8 * 1024
HEAD_SECONDS: Final = 10.0
BODY_SECONDS: Final = 30.0
BODY_BYTES_PER_SECOND: Final = 16 * 1024
IDLE_SECONDS: Final = 75.0
WRITE_SECONDS: Final = 60.0
LINGER_SECONDS: Final = 2.0
CLOSE_SECONDS: Final = 10.0
LINGER_BYTES: Final = 4 << 20

METHODS: Final = frozenset({b"GET", b"POST", b"DELETE"})
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_HOST: Final = re.compile(
    rb"(?:([A-Za-z0-9._\-]{1,255})|\[([0-9A-Fa-f:.]{2,45})\])(?::[0-9]{1,5})?\Z"
)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}\Z")
# Two of any of these would let two readers of one request decide differently.
_SINGLE: Final = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"origin",
        b"transfer-encoding",
        b"x-api-key",
    }
)


class Phase(Enum):
    """Where a connection is."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    REPLY = "reply"
    LINGER = "linger"


@dataclass(slots=True, kw_only=True)
class GuardRules:
    """What the guard enforces, and the connections it watches. One per listening server."""

    allowed_hosts: frozenset[bytes]
    max_body_bytes: int
    max_connections: int
    connections: "set[GuardedProtocol]" = field(default_factory=set)

    def protocol(self) -> type[HttpToolsProtocol]:
        """The protocol class for `uvicorn.Config(http=...)`."""
        return type("Guarded", (GuardedProtocol,), {"rules": self})

    def sweep(self, now: float) -> None:
        """Close what is past its deadline; `now` is the event loop's time."""
        for connection in list(self.connections):
            connection.check(now)


class _Stop(Exception):
    """The rest of what was received is not to be parsed."""


class GuardedProtocol(HttpToolsProtocol):
    """One client connection."""

    rules: GuardRules

    def __init__(
        self,
        config: "Config",
        server_state: "ServerState",
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.on_lost: Callable[[], None] | None = None
        self._phase = Phase.IDLE
        self._deadline = 0.0
        self._write_deadline: float | None = None
        self._head = bytearray()
        self._message_done = True
        self._received = 0

    # --- the connection --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it, or refuse it when there are too many."""
        super().connection_made(transport)
        self.rules.connections.add(self)
        self._enter(Phase.IDLE, IDLE_SECONDS)
        if len(self.rules.connections) > self.rules.max_connections:
            self._answer(Code.TOO_MANY_CONNECTIONS, "Too many connections; try again.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and tell the request under way, in whatever phase it is."""
        self.rules.connections.discard(self)
        super().connection_lost(exc)
        lost, self.on_lost = self.on_lost, None
        if lost is not None:
            lost()

    def drop(self) -> None:
        """Cut the connection without another byte: what was promised cannot be kept."""
        self.transport.abort()

    def check(self, now: float) -> None:
        """Act on a deadline that has passed."""
        if self._write_deadline is not None and now > self._write_deadline:
            self.transport.abort()  # the reader takes nothing
        elif now <= self._deadline or self._phase is Phase.REPLY:
            return
        elif self._phase is Phase.HEAD and not self.transport.is_closing():
            self._answer(Code.REQUEST_TIMEOUT, "The request took too long to arrive.")
        elif self.transport.is_closing() or self._phase in (Phase.LINGER, Phase.BODY):
            self.transport.abort()
        else:
            self._deadline = now + CLOSE_SECONDS
            self.transport.close()

    def pause_writing(self) -> None:
        """The reader is slow: from now on it has a deadline."""
        super().pause_writing()
        self._write_deadline = self.loop.time() + WRITE_SECONDS

    def resume_writing(self) -> None:
        """The reader has caught up."""
        super().resume_writing()
        self._write_deadline = None

    def _enter(self, phase: Phase, seconds: float) -> None:
        self._phase = phase
        self._deadline = self.loop.time() + seconds

    # --- bytes in --------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hold a head back until it is whole, then let the parser have it."""
        if self._phase is Phase.LINGER:
            self._received += len(data)
            if self._received > LINGER_BYTES:
                self.transport.abort()
            return
        if self._phase is Phase.REPLY:
            # A second request before the first is answered. Queueing it would stop us from seeing
            # the client leave; writing an error would splice it into the reply.
            self._go_deaf()
            return
        with contextlib.suppress(_Stop):
            self._feed(self._whole_head(data) if self._phase is not Phase.BODY else data)

    def _whole_head(self, data: bytes) -> bytes:
        if self._phase is Phase.IDLE:
            self._enter(Phase.HEAD, HEAD_SECONDS)
        self._head += data
        head = self._head
        if not 0x41 <= head[0] <= 0x5A:
            self._refuse(Code.MALFORMED_REQUEST, "That is no HTTP request.")
        line, newline, _ = head.partition(b"\n")
        if len(line) > MAX_TARGET_BYTES + 32:
            self._refuse(Code.URI_TOO_LONG, f"The URL is longer than {MAX_TARGET_BYTES} bytes.")
        if newline and line.count(b" ") != 2:
            # llhttp takes several spaces; a proxy in front may have read another target.
            self._refuse(Code.MALFORMED_REQUEST, "The request line is malformed.")
        end = _HEAD_END.search(head)
        if end is None and len(head) <= MAX_HEAD_BYTES:
            raise _Stop
        if end is None or end.end() > MAX_HEAD_BYTES:
            self._refuse(
                Code.HEADERS_TOO_LARGE, f"The headers are larger than {MAX_HEAD_BYTES} bytes."
            )
        whole = bytes(head)
        self._head = bytearray()
        return _without_h2c(whole, end.end()) if end else whole

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # a WebSocket upgrade; the application answers it as an ordinary request
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _Stop):
                raise _Stop from None
            if self.cycle is not None and not self.cycle.response_complete:
                self._go_deaf()
                return
            self._refuse(Code.MALFORMED_REQUEST, "The HTTP request is malformed.")

    def on_message_begin(self) -> None:
        """A request starts; a pipelined one is not begun."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._go_deaf()
            raise _Stop
        super().on_message_begin()
        self._message_done = False
        self._received = 0

    def on_headers_complete(self) -> None:
        """Check the head, then let the application have the request."""
        self._check_head()
        self.scope["handrail.connection"] = self  # type: ignore[typeddict-unknown-key]
        self._enter(Phase.BODY, BODY_SECONDS)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Body bytes earn time; the application bounds their number."""
        self._deadline += len(body) / BODY_BYTES_PER_SECOND
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._message_done = True
        super().on_message_complete()
        if self._phase is Phase.BODY:
            if self.cycle.response_complete:
                self._enter(Phase.IDLE, IDLE_SECONDS)
            else:
                self._phase = Phase.REPLY

    def _check_head(self) -> None:
        found: dict[bytes, bytes] = {}
        for name, value in self.headers:
            if name in _SINGLE and name in found:
                self._refuse(
                    Code.MALFORMED_REQUEST, f"The header '{name.decode()}' is given twice."
                )
            found[name] = value
        self._check_target()
        self._check_host(found.get(b"host"))
        self._check_framing(found)

    def _check_target(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse(Code.HTTP_VERSION, "Only HTTP/1.1 is spoken here.")
        if len(self.url) > MAX_TARGET_BYTES:
            self._refuse(Code.URI_TOO_LONG, f"The URL is longer than {MAX_TARGET_BYTES} bytes.")
        method = self.parser.get_method()
        if method not in METHODS:
            name = method.decode("ascii", "replace")
            self._refuse(Code.METHOD_NOT_ALLOWED, f"The method {name} is not allowed.")
        if not self.url.startswith(b"/") or self.url.startswith(b"//"):
            self._refuse(Code.MALFORMED_REQUEST, "The request target must be a path.")

    def _check_host(self, host: bytes | None) -> None:
        match = _HOST.match(host) if host else None
        if match is None:
            self._refuse(Code.MALFORMED_REQUEST, "A valid Host header is required.")
        if (match[1] or match[2]).lower() not in self.rules.allowed_hosts:
            self._refuse(
                Code.HOST_NOT_ALLOWED,
                "This Host is not served here; [server] allowed_hosts names further ones.",
            )

    def _check_framing(self, found: dict[bytes, bytes]) -> None:
        length, coding = found.get(b"content-length"), found.get(b"transfer-encoding")
        if length is not None and (coding is not None or not _LENGTH.match(length)):
            self._refuse(Code.MALFORMED_REQUEST, "Content-Length is malformed or contradicted.")
        if coding is not None and (
            coding.lower() != b"chunked" or self.parser.get_http_version() == "1.0"
        ):
            self._refuse(Code.MALFORMED_REQUEST, "Transfer-Encoding can only be 'chunked'.")
        if length is not None and int(length) > self.rules.max_body_bytes:
            self._refuse(
                Code.PAYLOAD_TOO_LARGE,
                f"The body is larger than {self.rules.max_body_bytes} bytes.",
            )
        if found.get(b"expect", b"100-continue").lower() != b"100-continue":
            self._refuse(Code.EXPECTATION_FAILED, "Only 'Expect: 100-continue' is understood.")

    # --- bytes out -------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """A reply is out: wait for the next request, or take leave of a body still coming."""
        self.server_state.total_requests += 1
        self.on_lost = None
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if not self._message_done:
            self._linger()
        elif self._phase is not Phase.LINGER:
            self._enter(Phase.IDLE, IDLE_SECONDS)

    def _go_deaf(self) -> None:
        if self.cycle is not None:
            self.cycle.keep_alive = False
        self.flow.resume_reading()

    def _refuse(self, code: Code, message: str) -> NoReturn:
        self._answer(code, message)
        raise _Stop

    def _answer(self, code: Code, message: str) -> None:
        """Answer from here, in the envelope, and take leave."""
        problem = fault(code, message)
        body = msgspec.json.encode(problem.body())
        retry = b"retry-after: %d\r\n" % problem.retry_after if problem.retry_after else b""
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n%b\r\n%b"
            % (
                problem.status,
                HTTPStatus(problem.status).phrase.encode(),
                len(body),
                retry,
                body,
            )
        )
        self._linger()

    def _linger(self) -> None:
        self._enter(Phase.LINGER, LINGER_SECONDS)
        self._received = 0
        if self.transport.can_write_eof():
            self.transport.write_eof()


_H2C: Final = re.compile(
    rb"^(?:upgrade:[ \t]*h2c|http2-settings:[^\r\n]*|connection:[^\r\n]*\bupgrade\b[^\r\n]*)"
    rb"[ \t]*\r?\n",
    re.IGNORECASE | re.MULTILINE,
)


def _without_h2c(data: bytes, head_end: int) -> bytes:
    # Java's HttpClient offers HTTP/2 on its first request, also with a body. The parser would
    # leave the body out; without the offer it is the plain HTTP/1.1 request that it also is.
    head = data[:head_end]
    if b"h2c" not in head.lower():
        return data
    return _H2C.sub(b"", head) + data[head_end:]
