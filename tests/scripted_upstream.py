"""A scripted model server: it stands in for the model, and for nothing else.

What it does is chosen by the request. The last user text may hold directives in double brackets:

    Tell me a story [[words=40 delay=0.05 tag=story]]

    words=N        how many words the answer has (8)       delay=S   seconds before each word (0)
    first=S        seconds before the first event (0)      before=S  seconds before the headers (0)
    tag=NAME       count this call under NAME              size=N    bytes of each word (short)
    tool=NAME args={...}   call that tool first; answer in words once its output is in the input
    reasoning      put a reasoning item first, encrypted if the request includes that
    status=N retry_after=S           answer N with an error
    times=N        whatever goes wrong goes wrong only in the first N calls of the tag
    html           the body of that error is an HTML page     usage_limit   … is Codex's usage limit
    stall=N        after N words, fall silent                 drop=N     … cut the connection
    eof=N          … end without a terminal event             malformed=N  … send what is no JSON
    error=N        … send an `error` event and end            fail       end with response.failed
    incomplete     end with response.incomplete

The path chooses the manners: /openai/v1 (insists on an explicit store:false), /codex (the strict
Codex backend), /transformers/v1, /llamacpp/v1, /vllm/v1 (as the real servers of those names were
seen to behave). A model whose name starts with "plain" refuses encrypted reasoning. GET /seen tells
what arrived, POST /forget starts counting anew.
"""

import argparse
import asyncio
import contextlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

Json = dict[str, Any]

TRANSFORMERS_FIELDS = {
    "include", "input", "instructions", "max_output_tokens", "metadata", "model",
    "parallel_tool_calls", "reasoning", "service_tier", "store", "stream", "stream_options",
    "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user",
}  # fmt: skip
CODEX_REFUSES = ("max_output_tokens", "temperature", "top_p", "metadata", "user", "truncation")


@dataclass
class Seen:
    """What has arrived since the last /forget."""

    calls: int = 0
    open: int = 0
    left: int = 0
    finished: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    requests: list[Json] = field(default_factory=list)


@dataclass
class Script:
    """The directives of one request."""

    words: int = 8
    delay: float = 0.0
    first: float = 0.0
    before: float = 0.0
    tag: str = ""
    size: int = 0
    tool: str = ""
    args: str = "{}"
    status: int = 0
    retry_after: str = ""
    times: int = 1_000_000
    stall: int = -1
    drop: int = -1
    eof: int = -1
    malformed: int = -1
    error: int = -1
    reasoning: bool = False
    html: bool = False
    usage_limit: bool = False
    fail: bool = False
    incomplete: bool = False


def last_user_text(body: Json) -> str:
    """The text of the last user message, whatever its form."""
    given = body.get("input") or ""
    if isinstance(given, str):
        return given
    for item in reversed(given):
        if item.get("role") == "user":
            content = item.get("content") or ""
            if isinstance(content, str):
                return content
            return " ".join(str(part.get("text", "")) for part in content)
    return ""


def script_of(body: Json) -> Script:
    """The directives in the last user text."""
    script = Script()
    found = re.search(r"\[\[(.*?)\]\]", last_user_text(body), re.DOTALL)
    if found is None:
        return script
    text = found[1]
    arguments = re.search(r"args=(\{.*\})", text)
    if arguments is not None:
        script.args = arguments[1]
        text = text.replace(arguments[0], "")
    for word in text.split():
        name, _, value = word.partition("=")
        kind = type(getattr(script, name))
        setattr(script, name, kind(value) if value else True)
    return script


class Answer:
    """Writes one stream in the manners of one kind of server."""

    def __init__(self, reply: web.StreamResponse, body: Json, *, manners: str, number: int) -> None:
        self.reply = reply
        self.manners = manners
        self.sequence = 0
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
        await self.reply.write(f"{head}data: {json.dumps(data)}\n\n".encode())

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


