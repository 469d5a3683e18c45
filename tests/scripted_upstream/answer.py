"""One answer, event by event, in the manners of one kind of server."""

import asyncio
import json
from typing import Any

from aiohttp import web

from tests.scripted_upstream.script import Json, Script

OPENAI = ("openai", "codex")

# What OpenAI's own servers say in every response, beyond what the others are content with.
OPENAI_KEYS: Json = {
    "background": False,
    "completed_at": None,
    "frequency_penalty": 0.0,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "top_logprobs": 0,
    "truncation": "disabled",
    "user": None,
}


class Answer:
    """Writes one stream in the manners of one kind of server."""

    def __init__(self, reply: web.StreamResponse, body: Json, *, manners: str, number: int) -> None:
        self.reply = reply
        self.manners = manners
        self.sequence = 0
        self.last = b""
        self.output: list[Json] = []
        self.response: Json = {
            "id": f"resp_upstream{number}",
            "object": "response",
            "created_at": 1_700_000_000,
            "status": "in_progress",
            "model": body.get("model"),
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "temperature": 1.0,
            "top_p": 1.0,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "usage": None,
            "store": body.get("store", True),
        }
        if manners in OPENAI:
            self.response |= OPENAI_KEYS

    async def event(self, kind: str, **fields: Any) -> None:
        """One event."""
        data: Json = {"type": kind, "sequence_number": self.sequence, **fields}
        self.sequence += 1
        if self.manners == "llamacpp":
            if kind == "response.output_text.delta" and self.sequence > 6:
                # Seen on the real one (build 11434): both again before every delta but the first.
                opened = {name: self.response[name] for name in ("id", "object", "status")}
                for again in ("response.created", "response.in_progress"):
                    line = json.dumps({"type": again, "response": opened})
                    await self.reply.write(f"event: {again}\ndata: {line}\n\n".encode())
            for name in ("sequence_number", "output_index", "content_index", "logprobs"):
                data.pop(name, None)
            if kind in ("response.created", "response.in_progress"):
                shown = ("id", "object", "status")
                data["response"] = {name: data["response"][name] for name in shown}
        if self.manners == "transformers":
            data = json.loads(json.dumps(data), object_hook=_without_nulls)
        head = "" if self.manners == "transformers" else f"event: {kind}\n"
        self.last = f"{head}data: {json.dumps(data)}\n\n".encode()
        await self.reply.write(self.last)

    async def open(self) -> None:
        """The lifecycle events at the beginning."""
        queued = "queued" if self.manners == "transformers" else "in_progress"
        await self.event("response.created", response={**self.response, "status": queued})
        await self.event("response.in_progress", response=self.response)

    async def item(self, item: Json, during: Any = None) -> None:
        """One output item; `during` writes its deltas and returns it whole."""
        index = len(self.output)
        await self.event("response.output_item.added", output_index=index, item=item)
        whole = item if during is None else await during(index)
        self.output.append(whole)
        await self.event("response.output_item.done", output_index=index, item=whole)

    async def close(self, status: str) -> None:
        """The terminal event."""
        end: Json = {**self.response, "status": status, "output": self.output}
        end["usage"] = {"input_tokens": 7, "output_tokens": 9, "total_tokens": 16}
        if self.manners not in ("llamacpp", "transformers"):
            end["usage"]["input_tokens_details"] = {"cached_tokens": 2, "cache_write_tokens": 0}
            end["usage"]["output_tokens_details"] = {"reasoning_tokens": 3}
        if self.manners in OPENAI and status == "completed":
            end["completed_at"] = end["created_at"] + 1
        if self.manners == "codex":
            end["output"] = []  # as the real one does
        if status == "failed":
            end["error"] = {"code": "server_error", "message": "The scripted model failed."}
        if status == "incomplete":
            end["incomplete_details"] = {"reason": "max_output_tokens"}
        kind = "completed" if self.manners == "vllm" and status == "incomplete" else status
        await self.event(f"response.{kind}", response=end)


def _without_nulls(value: Json) -> Json:
    return {name: entry for name, entry in value.items() if entry is not None}


class Cut(Exception):
    """The stream ends here, without a terminal event."""


async def speak(answer: Answer, script: Script, request: web.Request, *, number: int) -> None:
    """The message item: words, and whatever the script lets go wrong among them."""
    message: Json = {"type": "message", "id": f"msg_{number}", "role": "assistant"}
    said: list[str] = []

    async def words(index: int) -> Json:
        at = {"item_id": message["id"], "output_index": index, "content_index": 0}
        part: Json = {"type": "output_text", "text": "", "annotations": []}
        await answer.event("response.content_part.added", **at, part=part)
        for count in range(script.words + 1):
            await misbehave(answer, script, request, count=count)
            if count < script.words:
                await asyncio.sleep(script.delay)
                word = "x" * script.size or f"{count or f'call{number}'} "
                said.append(word)
                await answer.event("response.output_text.delta", **at, delta=word, logprobs=[])
        text = "".join(said)
        await answer.event("response.output_text.done", **at, text=text, logprobs=[])
        part = {**part, "text": text}
        await answer.event("response.content_part.done", **at, part=part)
        return {**message, "status": "completed", "content": [part]}

    await answer.item({**message, "status": "in_progress", "content": []}, words)


async def misbehave(answer: Answer, script: Script, request: web.Request, *, count: int) -> None:
    """What goes wrong after `count` words."""
    if count == script.twice:
        await answer.reply.write(answer.last)
    if count == script.stall:
        await asyncio.sleep(3_600)
    if count == script.drop and request.transport is not None:
        request.transport.abort()
        raise Cut
    if count == script.malformed:
        await answer.reply.write(b'event: response.output_text.delta\ndata: {"type":\n\n')
        raise Cut
    if count == script.error:
        await answer.event("error", code="server_error", message="Scripted error.", param=None)
        raise Cut
    if count == script.eof:
        raise Cut
