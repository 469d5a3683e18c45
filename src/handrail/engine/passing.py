"""Passes calls of other routes through: as they came, with an account, metered like any other.

To another account under the never-twice rule; never to another target, because what one keeps
(files, batches) the others do not have.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from handrail.core.retry import Cause
from handrail.core.select import Wants
from handrail.engine.clock import Clock
from handrail.engine.meter import (
    Attribution,
    CallListener,
    CallMade,
    Meter,
    unheard,
)
from handrail.engine.sending import Outgoing, Sender
from handrail.engine.single import Accounts, Taken
from handrail.engine.turns import Turn
from handrail.engine.ways import Held
from handrail.errors import HandrailError
from handrail.settings.model import Target
from handrail.upstream.client import UpstreamReply


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedCall:
    """One call of another route. `model` is the one that it names, "" for none.

    `path` is the one below the base URL. `counts`: it may cost something, so it has a row in the
    ledger.
    """

    target: Target
    path: str
    outgoing: Held[Outgoing]
    attribution: Attribution
    model: str = ""
    counts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedBack:
    """The target's reply, its body unread; whoever reads it shows `meter` what was used."""

    reply: UpstreamReply
    meter: Meter


class Passing:
    """Makes such calls. `listener` gets a record of each that counts."""

    def __init__(
        self, sender: Sender, *, accounts: Accounts, listener: CallListener, clock: Clock
    ) -> None:
        self._sender = sender
        self._accounts = accounts
        self._listener = listener
        self._clock = clock

    @asynccontextmanager
    async def open(self, call: PassedCall) -> AsyncIterator[PassedBack]:
        """The reply, closed when the block is left. Raises UpstreamRefused and UpstreamFailed."""
        attribution = call.attribution
        wants = Wants(pin=attribution.account, tags=frozenset(attribution.account_tags))
        turn = Turn(self._accounts, call.target, wants, model=call.model)
        passed = await self._answered(call, call.outgoing.take(), turn)
        with passed.meter:
            try:
                yield passed
            finally:
                passed.reply.close()

    async def _answered(self, call: PassedCall, outgoing: Outgoing, turn: Turn) -> PassedBack:
        cause = Cause.FIRST
        while True:
            try:
                taken = await turn.take()
                meter = self._meter(call, turn, taken=taken, cause=cause)
                return await self._sent(call.target, outgoing, turn, taken=taken, meter=meter)
            except HandrailError as error:
                if not await turn.after(error):
                    shown = turn.shown(error)
                    if shown is error:
                        raise
                    raise shown from error
                cause = Cause.OTHER_ACCOUNT
            except BaseException:
                turn.over()
                raise

    def _meter(self, call: PassedCall, turn: Turn, *, taken: Taken, cause: Cause) -> Meter:
        made = CallMade(
            attribution=call.attribution,
            target=call.target.name,
            model=call.model,
            sent_models=(call.model,),  # the body goes out as it came
            endpoint=call.path.split("/")[1],
            cause=cause,
        )
        listener = self._listener if call.counts else unheard
        meter = Meter(made, listener=turn.heard_by(listener), clock=self._clock)
        if taken.account is not None:
            meter.account = taken.name
        return meter

    async def _sent(
        self, target: Target, outgoing: Outgoing, turn: Turn, *, taken: Taken, meter: Meter
    ) -> PassedBack:
        try:
            reply = await self._sender.send(target, outgoing, taken)
        except BaseException as error:  # the caller's leaving too
            meter.over(error)
            raise
        meter.answered(reply.status)
        turn.answered(reply.headers)
        return PassedBack(reply=reply, meter=meter)
