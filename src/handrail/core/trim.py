"""Which items of a long input stay when it is trimmed.

Always: what the developer or the system says, a compaction (it stands for all that was before it),
the newest message of the user, and the end. Items that need each other stay or go together: a call
and its outputs, reasoning and what follows it, an approval and its request. So nothing that was
whole becomes half, the order stays, and trimming again changes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from msgspec import Raw

from handrail.core import wire
from handrail.core.fast_session import MIN_ITEMS, is_user
from handrail.core.item_texts import INSTRUCTING, is_message
from handrail.core.items import Head
from handrail.core.wire import Body

_COMPACTIONS: Final = frozenset({"compaction", "compaction_summary"})

# Where an item that has no `call_id` names what it belongs to.
_NAMED_BY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "local_shell_call": "id",
        "local_shell_call_output": "id",
        "mcp_approval_request": "id",
        "mcp_approval_response": "approval_request_id",
    }
)

Group = list[int]


def groups(items: Sequence[Mapping[str, Raw]], heads: Sequence[Head]) -> list[Group]:
    """For each item the places of all that must stay or go with it, itself among them."""
    found: list[Group] = [[place] for place in range(len(items))]
    by_name: dict[str, int] = {}
    for place, (item, head) in enumerate(zip(items, heads, strict=True)):
        name = _name(item, head)
        if name:
            _join(found, by_name.setdefault(name, place), place)
        if head.type == "reasoning" and place + 1 < len(items):
            _join(found, place, place + 1)
    return found


def _join(found: list[Group], one: int, other: int) -> None:
    larger, smaller = found[one], found[other]
    if larger is smaller:
        return
    if len(larger) < len(smaller):
        larger, smaller = smaller, larger
    larger.extend(smaller)
    for place in smaller:
        found[place] = larger


def _name(item: Mapping[str, Raw], head: Head) -> str:
    if head.call_id:
        return head.call_id.strip()
    field = _NAMED_BY.get(head.type or "")
    if field is None or not wire.is_set(item, field):
        return ""
    if wire.kind_of(item[field]) is not wire.Kind.STRING:
        return ""
    return (wire.string(item, field) or "").strip()


def newest_user(heads: Sequence[Head]) -> int | None:
    """The place of the newest message of the user, None when there is none."""
    return next((place for place in reversed(range(len(heads))) if is_user(heads[place])), None)


def kept(
    items: Sequence[Body], heads: Sequence[Head], *, max_items: int, newest_only: bool
) -> list[int]:
    """The places of the items that stay, in order; all of them where there is nothing to trim.

    About `max_items` of them, 8 at the least: what always stays may be more. `newest_only` keeps
    the newest turn of the user, the answer before it, and what always stays.
    """
    newest = newest_user(heads)
    if newest_only and newest is not None:
        return sorted(_whole(_last_turn(heads, newest), groups(items, heads)))
    limit = max(MIN_ITEMS, max_items)
    if len(items) <= limit:
        return list(range(len(items)))
    together = groups(items, heads)
    must = [*_always(heads), len(items) - 1]
    stay = _whole([*must, newest] if newest is not None else must, together)
    for place in reversed(range(len(items))):
        if place in stay:
            continue
        # None of its group is there yet: groups come whole.
        if len(stay) + len(together[place]) > limit:
            break
        stay.update(together[place])
    return sorted(stay)


def _always(heads: Sequence[Head]) -> list[int]:
    return [
        place
        for place, head in enumerate(heads)
        if (is_message(head) and head.role in INSTRUCTING) or head.type in _COMPACTIONS
    ]


def _last_turn(heads: Sequence[Head], newest: int) -> list[int]:
    # "Yes, do it" means nothing without what it answers.
    answers = [p for p in range(newest) if is_message(heads[p]) and heads[p].role == "assistant"]
    return [*_always(heads), *answers[-1:], *range(newest, len(heads))]


def _whole(places: Iterable[int], together: Sequence[Group]) -> set[int]:
    found: set[int] = set()
    for place in places:
        if place not in found:
            found.update(together[place])
    return found
