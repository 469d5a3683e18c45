"""Names every request that makes upstream calls, and asks the budgets before it begins."""

from collections.abc import Callable, Sequence

from handrail.core.budgets import Work
from handrail.engine.budgets import Budgets
from handrail.engine.meter import Attribution
from handrail.settings.model import Target


def work_of(attribution: Attribution, *, model: str, targets: Sequence[Target]) -> Work:
    """What budgets know a request by: the caller's name for the model, and those of upstreams."""
    found = (target.catalogue.find(model) for target in targets)
    names = dict.fromkeys([model, *(each.sends for each in found if each is not None)])
    return Work(caller=attribution.caller, project=attribution.project, models=tuple(names))


class Charging:
    """Whom requests are charged to. `new_id` gives what a response is called."""

    def __init__(self, budgets: Budgets, *, new_id: Callable[[], str]) -> None:
        self._budgets = budgets
        self._new_id = new_id

    def attribution(self, caller: str, *, mode: str, project: str | None) -> Attribution:
        """Of a new request, under an id of its own."""
        return Attribution(caller=caller, mode=mode, response_id=self._new_id(), project=project)

    def admit(self, attribution: Attribution, *, model: str, targets: Sequence[Target]) -> None:
        """Let the request begin, and reserve for it until it is released.

        Raises BudgetExceeded, and StoreFailed when a budget for it cannot be counted.
        """
        work = work_of(attribution, model=model, targets=targets)
        self._budgets.admit(attribution.response_id, work)

    def release(self, attribution: Attribution) -> None:
        """The request is over, or never began."""
        self._budgets.release(attribution.response_id)
