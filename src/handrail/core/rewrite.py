"""From what the caller sent to what the upstream gets.

Each step is one small function that changes the body and says so in a Step; the steps are what
`explain`, the debug log and the tests read. The body comes in untouched and a new one goes out:
the top level is always re-encoded, and the original bytes are never sent as they came (G9).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from msgspec import Raw

from handrail.core import items as item_rules
from handrail.core import model_options, provider_options, tools, wire
from handrail.core.catalogue import NOTHING_KNOWN, Catalogue
from handrail.core.compaction import Compaction
from handrail.core.model_options import Known
from handrail.core.profiles import ENCRYPTED_REASONING, AddReasoning, Endpoint, Profile
from handrail.core.shaping import UNSHAPED, Shaping, Turn, trim_input, turn_of, write_fields
from handrail.core.steps import Step
from handrail.core.tool_outputs import Repaired, repaired
from handrail.core.wire import Body, CreateRequest
from handrail.errors import Code, RequestRejected


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """A body ready to leave. `streams` says whether it asks for SSE.

    `models` are those it has gone by, the caller's own first. `added_include` is True when
    `reasoning.encrypted_content` is there only because we put it there: a 400 about it is then ours
    to mend (G7). `compaction` is what may be asked of the upstream first, so that less is left out.
    """

    body: Mapping[str, Raw]
    streams: bool
    added_include: bool
    steps: tuple[Step, ...]
    models: tuple[str, ...] = ("",)
    compaction: Compaction | None = None

    def with_model(self, model: str) -> "UpstreamRequest":
        """The same request to another model."""
        reason = "the upstream does not serve the one before to this account"
        step = Step(field="model", action=f"changed to {model}", reason=reason)
        return replace(
            self,
            body={**self.body, "model": wire.raw(model)},
            steps=(*self.steps, step),
            models=(*self.models, model),
        )

    def without_previous(self) -> "UpstreamRequest":
        """The same request where what came before is put into the input; itself where nothing did.

        For showing it: the history is not looked up, so only the caller's own input is there.
        """
        if _PREVIOUS not in self.body:
            return self
        body = {name: value for name, value in self.body.items() if name != _PREVIOUS}
        steps = (*(step for step in self.steps if step.field != _PREVIOUS), _REPLACED)
        return replace(self, body=body, steps=steps)

    def without_added_include(self) -> "UpstreamRequest":
        """The same request without what we added to `include`."""
        body = dict(self.body)
        rest = [name for name in wire.strings(body, "include") or () if name != ENCRYPTED_REASONING]
        if rest:
            body["include"] = wire.raw(rest)
        else:
            body.pop("include", None)
        step = Step(field="include", action="removed", reason="the upstream refused what we added")
        return replace(self, body=body, added_include=False, steps=(*self.steps, step))

    def to_compact(self, wish: Compaction) -> "UpstreamRequest":
        """The call to `compact` that goes before this one."""
        body = wish.body(self.body)
        return replace(self, body=body, streams=False, added_include=False, compaction=None)

    def compacted(self, value: Raw | None, *, reason: str) -> "UpstreamRequest":
        """The same request with `value` as its input; None when nothing came of the compaction."""
        action = "not compacted" if value is None else "compacted by the upstream instead"
        body = self.body if value is None else {**self.body, "input": value}
        step = Step(field="input", action=action, reason=reason)
        return replace(self, body=body, steps=(*self.steps, step), compaction=None)


_PREVIOUS: Final = "previous_response_id"
_REPLACED: Final = Step(
    field=_PREVIOUS, action="removed", reason="what it stands for is put before the input"
)


def upstream_request(
    request: CreateRequest,
    *,
    profile: Profile,
    stream: bool,
    extra_fields: frozenset[str] = frozenset(),
    continues: str | None = None,
    catalogue: Catalogue = NOTHING_KNOWN,
    shaping: Shaping = UNSHAPED,
) -> UpstreamRequest:
    """The stateless upstream body for `request`; `stream` is whether SSE is wanted of it.

    `extra_fields` widens what a profile with a closed list of fields takes. `continues` is a
    response that the upstream keeps; the history is there then, so tool calls are left alone.
    `catalogue` is what is known about models at this upstream, `shaping` what may be left out.
    Raises RequestRejected for what the profile can neither take nor leave out.
    """
    body: Body = dict(request.body)
    steps: list[Step] = []
    streams = stream or profile.always_streams
    _merge_provider_options(body, steps, request=request)
    known = model_options.apply(body, steps, model=request.model, catalogue=catalogue)
    shaping = shaping.knowing(known)
    _strip(body, steps, GATEWAY_FIELDS)
    _write_previous(body, steps, request=request, continues=continues)
    _translate(body, steps, profile=profile)
    _write_tools(body, steps, profile=profile, shaping=shaping)
    turn = turn_of(request, body, shaping=shaping, continues=continues)
    if turn is not None:
        write_fields(body, steps, turn)
    _write_store(body, steps)
    _write_stream(body, steps, streams=streams, wanted=stream)
    names = _write_include(body, steps, request=request, known=known)
    added = _add_reasoning(body, steps, names=names, profile=profile, reasons=known.reasons)
    wish = _write_input(body, steps, profile=profile, whole=continues is None, turn=turn)
    if continues is not None:
        extra_fields |= {_PREVIOUS}
    _fit_fields(body, steps, profile=profile, extra_fields=extra_fields)
    return UpstreamRequest(
        body=body,
        streams=streams,
        added_include=added,
        steps=tuple(steps),
        models=_models(request, known),
        compaction=wish,
    )


def upstream_run_request(
    request: CreateRequest,
    *,
    profile: Profile,
    stream: bool,
    extra_fields: frozenset[str] = frozenset(),
    continues: str | None = None,
    catalogue: Catalogue = NOTHING_KNOWN,
    shaping: Shaping = UNSHAPED,
) -> UpstreamRequest:
    """The body for a background response that the upstream itself runs and keeps (G6).

    `store` is made true. Ids, references and tool outputs stay as the caller sent them, nothing is
    added to `include`, nothing is left out of the input whatever `shaping` allows. Raises
    RequestRejected for what the profile can neither take nor leave out.
    """
    body: Body = dict(request.body)
    steps: list[Step] = []
    _merge_provider_options(body, steps, request=request)
    known = model_options.apply(body, steps, model=request.model, catalogue=catalogue)
    shaping = shaping.knowing(known)
    _strip(body, steps, ("providerOptions", "conversation"))
    _write_previous(body, steps, request=request, continues=continues)
    _translate(body, steps, profile=profile)
    if wire.boolean(body, "store") is not True:
        reason = "the upstream runs the response and keeps it"
        steps.append(Step(field="store", action="set to true", reason=reason))
    body["store"] = body["background"] = wire.TRUE
    _write_stream(body, steps, streams=stream, wanted=stream)
    names = _write_include(body, steps, request=request, known=known)
    if names is not None:
        body["include"] = wire.raw(names)
    else:
        body.pop("include", None)
    if wire.is_set(body, "input"):
        item_rules.read(body["input"])  # only what can be read may leave (G9)
    _write_tools(body, steps, profile=profile, shaping=shaping)
    _fit_fields(body, steps, profile=profile, extra_fields=extra_fields | UPSTREAM_RUN_FIELDS)
    return UpstreamRequest(
        body=body,
        streams=stream,
        added_include=False,
        steps=tuple(steps),
        models=_models(request, known),
    )


def endpoint_request(
    request: CreateRequest,
    *,
    endpoint: Endpoint,
    profile: Profile,
    extra_fields: frozenset[str] = frozenset(),
    continues: str | None = None,
    catalogue: Catalogue = NOTHING_KNOWN,
    shaping: Shaping = UNSHAPED,
) -> UpstreamRequest:
    """The upstream body for a call to an endpoint beside create.

    Input and tools go out as a create's would, to the same model, and whole whatever `shaping`
    allows; no option is filled in. `continues` is as there. Raises RequestRejected for what the
    profile can neither take nor leave out.
    """
    body: Body = dict(request.body)
    steps: list[Step] = []
    known = model_options.apply(body, steps, model=request.model, catalogue=catalogue, fills=False)
    shaping = shaping.knowing(known)
    _strip(body, steps, GATEWAY_FIELDS)
    _write_previous(body, steps, request=request, continues=continues)
    steps.extend(
        Step(field=field, action="removed", reason=f"no field of {endpoint}")
        for field in _CREATE_ONLY
        if body.pop(field, None) is not None
    )
    _write_tools(body, steps, profile=profile, shaping=shaping)
    _write_input(body, steps, profile=profile, whole=continues is None)
    if continues is not None:
        extra_fields |= {_PREVIOUS}
    _fit_fields(body, steps, profile=profile, extra_fields=extra_fields)
    return UpstreamRequest(
        body=body,
        streams=False,
        added_include=False,
        steps=tuple(steps),
        models=_models(request, known),
    )


# They say how a create is kept and told, and an endpoint that does neither answers 400 to them.
_CREATE_ONLY: Final = ("store", "stream", "stream_options", "include")

_OPTIONS_SAY: Final = "providerOptions say so, and the body does not"

# Read by the gateway and meant for nobody behind it.
GATEWAY_FIELDS: Final = ("providerOptions", "background", "background_options", "conversation")

# What a server that runs background responses takes beside its profile's fields.
UPSTREAM_RUN_FIELDS: Final = frozenset({"background", "background_options", _PREVIOUS})


def _models(request: CreateRequest, known: Known) -> tuple[str, ...]:
    return tuple(dict.fromkeys((request.model, known.model)))


def _merge_provider_options(body: Body, steps: list[Step], *, request: CreateRequest) -> None:
    taken, left = provider_options.merge(body, request.provider)
    steps.extend(Step(field=field, action="set", reason=_OPTIONS_SAY) for field in taken)
    steps.extend(
        Step(
            field=f"providerOptions.openai.{option}", action="dropped", reason="has no meaning here"
        )
        for option in left
    )


def _translate(body: Body, steps: list[Step], *, profile: Profile) -> None:
    for old, new in profile.translates.items():
        value = body.pop(old, wire.NULL)
        if value == wire.NULL:
            continue
        action = "dropped"
        if not wire.is_set(body, new):
            body[new] = value
            action = f"renamed to {new}"
        steps.append(Step(field=old, action=action, reason=f"is called {new} in this API"))


def _strip(body: Body, steps: list[Step], fields: tuple[str, ...]) -> None:
    steps.extend(
        Step(field=field, action="removed", reason="read by the gateway")
        for field in fields
        if body.pop(field, None) is not None
    )


def _write_previous(
    body: Body, steps: list[Step], *, request: CreateRequest, continues: str | None
) -> None:
    if continues is not None:
        if not wire.is_set(body, _PREVIOUS):
            steps.append(Step(field=_PREVIOUS, action="set", reason=_OPTIONS_SAY))
        body[_PREVIOUS] = wire.raw(continues)
    elif request.whole:
        steps.append(_REPLACED)
        body.pop(_PREVIOUS, None)
    elif request.previous_response_id is not None:
        # Nobody has looked up what it stands for, and context must not vanish here.
        raise RequestRejected(
            Code.PREVIOUS_RESPONSE_NOT_FOUND,
            "The upstream keeps no previous response.",
            param=_PREVIOUS,
        )
    else:
        body.pop(_PREVIOUS, None)


def _write_store(body: Body, steps: list[Step]) -> None:
    # Explicit, never omitted: the Codex backend and OpenAI both read a missing store as true.
    if wire.boolean(body, "store") is not False:
        steps.append(
            Step(field="store", action="set to false", reason="upstream calls keep nothing")
        )
    body["store"] = wire.FALSE


def _write_stream(body: Body, steps: list[Step], *, streams: bool, wanted: bool) -> None:
    # Explicit, never omitted: transformers' server streams when nothing is said.
    if wire.boolean(body, "stream") is not streams:
        reason = "the upstream only streams" if streams and not wanted else "always said explicitly"
        if streams and wanted:
            reason = "what Handrail keeps is read as a stream"
        steps.append(Step(field="stream", action=f"set to {str(streams).lower()}", reason=reason))
    body["stream"] = wire.TRUE if streams else wire.FALSE
    if not streams and body.pop("stream_options", None) is not None:
        steps.append(Step(field="stream_options", action="removed", reason="nothing is streamed"))


def _write_include(
    body: Body, steps: list[Step], *, request: CreateRequest, known: Known
) -> tuple[str, ...] | None:
    """What is asked for by body, providerOptions or settings, and told as a step."""
    if request.include is None:
        if known.include is not None:
            reason = "the settings say so, and the request does not"
            steps.append(Step(field="include", action="set", reason=reason))
        return known.include
    if request.include and not wire.is_set(body, "include"):
        steps.append(Step(field="include", action="set", reason=_OPTIONS_SAY))
    return request.include


def _add_reasoning(
    body: Body,
    steps: list[Step],
    *,
    names: tuple[str, ...] | None,
    profile: Profile,
    reasons: bool,
) -> bool:
    asked = list(dict.fromkeys(names or ()))
    when = profile.add_reasoning
    wanted = when is AddReasoning.ALWAYS or (
        when is AddReasoning.WHEN_REASONING and (reasons or wire.is_set(body, "reasoning"))
    )
    added = wanted and ENCRYPTED_REASONING not in asked
    if added:
        asked.append(ENCRYPTED_REASONING)
        steps.append(
            Step(
                field="include",
                action=f"{ENCRYPTED_REASONING} added",
                reason="without a store, reasoning must travel with the items",
            )
        )
    if asked:
        body["include"] = wire.raw(asked)
    else:
        body.pop("include", None)
    return added


def _write_tools(body: Body, steps: list[Step], *, profile: Profile, shaping: Shaping) -> None:
    tools.write(body, steps, clean_up=profile.clean_tools, capabilities=shaping.capabilities)


def _write_input(
    body: Body, steps: list[Step], *, profile: Profile, whole: bool, turn: Turn | None = None
) -> Compaction | None:
    value = body.get("input")
    if value is None or not wire.is_set(body, "input"):
        if profile.list_input:
            body["input"] = wire.raw([])
            steps.append(Step(field="input", action="set to []", reason="the profile wants a list"))
        return None
    was_text = wire.kind_of(value) is wire.Kind.STRING
    if was_text and not profile.list_input:
        return None
    items, heads = item_rules.read(value)
    if any(head.type == "item_reference" for head in heads):
        item_rules.resolve_references(items, {})
    done = repaired(items, heads) if whole else Repaired(items=items, heads=heads)
    count = item_rules.strip_ids(done.items, done.heads) if profile.strips_ids else 0
    if was_text:
        steps.append(
            Step(field="input", action="made a list of items", reason="the profile wants a list")
        )
    if done.orphaned:
        action = f"{done.orphaned} tool outputs made messages"
        steps.append(Step(field="input", action=action, reason="their calls are not in the input"))
    if done.missing:
        action = f"{done.missing} tool outputs added"
        steps.append(Step(field="input", action=action, reason="their calls had no output"))
    if count:
        reason = "nothing is stored that they could name"
        steps.append(Step(field="input[].id", action=f"removed from {count} items", reason=reason))
    items, wish = done.items, None
    if turn is not None:
        items, wish = trim_input(items, done.heads, steps, turn=turn, profile=profile)
    body["input"] = wire.raw(items)
    return wish


def _fit_fields(
    body: Body, steps: list[Step], *, profile: Profile, extra_fields: frozenset[str]
) -> None:
    for field in sorted(profile.refuses - extra_fields):
        if wire.is_set(body, field):
            raise RequestRejected(
                Code.UNSUPPORTED_PARAMETER,
                f"Unsupported parameter: '{field}' is not supported by upstreams of the profile "
                f"'{profile.name}'.",
                param=field,
            )
        body.pop(field, None)
    leaves: Callable[[str], bool] = lambda field: field in profile.drops  # noqa: E731
    if profile.takes is not None:
        taken = profile.takes | extra_fields
        leaves = lambda field: field not in taken  # noqa: E731
    for field in [name for name in body if leaves(name)]:
        del body[field]
        steps.append(
            Step(field=field, action="dropped", reason=f"profile {profile.name} does not take it")
        )
