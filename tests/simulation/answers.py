"""What a simulated upstream answers: drawn at random, written out as the bytes of real SSE."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

USAGE: Final = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 8,
}

# What comes before a stream, with its weight. `stream` is what everybody hopes for.
HEADS: Final[Mapping[str, int]] = {
    "stream": 30,
    "json": 3,
    "unreachable": 5,
    "dropped": 4,
    "silent": 2,
    "429": 5,
    "429 without a time": 2,
    "429 for hours": 1,
    "503": 4,
    "500": 3,
    "400": 2,
    "401": 1,
}

# How a stream ends.
ENDS: Final[Mapping[str, int]] = {
    "completed": 40,
    "incomplete": 4,
    "failed": 4,
    "error": 3,
    "cut": 5,
    "reset": 5,
    "stall": 4,
    "malformed": 4,
    "endless": 1,
}

STATUS: Final[Mapping[str, tuple[int, Mapping[str, str]]]] = {
    "429": (429, {"retry-after": "7"}),
    "429 without a time": (429, {}),
    "429 for hours": (429, {"retry-after": "7200"}),
    "503": (503, {"retry-after": "2"}),
    "500": (500, {}),
    "400": (400, {}),
    "401": (401, {}),
}

# Refusals which prove that nothing ran.
PROOFS: Final = frozenset({"unreachable", "429", "429 without a time", "429 for hours", "503"})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer: what it begins with, when which bytes come, how it ends, what it says whole."""

    head: str
    end: str = ""
    patience: float = 0.0
    pieces: tuple[tuple[float, bytes], ...] = ()
    texts: tuple[str, ...] = ()
    body: bytes = b""

    @property
    def text(self) -> str:
        """All that a reader of the whole answer has read."""
        return "".join(self.texts)


@dataclass
class _Stream:
    """Frames with the time since the one before."""

    chance: random.Random
    pace: float
    frames: list[tuple[float, bytes]] = field(default_factory=list)
    number: int = 0

    def say(self, type_: str, **fields: Any) -> None:
        event = {"type": type_, "sequence_number": self.number, **fields}
        self.number += 1
        frame = f"event: {type_}\ndata: {json.dumps(event)}\n\n".encode()
        pause = self.chance.uniform(0, self.pace) if self.chance.random() < 0.7 else 0.0
        self.frames.append((pause, frame))
        if self.chance.random() < 0.04 and self.number > 2:
            self.frames.append((0.0, frame))  # the very same event again
        if self.chance.random() < 0.03:
            self.frames.append((0.0, b": still here\n\n"))


def draw(chance: random.Random, *, tag: str, calm: float) -> Answer:
    """The answer to one call. `calm` is the chance that nothing at all goes wrong."""
    fine = chance.random() < calm
    head = "stream" if fine else _weighted(chance, HEADS)
    end = "completed" if fine else _weighted(chance, ENDS)
    patience = chance.uniform(0.0, 0.4) if chance.random() < 0.9 else chance.uniform(1.0, 8.0)
    if head not in ("stream", "json"):
        error = {"message": f"no: {head}", "type": "refused", "code": None, "param": None}
        return Answer(head=head, patience=patience, body=json.dumps({"error": error}).encode())
    stream = _Stream(chance, pace=chance.choice((0.0, 0.01, 0.1, 0.5, 2.0)))
    texts, output = _content(stream, tag)
    if head == "json":
        body = json.dumps(_response("completed", output))
        return Answer(
            head=head, end="completed", patience=patience, texts=texts, body=body.encode()
        )
    pieces = _ended(stream, end, output=output)
    return Answer(
        head=head, end=end, patience=patience, pieces=_rechunked(chance, pieces), texts=texts
    )


def _weighted(chance: random.Random, table: Mapping[str, int]) -> str:
    return chance.choices(list(table), list(table.values()))[0]


def _response(status: str, output: list[Json], **fields: Any) -> Json:
    usage = USAGE if status in ("completed", "incomplete") else None
    return {
        "id": "resp_of_the_upstream",
        "object": "response",
        "created_at": 1,
        "model": "m-2026",
        "status": status,
        "output": output,
        "usage": usage,
        **fields,
    }


def _content(stream: _Stream, tag: str) -> tuple[tuple[str, ...], list[Json]]:
    """Writes out one to three items; their texts, and the items as they are when whole."""
    chance = stream.chance
    stream.say("response.created", response=_response("in_progress", []))
    stream.say("response.in_progress", response=_response("in_progress", []))
    texts: list[str] = []
    output: list[Json] = []
    for index in range(chance.choice((1, 1, 1, 2, 3))):
        write = chance.choice((_message, _message, _call, _reasoning))
        text, item = write(stream, f"{tag}-{index}", index)
        texts.append(text)
        output.append(item)
    return tuple(texts), output


