"""The outbound HTTP client behind a narrow port: send, read in slices, abort.

aiohttp underneath (five times httpx2's speed here); nothing above this file names it, so that a
faster transport can take its place. Settings that matter, each found out the hard way by somebody:
no redirects (a 307 would carry the prompt elsewhere), no netrc and no proxy but the target's, no
cookies, identity coding only (a compressed reply can be a bomb), no pool limit (admission is ours),
and our own deadlines, because aiohttp's read time-out starts again with every byte.
"""

import asyncio
import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from handrail.errors import Code, UpstreamFailed
from handrail.settings.model import Proxy

SLICE_BYTES: Final = 16_384
"""Read in slices of this size: uvloop's own are 256 KiB, which a stalled stream would hold."""

PROXY_LOGIN_WANTED: Final = 407
"""The one status that only the proxy can mean."""

_LOGIN: Final = "proxy-authorization"
_IN_PIECES: Final = 1 << 20
_CONNECT_SECONDS: Final = 10.0
_FINISH_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamCall:
    """One HTTP request to make. `reply_seconds` bounds the wait for the reply's headers.

    `called` is what errors call the other side. `keep_seconds` is how long the connection is kept
    for another call when this one is over.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    reply_seconds: float
    proxy: Proxy | None
    called: str = "upstream"
    keep_seconds: float = 15.0


class UpstreamReply(Protocol):
    """A reply whose headers have arrived."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Whose names match in any case."""

    async def read(self, *, limit: int, idle_seconds: float) -> bytes:
        """The whole body.

        Raises UpstreamFailed beyond `limit` bytes, when it breaks off, and when nothing comes for
        `idle_seconds`.
        """

    async def slice(self) -> bytes:
        """The next bytes, b"" at the end. Raises UpstreamFailed when the connection breaks."""

    async def finish(self) -> None:
        """Read the little that should be left, so that the connection can be used again.

        Waits a moment at most and raises nothing; whatever it leaves, `close` closes.
        """

    def close(self) -> None:
        """Give the connection up; closes the socket unless the body was read to its end."""


class UpstreamClient(Protocol):
    """Makes upstream calls."""

    async def send(self, call: UpstreamCall) -> UpstreamReply:
        """Send, and wait for the reply's headers.

        Raises UpstreamFailed, with `sent` False only when no byte of the request was handed to a
        socket. Cancelling it closes the connection.
        """

    async def close(self) -> None:
        """Close every connection."""


