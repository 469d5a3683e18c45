"""Names every request that makes upstream calls, and asks every limit before it begins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from handrail.core.budgets import Work
from handrail.core.policy import Mode
from handrail.engine.budgets import Budgets
from handrail.engine.concurrency import Concurrency
from handrail.engine.meter import Attribution, CallRecord
from handrail.engine.rates import Rates
from handrail.settings.model import Target


def work_of(attribution: Attribution, *, model: str, targets: Sequence[Target]) -> Work:
    """What budgets know a request by: the caller's name for the model, and those of upstreams."""
    found = (target.catalogue.find(model) for target in targets)
    names = dict.fromkeys([model, *(each.sends for each in found if each is not None)])
    return Work(caller=attribution.caller, project=attribution.project, models=tuple(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A request that may begin. `headers` tell its caller how the rate limits stand.

    `over` is to be called once, when its reply has ended in whatever way.
    """

    headers: Mapping[str, str]
    over: Callable[[], None]


class Charging:
    """Whom requests are charged to. `new_id` gives what a response is called."""

    def __init__(
        self,
        budgets: Budgets,
        *,
        rates: Rates,
        concurrency: Concurrency,
        new_id: Callable[[], str],
    ) -> None:
        self.budgets = budgets
        self.rates = rates
        self.concurrency = concurrency
        self._new_id = new_id

    def attribution(self, caller: str, *, mode: str, project: str | None) -> Attribution:
        """Of a new request, under an id of its own."""
        return Attribution(caller=caller, mode=mode, response_id=self._new_id(), project=project)

    def admit(
        self, attribution: Attribution, *, model: str, targets: Sequence[Target]
    ) -> Admission:
        """Let the request begin, and reserve for it until it is released.

        What one limit refuses is counted by none. Raises BudgetExceeded, RateLimited, HandrailError
        for too many at once, and StoreFailed when a budget for it cannot be counted.
        """
        work = work_of(attribution, model=model, targets=targets)
        # Budgets first: of all that may stand in the way, theirs is the longest wait.
        self.budgets.admit(attribution.response_id, work)
        try:
            over = self._entered(attribution)
            try:
                return Admission(headers=self.rates.admit(work), over=over)
            except BaseException:
                over()
                raise
        except BaseException:
            self.release(attribution)
            raise

    def _entered(self, attribution: Attribution) -> Callable[[], None]:
        if attribution.mode == Mode.BACKGROUND:  # the queue bounds these
            return _nothing
        return self.concurrency.enter(attribution.caller)

    def heard(self, record: CallRecord) -> None:
        """A call is over: its tokens are those of the request that was let in.

        Under the names that it had then: a fallback or another target may call the model otherwise.
        """
        self.rates.heard(record, work=self.budgets.under_way(record.attribution.response_id))

    def release(self, attribution: Attribution) -> None:
        """The request is over, or never began."""
        self.budgets.release(attribution.response_id)


def _nothing() -> None:
    return None