class Upstream:
    """The server."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.number = 0

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/{manners}/responses", self.create)
        app.router.add_post("/{manners}/v1/responses", self.create)
        app.router.add_get("/{manners}/models", self.models)
        app.router.add_get("/{manners}/v1/models", self.models)
        app.router.add_get("/{manners}/v1/models/{id:.+}", self.models)
        app.router.add_get("/seen", self.tell)
        app.router.add_post("/forget", self.forget)
        return app

    async def tell(self, _: web.Request) -> web.Response:
        """What arrived."""
        seen = self.seen
        return web.json_response({**vars(seen), "tags": dict(seen.tags)})

    async def forget(self, _: web.Request) -> web.Response:
        """Start counting anew; calls still open stay counted as open."""
        self.seen = Seen(open=self.seen.open)
        return web.json_response({})

    async def models(self, request: web.Request) -> web.Response:
        """A list of one model, or that one."""
        model = {"id": "scripted", "object": "model", "created": 1, "owned_by": "handrail"}
        if request.match_info.get("id"):
            return web.json_response({**model, "id": request.match_info["id"]})
        return web.json_response({"object": "list", "data": [model], "models": []})

    async def create(self, request: web.Request) -> web.StreamResponse:
        """POST …/responses."""
        body: Json = await request.json()
        manners = request.match_info["manners"]
        script = script_of(body)
        seen = self.seen
        seen.calls += 1
        seen.tags[script.tag] += 1
        if seen.tags[script.tag] > script.times:
            script = replace(script, status=0, stall=-1, drop=-1, eof=-1, malformed=-1, error=-1)
        seen.open += 1
        seen.requests.append({"body": body, "headers": dict(request.headers), "manners": manners})
        del seen.requests[:-200]
        self.number += 1
        try:
            reply = await self.answer(request, body, script, manners=manners, number=self.number)
            seen.finished += 1
        except (ConnectionError, asyncio.CancelledError):
            self.seen.left += 1
            raise
        finally:
            self.seen.open -= 1
        return reply

    async def answer(
        self, request: web.Request, body: Json, script: Script, *, manners: str, number: int
    ) -> web.StreamResponse:
        """A refusal, a JSON object or a stream."""
        await asyncio.sleep(script.before)
        refused = objection(body, manners) or self.scripted_error(script)
        if refused is not None:
            return refused
        streams = body.get("stream", manners == "transformers")
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        if not streams:
            await asyncio.sleep(script.first)
            return await self.object(request, body, script, manners=manners, number=number)
        await reply.prepare(request)
        answer = Answer(reply, body, manners=manners, number=number)
        await asyncio.sleep(script.first)
        with contextlib.suppress(Cut):
            await self.play(answer, script, body, request, number=number)
        await reply.write_eof()
        return reply

    async def play(
        self, answer: Answer, script: Script, body: Json, request: web.Request, *, number: int
    ) -> None:
        """The whole stream."""
        await answer.open()
        if script.reasoning:
            item: Json = {"type": "reasoning", "id": f"rs_{number}", "summary": []}
            if "reasoning.encrypted_content" in (body.get("include") or ()):
                item["encrypted_content"] = "gAAAA-scripted"
            await answer.item(item)
        items = body["input"] if isinstance(body.get("input"), list) else []
        answered = any(str(item.get("type", "")).endswith("call_output") for item in items)
        if script.tool and not answered:
            call = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}"}
            await answer.item(
                {**call, "name": script.tool, "arguments": script.args, "status": "completed"}
            )
        else:
            await speak(answer, script, request, number=number)
        ends = {"failed": script.fail, "incomplete": script.incomplete}
        await answer.close(next((name for name, wanted in ends.items() if wanted), "completed"))

    async def object(
        self, request: web.Request, body: Json, script: Script, *, manners: str, number: int
    ) -> web.Response:
        """The same answer as one JSON object: the stream, collected."""
        events: list[Json] = []

        class Collect:
            async def write(self, data: bytes) -> None:
                events.append(json.loads(data.partition(b"data: ")[2]))

        answer = Answer(Collect(), body, manners=manners, number=number)  # type: ignore[arg-type]
        try:
            await self.play(answer, script, body, request, number=number)
        except Cut:
            return web.json_response({"error": {"message": "cut", "code": 500}}, status=500)
        return web.json_response(events[-1]["response"])

    def scripted_error(self, script: Script) -> web.Response | None:
        """The error that the script asks for."""
        if not script.status:
            return None
        headers = {"retry-after": script.retry_after} if script.retry_after else {}
        if script.html:
            return web.Response(
                status=script.status, text="<html>down</html>", content_type="text/html"
            )
        error: Json = {"message": "Scripted.", "type": "scripted", "param": "input", "code": "boo"}
        if script.usage_limit:
            error = {
                "message": "The usage limit has been reached",
                "type": "usage_limit_reached",
                "plan_type": "pro",
                "resets_at": 1_900_000_000,
            }
        return web.json_response({"error": error}, status=script.status, headers=headers)


def objection(body: Json, manners: str) -> web.Response | None:
    """What a server of these manners answers to a body that it does not take."""
    if manners in ("openai", "codex") and body.get("store") is not False:
        return _refuse(manners, "Store must be set to false", "store")
    if manners in ("openai", "codex") and body.get("background"):
        return _refuse(manners, "Background mode is not available", "background")
    if manners == "openai" and any("id" in item for item in _items(body)):
        return _refuse(manners, "Item not found: items are not persisted", "input")
    includes = "reasoning.encrypted_content" in (body.get("include") or ())
    if includes and str(body.get("model", "")).startswith("plain"):
        return _refuse(manners, "Encrypted content is not supported with this model.", "include")
    if manners == "codex":
        return _codex_objection(body)
    if manners == "transformers" and (extra := set(body) - TRANSFORMERS_FIELDS):
        detail = f"Unexpected fields in the request: {extra}"
        return web.json_response({"detail": detail}, status=422)
    return None


def _codex_objection(body: Json) -> web.Response | None:
    if body.get("stream") is not True:
        return _refuse("codex", "Stream must be set to true", "stream")
    if not isinstance(body.get("input"), list):
        return _refuse("codex", "Input must be a list", "input")
    for name in CODEX_REFUSES:
        if name in body:
            return _refuse("codex", f"Unsupported parameter: {name}", name)
    return None


def _items(body: Json) -> list[Json]:
    given = body.get("input")
    return given if isinstance(given, list) else []


def _refuse(manners: str, message: str, param: str) -> web.Response:
    if manners == "codex":
        return web.json_response({"detail": message}, status=400)
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return web.json_response({"error": error}, status=400)


async def start(port: int = 0) -> tuple[web.AppRunner, Upstream, str]:
    """Start on loopback: what to clean up, the server, and its origin."""
    upstream = Upstream()
    runner = web.AppRunner(
        upstream.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.2
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, real = runner.addresses[0][:2]
    return runner, upstream, f"http://{host}:{real}"


async def _main(port: int) -> None:
    _, _, origin = await start(port)
    print(f"scripted model server on {origin}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_main(parser.parse_args().port))
