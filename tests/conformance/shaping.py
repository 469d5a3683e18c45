"""Tools and fast sessions: the reference's clean-up, judgement, trimming and compaction.

The reference has tools in the older API's shape only; both sides are compared in the flat one. The
texts that either side puts in (the placeholder property, the line after cut instructions, a prompt
in front of the input) are compared by their place alone. Its fast session drops tools and cuts
instructions without being asked, so both are allowed to ours.
"""

import asyncio
import json
from dataclasses import replace
from typing import Any, Final

from handrail.core import fast_session, items, model_options, trim, wire
from handrail.core import shaping as shape
from handrail.core.fast_session import NO_FAST_SESSION, FastSession, Judgement, Strategy
from handrail.core.profiles import CODEX
from handrail.core.rewrite import UpstreamRequest, upstream_request
from handrail.core.shaping import Shaping, Turn
from handrail.core.steps import Step
from handrail.core.tool_schemas import PLACEHOLDER
from handrail.engine.compaction import Compactor
from handrail.engine.dispatch import Dispatcher
from handrail.engine.meter import Attribution
from handrail.engine.ways import Ways
from handrail.errors import RequestRejected
from handrail.settings.model import Secret, Target
from tests.conformance.known import catalogue
from tests.conformance.recorded import Json, Outcome, Row
from tests.conformance.upstream_stub import Reply, StoppedClock, Upstream

TOOL_SUBJECTS: Final = frozenset({"tools", "toolcap", "collab", "collabenv"})

_THEIR_PLACEHOLDER: Final = "This property is a placeholder and should be ignored."
_THEIR_NOTICE: Final = "[Fast session mode: "


def rewritten(body: Json, *, fast: FastSession = NO_FAST_SESSION) -> UpstreamRequest:
    """What the Codex backend would get for this body. Raises RequestRejected."""
    request = wire.read_create(json.dumps(body).encode())
    shaping = Shaping(fast=fast)
    return upstream_request(
        request, profile=CODEX, stream=False, catalogue=catalogue(), shaping=shaping
    )


def outgoing(body: Json) -> Json:
    """The same as JSON, or the refusal."""
    try:
        made = rewritten(body)
    except RequestRejected as error:
        return {"outcome": f"{error.fault.code}: {error.fault.param}"}
    return {"outcome": "sent", **json.loads(wire.encode(made.body))}


def alike(value: Any) -> Any:
    """Tools in the flat shape, and each side's own texts by their place."""
    if isinstance(value, list):
        return [alike(each) for each in value]
    if value in (_THEIR_PLACEHOLDER, PLACEHOLDER["description"]):
        return "<PLACEHOLDER>"
    if not isinstance(value, dict):
        return value
    inner = value.get("function")
    if value.get("type") == "function" and isinstance(inner, dict):
        value = {"type": "function", **inner}
    if value.get("type") == "function" and value.get("strict") is False:
        value = {key: value[key] for key in value if key != "strict"}
    return {key: alike(each) for key, each in value.items()}


def cleanup_tool_definitions(row: Row) -> Outcome:
    """The clean-up alone."""
    tools = row.args[0]
    found = outgoing({"model": "m", "input": [], **({} if tools is None else {"tools": tools})})
    recorded = {} if row.result is None else {"tools": alike(row.result)}
    kept: Json = {name: alike(found[name]) for name in ("outcome", "tools") if name in found}
    return Outcome(recorded={"outcome": "sent", **recorded}, ours=kept)


def filter_host_prompts(row: Row) -> Outcome:
    """Items alone; what the reference takes out of them is a host's own system prompt."""
    given = [] if row.args[0] is None else row.args[0]
    found = outgoing({"model": "m", "input": given})
    recorded = {"input": [] if row.result is None else row.result}
    return Outcome(recorded=recorded, ours={"input": found["input"]}, given={"input": given})


def trim_input(row: Row) -> Outcome:
    """Trimming alone, by places; an item that is none is refused before."""
    given, limit, *options = row.args
    newest_only = bool(options and options[0]["preferLatestUserOnly"])
    try:
        read = items.read(wire.raw(given or []))
    except RequestRejected as error:
        ours: Any = f"{error.fault.code}: {error.fault.param}"
    else:
        stay = trim.kept(*read, max_items=int(limit), newest_only=newest_only)
        ours = [given[place] for place in stay]
    return Outcome(
        recorded={"input": row.result or []}, ours={"input": ours}, given={"input": given}
    )


def resolve_plan(row: Row) -> Outcome:
    """The judgement, and what follows from it."""
    body, is_on, strategy, limit = row.args
    fast = FastSession(strategy=Strategy(strategy if is_on else "off"), max_items=limit)
    judgement = fast_session.judge(*items.read(wire.raw(body["input"])), max_items=limit)
    applies = fast_session.applies(fast.strategy, judgement)
    ours = {"applies": applies, "trivial": judgement.is_trivial}
    recorded = {"applies": row.result["shouldApply"], "trivial": row.result["isTrivialTurn"]}
    return Outcome(recorded=recorded, ours=ours)


