"""Which account a request belongs to: by what only that one can read, or by its conversation.

`encrypted_content` is readable to the account alone that it was made for; sent with another one it
is a 400 (codex-lb and others have that as an open issue). A conversation stays with an account only
because that one has its prompt cached.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from handrail.core import wire
from handrail.core.rewrite import UpstreamRequest
from handrail.core.steps import Step
from handrail.core.wire import Body

ITEM_DONE: Final = "response.output_item.done"

_HEADERS: Final = (
    "session_id",
    "session-id",
    "conversation_id",
    "x-session-affinity",
    "x-opencode-session",
)
_FIELD: Final = b'"encrypted_content"'
_MAX_KEY: Final = 256


class _Item(msgspec.Struct):
    type: str | None = None
    encrypted_content: str | None = None


class _Done(msgspec.Struct):
    item: _Item | None = None


_ITEMS: Final = msgspec.json.Decoder(list[_Item])
_DONE: Final = msgspec.json.Decoder(_Done)
_RAW_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])


def conversation(headers: Mapping[str, str], body: Mapping[str, msgspec.Raw]) -> str | None:
    """What names the conversation of a request, None where nothing does.

    `headers` has lower-case names. The headers are those of Codex CLI and opencode; after them
    comes `prompt_cache_key`, which SDK users give.
    """
    said = next((value for name in _HEADERS if (value := headers.get(name, "").strip())), None)
    if said is None:
        try:
            said = msgspec.json.decode(body.get("prompt_cache_key", wire.NULL), type=str | None)
        except msgspec.MsgspecError:
            said = None
    return said[:_MAX_KEY] if said else None


def sealed_in_items(items: bytes) -> tuple[str, ...]:
    """The `encrypted_content` of an array of items, as JSON, the newest first."""
    if _FIELD not in items:  # most requests: nothing is decoded
        return ()
    try:
        found = _ITEMS.decode(items)
    except (msgspec.MsgspecError, RecursionError):
        return ()  # a text for input, or what the upstream will refuse
    return tuple(item.encrypted_content for item in reversed(found) if item.encrypted_content)


def sealed_in_event(data: bytes) -> tuple[str, ...]:
    """The `encrypted_content` of an event that ends an item, as JSON."""
    if _FIELD not in data:
        return ()
    try:
        item = _DONE.decode(data).item
    except (msgspec.MsgspecError, RecursionError):
        return ()
    return (item.encrypted_content,) if item is not None and item.encrypted_content else ()


def sealed_in_request(body: Mapping[str, msgspec.Raw]) -> tuple[str, ...]:
    """The `encrypted_content` in the input of a request, the newest first."""
    return sealed_in_items(bytes(body["input"])) if "input" in body else ()


def without_reasoning(
    request: UpstreamRequest, *, but: Collection[str] = ()
) -> UpstreamRequest | None:
    """The request without its sealed reasoning, `but` for what is sealed so.

    None when something else would have to go: a compaction stands for what was said before, so
    leaving one out would change the conversation.
    """
    body: Body = dict(request.body)
    raw = _RAW_ITEMS.decode(body["input"])
    items = [msgspec.json.decode(item, type=_Item) for item in raw]
    spared = frozenset(but)
    sealed = [
        bool(item.encrypted_content) and item.encrypted_content not in spared for item in items
    ]
    if any(seal and item.type != "reasoning" for seal, item in zip(sealed, items, strict=True)):
        return None
    kept = [item for item, seal in zip(raw, sealed, strict=True) if not seal]
    body["input"] = msgspec.Raw(msgspec.json.encode(kept))
    step = Step(
        field="input",
        action=f"{len(raw) - len(kept)} reasoning items left out",
        reason="the account that alone can read them cannot be used, and the settings say drop",
    )
    return replace(request, body=body, steps=(*request.steps, step))
