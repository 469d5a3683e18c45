"""An upstream that gives back what it was shown, wherever an answer has room for it.

The model says how: `status-N` is an error of that status, whose form changes from call to call;
`stream-HOW` a stream with the credential in its middle; everything else an answer.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.canaries import Canaries

Json = dict[str, Any]
RESPONSE: Json = {
    "id": "resp_parrot",
    "object": "response",
    "created_at": 1,
    "status": "in_progress",
    "model": "m",
    "output": [],
    "usage": None,
    "error": None,
}
FORMS = ("everywhere", "detail", "text", "html", "nested", "word")


class Parrot:
    """The server. `received` holds each request as it came, by the credential that it showed."""

    def __init__(self, canaries: Canaries) -> None:
        self.received: list[tuple[str, bytes]] = []
        self._cookie = canaries.plant("cookie of the upstream")
        self._output = canaries.plant("output of the model", form="said {}")
        self._forms = itertools.cycle(FORMS)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        body = await request.read()
        head = [f"{request.method} {request.path_qs}".encode()]
        head += [name + b": " + value for name, value in request.raw_headers]
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.received.append((shown, b"\n".join([*head, body])))
        echo = " ".join([shown, request.headers.get("chatgpt-account-id", "")]).strip()
        asked: Json = json.loads(body) if body else {}
        said = f"{echo} {json.dumps(asked.get('metadata'))}"
        headers = self._headers(echo)
        model = str(asked.get("model", ""))
        kind, _, how = model.partition("-")
        if kind == "status":
            return self._error(int(how), echo, said, headers)
        if request.method == "GET":
            listed = [{"id": "m", "object": "model", "created": 1, "owned_by": echo}]
            return web.json_response({"object": "list", "data": listed}, headers=headers)
        if asked.get("stream"):
            return await self._stream(request, how, said, headers)
        answer = self._answered(echo)
        return web.json_response(answer, headers=headers)

    def _headers(self, echo: str) -> dict[str, str]:
        names = ("openai-version", "x-ratelimit-remaining-requests", "x-request-id", "x-echo")
        return {
            **dict.fromkeys((*names, "x-codex-turn-state"), echo),
            "set-cookie": f"session={self._cookie}; HttpOnly",
        }

    def _answered(self, echo: str) -> Json:
        part = {"type": "output_text", "text": self._output, "annotations": []}
        message: Json = {"type": "message", "id": "msg_1", "role": "assistant"}
        message |= {"status": "completed", "content": [part]}
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        end = {"status": "completed", "output": [message], "usage": usage, "user": echo}
        return {**RESPONSE, **end}

    def _error(self, status: int, echo: str, said: str, headers: dict[str, str]) -> web.Response:
        word = echo.replace(" ", "_")
        error: Json = {"message": f"Incorrect API key provided: {said}", "type": "t", "code": "c"}
        body: Any = {"error": error}
        match next(self._forms):
            case "everywhere":
                error |= dict.fromkeys(("type", "code", "param", "plan_type"), word)
                error["details"] = {echo: [echo, "x" * 1_990 + echo]}
            case "detail":
                body = {"detail": [{"msg": said, "loc": ["body", echo]}]}
            case "text":
                return web.Response(status=status, text=said, headers=headers)
            case "html":
                page = f"<html>{said}</html>"
                return web.Response(
                    status=status, text=page, content_type="text/html", headers=headers
                )
            case "nested":
                error["message"] = "x" * 1_980 + said
                error["innererror"] = {"a": {"b": {"c": echo}}}
            case _:
                body = {"error": {"code": word}}
        return web.json_response(body, status=status, headers={**headers, "retry-after": echo})

    async def _stream(
        self, request: web.Request, how: str, said: str, headers: dict[str, str]
    ) -> web.StreamResponse:
        kind = {"content-type": "text/event-stream"}
        reply = web.StreamResponse(headers={**headers, **kind})
        await reply.prepare(request)
        numbers = itertools.count()

        async def event(kind: str, **fields: Any) -> None:
            data = {"type": kind, "sequence_number": next(numbers), **fields}
            await reply.write(f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode())

        opened = {**RESPONSE, "user": said.partition(" ")[0]}
        await event("response.created", response=opened)
        await event("response.in_progress", response=opened)
        at = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
        await event("response.output_text.delta", **at, delta=said.partition(" ")[0])
        match how:
            case "error":
                await event("error", code=said.partition(" ")[0], message=said, param=None)
            case "failed":
                error = {"code": "server_error", "message": said}
                failed = {**opened, "status": "failed", "error": error}
                await event("response.failed", response=failed)
            case "malformed":
                await reply.write(f"event: {said}\ndata: {said}\n\n".encode())
            case "pieces":
                data = json.dumps({"type": "error", "message": said, "sequence_number": 9})
                for piece in f"event: error\ndata: {data}\n\n":
                    await reply.write(piece.encode())
                    await asyncio.sleep(0)
            case "cut":
                if request.transport is not None:
                    request.transport.abort()
            case "silent":
                await asyncio.sleep(3_600)
            case _:
                await event("response.completed", response=self._answered(said.partition(" ")[0]))
        return reply


@asynccontextmanager
async def parrot(canaries: Canaries) -> AsyncIterator[tuple[Parrot, int]]:
    """One, and the port on loopback where it listens until the block is left."""
    server = Parrot(canaries)
    app = web.Application(client_max_size=8 << 20)
    app.router.add_route("*", "/{rest:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield server, runner.addresses[0][1]
    finally:
        await runner.cleanup()