def response_compaction(row: Row) -> Outcome:
    """The call to compact through the gateway's own engine, and the input that leaves then."""
    body, url, plan, reply = row.args
    request = _to_be_trimmed(body, plan)
    upstream = Upstream(
        Reply(status=reply.get("status", 200), body=json.dumps(reply.get("json", {})).encode())
    )
    compactor = Compactor(Dispatcher(upstream, clock=StoppedClock()))
    ways = Ways(target=_target(url.partition("/responses")[0]), request=request)
    charged = Attribution(caller="default", mode="stateless", response_id="resp_ours")
    done = asyncio.run(compactor.fulfilled(ways, attribution=charged)).request
    left = json.loads(wire.encode(done.body["input"]))
    mode = "trimmed" if len(left) < len(body["input"]) else "unchanged"
    if "compacted by the upstream instead" in [step.action for step in done.steps]:
        mode = "compacted"
    calls = [
        {"path": call.url, "asked": sorted(json.loads(call.body or b"{}"))}
        for call in upstream.calls
    ]
    text = left[0]["content"][0]["text"]
    ours = {"mode": mode, "items": len(left), "first": text, "calls": calls}
    return Outcome(recorded=_recorded_compaction(row.result), ours=ours)


def _to_be_trimmed(body: Json, plan: Json) -> UpstreamRequest:
    made = rewritten({"model": body["model"], "input": body["input"]})
    fast = FastSession(strategy=Strategy.ALWAYS, max_items=plan["maxItems"], compact_seconds=4.0)
    judgement = Judgement(is_complex=False, is_trivial=plan["preferLatestUserOnly"], reason="")
    known = model_options.apply({}, [], model=body["model"], catalogue=catalogue())
    turn = Turn(shaping=Shaping(fast=fast).knowing(known), judgement=judgement)
    steps: list[Step] = []
    left, wish = shape.trim_input(*items.read(made.body["input"]), steps, turn=turn, profile=CODEX)
    return replace(made, body={**made.body, "input": wire.raw(left)}, compaction=wish)


def _recorded_compaction(result: Json) -> Json:
    calls = [
        {"path": call["url"].partition("?")[0], "asked": sorted(call["body"]["keys"])}
        for call in result["calls"]
    ]
    items_left = result["inputLength"]
    return {
        "mode": result["mode"],
        "items": items_left,
        "first": result["firstText"],
        "calls": calls,
    }


def _target(url: str) -> Target:
    return Target(
        url=url,
        profile=CODEX,
        api_key=Secret("x"),
        extra_fields=frozenset(),
        runs_background=False,
        catalogue=catalogue(),
        model_fallbacks={},
        reply_seconds=60.0,
        idle_seconds=60.0,
        proxy=None,
    )


def transform_with_tools(row: Row) -> Outcome:
    """Rows of the whole transform about tools: `tools`, `input` and how the call is made."""
    body = row.args[0]["body"]
    return Outcome(
        recorded=_of_tools({"outcome": "sent", **row.result}),
        ours=_of_tools(outgoing(body)),
        given=alike(body),
    )


def _of_tools(terms: Json) -> Json:
    shown = ("outcome", "model", "input", "tools", "store", "stream", "include")
    return {name: alike(terms[name]) for name in shown if name in terms}


def transform_fast(row: Row) -> Outcome:
    """Rows of the whole transform in a fast session; its system prompt is the caller's here."""
    options = row.args[0]
    return _fast(
        {**options["body"], "instructions": options["codexInstructions"]},
        recorded=row.result,
        strategy=options.get("fastSessionStrategy", "hybrid"),
        deferred=options.get("deferFastSessionInputTrimming", False),
    )


def layer_fast(row: Row) -> Outcome:
    """The same in the layer around it, which also hands on what it would trim."""
    options = row.args[-1]
    deferred = options.get("deferFastSessionInputTrimming", False)
    body = {**json.loads(row.args[0]["body"]), "instructions": "INSTRUCTIONS"}
    found = _fast(body, recorded=row.result["body"], deferred=deferred)
    if deferred:
        judgement = fast_session.judge(*items.read(wire.raw(body["input"])), max_items=30)
        found.ours["deferred trim"] = {"maxItems": 30, "preferLatestUserOnly": judgement.is_trivial}
        found.recorded["deferred trim"] = row.result["deferredFastSessionInputTrim"]
    return found


def _fast(body: Json, *, recorded: Json, deferred: bool, strategy: str = "hybrid") -> Outcome:
    fast = FastSession(
        strategy=Strategy(strategy),
        drop_tools=True,
        cut_instructions=True,
        compact_seconds=4.0 if deferred else 0.0,
    )
    made = rewritten(body, fast=fast)
    ours = json.loads(wire.encode(made.body))
    if made.compaction is not None:
        wish = made.compaction
        ours["input"] = json.loads(wire.encode([*wish.before, *wish.asked, *wish.after]))
    # Where no fast session applies, the reference fills in its defaults nevertheless.
    filled = {"reasoning", "text"} - ours.keys()
    return Outcome(
        recorded=_of_fast({k: v for k, v in recorded.items() if k not in filled}),
        ours=_of_fast(ours),
        given=body,
    )


def _of_fast(terms: Json) -> Json:
    text = terms["instructions"]
    for notice in (_THEIR_NOTICE, fast_session.NOTICE):
        text = text.partition(notice)[0] + "<NOTICE>" if notice in text else text
    shown: Json = alike({**terms, "instructions": text})
    shown["effort"] = shown.pop("reasoning", {}).get("effort")
    return shown