def _words(stream: _Stream, tag: str) -> list[str]:
    count = stream.chance.choice((1, 3, 8, 20))
    size = 20_000 if stream.chance.random() < 0.004 else 1
    return [f"{tag}.{number} " * size for number in range(count)]


def _message(stream: _Stream, tag: str, index: int) -> tuple[str, Json]:
    item = {"type": "message", "id": f"msg_{tag}", "role": "assistant"}
    at = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part = {"type": "output_text", "annotations": [], "text": ""}
    words = _words(stream, tag)
    text = "".join(words)
    begun = {**item, "status": "in_progress", "content": []}
    stream.say("response.output_item.added", output_index=index, item=begun)
    stream.say("response.content_part.added", **at, part=part)
    for word in words:
        stream.say("response.output_text.delta", **at, delta=word, logprobs=[])
    stream.say("response.output_text.done", **at, text=text, logprobs=[])
    stream.say("response.content_part.done", **at, part={**part, "text": text})
    whole = {**item, "status": "completed", "content": [{**part, "text": text}]}
    stream.say("response.output_item.done", output_index=index, item=whole)
    return text, whole


def _call(stream: _Stream, tag: str, index: int) -> tuple[str, Json]:
    item = {"type": "function_call", "id": f"fc_{tag}", "call_id": f"c_{tag}", "name": "look"}
    at = {"item_id": item["id"], "output_index": index}
    words = _words(stream, tag)
    begun = {**item, "arguments": "", "status": "in_progress"}
    stream.say("response.output_item.added", output_index=index, item=begun)
    for word in words:
        stream.say("response.function_call_arguments.delta", **at, delta=word)
    text = "".join(words)
    stream.say("response.function_call_arguments.done", **at, arguments=text, name="look")
    whole = {**item, "arguments": text, "status": "completed"}
    stream.say("response.output_item.done", output_index=index, item=whole)
    return text, whole


def _reasoning(stream: _Stream, tag: str, index: int) -> tuple[str, Json]:
    item = {"type": "reasoning", "id": f"rs_{tag}"}
    at = {"item_id": item["id"], "output_index": index, "summary_index": 0}
    words = _words(stream, tag)
    text = "".join(words)
    begun = {**item, "summary": []}
    stream.say("response.output_item.added", output_index=index, item=begun)
    part = {"type": "summary_text", "text": ""}
    stream.say("response.reasoning_summary_part.added", **at, part=part)
    for word in words:
        stream.say("response.reasoning_summary_text.delta", **at, delta=word)
    stream.say("response.reasoning_summary_text.done", **at, text=text)
    stream.say("response.reasoning_summary_part.done", **at, part={**part, "text": text})
    whole = {**item, "summary": [{**part, "text": text}], "encrypted_content": "sealed"}
    stream.say("response.output_item.done", output_index=index, item=whole)
    return text, whole


def _ended(stream: _Stream, end: str, *, output: list[Json]) -> list[tuple[float, bytes]]:
    chance = stream.chance
    if end in ("completed", "incomplete"):
        why = {"incomplete_details": {"reason": "max_output_tokens"}} if end == "incomplete" else {}
        stream.say(f"response.{end}", response=_response(end, output, **why))
        return stream.frames
    if end == "endless":
        at = {"item_id": "msg_endless", "output_index": 9, "content_index": 0}
        for _ in range(40):
            stream.frames.append((9.0, b""))
            stream.say("response.output_text.delta", **at, delta="on and on ", logprobs=[])
        return stream.frames
    frames = stream.frames[: chance.randint(1, len(stream.frames))]
    if end == "failed":
        error = {"code": "server_error", "message": "the model failed"}
        failed = _response("failed", [], error=error)
        event = {"type": "response.failed", "sequence_number": 999, "response": failed}
        frames.append((0.1, f"event: response.failed\ndata: {json.dumps(event)}\n\n".encode()))
    elif end == "error":
        frames.append((0.1, b'data: {"type":"error","code":"server_error","message":"oh"}\n\n'))
    elif end == "malformed":
        frames.append((0.1, chance.choice((b"data: {nope\n\n", b'data: {"type":7}\n\n'))))
    elif chance.random() < 0.5:
        pause, last = frames.pop()
        frames.append((pause, last[: len(last) // 2]))
    return frames


def _rechunked(
    chance: random.Random, frames: list[tuple[float, bytes]]
) -> tuple[tuple[float, bytes], ...]:
    """Cuts frames in two here and there, as a network does."""
    pieces: list[tuple[float, bytes]] = []
    for pause, frame in frames:
        if chance.random() < 0.15 and len(frame) > 2:
            cut = chance.randrange(1, len(frame))
            pieces += [(pause, frame[:cut]), (chance.choice((0.0, 0.02)), frame[cut:])]
        else:
            pieces.append((pause, frame))
    return tuple(pieces)
