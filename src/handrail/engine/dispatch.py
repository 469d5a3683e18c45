"""The one loop that makes upstream calls, for foreground and background alike.

It sends, turns an error answer into an exception, mends what we ourselves added, and calls again
only where `core.retry` says so. What comes back is a reply whose body is still unread.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from handrail.core import wire
from handrail.core.mending import mended
from handrail.core.retry import verdict
from handrail.core.rewrite import UpstreamRequest
from handrail.core.steps import Step
from handrail.core.upstream_errors import refusal
from handrail.engine.clock import Clock
from handrail.errors import HandrailError
from handrail.settings.model import Target
from handrail.telemetry import get_logger
from handrail.upstream.client import UpstreamCall, UpstreamClient, UpstreamReply

MAX_ERROR_BYTES: Final = 256 * 1024
ERROR_SECONDS: Final = 10.0
SSE: Final = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What goes into the headers of a reply: the upstream's own, and what was changed for it."""

    headers: Mapping[str, str]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An upstream's reply to a create, its body unread, and all that was changed to get it."""

    reply: UpstreamReply
    steps: tuple[Step, ...]

    @property
    def said(self) -> Said:
        """What of it goes into the headers of our own reply."""
        return Said(headers=self.reply.headers, steps=self.steps)


BeforeSend = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    return None


class Dispatcher:
    """Makes upstream calls through a client."""

    def __init__(self, client: UpstreamClient, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._log = get_logger()

    @asynccontextmanager
    async def create(
        self,
        target: Target,
        request: UpstreamRequest,
        *,
        headers: Mapping[str, str],
        before_send: BeforeSend = _nothing,
        persistent: bool = False,
        path: str = "/responses",
    ) -> AsyncIterator[Answered]:
        """POST `request` to the target's `path`; the reply, closed when the block is left.

        `before_send` is awaited before every call. `persistent` allows waiting and calling again
        under the never-twice rule (background runs); a foreground caller gets the error instead
        and decides itself. Raises UpstreamRefused and UpstreamFailed.
        """
        calls = 0
        self._log.debug("rewritten", steps=request.steps)
        while True:
            await before_send()
            calls += 1
            try:
                reply = await self._call(
                    target, path, method="POST", headers=headers, request=request
                )
                answered = Answered(reply=reply, steps=request.steps)
                del request  # a long stream must not keep a large request alive
                break
            except HandrailError as error:
                better = mended(request, error, fallbacks=target.model_fallbacks)
                if better is not None:
                    request = better
                    self._log.info("upstream_call_mended", step=request.steps[-1])
                    continue
                decision = verdict(error, calls=calls)
                if not persistent or not decision.again:
                    raise
                self._log.info("upstream_call_again", reason=decision.reason, wait=decision.wait)
                await self._clock.sleep(decision.wait)
        try:
            yield answered
        finally:
            reply.close()

    async def ask(self, target: Target, path: str, *, limit: int, method: str = "GET") -> bytes:
        """The body of an answer of the target. Raises UpstreamRefused and UpstreamFailed."""
        reply = await self._call(target, path, method=method)
        try:
            return await reply.read(limit=limit, idle_seconds=target.idle_seconds)
        finally:
            reply.close()

    @asynccontextmanager
    async def listen(self, target: Target, path: str) -> AsyncIterator[UpstreamReply]:
        """A stream of the target; closed when the block is left. Raises as `ask` does."""
        reply = await self._call(target, path, method="GET", accept=SSE)
        try:
            yield reply
        finally:
            reply.close()

    async def _call(
        self,
        target: Target,
        path: str,
        *,
        method: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        request: UpstreamRequest | None = None,
        accept: str = "application/json",
    ) -> UpstreamReply:
        outgoing = {**headers, "accept-encoding": "identity", "user-agent": "handrail"}
        secrets = []
        if target.api_key is not None:
            secrets = [target.api_key.reveal()]
            outgoing["authorization"] = f"Bearer {secrets[0]}"
        body = None
        outgoing["accept"] = SSE if request is not None and request.streams else accept
        if request is not None:
            body = wire.encode(request.body)
            outgoing["content-type"] = "application/json"
        reply = await self._client.send(
            UpstreamCall(
                method=method,
                url=target.url + path,
                headers=outgoing,
                body=body,
                reply_seconds=target.reply_seconds,
                proxy=target.proxy,
            )
        )
        if 200 <= reply.status < 300:
            return reply
        try:
            said = await reply.read(limit=MAX_ERROR_BYTES, idle_seconds=ERROR_SECONDS)
        finally:
            reply.close()
        raise refusal(reply.status, reply.headers, said, now=self._clock.now(), secrets=secrets)
