"""Models: the reference's names, options and efforts against our catalogue, and its settings."""

import json
from collections.abc import Mapping
from typing import Final

import msgspec

from handrail.core import wire
from handrail.core.catalogue import Capability
from handrail.core.profiles import CODEX
from handrail.core.rewrite import upstream_request
from handrail.errors import RequestRejected
from handrail.settings.importing import given_value, imported
from handrail.settings.reference import FIELDS
from tests.conformance.accounts import forced_account, limit_scope
from tests.conformance.answers import refused
from tests.conformance.known import catalogue
from tests.conformance.recorded import Json, Outcome, Row

_CAPABILITIES: Final = {
    "toolSearch": Capability.TOOL_SEARCH,
    "computerUse": Capability.COMPUTER_USE,
    "compaction": Capability.COMPACTION,
}
_NAMES: Final = {
    "effort": "reasoningEffort",
    "summary": "reasoningSummary",
    "verbosity": "textVerbosity",
    "include": "include",
    "prompt_cache_retention": "promptCacheRetention",
}


def normalize_model(row: Row) -> Outcome:
    """The name for the upstream."""
    given = {"model": row.args[0]}
    return Outcome(recorded={"model": row.result}, ours={"model": _sent(row.args[0])}, given=given)


def _sent(name: str) -> str:
    try:
        request = wire.read_create(json.dumps({"model": name, "input": "hi"}).encode())
    except RequestRejected as error:
        return f"{error.fault.code}: {error.fault.param}"
    made = upstream_request(request, profile=CODEX, stream=True, catalogue=catalogue())
    return wire.string(made.body, "model") or ""


def get_model_profile(row: Row) -> Outcome:
    """What is known about a model; the effort of quota probes is no business of the catalogue."""
    recorded = {name: value for name, value in row.result.items() if name != "probeEffort"}
    found = catalogue().find(row.args[0])
    if found is None:
        return Outcome(recorded=recorded, ours={"outcome": "unknown"})
    entry = found.entry
    ours = {
        "normalizedModel": found.sends,
        "promptFamily": entry.family,
        "defaultReasoningEffort": entry.default_effort,
        "supportedReasoningEfforts": list(entry.efforts or ()),
        "capabilities": {name: entry.can(can) for name, can in _CAPABILITIES.items()},
    }
    return Outcome(recorded=recorded, ours=ours)


def get_model_config(row: Row) -> Outcome:
    """The options that hold for a name, its ending's effort among them."""
    name, *config = row.args
    found = catalogue(*config).find(name)
    if found is None:
        return Outcome(recorded=row.result, ours={"outcome": "unknown"})
    said: Json = json.loads(msgspec.json.encode(found.options))
    if found.effort is not None:
        said["effort"] = found.effort.value
    ours = {_NAMES[key]: value for key, value in said.items()}
    return Outcome(recorded=row.result, ours=ours)


def get_reasoning_config(row: Row) -> Outcome:
    """Effort and summary that leave for those that are asked; what is filled in is left out."""
    name, config = row.args
    asked = {"effort": config.get("reasoningEffort"), "summary": config.get("reasoningSummary")}
    reasoning = {key: value for key, value in asked.items() if value is not None}
    body = {"model": name, "input": "hi", "reasoning": reasoning}
    recorded = {key: row.result[key] for key in ("effort", *reasoning)}
    try:
        request = wire.read_create(json.dumps(body).encode())
    except RequestRejected as error:
        return Outcome(recorded=recorded, ours={"outcome": f"{error.fault.code}"})
    made = upstream_request(request, profile=CODEX, stream=True, catalogue=catalogue())
    sent: Json = json.loads(bytes(made.body["reasoning"]))
    return Outcome(recorded=recorded, ours=sent)


# --- settings -------------------------------------------------------------------------------------

_GETTERS: Final = {
    "getFastSessionMaxInputItems": "fastSessionMaxInputItems",
    "getFastSessionStrategy": "fastSessionStrategy",
    "getPidOffsetEnabled": "pidOffsetEnabled",
    "getFetchTimeoutMs": "fetchTimeoutMs",
    "getUnsupportedCodexPolicy": "unsupportedCodexPolicy",
    "getSchedulingStrategy": "schedulingStrategy",
}


def config_resolution(row: Row) -> Outcome:
    """The value that the import takes of file and environment; none where nobody says one."""
    getter, config = row.args
    field = FIELDS[_GETTERS[getter]]
    given, _ = given_value(field, config, row.env)
    value = None if given is None else given.value
    if field.name == "unsupportedCodexPolicy" and given is None:
        value = _policy(config, row.env)
    return Outcome(recorded={"value": row.result}, ours={"value": value})


def _policy(config: Json, environment: Mapping[str, str]) -> str:
    """Whether a chain would be taken."""
    chain = {"unsupportedCodexFallbackChain": {"a": ["b"]}}
    taken = [entry for entry in imported({**config, **chain}, environment) if entry.path]
    return "fallback" if taken else "strict"


# --- small rules ----------------------------------------------------------------------------------


def misc_rules(row: Row) -> Outcome:
    """Small rules; the first argument names one."""
    rule, *args = row.args
    if rule == "parseRateLimitReason":
        return limit_scope(row)
    if rule == "normalizeForcedAccountIndex":
        return forced_account(row)
    if rule != "isContextOverflowError":
        return Outcome(recorded={"value": row.result}, ours={"outcome": "no such rule"})
    status, text = args
    fault = refused(status, {"error": {"message": text}}).fault
    overflow = fault.code == "context_length_exceeded"
    return Outcome(recorded={"value": row.result}, ours={"value": overflow})
