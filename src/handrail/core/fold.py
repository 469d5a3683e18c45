"""From events to the response object: what a stream says so far, also when it is cut off."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from handrail.core import events, wire
from handrail.core.events import Event
from handrail.core.lifecycle import State
from handrail.core.wire import Body

Json = dict[str, Any]


class _Piece(msgspec.Struct):
    """The fields that the delta and done events share; absent ones read as the first place."""

    type: str
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: str = ""
    text: str = ""
    refusal: str = ""
    arguments: str = ""
    input: str = ""
    code: str = ""


_PIECE: Final = msgspec.json.Decoder(_Piece)

# event family -> (list of parts in the item, type of a part, field that the text goes to).
# Without a list, the text goes to a field of the item itself.
_TEXTS: Final[Mapping[str, tuple[str | None, str, str]]] = MappingProxyType(
    {
        "response.output_text": ("content", "output_text", "text"),
        "response.refusal": ("content", "refusal", "refusal"),
        "response.reasoning_text": ("content", "reasoning_text", "text"),
        "response.reasoning_summary_text": ("summary", "summary_text", "text"),
        "response.function_call_arguments": (None, "", "arguments"),
        "response.mcp_call_arguments": (None, "", "arguments"),
        "response.custom_tool_call_input": (None, "", "input"),
        "response.code_interpreter_call_code": (None, "", "code"),
    }
)

_Place = tuple[int, str | None, int, str, str]


class Fold:
    """The reducer. Feed it every event in order; ask for the response at any time.

    `output_item.done` replaces what the deltas of that item had built up; a terminal event's own
    output replaces everything, unless it is empty (the Codex backend ends with an empty list).
    """

    def __init__(self) -> None:
        self._snapshot: Body = {}
        self._items: dict[int, Json] = {}
        self._done: set[int] = set()
        self._texts: dict[_Place, list[str]] = {}
        self._annotations: dict[tuple[int, int], list[Any]] = {}
        self.state: State | None = None

    def apply(self, event: Event) -> None:
        """Take one event in. Raises MalformedEvent when its content has the wrong shape."""
        try:
            self._apply(event)
        except (msgspec.DecodeError, RecursionError, TypeError, KeyError) as error:
            raise events.MalformedEvent(f"{event.type}: {error}") from None

    def _apply(self, event: Event) -> None:
        if event.type in events.LIFECYCLE:
            self._snapshot = {**self._snapshot, **event.response()}
            if event.type in events.CLOSING:
                self.state = events.closing_state(event)
            return
        family, _, verb = event.type.rpartition(".")
        if family in _TEXTS and verb in ("delta", "done"):
            self._take_text(family, verb, _PIECE.decode(event.data))
        elif family == "response.output_item":
            self._take_item(verb, msgspec.json.decode(event.data))
        elif event.type == "response.output_text.annotation.added":
            body: Json = msgspec.json.decode(event.data)
            place = (int(body.get("output_index", 0)), int(body.get("content_index", 0)))
            self._annotations.setdefault(place, []).append(body.get("annotation"))

    def _take_text(self, family: str, verb: str, piece: _Piece) -> None:
        parts, kind, field = _TEXTS[family]
        index = piece.summary_index if parts == "summary" else piece.content_index
        texts = self._texts.setdefault((piece.output_index, parts, index, kind, field), [])
        if verb == "delta":
            texts.append(piece.delta)
        elif whole := getattr(piece, field):
            # A blank `done` must not wipe what was streamed (defect D-34 of the reference).
            texts[:] = [whole]

    def _take_item(self, verb: str, body: Json) -> None:
        index = int(body.get("output_index", len(self._items)))
        self._items[index] = dict(body["item"])
        if verb == "done":
            self._done.add(index)

    @property
    def snapshot(self) -> Body:
        """The last lifecycle snapshot, as the upstream sent it; {} before the first."""
        return self._snapshot

    def output(self) -> list[Json]:
        """The output items so far, those that never finished marked `incomplete`."""
        ended = self.state is not None and wire.is_set(self._snapshot, "output")
        if ended and bytes(self._snapshot["output"]) != b"[]":
            whole: list[Json] = msgspec.json.decode(self._snapshot["output"])
            return whole
        indexes = sorted({*self._items, *(place[0] for place in self._texts)})
        return [self._item(index) for index in indexes]

    def _item(self, index: int) -> Json:
        if index in self._done:
            return self._items[index]
        item = dict(self._items.get(index) or {"type": "message", "role": "assistant"})
        for (at, parts, part_index, kind, field), texts in sorted(
            self._texts.items(), key=lambda entry: (entry[0][0], entry[0][2])
        ):
            if at != index:
                continue
            text = "".join(texts)
            if parts is None:
                item[field] = text
            else:
                _put_part(item, (parts, part_index), {"type": kind, field: text})
        for (at, part_index), notes in self._annotations.items():
            if at == index and part_index < len(item.get("content", [])):
                item["content"][part_index]["annotations"] = notes
        if item.get("status") in (None, "in_progress") and item["type"] != "reasoning":
            item["status"] = "incomplete"
        return item


def _put_part(item: Json, place: tuple[str, int], part: Json) -> None:
    parts, index = place
    if part["type"] == "output_text":
        part["annotations"] = []
    content = list(item.get(parts) or [])
    if index < len(content):
        content[index] = {**content[index], **part}
    else:
        content.append(part)
    item[parts] = content
