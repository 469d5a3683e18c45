"""Input items: their ids, their references, and how a kept response lists them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Raw

from handrail.core import wire
from handrail.core.wire import Body
from handrail.errors import Code, RequestRejected

_PREFIX: Final[Mapping[str, str]] = MappingProxyType(
    {
        "message": "msg",
        "reasoning": "rs",
        "function_call": "fc",
        "function_call_output": "fco",
        "custom_tool_call": "ctc",
        "custom_tool_call_output": "ctco",
    }
)

_READ: Final[Mapping[str, tuple[wire.Kind, ...]]] = MappingProxyType(
    {
        "type": (wire.Kind.STRING,),
        "id": (wire.Kind.STRING,),
        "role": (wire.Kind.STRING,),
        "call_id": (wire.Kind.STRING,),
    }
)


class Head(msgspec.Struct):
    """What is read of an item, as a type; `type` is None for a message without one."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    call_id: str | None = None


_MESSAGE: Final = wire.raw("message")
_HEADS: Final = msgspec.json.Decoder(list[Head])

# Types whose `id` is no name of their own: it says which call is answered, or an answer says it.
_KEEPS_ID: Final = frozenset({"item_reference", "local_shell_call_output", "mcp_approval_request"})

MAX_PAGE: Final = 100
DEFAULT_PAGE: Final = 20


def read(value: Raw) -> tuple[list[Body], list[Head]]:
    """`input` as a list of items, and what is read of each; a string becomes one user message.

    Raises RequestRejected for an array element that is no object, and for a wrong type in one of
    the fields that are read here.
    """
    if wire.kind_of(value) is wire.Kind.STRING:
        message = {
            "type": wire.raw("message"),
            "role": wire.raw("user"),
            "content": wire.raw([{"type": "input_text", "text": value}]),
        }
        return [message], [Head(type="message", role="user")]
    items = wire.items(value)
    try:
        return items, _HEADS.decode(value)  # one pass in C; the loop below only finds the words
    except msgspec.DecodeError:
        for index, item in enumerate(items):
            found = {name: item[name] for name in _READ if name in item}
            wire.check_kinds(found, _READ, prefix=f"input[{index}].")
    # A key that stands twice, first with a wrong type: the last one holds.
    return items, [Head(**{name: wire.string(item, name) for name in _READ}) for item in items]


def as_items(value: Raw) -> list[Body]:
    """`read` for whoever needs the items alone."""
    return read(value)[0]


def item_type(item: Mapping[str, Raw]) -> str:
    """The item's type; typeless `{role, content}` items, as the AI SDK sends them, are messages."""
    value = item.get("type")
    if value is None or value in (_MESSAGE, wire.NULL):
        return "message"
    return wire.string(item, "type") or "" if wire.kind_of(value) is wire.Kind.STRING else ""


def item_id(item: Mapping[str, Raw]) -> str | None:
    """The item's own id, None when it has none."""
    if not wire.is_set(item, "id") or wire.kind_of(item["id"]) is not wire.Kind.STRING:
        return None
    return wire.string(item, "id")


def references(items: Sequence[Mapping[str, Raw]]) -> tuple[str, ...]:
    """The ids that `item_reference` items point at, in order.

    Raises RequestRejected for a reference without an id.
    """
    found = []
    for index, item in enumerate(items):
        if item_type(item) == "item_reference":
            target = item_id(item)
            if target is None:
                param = f"input[{index}].id"
                raise RequestRejected(
                    Code.MISSING_PARAMETER, f"Missing required parameter: '{param}'.", param=param
                )
            found.append(target)
    return tuple(found)


def resolve_references(items: Sequence[Body], kept: Mapping[str, Mapping[str, Raw]]) -> list[Body]:
    """`items` with every `item_reference` replaced by the item it points at.

    Raises RequestRejected that names the reference when `kept` does not hold it: a stateless
    upstream could not know it either, and leaving it out would change the conversation.
    """
    result: list[Body] = []
    for index, item in enumerate(items):
        if item_type(item) != "item_reference":
            result.append(item)
            continue
        target = item_id(item) or ""
        if target not in kept:
            raise RequestRejected(
                Code.ITEM_NOT_FOUND,
                f"Item with id '{target}' not found: it is in no response that this gateway keeps "
                "for you, and its upstream keeps none. Send the item itself.",
                param=f"input[{index}].id",
            )
        result.append(dict(kept[target]))
    return result


def strip_ids(items: Sequence[Body], heads: Sequence[Head]) -> int:
    """Take their own `id` key off `items`, in place; how many had one. Nested ids are left alone.

    For items that `read` has just made and nobody else holds: copying each would cost as much as
    reading it.
    """
    count = 0
    for item, head in zip(items, heads, strict=True):
        if "id" in item and head.type not in _KEEPS_ID:
            del item["id"]
            count += 1
    return count


def listed(items: Sequence[Body], *, run_id: str) -> list[Body]:
    """`items` as `GET …/input_items` shows them: each with a type, an id and content parts.

    Ids that the caller did not give are derived from run id and place, so every call shows the
    same ones.
    """
    return [_listed(item, index, run_id) for index, item in enumerate(items)]


def _listed(item: Body, index: int, run_id: str) -> Body:
    kind = item_type(item)
    shown: Body = {"type": wire.raw(kind), **{k: v for k, v in item.items() if k != "type"}}
    if item_id(item) is None:
        digest = hashlib.sha256(f"{run_id}/{index}".encode()).hexdigest()[:40]
        shown["id"] = wire.raw(f"{_PREFIX.get(kind, 'item')}_{digest}")
    # The SDK's models of listed items require it of nearly every type; input is never under way.
    shown.setdefault("status", wire.raw("completed"))
    if kind == "message":
        content = item.get("content")
        if content is not None and wire.kind_of(content) is wire.Kind.STRING:
            shown["content"] = wire.raw([_text_part(item, content)])
    return shown


def _text_part(item: Body, text: Raw) -> dict[str, object]:
    if wire.is_set(item, "role") and bytes(item["role"]) == b'"assistant"':
        return {"type": "output_text", "text": text, "annotations": []}
    return {"type": "input_text", "text": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which part of a list is asked for. `after` is an item id, `limit` 1 to 100."""

    limit: int = DEFAULT_PAGE
    descending: bool = True
    after: str | None = None


def page(items: Sequence[Body], request: PageRequest) -> dict[str, object]:
    """One page of `items` in the list shape of OpenAI's API.

    Raises RequestRejected when `after` names none of them.
    """
    ordered = list(reversed(items)) if request.descending else list(items)
    ids = [item_id(item) for item in ordered]
    start = 0
    if request.after is not None:
        if request.after not in ids:
            raise RequestRejected(
                Code.INVALID_VALUE,
                f"No input item has the id '{request.after[:80]}'.",
                param="after",
            )
        start = ids.index(request.after) + 1
    end = start + request.limit
    return {
        "object": "list",
        "data": ordered[start:end],
        "first_id": ids[start] if start < len(ids) else "",
        "last_id": ids[min(end, len(ids)) - 1] if start < len(ids) else "",
        "has_more": end < len(ids),
    }
