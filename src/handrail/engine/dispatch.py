"""The one loop that makes upstream calls, for foreground and background alike.

It sends, turns an error answer into an exception, mends what we ourselves added, and calls again
only where `core.retry` says so. What comes back is a reply whose body is still unread.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from handrail.core import wire
from handrail.core.mending import mended
from handrail.core.retry import Cause, verdict
from handrail.core.select import Wants
from handrail.core.steps import Step
from handrail.engine.clock import Clock
from handrail.engine.course import Course, Leg
from handrail.engine.meter import (
    Attribution,
    CallListener,
    CallMade,
    Meter,
    unheard,
)
from handrail.engine.sending import JSON, SSE, Outgoing, Sender
from handrail.engine.single import Accounts, NoAccount, Single, Taken
from handrail.engine.turns import Turn
from handrail.engine.ways import Ways
from handrail.errors import HandrailError
from handrail.settings.model import Target
from handrail.telemetry import get_logger
from handrail.upstream.client import UpstreamClient, UpstreamReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What goes into the headers of a reply: the upstream's own, and what was changed for it."""

    headers: Mapping[str, str]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A target's reply to a create, its body unread, and all that was changed to get it.

    Whoever reads the body shows `meter` what ends the response. `account` is the id of the account
    that the call was made with, None for the credential of the settings.
    """

    target: Target
    reply: UpstreamReply
    steps: tuple[Step, ...]
    meter: Meter
    account: str | None = None

    @property
    def said(self) -> Said:
        """What of it goes into the headers of our own reply."""
        return Said(headers=self.reply.headers, steps=self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Journey:
    """What all calls of one request have in common."""

    path: str
    attribution: Attribution
    before_send: "BeforeSend"
    persistent: bool

    def wants(self) -> Wants:
        """What is asked of the account."""
        tags = frozenset(self.attribution.account_tags)
        return Wants(pin=self.attribution.account, tags=tags)

    def call(self, leg: Leg, *, cause: Cause) -> CallMade:
        """What is known of a call that is about to be made."""
        known_as, models = leg.known_as, leg.request.models
        return CallMade(
            attribution=self.attribution,
            target=leg.way.target.name,
            model=known_as[0],
            # After a fallback it goes by the other model's name alone.
            sent_models=models[len(known_as) :][-1:] or known_as,
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
        self._sender = Sender(client, clock=clock)
        self._clock = clock
        self._listener = listener
        self._accounts = accounts or Single(now=clock.now)
        self._log = get_logger()

    @asynccontextmanager
    async def create(
        self,
        ways: Ways,
        *,
        attribution: Attribution,
        before_send: BeforeSend = _nothing,
        persistent: bool = False,
        path: str = "/responses",
    ) -> AsyncIterator[Answered]:
        """POST a request to a target's `path`; the reply, closed when the block is left.

        It goes the first of the `ways` that leads to an answer. Each call is metered, and charged
        as `attribution` says. `before_send` is awaited before every call, with why it is made.
        `persistent` allows waiting and calling again under the never-twice rule (background runs);
        a foreground caller gets the error instead and decides itself. Raises UpstreamRefused,
        UpstreamFailed, and RequestRejected when none of the targets can take the request.
        """
        journey = _Journey(
            path=path, attribution=attribution, before_send=before_send, persistent=persistent
        )
        course = Course(self._accounts, ways, journey.wants())
        del ways  # a long stream must not keep a large request alive
        answered = await self._answered(course, journey)
        del course
        with answered.meter:
            try:
                yield answered
            finally:
                answered.reply.close()

    async def _answered(self, course: Course, journey: _Journey) -> Answered:
        """Call until there is an answer, or an error that is to stand."""
        calls = rounds = 0
        cause = Cause.FIRST
        leg = await course.first()
        self._log.debug("rewritten", steps=leg.request.steps)
        while True:
            made = journey.call(leg, cause=cause)
            try:
                # Before the call is written down: a refresh may take a while, and be in vain.
                taken = await leg.turn.take()
                self._log.debug("account_taken", account=taken.name, reason=taken.reason)
                await journey.before_send(cause)
                calls += 1
                return await self._metered(leg, journey.path, taken=taken, made=made)
            except HandrailError as error:
                went_on = await self._gone_on(course, leg, error)
                if went_on is not None:
                    leg, why = went_on
                    cause = why if calls else Cause.FIRST
                    continue
                shown = course.shown()
                # Of several targets the one decides that can be asked again soonest. Rounds count
                # as calls do: what fails before anything is sent must have an end as well.
                rounds += not isinstance(error, NoAccount)
                decision = verdict(shown, calls=max(calls, rounds))
                if not journey.persistent or not decision.again:
                    if shown is error:
                        raise  # with what it came from, for the log
                    raise shown from error
                cause = decision.cause if calls else Cause.FIRST
                self._log.info("upstream_call_again", reason=decision.reason, wait=decision.wait)
                await self._clock.sleep(decision.wait)
                leg = await course.anew(leg)
            except BaseException:
                leg.turn.over()
                raise

    async def _gone_on(
        self, course: Course, leg: Leg, error: HandrailError
    ) -> tuple[Leg, Cause] | None:
        """The leg of the next call after `error`, and why it is made; None if there is none now."""
        other = await leg.turn.after(error)
        better = mended(leg.request, error, fallbacks=leg.way.target.model_fallbacks)
        if better is not None:
            leg.request = better
            self._log.info("upstream_call_mended", step=better.steps[-1])
            return leg, Cause.MENDED
        if other:
            return leg, Cause.OTHER_ACCOUNT
        found = await course.after(leg, error)
        if found is None:
            return None
        return found, Cause.MENDED if found is leg else Cause.OTHER_TARGET

    async def _metered(self, leg: Leg, path: str, *, taken: Taken, made: CallMade) -> Answered:
        turn, target = leg.turn, leg.way.target
        meter = Meter(made, listener=turn.heard_by(self._listener), clock=self._clock)
        if taken.account is not None:
            meter.account = taken.name
        if taken.account is not None or not target.only:
            meter.sealed = turn.noted
        try:
            reply = await self._sender.send(target, _of(leg, path), taken)
        except BaseException as error:  # the caller's leaving too
            meter.over(error)
            raise
        meter.answered(reply.status)
        turn.answered(reply.headers)
        return Answered(
            target=target,
            reply=reply,
            steps=leg.request.steps,
            meter=meter,
            account=taken.account,
        )

    async def ask(
        self,
        target: Target,
        path: str,
        *,
        limit: int,
        method: str = "GET",
        account: str | None = None,
        tags: Collection[str] = (),
        question: bool = False,
    ) -> bytes:
        """The body of an answer of the target, asked for with that account if one is named.

        If there are `tags`, the account must have one of them. A `question` is about the account
        (`Wants`). Raises UpstreamRefused and UpstreamFailed.
        """
        wants = Wants(bound=account, tags=frozenset(tags), question=question)
        async with self._asked(target, path, method=method, wants=wants) as reply:
            return await reply.read(limit=limit, idle_seconds=target.idle_seconds)

    def noted(self, target: Target, account: str | None, sealed: Sequence[str]) -> None:
        """What `ask` or `listen` gave holds what only that account can read, or the target."""
        taken = Taken(account=account, name="", shown=None)
        self._accounts.noted(taken, sealed, target=target)

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
        accept: str = JSON,
        wants: Wants,
    ) -> AsyncIterator[UpstreamReply]:
        turn = Turn(self._accounts, target, wants, model="")
        while True:
            taken = await turn.take()
            try:
                outgoing = Outgoing(method=method, path=path, accept=accept)
                reply = await self._sender.send(target, outgoing, taken)
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


def _of(leg: Leg, path: str) -> Outgoing:
    request = leg.request
    return Outgoing(
        method="POST",
        path=path,
        headers=leg.way.headers,
        body=wire.encode(request.body),
        accept=SSE if request.streams else JSON,
    )
