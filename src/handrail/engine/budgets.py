"""Keeps the sums of every budget, and asks them at the one place where a call is decided.

Everything happens on the event loop and nothing waits, so the check and its reservation are one
step: however many requests come at once, no two take the same room. The sums of the past come from
the ledger; what cannot be summed cannot be granted (a 503, never a silent yes).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from handrail.core.budget_report import shown
from handrail.core.budgets import Budget, Charge, Span, State, Totals, Verdict, Work, judge, span
from handrail.core.select import Obstacle
from handrail.errors import BudgetExceeded, Code, StoreFailed
from handrail.telemetry import get_logger

PASSING_SECONDS: Final = 5.0
"""When to come back if only work under way stands in the way, or the ledger cannot be used."""


AHEAD_SECONDS: Final = 60.0
"""By how much a clock may be corrected, back over the edge of a window, that stays the window."""


@dataclass(slots=True, kw_only=True)
class Sums:
    """One budget's sums in its window. `sound`: what was used before is known."""

    budget: Budget
    zone: tzinfo
    window: Span
    used: Totals = field(default_factory=Totals)
    reserved: Totals = field(default_factory=Totals)
    held: dict[str, Totals] = field(default_factory=dict)
    sound: bool = False
    warned: bool = False

    def roll(self, now: float) -> None:
        """Begin anew when the window is over.

        A clock that is set back brings no window back. One that was far ahead does: else the budget
        would be closed for as long. What was used in that window is then to be summed up again.
        """
        ahead = now < self.window.start - AHEAD_SECONDS
        if now >= self.window.end or ahead:
            self.window = span(self.budget.window, now, self.zone)
            self.used = Totals()
            self.warned = False
            self.sound = self.sound and not ahead

    def hold(self, work_id: str) -> None:
        """Reserve for a piece of work."""
        self.release(work_id)
        self.held[work_id] = self.budget.reserve
        self.reserved = self.reserved.plus(self.budget.reserve)

    def release(self, work_id: str) -> None:
        """Give back what is left of its reservation."""
        held = self.held.pop(work_id, None)
        if held is not None:
            self.reserved = self.reserved.less(held)

    def charge(self, charge: Charge, work_id: str) -> None:
        """Count a call of it; what was spent is not reserved any more."""
        amount = self.budget.charged(charge)
        self.used = self.used.plus(amount)
        held = self.held.get(work_id)
        if held is not None:
            left = held.less(amount)
            self.reserved = self.reserved.less(held).plus(left)
            self.held[work_id] = left


def unsound(of: Iterable[Sums]) -> list[Sums]:
    """Those that wait for their past: what was used in their window before."""
    return [sums for sums in of if not sums.sound]


def settle(
    of: Iterable[Sums],
    spent: Mapping[float, Sequence[Charge]],
    unwritten: Iterable[tuple[float, Charge]],
) -> None:
    """Give those that wait their past: what the ledger holds, and what is yet to go there.

    `spent` is what it holds by the moment (unix time) from which on it was summed up, `unwritten`
    has the moment at which each call ended.
    """
    later = list(unwritten)
    for sums in unsound(of):
        if sums.window.start not in spent:
            continue  # its window was over before the answer came
        since = sums.window.start
        unwritten_of = (charge for ended, charge in later if ended >= since)
        sums.used = sums.budget.used((*spent[since], *unwritten_of))
        sums.sound = True


