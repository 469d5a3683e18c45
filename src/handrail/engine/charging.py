"""Names every request that makes upstream calls, and asks the budgets before it begins."""

from collections.abc import Callable

from handrail.core.budgets import Work
from handrail.engine.budgets import Budgets
from handrail.engine.meter import Attribution
from handrail.settings.model import Target


def work_of(attribution: Attribution, *, model: str, target: Target) -> Work:
    """What budgets know a request by: the caller's name for the model, and the upstream's."""
    found = target.catalogue.find(model)
    names = (model,) if found is None or found.sends == model else (model, found.sends)
    return Work(caller=attribution.caller, project=attribution.project, models=names)


class Charging:
    """Whom requests are charged to. `new_id` gives what a response is called."""

    def __init__(self, budgets: Budgets, *, new_id: Callable[[], str]) -> None:
        self._budgets = budgets
        self._new_id = new_id

    def attribution(self, caller: str, *, mode: str, project: str | None) -> Attribution:
        """Of a new request, under an id of its own."""
        return Attribution(caller=caller, mode=mode, response_id=self._new_id(), project=project)

    def admit(self, attribution: Attribution, *, model: str, target: Target) -> None:
        """Let the request begin, and reserve for it until it is released.

        Raises BudgetExceeded, and StoreFailed when a budget for it cannot be counted.
        """
        work = work_of(attribution, model=model, target=target)
        self._budgets.admit(attribution.response_id, work)

    def release(self, attribution: Attribution) -> None:
        """The request is over, or never began."""
        self._budgets.release(attribution.response_id)
