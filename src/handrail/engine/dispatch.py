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
from handrail.core.profiles import Auth
from handrail.core.retry import Cause, verdict
from handrail.core.rewrite import UpstreamRequest
from handrail.core.select import Wants
from handrail.core.steps import Step
from handrail.core.upstream_errors import refusal
from handrail.engine.clock import Clock
from handrail.engine.meter import (
    Attribution,
    CallListener,
    CallMade,
    CallRecord,
    Meter,
    Outcome,
    unheard,
)
from handrail.engine.single import Accounts, Single, Taken
from handrail.engine.turns import Turn
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
    """An upstream's reply to a create, its body unread, and all that was changed to get it.

    Whoever reads the body shows `meter` what ends the response. `account` is the id of the account
    that the call was made with, None for the credential of the settings.
    """

    reply: UpstreamReply
    steps: tuple[Step, ...]
    meter: Meter
    account: str | None = None

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

    def wants(self) -> Wants:
        """What is asked of the account."""
        return Wants(pin=self.attribution.account)

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
    """Makes upstream calls through a client. `listener` gets a record of each that is over.

    Without `accounts` every call is made with the credential of the settings.
    """

    def __init__(
        self,
        client: UpstreamClient,
        *,
        clock: Clock,
        listener: CallListener = unheard,
        accounts: Accounts | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._listener = listener
        self._accounts = accounts or Single(now=clock.now)
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
        turn = Turn(self._accounts, place.target, place.wants(), model=known_as[-1])
        self._log.debug("rewritten", steps=request.steps)
        await turn.read(request, place.headers)
        while True:
            made = place.call(request, known_as, cause=cause)
            try:
                # Before the call is written down: a refresh may take a while, and be in vain.
                taken = await turn.take()
                self._log.debug("account_taken", account=taken.name, reason=taken.reason)
                await before_send(cause)
                calls += 1
                return await self._metered(request, place, turn, taken=taken, made=made)
            except HandrailError as error:
                other = await turn.after(error)
                better = mended(request, error, fallbacks=place.target.model_fallbacks)
                if better is None and not other:
                    better = turn.without_maker(request)
                if better is not None:
                    request, cause = better, Cause.MENDED if calls else Cause.FIRST
                    self._log.info("upstream_call_mended", step=request.steps[-1])
                    continue
                if other:
                    cause = Cause.OTHER_ACCOUNT
                    continue
                decision = verdict(error, calls=calls)
                if not persistent or not decision.again:
                    shown = turn.shown(error)
                    if shown is error:
                        raise  # with what it came from, for the log
                    raise shown from error
                cause = decision.cause if calls else Cause.FIRST
                self._log.info("upstream_call_again", reason=decision.reason, wait=decision.wait)
                await self._clock.sleep(decision.wait)
                turn.anew()
            except BaseException:
                turn.over()
                raise

    async def _metered(
        self,
        request: UpstreamRequest,
        place: _Place,
        turn: Turn,
        *,
        taken: Taken,
        made: CallMade,
    ) -> Answered:
        meter = Meter(made, listener=self._heard_by(turn), clock=self._clock)
        if taken.account is not None:
            meter.account, meter.sealed = taken.name, turn.noted
        try:
            reply = await self._call(
                place.target,
                place.path,
                method="POST",
                taken=taken,
                headers=place.headers,
                request=request,
            )
        except BaseException as error:  # the caller's leaving too
            meter.over(error)
            raise
        meter.answered(reply.status)
        turn.answered(reply.headers)
        return Answered(reply=reply, steps=request.steps, meter=meter, account=taken.account)

    def _heard_by(self, turn: Turn) -> CallListener:
        def over(record: CallRecord) -> None:
            self._listener(record)
            if record.status is not None and record.outcome is not Outcome.REFUSED:
                turn.over(record)  # a call that failed is judged by its error, in the loop

        return over

    async def ask(
        self,
        target: Target,
        path: str,
        *,
        limit: int,
        method: str = "GET",
        account: str | None = None,
        question: bool = False,
    ) -> bytes:
        """The body of an answer of the target, asked for with that account if one is named.

        A `question` is about the account (`Wants`). Raises UpstreamRefused and UpstreamFailed.
        """
        wants = Wants(bound=account, question=question)
        async with self._asked(target, path, method=method, wants=wants) as reply:
            return await reply.read(limit=limit, idle_seconds=target.idle_seconds)

    @asynccontextmanager
    async def listen(
        self, target: Target, path: str, *, account: str | None = None
    ) -> AsyncIterator[UpstreamReply]:
        """A stream of the target; closed when the block is left. Raises as `ask` does."""
        async with self._asked(target, path, accept=SSE, wants=Wants(bound=account)) as reply:
            yield reply

    @asynccontextmanager
    async def _asked(
        self,
        target: Target,
        path: str,
        *,
        method: str = "GET",
        accept: str = "application/json",
        wants: Wants,
    ) -> AsyncIterator[UpstreamReply]:
        turn = Turn(self._accounts, target, wants, model="")
        while True:
            taken = await turn.take()
            try:
                reply = await self._call(target, path, method=method, taken=taken, accept=accept)
                break
            except HandrailError as error:
                if not await turn.after(error):
                    raise
            except BaseException:
                turn.over()
                raise
        turn.answered(reply.headers)
        try:
            yield reply
        finally:
            reply.close()
            turn.over()

    async def _call(
        self,
        target: Target,
        path: str,
        *,
        method: str,
        taken: Taken,
        headers: Mapping[str, str] = MappingProxyType({}),
        request: UpstreamRequest | None = None,
        accept: str = "application/json",
    ) -> UpstreamReply:
        outgoing = {**headers, "accept-encoding": "identity", "user-agent": "handrail"}
        secrets = []
        if taken.shown is not None:
            secrets = [taken.shown.secret, *taken.shown.headers.values()]
            plain = target.auth is Auth.API_KEY
            name, value = ("api-key", "") if plain else ("authorization", "Bearer ")
            outgoing |= taken.shown.headers
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
        raise refusal(reply.status, reply.headers, said, now=self._clock.now(), secrets=secrets)
