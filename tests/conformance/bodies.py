"""Requests: the reference's transform of a body against our policy and rewriting.

Both sides are compared as what the upstream gets. The reference has one upstream, the Codex
backend, so stateless rows run through the profile `codex`. Its background is one that the upstream
runs, so those rows run through `openai`, the profile that has it.
"""

import json
from typing import Any, Final

from handrail.core import items, wire
from handrail.core.caller_policy import CallerPolicy, Executor
from handrail.core.policy import Mode, decide
from handrail.core.profiles import CODEX, OPENAI
from handrail.core.rewrite import upstream_request, upstream_run_request
from handrail.core.switch import Switch
from handrail.core.tool_outputs import repaired
from handrail.errors import Code, RequestRejected
from tests.conformance import shaping
from tests.conformance.known import catalogue
from tests.conformance.recorded import Json, Outcome, Row

# What the reference always fills in by defaults and prompts of its own, and we never.
SHAPED: Final = frozenset({"instructions", "reasoning", "text", "tools"})

# Rows about what the model's options are: these terms are compared even where nobody asks for them.
MODEL_SUBJECTS: Final = {
    "reasoning": frozenset({"reasoning.effort", "reasoning.summary"}),
    "text": frozenset({"text.verbosity"}),
}

_CALLER: Final = CallerPolicy(name="default")
_GUARDED: Final = frozenset({Code.BACKGROUND_NOT_ENABLED, Code.BACKGROUND_REQUIRES_STORE})


def encoded(value: Any) -> bytes:
    """JSON as the reference's clients write it, without blanks."""
    return json.dumps(value, separators=(",", ":")).encode()


def ours(data: bytes, *, allow: bool = False, config: Json | None = None) -> Json:
    """What our upstream would get for this body and these options, or the refusal."""
    switch = Switch(enabled=allow, source="file [background] enabled", locked=False)
    try:
        request = wire.read_create(data)
        plan = decide(request, switch=switch, caller=_CALLER, executor=Executor.UPSTREAM)
        write, profile = upstream_request, CODEX
        if plan.mode is Mode.UPSTREAM:
            write, profile = upstream_run_request, OPENAI
        known = catalogue(config, profile=profile)
        made = write(
            request,
            profile=profile,
            stream=plan.stream,
            continues=plan.continues,
            catalogue=known,
        )
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


def _compared(
    row: Row,
    body: Any,
    *,
    allow: bool,
    result: Any,
    config: Json | None = None,
) -> Outcome:
    data = body.encode() if isinstance(body, str) else encoded(body)
    given = _parsed(data)
    hidden = SHAPED - given.keys()
    found, recorded = ours(data, allow=allow, config=config), _recorded(row, result)
    if row.key.startswith("transformRequestBody") and row.subject in MODEL_SUBJECTS:
        return _by_term(row, found, recorded=recorded, given=given)
    beside = None
    if found["outcome"].startswith("item_reference_not_found") and "input" in recorded:
        # Refused for what the reference leaves out; without that, the rest can be compared too.
        rest = [item for item in given["input"] if item.get("type") != "item_reference"]
        again = ours(encoded({**given, "input": rest}), allow=allow)
        beside = Outcome(recorded=_shown(recorded, hidden), ours=_shown(again, hidden))
    return Outcome(
        recorded=_shown(recorded, hidden), ours=_shown(found, hidden), given=given, beside=beside
    )


def _by_term(row: Row, found: Json, *, recorded: Json, given: Json) -> Outcome:
    """Effort, summary and verbosity each by itself: those of the row's subject, and those asked."""
    asked = _flat(given).keys() | _flat(found).keys() | MODEL_SUBJECTS[row.subject]
    hidden = frozenset({*(_flat(recorded).keys() - asked), *_WHOLE, "instructions"})
    return Outcome(
        recorded=_shown({**recorded, **_flat(recorded)}, hidden),
        ours=_shown({**found, **_flat(found)}, hidden),
        given=given,
    )


_WHOLE: Final = frozenset({"reasoning", "text"})


def _flat(terms: Json) -> Json:
    found = {name: terms.get(name) for name in _WHOLE}
    return {
        f"{name}.{key}": value
        for name, inner in found.items()
        if isinstance(inner, dict)
        for key, value in inner.items()
    }


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
        return _compared(row, first, allow=row.args[8], result=row.result, config=row.args[2])
    body = first["body"]
    if row.key.startswith("transformRequestBody"):
        if row.subject in shaping.TOOL_SUBJECTS and isinstance(body["tools"], list):
            return shaping.transform_with_tools(row)
        if row.subject == "fast":
            return shaping.transform_fast(row)
    if not isinstance(body, dict):
        body = encoded(body).decode()
    allow = first.get("allowBackgroundResponses", False)
    config = first.get("userConfig")
    return _compared(row, body, allow=allow, result=row.result, config=config)


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
