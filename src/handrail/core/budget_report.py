"""A budget as people and programs are shown it."""

from typing import Any, Final

from handrail.core.budgets import Budget, Span, Totals, judge
from handrail.core.prices import NANO

UNKNOWN: Final = "unknown"
"""The state of a budget whose past cannot be read: it lets nothing through."""


def shown(
    budget: Budget, *, window: Span, used: Totals, reserved: Totals | None, known: bool = True
) -> dict[str, Any]:
    """What it is for, how much of it is taken, and what it says to one more call.

    Costs in USD, times in unix seconds. `reserved` is None where nobody here knows what is under
    way, `known` whether what was used before is.
    """
    verdict = judge(budget, used=used, reserved=reserved or Totals())
    return {
        "object": "budget",
        "name": budget.name,
        "window": budget.window,
        "caller": budget.caller,
        "project": budget.project,
        "model": budget.model,
        "account": budget.account,
        "max_cost_usd": None if budget.max_cost is None else budget.max_cost / NANO,
        "max_tokens": budget.max_tokens,
        "max_requests": budget.max_requests,
        "state": verdict.state if known else UNKNOWN,
        "taken": verdict.reason if known else "",
        "used": _sums(used) if known else None,
        "reserved": None if reserved is None else _sums(reserved),
        "began_at": int(window.start),
        "resets_at": int(window.end),
    }


def _sums(of: Totals) -> dict[str, Any]:
    return {"cost_usd": of.cost / NANO, "tokens": of.tokens, "requests": of.requests}
