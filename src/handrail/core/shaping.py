"""What the rewriting of one request may use beside the profile, and what a fast session does to it.

`Shaping` is what the operator allows and what is known about the model; without it a request is
neither trimmed nor filtered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from handrail.core import compaction, fast_session, trim, wire
from handrail.core import items as item_rules
from handrail.core.compaction import Compaction
from handrail.core.fast_session import NO_FAST_SESSION, FastSession, Judgement, Strategy
from handrail.core.items import Head
from handrail.core.model_options import Known
from handrail.core.profiles import Profile
from handrail.core.steps import Step
from handrail.core.wire import Body, CreateRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """`capabilities` are those of the model, None when nobody knows; `fast` what may be left out.

    `lowest_effort` is the least that the model can think, None when nobody knows; then neither
    effort nor verbosity is touched.
    """

    capabilities: frozenset[str] | None = None
    fast: FastSession = NO_FAST_SESSION
    lowest_effort: str | None = None

    def knowing(self, known: Known) -> "Shaping":
        """The same, with what the catalogue says about the model where it says something."""
        return replace(
            self,
            capabilities=self.capabilities if known.capabilities is None else known.capabilities,
            lowest_effort=known.lowest_effort or self.lowest_effort,
        )


UNSHAPED: Final = Shaping()

# Fields that say something about tools, and nothing without any.
_ABOUT_TOOLS: Final = ("tool_choice", "parallel_tool_calls")
_FREE_CHOICES: Final = (wire.raw("auto"), wire.raw("none"), wire.NULL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One request as the fast session sees it."""

    shaping: Shaping
    judgement: Judgement

    @property
    def applies(self) -> bool:
        """Whether anything may be left out."""
        return fast_session.applies(self.shaping.fast.strategy, self.judgement)

    @property
    def reason(self) -> str:
        """The strategy, and what the judgement says."""
        return f"fast session ({self.shaping.fast.strategy}): {self.judgement.reason}"


def turn_of(
    request: CreateRequest, body: Body, *, shaping: Shaping, continues: str | None
) -> Turn | None:
    """The turn of a create, None where no fast session can be.

    That is where the operator has not asked for one, in background mode whoever runs it, and where
    the request goes on from a response, whoever has its history. Raises RequestRejected for input
    that cannot be read.
    """
    fast = shaping.fast
    if fast.strategy is Strategy.OFF or request.background:
        return None
    if continues is not None or request.previous_response_id is not None:
        return None
    if not wire.is_set(body, "input"):
        return None
    items, heads = item_rules.read(body["input"])
    judgement = fast_session.judge(items, heads, max_items=fast.max_items)
    return Turn(shaping=shaping, judgement=judgement)


def write_fields(body: Body, steps: list[Step], turn: Turn) -> None:
    """Leave out of the fields beside `input` what the operator lets go."""
    if not turn.applies:
        steps.append(Step(field="input", action="left whole", reason=turn.reason))
        return
    fast, judgement = turn.shaping.fast, turn.judgement
    if fast.drop_tools and judgement.is_trivial:
        _drop_tools(body, steps, turn)
    if fast.cut_instructions:
        _cut_instructions(body, steps, turn)
    if turn.shaping.lowest_effort is not None:
        _set(body, steps, turn, path="reasoning.effort", value=turn.shaping.lowest_effort)
        _set(body, steps, turn, path="text.verbosity", value="low")


def _drop_tools(body: Body, steps: list[Step], turn: Turn) -> None:
    # Who demands a tool, or names one, gets it.
    if not wire.is_set(body, "tools") or body.get("tool_choice", wire.NULL) not in _FREE_CHOICES:
        return
    steps.extend(
        Step(field=name, action="removed", reason=turn.reason)
        for name in ("tools", *_ABOUT_TOOLS)
        if body.pop(name, None) is not None
    )


def _cut_instructions(body: Body, steps: list[Step], turn: Turn) -> None:
    text = wire.string(body, "instructions") or ""
    short = fast_session.shortened(text, is_trivial=turn.judgement.is_trivial)
    if short != text:
        body["instructions"] = wire.raw(short)
        action = f"cut from {len(text)} to {len(short)} characters"
        steps.append(Step(field="instructions", action=action, reason=turn.reason))


def _set(body: Body, steps: list[Step], turn: Turn, *, path: str, value: str) -> None:
    # What the caller says outright holds, in a fast session too.
    name, _, key = path.partition(".")
    inner = wire.nested(body, name)
    if not wire.is_set(inner, key):
        body[name] = wire.raw({**inner, key: value})
        steps.append(Step(field=path, action=f"set to {value}", reason=turn.reason))


def trim_input(
    items: Sequence[Body], heads: Sequence[Head], steps: list[Step], *, turn: Turn, profile: Profile
) -> tuple[list[Body], Compaction | None]:
    """The items that leave, and what may be asked of the upstream instead of leaving some out."""
    fast = turn.shaping.fast
    if not turn.applies:
        return list(items), None
    stay = trim.kept(items, heads, max_items=fast.max_items, newest_only=turn.judgement.is_trivial)
    if len(stay) == len(items):
        return list(items), None
    wish = compaction.planned(
        items,
        heads,
        profile=profile,
        capabilities=turn.shaping.capabilities,
        seconds=fast.compact_seconds,
    )
    reason = turn.reason
    if wish is not None:
        reason += f"; before that the upstream may take {wish.seconds:g} s to put them in short"
    action = f"{len(items) - len(stay)} of {len(items)} items left out"
    steps.append(Step(field="input", action=action, reason=reason))
    return [items[place] for place in stay], wish
