"""The one loop that makes upstream calls, for foreground and background alike.

It sends, turns an error answer into an exception, mends what we ourselves added, and calls again
only where `core.retry` says so. What comes back is a reply whose body is still unread.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from handrail.core import wire
from handrail.core.mending import mended
from handrail.core.profiles import Auth
from handrail.core.retry import Cause, verdict
from handrail.core.rewrite import UpstreamRequest
from handrail.core.steps import Step
from handrail.core.upstream_errors import refusal
from handrail.engine.clock import Clock
from handrail.engine.meter import Attribution, CallListener, CallMade, Meter, unheard
from handrail.errors import HandrailError
from handrail.settings.model import Target
from handrail.telemetry import get_logger
from handrail.upstream.client import UpstreamCall, UpstreamClient, UpstreamReply
from handrail.upstream.credentials import Credentials

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
    """An upstream's reply to a create, its body unread, and all that was changed to get it.

    Whoever reads the body shows `meter` what ends the response.
    """

    reply: UpstreamReply
    steps: tuple[Step, ...]
    meter: Meter

    @property
    def said(self) -> Said:
        """What of it goes into the headers of our own reply."""
        return Said(headers=self.reply.headers, steps=self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where calls go, and on whose account."""

    target: Target
    path: str
    headers: Mapping[str, str]
    attribution: Attribution

    def call(
        self, request: UpstreamRequest, known_as: tuple[str, ...], *, cause: Cause
    ) -> CallMade:
        """What is known of a call of `request`, which was known by these names at first."""
        return CallMade(
            attribution=self.attribution,
            target=self.target.name,
            model=known_as[0],
            # After a fallback it goes by the other model's name alone.
            sent_models=request.models[len(known_as) :][-1:] or known_as,
            endpoint=self.path.rpartition("/")[2],
            cause=cause,
        )


BeforeSend = Callable[[Cause], Awaitable[None]]


async def _nothing(_: Cause) -> None:
    return None


class Dispatcher:
    """Makes upstream calls through a client. `listener` gets a record of each that is over."""

    def __init__(
        self, client: UpstreamClient, *, clock: Clock, listener: CallListener = unheard
    ) -> None:
        self._client = client
        self._clock = clock
        self._listener = listener
        self._credentials = Credentials(now=clock.now)
        self._log = get_logger()

    @asynccontextmanager
    async def create(
        self,
        target: Target,
        request: UpstreamRequest,
        *,
        headers: Mapping[str, str],
        attribution: Attribution,
        before_send: BeforeSend = _nothing,
        persistent: bool = False,
        path: str = "/responses",
    ) -> AsyncIterator[Answered]:
        """POST `request` to the target's `path`; the reply, closed when the block is left.

        Each call is metered, and charged as `attribution` says. `before_send` is awaited before
        every call, with why it is made. `persistent` allows waiting and calling again under the
        never-twice rule (background runs); a foreground caller gets the error instead and decides
        itself. Raises UpstreamRefused and UpstreamFailed.
        """
        place = _Place(target=target, path=path, headers=headers, attribution=attribution)
        answered = await self._answered(
            request, place, before_send=before_send, persistent=persistent
        )
        del request  # a long stream must not keep a large request alive
        with answered.meter:
            try:
                yield answered
            finally:
                answered.reply.close()

    async def _answered(
        self,
        request: UpstreamRequest,
        place: _Place,
        *,
        before_send: BeforeSend,
        persistent: bool,
    ) -> Answered:
        """Call until there is an answer, or an error that is to stand."""
        calls = 0
        cause = Cause.FIRST
        known_as = request.models
        self._log.debug("rewritten", steps=request.steps)
        while True:
            await before_send(cause)
            calls += 1
            meter = Meter(
                place.call(request, known_as, cause=cause),
                listener=self._listener,
                clock=self._clock,
            )
            try:
                return await self._metered(request, place, meter)
            except HandrailError as error:
                better = mended(request, error, fallbacks=place.target.model_fallbacks)
                if better is not None:
                    request, cause = better, Cause.MENDED
                    self._log.info("upstream_call_mended", step=request.steps[-1])
                    continue
                decision = verdict(error, calls=calls)
                if not persistent or not decision.again:
                    raise
                cause = decision.cause
                self._log.info("upstream_call_again", reason=decision.reason, wait=decision.wait)
                await self._clock.sleep(decision.wait)

    async def _metered(self, request: UpstreamRequest, place: _Place, meter: Meter) -> Answered:
        try:
            reply = await self._call(
                place.target, place.path, method="POST", headers=place.headers, request=request
            )
        except BaseException as error:  # the caller's leaving too
            meter.over(error)
            raise
        meter.answered(reply.status)
        return Answered(reply=reply, steps=request.steps, meter=meter)

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
        credential = await self._credentials.of(target)
        if credential is not None:
            secrets = [credential.reveal()]
            plain = target.auth is Auth.API_KEY
            name, value = ("api-key", "") if plain else ("authorization", "Bearer ")
            outgoing[name] = value + secrets[0]
        body = None
        outgoing["accept"] = SSE if request is not None and request.streams else accept
        if request is not None:
            body = wire.encode(request.body)
            outgoing["content-type"] = "application/json"
        reply = await self._client.send(
            UpstreamCall(
                method=method,
                url=target.address(path),
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
        if reply.status == HTTPStatus.UNAUTHORIZED:
            self._credentials.forget(target)
        raise refusal(reply.status, reply.headers, said, now=self._clock.now(), secrets=secrets)
