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
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handrail.errors import Code, fault
from handrail.server.delivery import undelivered
from handrail.server.heads import (
    MAX_HEAD_BYTES,
    HeadRefused,
    check_head,
    head_end,
    without_h2c,
)

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

HEAD_SECONDS: Final = 10.0
BODY_SECONDS: Final = 30.0
BODY_BYTES_PER_SECOND: Final = 16 * 1024
IDLE_SECONDS: Final = 75.0
WRITE_SECONDS: Final = 60.0
LINGER_SECONDS: Final = 2.0
CLOSE_SECONDS: Final = 10.0
LINGER_BYTES: Final = 4 << 20


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
    admitted: int = 0

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
        # Also after the reply, until the next request: a client (or the proxy in front of it) that
        # closes a connection with the reply unread resets it, and one that closes before the reply
        # is there leaves it undelivered; one that has read it does neither.
        self.on_reset: Callable[[], None] | None = None
        self._admitted = False
        self._phase = Phase.IDLE
        self._deadline = 0.0
        self._write_deadline: float | None = None
        self._head = bytearray()
        self._message_done = True
        self._discarded = 0
        self._between = 0

    # --- the connection --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it, or refuse it when there are too many."""
        super().connection_made(transport)
        self.rules.connections.add(self)
        self._enter(Phase.IDLE, IDLE_SECONDS)
        self._admitted = self.rules.admitted < self.rules.max_connections
        if self._admitted:
            self.rules.admitted += 1
        else:
            self._answer(Code.TOO_MANY_CONNECTIONS, "Too many connections; try again.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and tell the request under way, in whatever phase it is."""
        self.rules.connections.discard(self)
        self.rules.admitted -= self._admitted
        self._admitted = False
        super().connection_lost(exc)
        self._tell_lost()
        if exc is not None:
            self._tell_reset()
        self.on_reset = None

    def eof_received(self) -> None:
        """A half-close is leaving, also while replies to it are still being written."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
        self._tell_lost()
        if self.on_reset is not None and undelivered(self.transport):
            self._tell_reset()

    def _tell_reset(self) -> None:
        reset, self.on_reset = self.on_reset, None
        if reset is not None:
            reset()

    def _tell_lost(self) -> None:
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
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.abort()
        elif self._phase is Phase.REPLY:
            # A second request before the first is answered. Queueing it would stop us from seeing
            # the client leave; writing an error would splice it into the reply.
            self._go_deaf()
        else:
            with contextlib.suppress(_Stop):
                if self._phase is Phase.BODY:
                    self._feed_body(data)
                else:
                    self._feed(self._whole_head(data))

    def _whole_head(self, data: bytes) -> bytes:
        if self._phase is Phase.IDLE:
            self._enter(Phase.HEAD, HEAD_SECONDS)
        seen = len(self._head)
        self._head += data
        try:
            end = head_end(self._head, seen=seen)
        except HeadRefused as refused:
            self._refuse(refused.code, refused.message)
        if end is None:
            raise _Stop
        head, body = bytes(self._head[:end]), bytes(self._head[end:])
        self._head = bytearray()
        return without_h2c(head) + body

    def _feed_body(self, data: bytes) -> None:
        # What is no body byte (chunk sizes and their extensions, trailers) is bounded like a head.
        self._between += len(data)
        self._feed(data)
        if self._phase is Phase.BODY and self._between > MAX_HEAD_BYTES:
            self._break_off(Code.HEADERS_TOO_LARGE, "Too much between the chunks of the body.")

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # a WebSocket upgrade; the application answers it as an ordinary request
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _Stop):
                raise _Stop from None
            if self.cycle is None or self.cycle.response_complete:
                self._refuse(Code.MALFORMED_REQUEST, "The HTTP request is malformed.")
            elif self._phase is Phase.BODY and not self.cycle.response_started:
                self._break_off(Code.MALFORMED_REQUEST, "The HTTP request is malformed.")
            else:
                self._go_deaf()

    def on_message_begin(self) -> None:
        """A request starts; a pipelined one is not begun."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._go_deaf()
            raise _Stop
        super().on_message_begin()
        self._message_done = False
        self.on_reset = None

    def on_headers_complete(self) -> None:
        """Check the head, then let the application have the request."""
        try:
            check_head(
                method=self.parser.get_method(),
                target=self.url,
                version=self.parser.get_http_version(),
                headers=self.headers,
                allowed_hosts=self.rules.allowed_hosts,
                max_body_bytes=self.rules.max_body_bytes,
            )
        except HeadRefused as refused:
            self._refuse(refused.code, refused.message)
        self.scope["handrail.connection"] = self  # type: ignore[typeddict-unknown-key]
        self._enter(Phase.BODY, BODY_SECONDS)
        super().on_headers_complete()
        # The parser calls `on_header` for trailers too. They must not join the headers that the
        # application reads: they came after the check, and could hold a key or a Host.
        self.headers = []
        self._between = 0
        self.cycle.transport = cast("asyncio.Transport", _PatientTransport(self))
        if self.parser.should_upgrade():
            # The parser takes an upgrade's body for another protocol and leaves it out, so what
            # follows on this connection cannot be told from a request.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Body bytes earn time; the application bounds their number."""
        self._between = 0
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

    @property
    def message_done(self) -> bool:
        """Whether the whole request has arrived."""
        return self._message_done

    # --- bytes out -------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """A reply is out: wait for the next request, or take leave of a body still coming."""
        self.server_state.total_requests += 1
        self.on_lost = None
        if self.transport.is_closing():
            self._enter(Phase.LINGER, CLOSE_SECONDS)  # a reader may still not take what is left
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

    def _break_off(self, code: Code, message: str) -> None:
        """Answer in place of a handler that is waiting for a body that will never be whole."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self._answer(code, message)
        self._tell_lost()

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
            b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
            b"connection: close\r\n%b\r\n%b"
            % (problem.status, HTTPStatus(problem.status).phrase.encode(), len(body), retry, body)
        )
        self._linger()

    def _linger(self) -> None:
        self._enter(Phase.LINGER, LINGER_SECONDS)
        self._discarded = 0
        if self.transport.can_write_eof():
            self.transport.write_eof()


class _PatientTransport:
    """The transport as uvicorn's reply sees it: one that is not closed on a body still coming.

    For a client that asked to close (or speaks HTTP/1.0) uvicorn closes as soon as the reply is
    out; with unread input that is a reset, and the client loses the answer to its early refusal.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: GuardedProtocol) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        self._connection.transport.write(data)

    def is_closing(self) -> bool:
        return self._connection.transport.is_closing()

    def close(self) -> None:
        if self._connection.message_done:
            self._connection.transport.close()
