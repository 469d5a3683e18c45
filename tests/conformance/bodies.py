"""Requests: the reference's transform of a body against our policy and rewriting.

Both sides are compared as what the upstream gets. The reference has one upstream, the Codex
backend, so stateless rows run through the profile `codex`. Its background is one that the upstream
runs, so those rows run through `openai`, the profile that has it.
"""

import json
from typing import Any, Final

from handrail.core import items, wire
from handrail.core.policy import CallerPolicy, Executor, Mode, decide
from handrail.core.profiles import CODEX, OPENAI
from handrail.core.rewrite import upstream_request, upstream_run_request
from handrail.core.switch import Switch
from handrail.core.tool_outputs import repaired
from handrail.errors import Code, RequestRejected
from tests.conformance import shaping
from tests.conformance.recorded import Json, Outcome, Row

# What the reference always fills in by its own catalogue and prompts, and we not yet.
SHAPED: Final = frozenset({"instructions", "reasoning", "text", "tools"})

# Rows about shaping: these are compared whole, including what is filled in.
LATER_SUBJECTS: Final = frozenset({"reasoning", "text"})

_CALLER: Final = CallerPolicy(name="default")
_GUARDED: Final = frozenset({Code.BACKGROUND_NOT_ENABLED, Code.BACKGROUND_REQUIRES_STORE})


def encoded(value: Any) -> bytes:
    """JSON as the reference's clients write it, without blanks."""
    return json.dumps(value, separators=(",", ":")).encode()


def ours(data: bytes, *, allow: bool = False) -> Json:
    """What our upstream would get for this body, or the refusal."""
    switch = Switch(enabled=allow, source="file [background] enabled", locked=False)
    try:
        request = wire.read_create(data)
        plan = decide(request, switch=switch, caller=_CALLER, executor=Executor.UPSTREAM)
        write, profile = upstream_request, CODEX
        if plan.mode is Mode.UPSTREAM:
            write, profile = upstream_run_request, OPENAI
        made = write(request, profile=profile, stream=plan.stream, continues=plan.continues)
    except RequestRejected as error:
        return _refusal(error)
    body: Json = json.loads(wire.encode(made.body))
    return {"outcome": "sent", **body}


def _refusal(error: RequestRejected) -> Json:
    fault = error.fault
    if fault.code in _GUARDED:
        return {"outcome": _sentence(fault.message)}
    return {"outcome": f"{fault.code}: {fault.param}" if fault.param else str(fault.code)}


def _sentence(message: str) -> str:
    """The five words by which both name a guardrail."""
    return " ".join(message.split()[:5])


def _recorded(row: Row, result: Any) -> Json:
    if row.error is not None:
        message = row.error["message"]
        guarded = message.startswith("Responses background mode")
        return {"outcome": _sentence(message) if guarded else row.error["name"]}
    if result is None:
        return {"outcome": "sent as it came"}
    return {"outcome": "sent", **(result if isinstance(result, dict) else {"body": result})}


def _compared(row: Row, body: Any, *, allow: bool, result: Any, shaping: bool = False) -> Outcome:
    data = body.encode() if isinstance(body, str) else encoded(body)
    given = _parsed(data)
    hidden = frozenset() if shaping else SHAPED - given.keys()
    found, recorded = ours(data, allow=allow), _recorded(row, result)
    beside = None
    if found["outcome"].startswith("item_reference_not_found") and "input" in recorded:
        # Refused for what the reference leaves out; without that, the rest can be compared too.
        rest = [item for item in given["input"] if item.get("type") != "item_reference"]
        again = ours(encoded({**given, "input": rest}), allow=allow)
        beside = Outcome(recorded=_shown(recorded, hidden), ours=_shown(again, hidden))
    return Outcome(
        recorded=_shown(recorded, hidden), ours=_shown(found, hidden), given=given, beside=beside
    )


def _shown(terms: Json, hidden: frozenset[str]) -> Json:
    return {name: value for name, value in terms.items() if name not in hidden}


def _parsed(data: bytes) -> Json:
    try:
        body = json.loads(data)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def transform_request_body(row: Row) -> Outcome:
    """Also `backgroundMode`: called by names or with nine positions, which must be the same."""
    first = row.args[0]
    if len(row.args) > 1:
        return _compared(row, first, allow=row.args[8], result=row.result)
    body = first["body"]
    if row.key.startswith("transformRequestBody"):
        if row.subject in shaping.TOOL_SUBJECTS and isinstance(body["tools"], list):
            return shaping.transform_with_tools(row)
        if row.subject == "fast":
            return shaping.transform_fast(row)
    if not isinstance(body, dict):
        body = encoded(body).decode()
    allow = first.get("allowBackgroundResponses", False)
    whole = row.key.startswith("transformRequestBody") and row.subject in LATER_SUBJECTS
    return _compared(row, body, allow=allow, result=row.result, shaping=whole)


def transform_request_for_codex(row: Row) -> Outcome:
    """The layer around it, which sends the request as it came when anything is wrong."""
    init, *_, parsed, options = row.args
    sent = (init or {}).get("body", "")
    body = parsed or (sent if isinstance(sent, str) else encoded(sent).decode())
    result = None if row.result is None else row.result["body"]
    options = options or {}
    if options.get("fastSession"):
        return shaping.layer_fast(row)
    allow = options.get("allowBackgroundResponses", False)
    return _compared(row, body, allow=allow, result=result)


def filter_input(row: Row) -> Outcome:
    """Items alone: what is dropped and whose ids are stripped."""
    found = ours(encoded({"model": "m", "input": row.args[0]}))
    kept: Json = {name: found[name] for name in ("outcome", "input") if name in found}
    return Outcome(recorded={"outcome": "sent", "input": row.result}, ours=kept)


def repair_items(row: Row) -> Outcome:
    """Items alone: outputs without a call, calls without an output."""
    done = repaired(*items.read(wire.raw(row.args[0])))
    return Outcome(
        recorded={"input": row.result}, ours={"input": json.loads(wire.encode(done.items))}
    )
