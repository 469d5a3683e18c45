"""Windows, limits and rows of the ledger, in the terms of both."""

from datetime import UTC
from typing import Any

from handrail.core import events
from handrail.core.budgets import Budget, State, Totals, Window, judge, span
from handrail.core.events import lifecycle_event
from handrail.core.prices import NANO, PriceTable
from handrail.core.retry import Cause
from handrail.core.usage import Usage
from handrail.core.wire import raw
from handrail.engine.meter import Attribution, CallMade, CallRecord, Meter
from handrail.engine.meter import Outcome as Ended
from handrail.errors import ConfigInvalid
from handrail.settings.accounting import read_budgets, shipped
from tests.clocks import HandClock
from tests.conformance.recorded import NOW, Json, Outcome, Row

_WORDS = {"request": "requests", "token": "tokens", "cost": "USD"}


def budget(row: Row) -> Outcome:
    """Where a window begins, whether a call fits, and what a budget is for."""
    subject, *args = row.args
    if subject == "getBudgetWindowStart":
        window, moment = args
        ours = round(span(Window(window), moment / 1_000, UTC).start * 1_000)
        return Outcome(recorded={"start": row.result}, ours={"start": ours})
    if subject == "evaluateBudgetGuard":
        return _judged(row, *args)
    return _scope(row, *args)


def _judged(row: Row, limits: Json, used: Json) -> Outcome:
    totals = used["totals"]
    team = Budget(
        name=limits["key"],
        window=Window(limits["window"]),
        max_requests=limits.get("maxRequests"),
        max_tokens=limits.get("maxTokens"),
        max_cost=limits["maxCostUsd"] * NANO if "maxCostUsd" in limits else None,
    )
    spent = Totals(
        cost=totals["costUsd"] * NANO, tokens=totals["totalTokens"], requests=totals["requests"]
    )
    found = judge(team, used=spent, reserved=Totals())
    stops = found.state is State.STOP
    reached = [found.reason.rpartition(" ")[2]] if stops else []
    words = [_WORDS[reason.partition(" ")[0]] for reason in row.result["reasons"]]
    return Outcome(
        recorded={"allowed": row.result["allowed"], "reached": words},
        ours={"allowed": not stops, "reached": reached},
    )


def _scope(row: Row, key: str) -> Outcome:
    """A key of the reference's is a name here, and a table of what it is for."""
    kind, _, label = key.partition(":")
    scope = {kind: label} if label else {}
    table = {"name": label or key, "window": "day", "max_requests": 1, **scope}
    try:
        (found,) = read_budgets([table], "handrail.toml")
    except ConfigInvalid:
        return Outcome(recorded={"outcome": row.result}, ours={"outcome": "the start stops"})
    said: Any = found.name if found.project is None else {"project": found.project}
    return Outcome(recorded={"key": row.result}, ours={"key": said})


_ENDS = {"success": (events.COMPLETED, "completed"), "failure": (events.FAILED, "failed")}


def usage_row(row: Row) -> Outcome:
    """One upstream call that ended so and told so much: read, summed and priced."""
    (said,) = row.args
    records: list[CallRecord] = []
    made = CallMade(
        attribution=Attribution(caller="default", mode="stateless", response_id="resp_1"),
        target="openai",
        model=said.get("model", "m"),
        sent_models=(said.get("model", "m"),),
        endpoint="responses",
        cause=Cause.FIRST,
    )
    meter = Meter(made, listener=records.append, clock=HandClock())
    if said["outcome"] in _ENDS:
        kind, status = _ENDS[said["outcome"]]
        end = {"status": raw(status), "usage": raw(_usage(said))}
        meter.heard(lifecycle_event(kind, end, number=1))
    meter.over(None)
    usage, tokens = records[0].usage or Usage(), row.result["tokens"]
    cost = PriceTable(shipped=shipped()).cost(made.sent_models, at=NOW, tier=None, usage=usage)
    recorded = {f: tokens[f"{f}Tokens"] for f in ("input", "output", "reasoning", "total")}
    recorded |= {"cached": tokens["cachedInputTokens"], "cost": row.result["costUsd"]}
    ended = "success" if records[0].outcome is Ended.COMPLETED else "failure"
    ours = {field: getattr(usage, field) for field in recorded if field != "cost"}
    return Outcome(
        recorded={"outcome": row.result["outcome"], **recorded},
        ours={"outcome": ended, **ours, "cost": None if cost is None else cost / NANO},
    )


def _usage(said: Json) -> Json:
    return {
        "input_tokens": said.get("inputTokens"),
        "input_tokens_details": {"cached_tokens": said.get("cachedInputTokens")},
        "output_tokens": said.get("outputTokens"),
        "output_tokens_details": {"reasoning_tokens": said.get("reasoningTokens")},
        "total_tokens": said.get("totalTokens"),
    }
