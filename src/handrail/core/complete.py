"""Fills in what half-compatible servers leave out of their events, so that strict clients work.

llama.cpp's server sends no sequence numbers, no indexes, no logprobs and three-field snapshots;
transformers' leaves nulls out. The openai SDK, asked to validate strictly, refuses both. Only
what is missing is added; what the server said stays.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Raw

from handrail.core import events, wire
from handrail.core.events import Event
from handrail.core.lifecycle import TERMINAL_EVENT
from handrail.core.responses import ERROR_CODES
from handrail.core.wire import Body

Json = dict[str, Any]

_BODY: Final = msgspec.json.Decoder(Body)
_OBJECT: Final = msgspec.json.Decoder(Json)
_OBJECTS: Final = msgspec.json.Decoder(list[Json])
_STRING: Final = msgspec.json.Decoder(str)

# Item type -> keys that the SDK's models require, with what an absent one means.
_ITEM_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "message": {"role": "assistant", "status": "completed", "content": []},
        "function_call": {"arguments": "", "call_id": "", "name": ""},
        "custom_tool_call": {"input": "", "call_id": "", "name": ""},
        "reasoning": {"summary": []},
    }
)

_PART_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "output_text": {"text": "", "annotations": []},
        "refusal": {"refusal": ""},
        "reasoning_text": {"text": ""},
        "summary_text": {"text": ""},
    }
)

_USAGE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }
)

# Event family -> the index fields that its members carry besides `output_index` and `item_id`.
_INDEXES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "response.content_part": ("content_index",),
        "response.output_text": ("content_index",),
        "response.refusal": ("content_index",),
        "response.reasoning_text": ("content_index",),
        "response.reasoning_summary_part": ("summary_index",),
        "response.reasoning_summary_text": ("summary_index",),
        "response.function_call_arguments": (),
        "response.custom_tool_call_input": (),
        "response.mcp_call_arguments": (),
    }
)


class Completer:
    """Completes the events of one response, in order. `base` fills gaps in its snapshots."""

    def __init__(self, base: Body) -> None:
        self._base = base
        self._places: dict[str, int] = {}
        self._parts: dict[tuple[int, str], int] = {}
        self._open = ""

    def complete(self, event: Event) -> Event:
        """`event` with what it lacks; the very same one when it lacks nothing.

        The sequence number is not looked at: whoever sends the event on gives it one. Raises
        MalformedEvent for content of the wrong shape.
        """
        body, type_ = event.body(), event.type
        try:
            filled = self._filled(dict(body), type_)
            if type_ in events.CLOSING:
                type_ = TERMINAL_EVENT[events.closing_state(event)]
        except (msgspec.DecodeError, RecursionError, KeyError, TypeError) as error:
            raise events.MalformedEvent(f"{event.type}: {error}") from None
        if filled == body and type_ == event.type:
            return event
        return events.event(type_, filled)

    def _filled(self, body: Body, type_: str) -> Body:
        if type_ in events.LIFECYCLE:
            body["response"] = wire.raw(self.response(_BODY.decode(body.get("response", b"{}"))))
            return body
        family, _, _ = type_.rpartition(".")
        if family == "response.output_item":
            return self._item_event(body, begins=type_.endswith(".added"))
        if family in _INDEXES:
            self._indexes(body, family, type_)
            if family == "response.output_text":
                body.setdefault("logprobs", wire.raw([]))
            if family == "response.content_part" and wire.is_set(body, "part"):
                body["part"] = wire.raw(_part(_OBJECT.decode(body["part"])))
        return body

    def _item_event(self, body: Body, *, begins: bool) -> Body:
        # An item without an id is known by its place; its end belongs to the one that is open.
        unnamed = self._open if self._open and not begins else f"item_{len(self._places)}"
        item = _item(_OBJECT.decode(body["item"]), unnamed=unnamed)
        index = self._places.setdefault(item["id"], len(self._places))
        self._open = item["id"] if begins else ""
        body.setdefault("output_index", wire.raw(index))
        body["item"] = wire.raw(item)
        return body

    def _indexes(self, body: Body, family: str, type_: str) -> None:
        if not wire.is_set(body, "item_id"):
            body["item_id"] = wire.raw(self._open)
        item_id = _STRING.decode(body["item_id"])
        place = self._places.setdefault(item_id, len(self._places))
        body.setdefault("output_index", wire.raw(place))
        for name in _INDEXES[family]:
            opens = type_.endswith("_part.added")
            at = (place, name)
            current = self._parts.get(at, -1) + opens
            self._parts[at] = current
            body.setdefault(name, wire.raw(max(current, 0)))

    def response(self, snapshot: Mapping[str, Raw]) -> Body:
        """A snapshot with every key of the schema."""
        whole = {**self._base, **{k: v for k, v in snapshot.items() if wire.is_set(snapshot, k)}}
        if wire.is_set(snapshot, "output"):
            known = {place: item_id for item_id, place in self._places.items()}
            whole["output"] = wire.raw(
                [
                    _item(item, unnamed=known.get(place, f"item_{place}"))
                    for place, item in enumerate(_OBJECTS.decode(snapshot["output"]))
                ]
            )
        if wire.is_set(snapshot, "usage"):
            whole["usage"] = wire.raw(_usage(_OBJECT.decode(snapshot["usage"])))
        if wire.is_set(snapshot, "error"):
            whole["error"] = wire.raw(_error(msgspec.json.decode(snapshot["error"])))
        return whole


def _item(item: Json, *, unnamed: str) -> Json:
    kind = str(item.get("type") or "message")
    whole = {**_ITEM_DEFAULTS.get(kind, {}), **item, "type": kind}
    whole["id"] = whole.get("id") or unnamed
    if kind == "message":
        content = whole["content"]
        if isinstance(content, str):
            content = [{"type": "output_text", "text": content}]
        parts = content if isinstance(content, list) else []
        whole["content"] = [_part(part) for part in parts if isinstance(part, dict)]
    return whole


def _part(part: Json) -> Json:
    kind = str(part.get("type") or "output_text")
    return {**_PART_DEFAULTS.get(kind, {}), **part, "type": kind}


def _usage(usage: Json) -> Json:
    whole = {**_USAGE, **{key: value for key, value in usage.items() if value is not None}}
    for name in ("input_tokens_details", "output_tokens_details"):
        whole[name] = {**_USAGE[name], **whole[name]}
    return whole


def _error(error: Any) -> Json:
    # vLLM and llama.cpp put the HTTP status there, as an integer.
    source = error if isinstance(error, dict) else {"message": str(error)}
    code = source.get("code")
    return {
        **source,
        "message": str(source.get("message") or "The upstream reported a failure."),
        "code": code if code in ERROR_CODES else "server_error",
    }
