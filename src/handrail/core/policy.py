"""Whether and how a create may run: guardrails G1 to G8 as one pure function.

`decide` is called at every entrance, first thing after parsing and before any I/O. It sees one
request and one immutable set of rules, and returns a Plan or raises RequestRejected; the Plan
travels with the request or is stored with the run, so a reload never changes a decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Never

from handrail.core.fast_session import FastPolicy
from handrail.core.profiles import Endpoint
from handrail.core.switch import Switch
from handrail.core.wire import CreateRequest
from handrail.errors import Code, ConfigInvalid, RequestRejected

STORE_FALSE_WINDOW_SECONDS: Final = 600
"""How long a `store:false` background response can be polled; OpenAI keeps it about 10 minutes."""


class BackgroundPolicy(StrEnum):
    """What a caller may do beside the switch."""

    INHERIT = "inherit"
    ALLOW = "allow"
    DENY = "deny"


class Executor(StrEnum):
    """Who runs background responses: the gateway, over a stateless call, or the upstream itself."""

    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class StorePolicy(StrEnum):
    """What becomes of a stateless request that asks for `store:true`."""

    LOWER = "lower"
    REFUSE = "refuse"


class StoreFalsePolicy(StrEnum):
    """What becomes of `background:true` together with `store:false`."""

    REJECT = "reject"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerPolicy:
    """The rules of one caller. Retention is in seconds, counted from the terminal state.

    Raises ConfigInvalid for a rule that is none: rules are compared by identity, and a "deny" that
    is not BackgroundPolicy.DENY would deny nothing.
    """

    name: str
    background: BackgroundPolicy = BackgroundPolicy.INHERIT
    store: StorePolicy = StorePolicy.LOWER
    store_false: StoreFalsePolicy = StoreFalsePolicy.REJECT
    fast_session: FastPolicy = FastPolicy.INHERIT
    max_running: int = 8
    max_queued: int = 100
    retention_seconds: int = 86_400

    def __post_init__(self) -> None:
        for rule, words in _RULES.items():
            try:
                object.__setattr__(self, rule, words(getattr(self, rule)))
            except ValueError:
                place = f"callers.{self.name}.{rule}"
                raise ConfigInvalid(f"{place}: must be one of {', '.join(words)}.") from None


_RULES: Final[Mapping[str, type[StrEnum]]] = MappingProxyType(
    {
        "background": BackgroundPolicy,
        "store": StorePolicy,
        "store_false": StoreFalsePolicy,
        "fast_session": FastPolicy,
    }
)


class Mode(StrEnum):
    """Who keeps what: nobody, Handrail (background, run by the gateway), or the upstream."""

    STATELESS = "stateless"
    BACKGROUND = "background"
    UPSTREAM = "background-upstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that was decided: a short name for headers and logs, a sentence for people."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was decided for one request.

    `stream` is what the caller asked for. `store` is what the response object says. Retention is
    in seconds from the terminal state, 0 where Handrail keeps nothing. `continues` is the
    `previous_response_id` that an upstream is to continue from, if this caller owns it there.
    """

    mode: Mode
    stream: bool
    store: bool
    retention_seconds: int
    reasons: tuple[Reason, ...]
    continues: str | None = None

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
) -> Plan:
    """The plan for one create. Raises RequestRejected when a guardrail forbids it.

    `executor` is who runs background responses, `able` whether the target could do it itself. When
    background is both not enabled (G2) and contradicts `store:false` (G3), G2 is reported (G5).
    """
    if not request.background:
        plan = _stateless(request, caller)
    else:
        allowed = _allow_background(switch, caller)
        kept = _background(request, caller, allowed)
        # A `store:false` that may run nevertheless (G3) is never made true: Handrail runs it.
        by_upstream = executor is Executor.UPSTREAM and kept.store
        plan = _upstream_run(kept, allowed, able=able) if by_upstream else kept
    _refuse_unsupported(request, plan)
    return _continued(request, plan, executor)


def decide_endpoint(
    request: CreateRequest, *, endpoint: Endpoint, switch: Switch, caller: CallerPolicy
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
    return _continued(request, plan, Executor.GATEWAY)


def _not_of(endpoint: Endpoint, field: str, why: str) -> RequestRejected:
    return RequestRejected(
        Code.UNSUPPORTED_PARAMETER,
        f"Unsupported parameter: '{field}' is not supported by '{endpoint}': {why}.",
        param=field,
    )


def _stateless(request: CreateRequest, caller: CallerPolicy) -> Plan:
    asked = request.store or request.provider_store
    if asked and caller.store is StorePolicy.REFUSE:
        raise RequestRejected(
            Code.STORE_NOT_ALLOWED,
            f"store=true is refused for the caller '{caller.name}' "
            f'(callers.{caller.name}.store = "refuse"): this gateway answers statelessly.',
            param="store" if request.store else "providerOptions.openai.store",
        )
    reason = (
        Reason(name="store=lowered", text="store=true was lowered to false: nothing is kept.")
        if asked
        else Reason(name="store=false", text="The upstream gets store=false: nothing is kept.")
    )
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
    )


def _upstream_run(kept: Plan, allowed: Reason, *, able: bool) -> Plan:
    if not able:
        raise RequestRejected(
            Code.BACKGROUND_NOT_SUPPORTED,
            "The upstream behind this gateway cannot run background responses itself "
            '([background] executor = "upstream"). With executor = "gateway" Handrail runs them; '
            "a server that can says so with upstream.runs_background = true.",
            param="background",
        )
    text = "The upstream runs and keeps the response (store=true); Handrail keeps where it is."
    reason = Reason(name="store=upstream", text=text)
    return replace(kept, mode=Mode.UPSTREAM, retention_seconds=0, reasons=(allowed, reason))


def _allow_background(switch: Switch, caller: CallerPolicy) -> Reason:
    if caller.background is BackgroundPolicy.DENY:
        _refuse_background(f"It is denied to the caller '{caller.name}'", caller)
    if switch.enabled:
        return Reason(
            name=f"background=enabled({_word(switch.source)})",
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


def _word(source: str) -> str:
    return source.partition(" ")[0]


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


def _continued(request: CreateRequest, plan: Plan, executor: Executor) -> Plan:
    previous = request.previous_response_id
    if previous is None:
        return plan
    if executor is Executor.UPSTREAM and plan.mode is not Mode.BACKGROUND:
        return replace(plan, continues=previous)
    raise RequestRejected(
        Code.PREVIOUS_RESPONSE_NOT_FOUND,
        "Previous response cannot be used: this gateway keeps only background responses "
        "([background] enabled) and does not continue from them yet, and its upstream keeps "
        "none. Send the whole conversation as 'input'.",
        param="previous_response_id",
    )
