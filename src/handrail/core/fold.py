"""From events to the response object: what a stream says so far, also when it is cut off."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec

from handrail.core import events, wire
from handrail.core.events import Event
from handrail.core.lifecycle import State
from handrail.core.wire import Body

Json = dict[str, Any]


_Index = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class _Piece(msgspec.Struct):
    """The fields that the delta and done events share; absent ones read as the first place."""

    type: str
    output_index: _Index = 0
    content_index: _Index = 0
    summary_index: _Index = 0
    delta: str = ""
    text: str = ""
    refusal: str = ""
    arguments: str = ""
    input: str = ""
    code: str = ""


class _PartEvent(msgspec.Struct):
    """A part that is whole."""

    part: Json
    output_index: _Index = 0
    content_index: _Index = 0
    summary_index: _Index = 0


class _ItemEvent(msgspec.Struct):
    """An item that begins or is whole."""

    item: Json
    output_index: _Index | None = None


class _NoteEvent(msgspec.Struct):
    """An annotation of a text."""

    annotation: Any
    output_index: _Index = 0
    content_index: _Index = 0


_ITEM: Final = msgspec.json.Decoder(_ItemEvent)
_NOTE: Final = msgspec.json.Decoder(_NoteEvent)
_OUTPUT: Final = msgspec.json.Decoder(list[Json] | None)
_PART: Final = msgspec.json.Decoder(_PartEvent)
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

_Text = tuple[tuple[str | None, str, str], bool]

# event type -> where its text goes, and whether it is the whole text
_TEXT_EVENTS: Final[Mapping[str, _Text]] = MappingProxyType(
    {
        f"{family}.{verb}": (place, verb == "done")
        for family, place in _TEXTS.items()
        for verb in ("delta", "done")
    }
)

# (list of parts, type of a part) -> field of its text
_PART_TEXTS: Final[Mapping[tuple[str | None, str], str]] = MappingProxyType(
    {(parts, kind): field for parts, kind, field in _TEXTS.values() if parts is not None}
)
_PART_EVENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "response.content_part.done": "content",
        "response.reasoning_summary_part.done": "summary",
    }
)

_Place = tuple[int, str | None, int, str, str]


class Fold:
    """The reducer. Feed it every event in order; ask for the response at any time.

    The first terminal event ends it: what comes after that changes nothing, so that the result
    does not depend on how the stream was cut into chunks. `output_item.done` replaces what the
    deltas of that item had built up; a terminal event's own output replaces everything, unless it
    is empty (the Codex backend ends with an empty list).
    """

    def __init__(self) -> None:
        self._snapshot: Body = {}
        self._final: list[Json] = []
        self._items: dict[int, Json] = {}
        self._done: set[int] = set()
        self._texts: dict[_Place, list[str]] = {}
        self._annotations: dict[tuple[int, int], list[Any]] = {}
        self.state: State | None = None

    def apply(self, event: Event) -> None:
        """Take one event in. Raises MalformedEvent when its content has the wrong shape."""
        if self.state is not None:
            return
        try:
            self._apply(event)
        except (msgspec.DecodeError, RecursionError) as error:
            raise events.MalformedEvent(f"{event.type}: {error}") from None

    def _apply(self, event: Event) -> None:
        if event.type in events.LIFECYCLE:
            snapshot = {**self._snapshot, **event.response()}
            if event.type in events.CLOSING:
                self._final = _OUTPUT.decode(snapshot.get("output", wire.NULL)) or []
                self.state = events.closing_state(event)
            self._snapshot = snapshot
            return
        text = _TEXT_EVENTS.get(event.type)
        if text is not None:
            self._take_text(text, _PIECE.decode(event.data))
        elif event.type in ("response.output_item.added", "response.output_item.done"):
            self._take_item(_ITEM.decode(event.data), whole=event.type.endswith(".done"))
        elif event.type in _PART_EVENTS:
            self._take_part(_PART_EVENTS[event.type], _PART.decode(event.data))
        elif event.type == "response.output_text.annotation.added":
            note = _NOTE.decode(event.data)
            place = (note.output_index, note.content_index)
            self._annotations.setdefault(place, []).append(note.annotation)

    def _take_text(self, text: _Text, piece: _Piece) -> None:
        (parts, kind, field), whole = text
        index = piece.summary_index if parts == "summary" else piece.content_index
        texts = self._texts.setdefault((piece.output_index, parts, index, kind, field), [])
        if not whole:
            texts.append(piece.delta)
        elif said := getattr(piece, field):
            # A blank `done` must not wipe what was streamed (defect D-34 of the reference).
            texts[:] = [said]

    def _take_part(self, parts: str, event: _PartEvent) -> None:
        # The text of a part that is whole is the same as that of its own `done`, if there was one.
        kind = str(event.part.get("type"))
        field = _PART_TEXTS.get((parts, kind), "")
        said = event.part.get(field)
        if isinstance(said, str) and said:
            index = event.summary_index if parts == "summary" else event.content_index
            self._texts[event.output_index, parts, index, kind, field] = [said]

    def _take_item(self, event: _ItemEvent, *, whole: bool) -> None:
        index = event.output_index
        if index is None:
            index = self._place_of(whole=whole)
        self._items[index] = {"type": "message", **event.item}
        if whole:
            self._done.add(index)
        else:
            self._done.discard(index)

    def _place_of(self, *, whole: bool) -> int:
        # Servers that give no index finish their items in the order in which they began them.
        unfinished = [index for index in self._items if index not in self._done]
        return min(unfinished) if whole and unfinished else len(self._items)

    @property
    def snapshot(self) -> Body:
        """The last lifecycle snapshot, as the upstream sent it; {} before the first."""
        return self._snapshot

    def output(self) -> list[Json]:
        """The output items so far; those that never finished are as complete as the response is."""
        if self._final:
            return self._final
        indexes = sorted({*self._items, *(place[0] for place in self._texts)})
        return [self._item(index) for index in indexes]

    def _item(self, index: int) -> Json:
        if index in self._done:
            return self._items[index]
        item = dict(self._items.get(index) or self._unannounced(index))
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
            content = _parts(item, "content")
            if at == index and part_index < len(content):
                content[part_index] = {**content[part_index], "annotations": notes}
                item["content"] = content
        # A reasoning item need not have a status, but none may say that it is still under way.
        if item.get("status", "" if item["type"] == "reasoning" else None) in (None, "in_progress"):
            # An end that says `completed` speaks for items too whose own end was left out.
            item["status"] = "completed" if self.state is State.COMPLETED else "incomplete"
        return item

    def _unannounced(self, index: int) -> Json:
        """What an item is whose beginning never came: its texts tell."""
        kinds = {kind for at, _, _, kind, _ in self._texts if at == index}
        if kinds & {"summary_text", "reasoning_text"}:
            return {"type": "reasoning", "summary": []}
        return {"type": "message", "role": "assistant"}


def _put_part(item: Json, place: tuple[str, int], part: Json) -> None:
    parts, index = place
    if part["type"] == "output_text":
        part["annotations"] = []
    content = _parts(item, parts)
    if index < len(content):
        content[index] = {**content[index], **part}
    else:
        content.append(part)
    item[parts] = content


def _parts(item: Json, name: str) -> list[Json]:
    """The item's list of parts; empty for whatever else stands there."""
    parts = item.get(name)
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
