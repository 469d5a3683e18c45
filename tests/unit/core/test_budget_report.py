"""A budget as it is shown: figures, state, and what nobody knows."""

from typing import Any

from handrail.core.budget_report import shown
from handrail.core.budgets import Budget, Span, Totals, Window

DAY = Span(start=1_000.0, end=87_400.0)
TEAM = Budget(name="team", window=Window.DAY, caller="ann", max_cost=2_500_000_000, max_requests=10)


def of(used: Totals, reserved: Totals | None = None, **keys: Any) -> dict[str, Any]:
    return shown(TEAM, window=DAY, used=used, reserved=reserved, **keys)


def test_a_budget_is_shown_with_what_is_taken_of_it() -> None:
    used = Totals(cost=500_000_000, tokens=9, requests=6)
    assert of(used, Totals(cost=1_000_000, requests=2)) == {
        "object": "budget",
        "name": "team",
        "window": "day",
        "caller": "ann",
        "project": None,
        "model": None,
        "account": None,
        "max_cost_usd": 2.5,
        "max_tokens": None,
        "max_requests": 10,
        "state": "warn",
        "taken": "8 of 10 requests",
        "used": {"cost_usd": 0.5, "tokens": 9, "requests": 6},
        "reserved": {"cost_usd": 0.001, "tokens": 0, "requests": 2},
        "began_at": 1_000,
        "resets_at": 87_400,
    }


def test_its_state_is_what_one_more_call_would_hear() -> None:
    assert of(Totals(requests=1))["state"] == "allow"
    assert of(Totals(requests=10))["state"] == "stop"
    assert of(Totals(requests=9), Totals(requests=1))["state"] == "stop"
    assert of(Totals(requests=9))["reserved"] is None


def test_what_cannot_be_counted_is_unknown_and_not_nothing() -> None:
    found = of(Totals(), Totals(requests=1), known=False)
    assert (found["state"], found["used"], found["taken"]) == ("unknown", None, "")
    assert found["reserved"]["requests"] == 1


def test_a_limit_without_a_cost_has_none() -> None:
    plain = Budget(name="p", window=Window.HOUR, max_tokens=5)
    found = shown(plain, window=DAY, used=Totals(), reserved=None)
    assert (found["max_cost_usd"], found["max_tokens"]) == (None, 5)
