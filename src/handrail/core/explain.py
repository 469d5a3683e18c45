"""What was decided and changed, as data for people: `handrail explain` prints it.

Unlike steps and logs it holds content of the request, for whoever sent that request. What is
secret by its name or its look is masked nevertheless: an explanation gets pasted into an issue.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from handrail.core import wire
from handrail.core.catalogue import Catalogue
from handrail.core.policy import Plan
from handrail.core.prepare import VERSION, Change, Prepared, top_level
from handrail.core.redact import hidden
from handrail.errors import RequestRejected

MAX_SHOWN: Final = 200
"""Characters of a value that are shown before and after a step."""

UNREADABLE: Final = "(cannot be shown)"

Json = dict[str, Any]


def explained(prepared: Prepared) -> Json:
    """Plan, steps with before and after, URL, headers and body, as one JSON object."""
    return {
        "version": VERSION,
        "plan": _plan(prepared.plan),
        "decision": prepared.decision,
        "steps": [_step(change) for change in prepared.changes()],
        "url": prepared.url,
        "headers": dict(prepared.headers),
        "body": {name: _decoded(value) for name, value in prepared.request.body.items()},
    }


def refused(error: RequestRejected, given: Mapping[str, Raw] | None = None) -> Json:
    """The refusal as the caller would get it, and what `given` has in the field that it names."""
    body: Json = {"version": VERSION, "status": error.fault.status, **error.fault.body()}
    field = top_level(error.fault.param or "")
    if field and given is not None and field in given:
        body["given"] = {field: shown(given[field])}
    return body


def model(name: str, catalogue: Catalogue) -> Json:
    """What is known about a model by the name in a request; all but the name is None if nothing."""
    found = catalogue.find(name)
    entry = None if found is None else found.entry
    return {
        "asked": name,
        "sent": None if found is None else found.sends,
        "family": entry and entry.family,
        "default_effort": entry and entry.default_effort,
        "efforts": list(entry.efforts or ()) if entry else None,
        "capabilities": sorted(entry.capabilities or ()) if entry else None,
    }


def shown(value: Raw | None) -> str | None:
    """A raw value as one short line of JSON; None for one that is absent."""
    if value is None:
        return None
    text = msgspec.json.encode(_decoded(value)).decode()
    if len(text) <= MAX_SHOWN:
        return text
    return f"{text[:MAX_SHOWN]}… ({len(text)} characters)"


def _plan(plan: Plan) -> Json:
    return {
        "mode": plan.mode.value,
        "reasons": [{"name": reason.name, "text": reason.text} for reason in plan.reasons],
        "stream": plan.stream,
        "store": plan.store,
        "retention_seconds": plan.retention_seconds,
        "continues": plan.continues,
        "crash": plan.crash.value,
        "priority": plan.priority.value,
    }


def _step(change: Change) -> Json:
    step = change.step
    return {
        "field": step.field,
        "action": step.action,
        "reason": step.reason,
        "before": shown(change.before),
        "after": shown(change.after),
    }


def _decoded(value: Raw) -> Any:
    # Passing a value on needs no reading of it, showing it does: a lone surrogate, a number beyond
    # a double's range or a thousand levels go to the upstream but cannot be shown.
    try:
        return hidden(msgspec.json.decode(wire.encode(value)))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return UNREADABLE
