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
        self._latest = ""

    def complete(self, event: Event) -> Event:
        """`event` with what it lacks; the very same one when it lacks nothing.

        The sequence number is not looked at: whoever sends the event on gives it one. Raises
        MalformedEvent for content of the wrong shape.
        """
        try:
            body, type_ = event.body(), event.type
            filled = self._filled(dict(body), type_)
        except (msgspec.DecodeError, RecursionError, TypeError, KeyError, ValueError) as error:
            raise events.MalformedEvent(f"{event.type}: {error}") from None
        if type_ in events.CLOSING:
            type_ = TERMINAL_EVENT[events.closing_state(event)]
        if filled == body and type_ == event.type:
            return event
        return events.event(type_, filled)

    def _filled(self, body: Body, type_: str) -> Body:
        if type_ in events.LIFECYCLE:
            snapshot = msgspec.json.decode(body.get("response", b"{}"), type=Body)
            body["response"] = wire.raw(self.response(snapshot))
            return body
        family, _, _ = type_.rpartition(".")
        if family == "response.output_item":
            return self._item_event(body)
        if family in _INDEXES:
            self._indexes(body, family, type_)
            if family == "response.output_text":
                body.setdefault("logprobs", wire.raw([]))
            if family == "response.content_part" and wire.is_set(body, "part"):
                body["part"] = wire.raw(_part(msgspec.json.decode(body["part"])))
        return body

    def _item_event(self, body: Body) -> Body:
        item = self._item(msgspec.json.decode(body["item"]))
        index = self._places.setdefault(item["id"], len(self._places))
        self._latest = item["id"]
        body.setdefault("output_index", wire.raw(index))
        body["item"] = wire.raw(item)
        return body

    def _indexes(self, body: Body, family: str, type_: str) -> None:
        if not wire.is_set(body, "item_id"):
            body["item_id"] = wire.raw(self._latest)
        item_id = wire.string(body, "item_id") or ""
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
            whole["output"] = wire.raw(
                [self._item(item) for item in msgspec.json.decode(snapshot["output"])]
            )
        if wire.is_set(snapshot, "usage"):
            whole["usage"] = wire.raw(_usage(msgspec.json.decode(snapshot["usage"])))
        if wire.is_set(snapshot, "error"):
            whole["error"] = wire.raw(_error(msgspec.json.decode(snapshot["error"])))
        return whole

    def _item(self, item: dict[str, Any]) -> dict[str, Any]:
        kind = item.get("type") or "message"
        whole = {**_ITEM_DEFAULTS.get(kind, {}), **item, "type": kind}
        if not whole.get("id"):
            whole["id"] = f"item_{len(self._places)}"
        if kind == "message":
            whole["content"] = [_part(part) for part in whole.get("content") or []]
        return whole


def _part(part: dict[str, Any]) -> dict[str, Any]:
    kind = part.get("type") or "output_text"
    return {**_PART_DEFAULTS.get(kind, {}), **part, "type": kind}


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    whole = {**_USAGE, **{key: value for key, value in usage.items() if value is not None}}
    for name in ("input_tokens_details", "output_tokens_details"):
        whole[name] = {**_USAGE[name], **whole[name]}
    return whole


def _error(error: Any) -> dict[str, Any]:
    # vLLM and llama.cpp put the HTTP status there, as an integer.
    source = error if isinstance(error, dict) else {"message": str(error)}
    code = source.get("code")
    return {
        **source,
        "message": str(source.get("message") or "The upstream reported a failure."),
        "code": code if code in ERROR_CODES else "server_error",
    }
