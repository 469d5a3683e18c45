"""What the catalogue knows about a request's model, put into the body that leaves.

The caller's body comes first, its providerOptions (read into it by then) next, then the ending of
the model's name, then the settings. Nothing is filled in that nobody asked for, and a request to a
model that the catalogue does not know stays as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from msgspec import Raw

from handrail.core import wire
from handrail.core.catalogue import Capability, Catalogue, Entry, Found, Verbosity
from handrail.core.efforts import ON_THE_WIRE, Effort, coerced, known
from handrail.core.steps import Step
from handrail.core.wire import Body, Kind

_SETTINGS_SAY: Final = "the settings say so, and the request does not"

_REASONING: Final[Mapping[str, tuple[Kind, ...]]] = MappingProxyType(
    {"effort": (Kind.STRING,), "summary": (Kind.STRING,)}
)
_TEXT: Final[Mapping[str, tuple[Kind, ...]]] = MappingProxyType({"verbosity": (Kind.STRING,)})

# What stands in for a verbosity that a model does not take, in this order.
_VERBOSITIES: Final[Mapping[str, tuple[Verbosity, ...]]] = MappingProxyType(
    {"low": ("medium", "high"), "medium": ("low", "high"), "high": ("medium", "low")}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What of the catalogue other rules need: the name that leaves, and what it is known to be.

    `include` is what the settings want in a request that says nothing, None for no say.
    `capabilities` are those of the model, `lowest_effort` is the least that it can think, as it is
    sent; None where nobody knows.
    """

    model: str
    include: tuple[str, ...] | None = None
    capabilities: frozenset[Capability] | None = None
    lowest_effort: Effort | None = None

    @property
    def reasons(self) -> bool:
        """Whether the model is known to reason."""
        return Capability.REASONING in (self.capabilities or ())


def apply(
    body: Body, steps: list[Step], *, model: str, catalogue: Catalogue, fills: bool = True
) -> Known:
    """Name the model as the upstream does, and fit what the request says to it.

    `model` is the caller's name for it. With `fills`, what the name's ending and the settings say
    is filled in. Raises RequestRejected for an effort, summary or verbosity that is no string.
    """
    found = catalogue.find(model)
    if found is None:
        return Known(model=model)
    if found.sends != model:
        body["model"] = wire.raw(found.sends)
        reason = "the model catalogue has it by that name"
        if found.effort is not None:
            reason = f"the model catalogue has it by that name; '{found.effort}' is an effort"
        steps.append(Step(field="model", action=f"changed to {found.sends}", reason=reason))
    _write_reasoning(body, steps, found=found, fills=fills)
    _write_verbosity(body, steps, found=found, fills=fills)
    _write_retention(body, steps, found=found, fills=fills)
    return Known(
        model=found.sends,
        include=found.options.include,
        capabilities=found.entry.capabilities,
        lowest_effort=_lowest(found.entry),
    )


def _lowest(entry: Entry) -> Effort | None:
    found = min(entry.efforts or (), key=list(Effort).index, default=None)
    return None if found is None else ON_THE_WIRE.get(found, found)


def _write_reasoning(body: Body, steps: list[Step], *, found: Found, fills: bool) -> None:
    inner = wire.nested(body, "reasoning")
    wire.check_kinds(inner, _REASONING, prefix="reasoning.")
    said = wire.string(inner, "effort")
    new: dict[str, str] = {}
    if said is not None:
        effort, why = _fitting(said, found)
        if effort != said:
            new["effort"] = effort
            steps.append(_effort_step(effort, why))
    elif fills and (wanted := found.effort or found.options.effort) is not None:
        new["effort"], why = _fitting(wanted, found)
        reason = "the model's name says so" if found.effort else _SETTINGS_SAY
        steps.append(_effort_step(new["effort"], f"{reason}; {why}" if why else reason))
    summary = found.options.summary
    if fills and summary is not None and not wire.is_set(inner, "summary"):
        new["summary"] = summary
        action = f"set to {summary}"
        steps.append(Step(field="reasoning.summary", action=action, reason=_SETTINGS_SAY))
    if new:
        body["reasoning"] = _with(inner, new)


def _effort_step(effort: str, reason: str) -> Step:
    return Step(field="reasoning.effort", action=f"set to {effort}", reason=reason)


def _fitting(said: str, found: Found) -> tuple[str, str]:
    """The effort to send for a word, and why it is another; an unknown word stays itself."""
    effort, accepted = known(said), found.entry.efforts
    if effort is None or not accepted:
        return said, ""
    fits = coerced(effort, accepted)
    sent = ON_THE_WIRE.get(fits, fits).value
    if fits != effort:
        return sent, f"{found.sends} does not take '{effort}'"
    if sent != fits:
        return sent, f"'{fits}' is sent as '{sent}'"
    return sent, "" if sent == said else "as the API spells it"


def _write_verbosity(body: Body, steps: list[Step], *, found: Found, fills: bool) -> None:
    inner = wire.nested(body, "text")
    wire.check_kinds(inner, _TEXT, prefix="text.")
    said = wire.string(inner, "verbosity")
    wanted = found.options.verbosity if said is None and fills else said
    if wanted is None:
        return
    accepted = found.entry.verbosities or (wanted,)
    fits = next((v for v in (wanted, *_VERBOSITIES.get(wanted, ())) if v in accepted), wanted)
    if fits == said:
        return
    reason = _SETTINGS_SAY if said is None else f"{found.sends} takes no other"
    steps.append(Step(field="text.verbosity", action=f"set to {fits}", reason=reason))
    body["text"] = _with(inner, {"verbosity": fits})


def _write_retention(body: Body, steps: list[Step], *, found: Found, fills: bool) -> None:
    field = "prompt_cache_retention"
    said = wire.string(body, field)
    accepted = found.entry.retentions
    if said is not None:
        if accepted and said not in accepted:
            # It is about cost only: without it the upstream keeps the prompt as long as it does.
            del body[field]
            reason = f"{found.sends} does not take it"
            steps.append(Step(field=field, action="removed", reason=reason))
    elif fills and (wanted := found.options.prompt_cache_retention) is not None:
        body[field] = wire.raw(wanted)
        steps.append(Step(field=field, action=f"set to {wanted}", reason=_SETTINGS_SAY))


def _with(inner: Mapping[str, Raw], new: Mapping[str, str]) -> Raw:
    return wire.raw({**inner, **new})
