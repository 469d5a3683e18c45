"""One request's way through its targets: each with its accounts, one after another.

To another target a request goes under the rule by which it goes to another account: only when its
last call is proven not to have run.
"""

from dataclasses import dataclass, replace
from typing import Final

from handrail.core.affinity import without_reasoning
from handrail.core.rewrite import UpstreamRequest
from handrail.core.routes import worth_telling
from handrail.core.select import Wants
from handrail.core.steps import Step
from handrail.engine.single import Accounts, MadeElsewhere
from handrail.engine.turns import Turn
from handrail.engine.ways import Way, Ways
from handrail.errors import HandrailError, RequestRejected
from handrail.telemetry import get_logger

_OTHER_TARGET: Final = "it could not be sent to the first"


@dataclass(slots=True, kw_only=True)
class Leg:
    """The request at one target. `known_as` are the names that its model had to begin with."""

    way: Way
    request: UpstreamRequest
    turn: Turn
    known_as: tuple[str, ...]


class Course:
    """Gives the legs of a request. `wants` is what it asks of its accounts."""

    def __init__(self, accounts: Accounts, ways: Ways, wants: Wants) -> None:
        self._accounts = accounts
        self._wants = wants
        self._model = ways.request.models[0]
        self._all = ways.all()
        self._left = list(self._all)
        self._unreadable: list[Way] = []
        self._problems: list[HandrailError] = []
        self._strips = False
        self._elsewhere: MadeElsewhere | None = None
        self._moved = False
        self._logger = get_logger()

    async def first(self) -> Leg:
        """The leg to begin with. Raises HandrailError when there is none."""
        leg = await self.next() or await self._stripped()
        if leg is None:
            raise worth_telling(self._problems)
        return leg

    async def after(self, leg: Leg, error: HandrailError) -> Leg | None:
        """The leg after one whose accounts have no more to give; None when there is none.

        It may be the same one, with a request that more of its accounts can read.
        """
        self._problems.append(leg.turn.shown(error))
        if not leg.turn.did_not_run:
            self._problems = self._problems[-1:]  # it may have run, and nothing else matters
            return None
        found = await self.next() or self._without_maker(leg) or await self._stripped()
        if found is not None:
            self._moved |= found is not leg
            reason = error.fault.code or error.fault.type
            self._logger.info("upstream_call_moved", target=found.way.target.label, after=reason)
        return found

    async def next(self) -> Leg | None:
        """The next target that can read the request, rather one that may be used now."""
        while self._left:
            way = self._left.pop(self._freest())
            try:
                leg = self._leg(way)
                if not self._strips:
                    leg.request = await leg.turn.read(leg.request, way.headers)
            except MadeElsewhere as error:
                self._unreadable.append(way)
                self._elsewhere = error
                self._problems.append(error)
            except RequestRejected as error:  # this one cannot take it in any form
                self._problems.append(error)
            else:
                return leg
        return None

    def _freest(self) -> int:
        if len(self._left) > 1:
            for place, way in enumerate(self._left):
                found = way.target.catalogue.find(self._model)
                model = self._model if found is None else found.sends
                if self._accounts.free(way.target, model=model, tags=self._wants.tags):
                    return place
        return 0

    def _leg(self, way: Way) -> Leg:
        request = way.request()
        if self._strips:
            stripped = without_reasoning(request)
            if stripped is None:  # more is sealed than reasoning, and that goes nowhere else
                raise self._elsewhere or MadeElsewhere("another account")
            request = stripped
        if len(self._all) > 1 and way is not self._all[0]:
            step = Step(field="target", action=f"is {way.target.label}", reason=_OTHER_TARGET)
            request = replace(request, steps=(*request.steps, step))
        turn = Turn(self._accounts, way.target, self._wants, model=request.models[-1])
        return Leg(way=way, request=request, turn=turn, known_as=request.models)

    def _without_maker(self, leg: Leg) -> Leg | None:
        request = leg.turn.without_maker(leg.request)
        if request is None:
            return None
        leg.request, self._strips = request, True
        self._left, self._unreadable = self._unreadable, []
        return leg

    async def _stripped(self) -> Leg | None:
        """Where nobody is left who can read the request: one who need not, if that is allowed."""
        if self._strips or not self._unreadable or not self._all[0].target.drops_reasoning:
            return None
        self._strips = True
        self._left, self._unreadable = self._unreadable, []
        return await self.next()

    async def anew(self, leg: Leg) -> Leg:
        """Time has passed: all may be tried again."""
        leg.turn.anew()
        self._problems = []
        if not self._moved:
            return leg
        self._left, self._unreadable, self._moved = list(self._all), [], False
        return await self.first()

    def shown(self) -> HandrailError:
        """What the caller is to hear after the last leg: who says when to come back, says it."""
        return worth_telling(self._problems)