class Budgets:
    """The budgets of the current settings. `now` is unix time, in seconds."""

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._now = now
        self._sums: list[Sums] = []
        self._under_way: dict[str, Work] = {}
        self._logger = get_logger()
        self.problem: StoreFailed | None = None
        """Why the ledger takes nothing at the moment; None while all is well."""
        self.wants_past: Callable[[], None] = lambda: None
        """Called when a budget needs the past of another window."""

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self._sums)

    def coming(self, budgets: Iterable[Budget], zone: tzinfo) -> list[Sums]:
        """The sums for these budgets, not yet in force; what is in force already is the same."""
        before = {sums.budget: sums for sums in self._sums if sums.zone == zone}
        now = self._now()
        return [
            before.get(budget)
            or Sums(budget=budget, zone=zone, window=span(budget.window, now, zone))
            for budget in budgets
        ]

    def install(self, coming: list[Sums]) -> None:
        """Put these in force, in one step, with reservations for what is under way."""
        before = [id(sums) for sums in self._sums]
        for sums in coming:
            if id(sums) not in before:
                for work_id, work in self._under_way.items():
                    if sums.budget.covers(work):
                        sums.hold(work_id)
        self._sums = coming

    @property
    def in_force(self) -> list[Sums]:
        """What is asked now."""
        return self._sums

    def admit(self, work_id: str, work: Work) -> None:
        """Let the work begin, and reserve for it until `release`.

        Raises BudgetExceeded, and StoreFailed when a budget for it cannot be counted.
        """
        now = self._now()
        covering = [sums for sums in self._sums if sums.budget.covers(work)]
        stops: list[tuple[Sums, Verdict]] = []
        for sums in covering:
            self._roll(sums, now)
            self._require_sound(sums)
            verdict = judge(sums.budget, used=sums.used, reserved=sums.reserved)
            if verdict.state is State.STOP:
                stops.append((sums, verdict))
            elif verdict.state is State.WARN:
                self._warn(sums, verdict)
        if stops:
            # Of several, the one that stands in the way for longest says when to come back.
            raise self._exceeded(*max(stops, key=_longest), now=now)
        self._under_way[work_id] = work
        for sums in covering:
            sums.hold(work_id)

    def of_account(self, account: str, *, model: str, running: int) -> Iterator[Obstacle]:
        """What budgets of an account stand against one more call with it, beside those running.

        Those that name a caller or a project as well have no say here: whose the call is has been
        decided before.
        """
        now = self._now()
        work = Work(caller="", project=None, models=(model,), account=account)
        for sums in self._sums:
            budget = sums.budget
            if budget.account is None or not budget.covers(work):
                continue
            reason, until = (
                f"its budget '{budget.name}' cannot be counted now",
                now + PASSING_SECONDS,
            )
            self._roll(sums, now)
            if sums.sound and self.problem is None:
                verdict = judge(budget, used=sums.used, reserved=budget.reserve.times(running))
                if verdict.state is not State.STOP:
                    continue
                reason = f"its budget '{budget.name}' is reached: {verdict.reason}"
                until = until if verdict.passes else sums.window.end
            yield Obstacle(reason=reason, until=until)

    def resume(self, work_id: str, work: Work) -> None:
        """Reserve for work that was let in before this process began."""
        self._under_way[work_id] = work
        for sums in self._sums:
            if sums.budget.covers(work):
                sums.hold(work_id)

    def release(self, work_id: str) -> None:
        """The work is over, or never began. May be called for any id, and again."""
        if self._under_way.pop(work_id, None) is not None:
            for sums in self._sums:
                sums.release(work_id)

    def under_way(self, work_id: str) -> Work | None:
        """What was let in under an id, until it is released."""
        return self._under_way.get(work_id)

    def charge(self, charge: Charge, *, work_id: str) -> None:
        """Count what a call has used."""
        now = self._now()
        for sums in self._sums:
            if sums.budget.covers(charge.work):
                self._roll(sums, now)
                sums.charge(charge, work_id)

    def shown(self) -> list[dict[str, Any]]:
        """Every budget in force as an operator is shown it."""
        now = self._now()
        found = []
        for sums in self._sums:
            self._roll(sums, now)
            known = sums.sound and self.problem is None
            found.append(
                shown(
                    sums.budget,
                    window=sums.window,
                    used=sums.used,
                    reserved=sums.reserved,
                    known=known,
                )
            )
        return found

    def _roll(self, sums: Sums, now: float) -> None:
        before = sums.window
        sums.roll(now)
        if sums.window is not before and not sums.sound:
            self._logger.info("budget_wants_past", budget=sums.budget.name)
            self.wants_past()

    def _require_sound(self, sums: Sums) -> None:
        if sums.sound and self.problem is None:
            return
        detail = self.problem.detail if self.problem else "its past is not known yet"
        message = (
            f"The gateway's usage ledger cannot be used now, and the budget '{sums.budget.name}' "
            "cannot be kept without it."
        )
        raise StoreFailed(Code.LEDGER_UNAVAILABLE, message, detail=detail)

    def _warn(self, sums: Sums, verdict: Verdict) -> None:
        if not sums.warned:
            sums.warned = True
            self._logger.warning(
                "budget_nearly_used",
                budget=sums.budget.name,
                taken=verdict.reason,
                resets_at=_said(sums.window.end, sums.zone),
            )

    def _exceeded(self, sums: Sums, verdict: Verdict, *, now: float) -> BudgetExceeded:
        resets = sums.window.end
        taken = "used or reserved by requests under way" if verdict.passes else "used"
        self._logger.info("budget_exceeded", budget=sums.budget.name, taken=verdict.reason)
        return BudgetExceeded(
            f"The budget '{sums.budget.name}' is reached: {verdict.reason} of this "
            f"{sums.budget.window} are {taken}. It is reset at {_said(resets, sums.zone)}.",
            resets_at=resets,
            retry_after=PASSING_SECONDS if verdict.passes else max(1.0, math.ceil(resets - now)),
            passes=verdict.passes,
        )


def _longest(stop: tuple[Sums, Verdict]) -> tuple[bool, float]:
    sums, verdict = stop
    return not verdict.passes, sums.window.end


def _said(moment: float, zone: tzinfo) -> str:
    name = getattr(zone, "key", "UTC")
    local = datetime.fromtimestamp(moment, zone or UTC)
    return f"{local.isoformat(timespec='seconds')} ({name})"