class AiohttpReply:
    """`UpstreamReply` over aiohttp."""

    def __init__(self, reply: aiohttp.ClientResponse, *, called: str) -> None:
        self._reply = reply
        self._called = called
        self.status = reply.status
        self.headers: Mapping[str, str] = reply.headers

    async def read(self, *, limit: int, idle_seconds: float) -> bytes:
        """See the port."""
        parts: list[bytes] = []
        size = 0
        while part := await self._slice_within(idle_seconds):
            parts.append(part)
            size += len(part)
            if size > limit:
                self.close()
                raise UpstreamFailed(
                    Code.UPSTREAM_PROTOCOL_ERROR,
                    f"The {self._called}'s reply is larger than {limit} bytes.",
                )
        return b"".join(parts)

    async def _slice_within(self, seconds: float) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                return await self.slice()
        except TimeoutError:
            raise UpstreamFailed(
                Code.UPSTREAM_STALLED, f"The {self._called} was silent for {seconds:.0f} s."
            ) from None

    async def finish(self) -> None:
        """See the port."""
        with contextlib.suppress(UpstreamFailed, TimeoutError):
            async with asyncio.timeout(_FINISH_SECONDS):
                await self.slice()

    async def slice(self) -> bytes:
        """See the port."""
        try:
            return await self._reply.content.read(SLICE_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFailed(
                Code.UPSTREAM_ENDED_EARLY,
                f"The {self._called} broke off its reply ({_cause(error)}).",
            ) from error

    def close(self) -> None:
        """See the port."""
        self._reply.close()


class AiohttpClient:
    """`UpstreamClient` over aiohttp: one session for each time that connections are kept.

    Build it inside the running event loop.
    """

    def __init__(self) -> None:
        self._sessions: dict[float, aiohttp.ClientSession] = {}

    def _session(self, keep_seconds: float) -> aiohttp.ClientSession:
        if keep_seconds not in self._sessions:
            self._sessions[keep_seconds] = self._new_session(keep_seconds)
        return self._sessions[keep_seconds]

    def _new_session(self, keep_seconds: float) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0, limit_per_host=0, keepalive_timeout=keep_seconds, ttl_dns_cache=60
        )
        return aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            raise_for_status=False,
            read_bufsize=SLICE_BYTES,
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type", "Accept"),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=None, sock_connect=_CONNECT_SECONDS, sock_read=None
            ),
            trust_env=False,
            max_line_size=16_384,
            max_field_size=16_384,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, call: UpstreamCall) -> AiohttpReply:
        """See the port."""
        via = " through its proxy" if call.proxy else ""
        try:
            async with asyncio.timeout(call.reply_seconds):
                reply = await self._session(call.keep_seconds).request(
                    call.method,
                    URL(call.url, encoded=True),
                    data=_paced(call.body),
                    allow_redirects=False,
                    **_headers(call),
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UpstreamFailed(
                Code.UPSTREAM_UNREACHABLE,
                f"The {call.called} {origin(call.url)} cannot be reached{via} ({_cause(error)}).",
                sent=False,
            ) from error
        except aiohttp.ClientHttpProxyError as error:
            raise _refused_by_proxy(call, error.status) from error
        except TimeoutError as error:
            raise UpstreamFailed(
                Code.UPSTREAM_STALLED,
                f"The {call.called} did not answer within {call.reply_seconds:.0f} s.",
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamFailed(
                Code.UPSTREAM_ENDED_EARLY,
                f"The {call.called} closed the connection before it answered ({_cause(error)}).",
            ) from error
        if call.proxy is not None and reply.status == PROXY_LOGIN_WANTED:
            reply.close()
            raise _refused_by_proxy(call, reply.status)
        if reply.headers.get("content-encoding", "identity").lower() != "identity":
            reply.close()
            raise UpstreamFailed(
                Code.UPSTREAM_PROTOCOL_ERROR,
                f"The {call.called} compressed its reply although it was asked not to.",
            )
        return AiohttpReply(reply, called=call.called)

    async def close(self) -> None:
        """See the port."""
        for session in self._sessions.values():
            await session.close()


def _paced(body: bytes | None) -> bytes | io.BytesIO | None:
    # aiohttp writes a file in slices and lets others run between them, but bytes all at once; it
    # warns of the latter, and where warnings are errors the call fails.
    return io.BytesIO(body) if body is not None and len(body) > _IN_PIECES else body


def _headers(call: UpstreamCall) -> dict[str, Any]:
    """The headers of a call, and where it goes through a proxy, what is for that one."""
    proxy = call.proxy
    if proxy is None:
        return {"headers": call.headers}
    # The login beside the URL and not in it: aiohttp's errors show the URL that they are about.
    login = {} if proxy.authorization is None else {_LOGIN: proxy.authorization.reveal()}
    if urlsplit(call.url).scheme == "https":
        # It opens a tunnel first, and what goes through that is no business of the proxy's.
        return {"headers": call.headers, "proxy": URL(proxy.url), "proxy_headers": login}
    return {"headers": {**call.headers, **login}, "proxy": URL(proxy.url)}


def _refused_by_proxy(call: UpstreamCall, status: int) -> UpstreamFailed:
    return UpstreamFailed(
        Code.UPSTREAM_UNREACHABLE,
        f"The proxy in front of the {call.called} {origin(call.url)} answered {status}.",
        sent=False,
    )


def origin(url: str) -> str:
    """Scheme, host and port of a URL: what may be named in an error."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _cause(error: BaseException) -> str:
    # The class and the system's own words, never aiohttp's: those can hold the whole URL.
    inner = getattr(error, "os_error", None) or error.__cause__ or error
    words = getattr(inner, "strerror", None) if isinstance(inner, OSError) else None
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
