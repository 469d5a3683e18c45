"""Whether and how a create may run: guardrails G1 to G8 as one pure function.

`decide` is called at every entrance, first thing after parsing and before any I/O. It sees one
request and one immutable set of rules, and returns a Plan or raises RequestRejected; the Plan
travels with the request or is stored with the run, so a reload never changes a decision.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Never

from handrail.core.caller_policy import (
    BackgroundPolicy,
    CallerPolicy,
    CrashPolicy,
    Executor,
    Priority,
    StoreFalsePolicy,
    StorePolicy,
    WhenLeft,
)
from handrail.core.model_access import check_model
from handrail.core.profiles import Endpoint
from handrail.core.switch import Switch
from handrail.core.wire import CreateRequest
from handrail.errors import Code, RequestRejected

STORE_FALSE_WINDOW_SECONDS: Final = 600
"""How long a `store:false` background response can be polled; OpenAI keeps it about 10 minutes."""


class Mode(StrEnum):
    """Who keeps what: nobody, Handrail (foreground or background), or the upstream."""

    STATELESS = "stateless"
    KEPT = "kept"
    BACKGROUND = "background"
    UPSTREAM = "background-upstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that was decided: a short name for headers and logs, a sentence for people."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherTarget:
    """A target that may take another's place, and the name of the rules that it is written by."""

    name: str
    rules: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was decided for one request.

    `stream` is what the caller asked for. `store` is what the response object says. Retention is
    in seconds from the terminal state, 0 where Handrail keeps nothing. `continues` is the
    `previous_response_id` to continue from: what Handrail keeps, or an upstream that runs
    background responses itself. `crash` and `priority` have a meaning only for what the gateway
    itself runs. `outlives_reader`: a foreground stream goes on when its reader leaves. `rules`
    names those that a run's upstream request is made by, "" where that is done at once. `account`
    is the name of the account that the request demands, `project` the label that its calls are
    charged under. `others` are the targets that a run may go to when its own cannot be used,
    `account_tags` are those of which its account must have one, if there are any.
    """

    mode: Mode
    stream: bool
    store: bool
    retention_seconds: int
    reasons: tuple[Reason, ...]
    continues: str | None = None
    crash: CrashPolicy = CrashPolicy.SAFE
    priority: Priority = Priority.NORMAL
    outlives_reader: bool = False
    rules: str = ""
    account: str | None = None
    project: str | None = None
    others: tuple[OtherTarget, ...] = ()
    account_tags: tuple[str, ...] = ()

    def header(self) -> str:
        """The value of the `handrail-decision` reply header; holds no content of the request."""
        return "; ".join([f"mode={self.mode}", *(reason.name for reason in self.reasons)])


def decide(
    request: CreateRequest,
    *,
    switch: Switch,
    caller: CallerPolicy,
    executor: Executor = Executor.GATEWAY,
    able: bool = True,
    has_store: bool = False,
) -> Plan:
    """The plan for one create. Raises RequestRejected when a guardrail forbids it.

    `executor` is who runs background responses if the caller's policy does not say, `able` whether
    the target could do it itself, `has_store` whether there is a store here that responses may be
    kept in. When background is both not enabled (G2) and contradicts `store:false` (G3), G2 is
    reported (G5). A model that the caller may not use comes last, as an unknown one would.
    """
    executor = caller.executor or executor
    if not request.background:
        plan = _foreground(request, caller, has_store=has_store)
    else:
        allowed = _allow_background(switch, caller)
        kept = _background(request, caller, allowed)
        # A `store:false` that may run nevertheless (G3) is never made true: Handrail runs it.
        by_upstream = executor is Executor.UPSTREAM and kept.store
        plan = _upstream_run(kept, allowed, able=able) if by_upstream else kept
    _refuse_unsupported(request, plan)
    plan = _continued(request, plan, executor=executor, has_store=has_store)
    return _with_access(request, plan, caller)


def decide_endpoint(
    request: CreateRequest,
    *,
    endpoint: Endpoint,
    switch: Switch,
    caller: CallerPolicy,
    has_store: bool = False,
) -> Plan:
    """The plan for a call to an endpoint beside create: the same guardrails, and always stateless.

    There is no run and no stream of it, so what asks for one is refused and never ignored. Raises
    RequestRejected when a guardrail forbids the call.
    """
    if request.background:
        _allow_background(switch, caller)  # who has not opted in gets the same words as anywhere
        raise _not_of(endpoint, "background", "a call to it is never run in the background")
    if request.stream:
        raise _not_of(endpoint, "stream", "it answers with one JSON object")
    plan = _stateless(request, caller)
    _refuse_unsupported(request, plan)
    plan = _continued(request, plan, executor=Executor.GATEWAY, has_store=has_store)
    return _with_access(request, plan, caller)


def _with_access(request: CreateRequest, plan: Plan, caller: CallerPolicy) -> Plan:
    check_model(request.model, caller.models)
    if not caller.account_tags:
        return plan
    text = f"Accounts must have one of the tags {', '.join(caller.account_tags)}."
    reason = Reason(name="accounts=tagged", text=text)
    return replace(plan, account_tags=caller.account_tags, reasons=(*plan.reasons, reason))


def _not_of(endpoint: Endpoint, field: str, why: str) -> RequestRejected:
    return RequestRejected(
        Code.UNSUPPORTED_PARAMETER,
        f"Unsupported parameter: '{field}' is not supported by '{endpoint}': {why}.",
        param=field,
    )


def _foreground(request: CreateRequest, caller: CallerPolicy, *, has_store: bool) -> Plan:
    asked = request.store or request.provider_store
    denied = request.store is False or request.provider_store is False
    wanted = caller.store is StorePolicy.KEEP_ALL or (caller.store is StorePolicy.KEEP and asked)
    if denied or not wanted:
        return _stateless(request, caller)
    if not has_store:
        # Said and not refused: the same settings serve a gateway, which keeps it.
        return _stateless(request, caller, because=" in this process; a gateway would keep it")
    seconds = caller.retention_seconds
    text = f"Handrail keeps the response for {seconds} s after its end; the upstream keeps nothing."
    reasons = [Reason(name="store=gateway", text=text)]
    outlives = request.stream and caller.when_left is WhenLeft.CONTINUE
    if outlives:
        text = "The stream goes on when its reader leaves, and can be resumed."
        reasons.append(Reason(name="when-left=continue", text=text))
    return Plan(
        mode=Mode.KEPT,
        stream=request.stream,
        store=True,
        retention_seconds=seconds,
        reasons=tuple(reasons),
        outlives_reader=outlives,
    )


def _stateless(request: CreateRequest, caller: CallerPolicy, *, because: str = "") -> Plan:
    asked = request.store or request.provider_store
    if asked and caller.store is StorePolicy.REFUSE:
        raise RequestRejected(
            Code.STORE_NOT_ALLOWED,
            f"store=true is refused for the caller '{caller.name}' "
            f'(callers.{caller.name}.store = "refuse"): this gateway answers statelessly.',
            param="store" if request.store else "providerOptions.openai.store",
        )
    name, text = "store=false", "The upstream gets store=false: nothing is kept"
    if asked:
        name, text = "store=lowered", "store=true was lowered to false: nothing is kept"
    reason = Reason(name=name, text=f"{text}{because}.")
    return Plan(
        mode=Mode.STATELESS,
        stream=request.stream,
        store=False,
        retention_seconds=0,
        reasons=(reason,),
    )


def _background(request: CreateRequest, caller: CallerPolicy, allowed: Reason) -> Plan:
    kept, window = _keep_background(request, caller)
    store = not (request.store is False or request.provider_store is False)
    return Plan(
        mode=Mode.BACKGROUND,
        stream=request.stream,
        store=store,
        retention_seconds=window,
        reasons=(allowed, kept),
        crash=caller.crash,
        priority=caller.priority,
    )


def _upstream_run(kept: Plan, allowed: Reason, *, able: bool) -> Plan:
    if not able:
        raise RequestRejected(
            Code.BACKGROUND_NOT_SUPPORTED,
            "The upstream behind this gateway cannot run background responses itself "
            '([background] executor = "upstream", or the caller\'s own). With executor = "gateway" '
            "Handrail runs them; a server that can says so with upstream.runs_background = true.",
            param="background",
        )
    text = "The upstream runs and keeps the response (store=true); Handrail keeps where it is."
    reason = Reason(name="store=upstream", text=text)
    return replace(
        kept,
        mode=Mode.UPSTREAM,
        retention_seconds=0,
        reasons=(allowed, reason),
        crash=CrashPolicy.SAFE,
        priority=Priority.NORMAL,
    )


def _allow_background(switch: Switch, caller: CallerPolicy) -> Reason:
    if caller.background is BackgroundPolicy.DENY:
        _refuse_background(f"It is denied to the caller '{caller.name}'", caller)
    if switch.enabled:
        return Reason(
            name=f"background=enabled({switch.source.partition(' ')[0]})",
            text=f"Background mode is on: {switch.source}.",
        )
    if switch.locked:
        _refuse_background(f"It is switched off, and locked, by {switch.source}", caller)
    if caller.background is BackgroundPolicy.ALLOW:
        return Reason(
            name="background=enabled(caller)",
            text=f"Background mode is allowed to the caller '{caller.name}'.",
        )
    return _refuse_background(f"It is off ({switch.source})", caller)


def _refuse_background(why: str, caller: CallerPolicy) -> Never:
    raise RequestRejected(
        Code.BACKGROUND_NOT_ENABLED,
        f"Responses background mode is disabled. {why}. To opt in: start with --background, set "
        "HANDRAIL_BACKGROUND_RESPONSES=1, or in handrail.toml set [background] enabled = true, or "
        f'[callers.{caller.name}] background = "allow" for this caller alone. '
        "See docs/howto/enable-background.md.",
        param="background",
    )


def _keep_background(request: CreateRequest, caller: CallerPolicy) -> tuple[Reason, int]:
    if request.store is not False and request.provider_store is not False:
        text = f"Handrail keeps the response for {caller.retention_seconds} s after its end."
        return Reason(name="store=gateway", text=text), caller.retention_seconds
    if caller.store_false is StoreFalsePolicy.REJECT:
        raise RequestRejected(
            Code.BACKGROUND_REQUIRES_STORE,
            "Responses background mode requires store=true and cannot be combined with "
            "store=false: a background response must be kept until it has been read. Leave out "
            f'store, or set [callers.{caller.name}] store_false = "gateway" to have it kept for '
            "the polling window only.",
            param="store" if request.store is False else "providerOptions.openai.store",
        )
    window = min(STORE_FALSE_WINDOW_SECONDS, caller.retention_seconds)
    text = f"store=false: Handrail keeps the response for the polling window of {window} s only."
    return Reason(name="store=polling-window", text=text), window


def _refuse_unsupported(request: CreateRequest, plan: Plan) -> None:
    if request.has_conversation:
        raise RequestRejected(
            Code.UNSUPPORTED_PARAMETER,
            "Unsupported parameter: 'conversation'. Conversations are kept by the upstream, and "
            "this gateway's upstream calls are stateless; send the history as 'input'.",
            param="conversation",
        )
    if request.has("background_options") and plan.mode is not Mode.UPSTREAM:
        raise RequestRejected(
            Code.UNSUPPORTED_PARAMETER,
            "Unsupported parameter: 'background_options'. They schedule a run at the upstream; "
            "this gateway runs background responses itself.",
            param="background_options",
        )


def _continued(request: CreateRequest, plan: Plan, *, executor: Executor, has_store: bool) -> Plan:
    previous = request.previous_response_id
    if previous is None:
        return plan
    if has_store:
        text = (
            "What Handrail keeps of the conversation is put before the input; what the upstream "
            "keeps of it is named to it."
        )
        reason = Reason(name="previous_response_id=kept", text=text)
        return replace(plan, continues=previous, reasons=(*plan.reasons, reason))
    if executor is Executor.UPSTREAM and plan.mode is not Mode.BACKGROUND:
        return replace(plan, continues=previous)
    raise RequestRejected(
        Code.PREVIOUS_RESPONSE_NOT_FOUND,
        "Previous response cannot be used here: there is no store in this process to continue "
        "from, and the upstream keeps nothing. Handrail as a gateway continues from the background "
        "responses that it keeps ([background] enabled). Otherwise send the whole conversation as "
        "'input'.",
        param="previous_response_id",
    )
