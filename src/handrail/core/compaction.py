"""Instead of leaving items out: the upstream's `compact` endpoint puts them in short.

Only what is before the newest turn of the user goes there; instructions and that turn stay as they
are, so whatever comes back, the question and the rules reach the model in the caller's words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec import Raw

from handrail.core import items as item_rules
from handrail.core import wire
from handrail.core.item_texts import INSTRUCTING, is_message
from handrail.core.items import Head
from handrail.core.profiles import Endpoint, Profile
from handrail.core.tool_outputs import repaired
from handrail.core.trim import groups, newest_user
from handrail.core.wire import Body
from handrail.errors import RequestRejected

CAPABILITY: Final = "compaction"
"""What a model must be able to, as the catalogue calls it."""

# Where a server has what came out; OpenAI says `output`.
_OUTPUTS: Final = ("output", "input")
_FIELDS: Final = ("model", "instructions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """Items that may be put in short, and what stays as it is before and after them.

    `seconds` is how long that may take, `strips_ids` whether ids of what comes back are removed.
    """

    asked: tuple[Body, ...] = field(repr=False)
    before: tuple[Body, ...] = field(repr=False)
    after: tuple[Body, ...] = field(repr=False)
    seconds: float
    strips_ids: bool

    def body(self, create: Mapping[str, Raw]) -> Body:
        """The body of the call to `compact` that goes before this create."""
        body = {name: create[name] for name in _FIELDS if wire.is_set(create, name)}
        return {**body, "input": wire.raw(self.asked)}

    def input(self, answer: Mapping[str, Raw]) -> Raw | None:
        """The create's input with the answer in the place of what was asked.

        None for an answer that holds no items, or some that cannot be read.
        """
        for name in _OUTPUTS:
            value = answer.get(name)
            if value is None or wire.kind_of(value) is not wire.Kind.ARRAY:
                continue
            try:
                made = repaired(*item_rules.read(value))
            except RequestRejected:
                return None
            if self.strips_ids:
                item_rules.strip_ids(made.items, made.heads)
            return wire.raw([*self.before, *made.items, *self.after]) if made.items else None
        return None


def planned(
    items: Sequence[Body],
    heads: Sequence[Head],
    *,
    profile: Profile,
    capabilities: frozenset[str] | None,
    seconds: float,
) -> Compaction | None:
    """What to ask of the upstream before a long input is trimmed; None where that cannot be.

    That is where the upstream has no such endpoint or the model is known not to be able to, with
    `seconds` 0, without a turn of the user or anything before it, and where a tool call of that
    turn began before it.
    """
    if seconds <= 0 or Endpoint.COMPACT not in profile.endpoints:
        return None
    if capabilities is not None and CAPABILITY not in capabilities:
        return None
    newest = newest_user(heads)
    if newest is None:
        return None
    earlier = range(newest)
    rules = [p for p in earlier if is_message(heads[p]) and heads[p].role in INSTRUCTING]
    rest = sorted(set(earlier) - set(rules))
    together = groups(items, heads)
    if not rest or any(max(together[place]) >= newest for place in rest):
        return None
    return Compaction(
        asked=tuple(items[place] for place in rest),
        before=tuple(items[place] for place in rules),
        after=tuple(items[newest:]),
        seconds=seconds,
        strips_ids=profile.strips_ids,
    )
