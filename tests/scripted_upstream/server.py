"""The scripted server: its routes, and what it has seen."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from aiohttp import web

from tests.scripted_upstream.answer import Answer, Cut, speak
from tests.scripted_upstream.calls import Call, Calls
from tests.scripted_upstream.endpoints import ENDPOINTS, compaction, input_tokens
from tests.scripted_upstream.manners import endpoint_objection, objection
from tests.scripted_upstream.script import Json, Script, script_of
from tests.scripted_upstream.storing import Storing

MODEL = {"id": "scripted", "object": "model", "created": 1, "owned_by": "handrail"}
SDK_MODELS = {"object": "list", "data": [MODEL], "first_id": "scripted"}
CODEX_MODELS = {"models": [{"slug": "scripted", "display_name": "Scripted", "priority": 1}]}


# Headers of real upstreams that are none of a caller's business, on every reply.
PRIVATE_HEADERS = {
    "openai-model": "gpt-rerouted",
    "x-openai-model": "gpt-rerouted",
    "openai-organization": "org-canary",
    "openai-project": "proj-canary",
    "chatgpt-account-id": "account-canary",
    "x-codex-multi-auth-account-id": "account-canary",
    "x-codex-primary-used-percent": "42.5",
    "x-codex-credits-balance": "7",
    "x-codex-active-limit": "canary",
    "set-cookie": "__cf_bm=cookie-canary; HttpOnly",
    "cf-ray": "ray-canary",
    "server": "canary/1.0",
    "alt-svc": 'h3=":443"',
    "access-control-allow-origin": "*",
}
PASSED_HEADERS = {
    "openai-processing-ms": "12",
    "openai-version": "2020-10-01",
    "x-ratelimit-remaining-requests": "99",
    "x-codex-turn-state": "sticky",
    "x-reasoning-included": "true",
}


async def tell_too_much(_: web.Request, reply: web.StreamResponse) -> None:
    """Put both kinds of headers on a reply, and the upstream's own request id."""
    reply.headers.update({**PRIVATE_HEADERS, **PASSED_HEADERS, "x-request-id": "req_upstream"})


@dataclass
class Seen:
    """What has arrived since the last /forget."""

    calls: int = 0
    open: int = 0
    left: int = 0
    finished: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    requests: list[Json] = field(default_factory=list)
    models: list[str] = field(default_factory=list)


class Upstream:
    """The server."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.calls = Calls()
        self.number = 0
        self.storing = Storing(self.play)
        # What SDKs are listed, if not the one model.
        self.listed: list[str] = []
        # What accounts are refused, by whom a request comes from.
        self.gate: Callable[[web.Request], web.Response | None] = lambda _: None

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=64 << 20)
        app.on_response_prepare.append(tell_too_much)
        app.router.add_post("/{manners}/responses", self.create)
        app.router.add_post("/{manners}/v1/responses", self.create)
        for manners, endpoints in ENDPOINTS.items():
            base = "/codex" if manners == "codex" else f"/{manners}/v1"
            for name in endpoints:
                app.router.add_post(f"{base}/responses/{name}", self.endpoint)
        app.router.add_get("/{manners}/models", self.models)
        app.router.add_get("/{manners}/v1/models", self.models)
        app.router.add_get("/{manners}/v1/models/{id:.+}", self.models)
        app.router.add_get("/storing/v1/responses/{id}", self.storing.retrieve)
        app.router.add_delete("/storing/v1/responses/{id}", self.storing.delete)
        app.router.add_post("/storing/v1/responses/{id}/cancel", self.storing.cancel)
        app.router.add_get("/storing/v1/responses/{id}/input_items", self.storing.input_items)
        app.router.add_get("/seen", self.tell)
        app.router.add_get("/calls", self.tell_calls)
        app.router.add_post("/forget", self.forget)
        return app

    async def tell(self, _: web.Request) -> web.Response:
        """What arrived."""
        seen = self.seen
        return web.json_response({**vars(seen), "tags": dict(seen.tags)})

    async def tell_calls(self, request: web.Request) -> web.Response:
        """The creates from the one at place `from` on, each by itself; never forgotten."""
        return web.json_response(self.calls.since(int(request.query.get("from", "0"))))

    async def forget(self, _: web.Request) -> web.Response:
        """Start counting anew; calls still open stay counted as open."""
        self.seen = Seen(open=self.seen.open)
        return web.json_response({})

    async def models(self, request: web.Request) -> web.Response:
        """A list of one model, or that one."""
        manners = request.match_info["manners"]
        self.seen.models.append(request.path_qs)
        refused = self.gate(request)
        if refused is not None:
            return refused
        if request.match_info.get("id"):
            return web.json_response({**MODEL, "id": request.match_info["id"]})
        if self.listed:
            entries = [{**MODEL, "id": name} for name in self.listed]
            return web.json_response({"object": "list", "data": entries})
        return web.json_response(CODEX_MODELS if manners == "codex" else SDK_MODELS)

    async def endpoint(self, request: web.Request) -> web.Response:
        """POST …/responses/compact and …/responses/input_tokens."""
        body: Json = await request.json()
        _, manners, *_, name = request.path.split("/")
        seen = self.seen
        seen.calls += 1
        seen.requests.append({"body": body, "headers": dict(request.headers), "path": request.path})
        self.number += 1
        script = script_of(body)
        seen.open += 1
        try:
            await asyncio.sleep(script.before)
        finally:
            self.seen.open -= 1
        refused = endpoint_objection(body, manners) or self.scripted_error(script)
        if refused is not None:
            return refused
        if script.html:
            return web.Response(text="<html>hello</html>", content_type="text/html")
        compacts = name == "compact"
        return web.json_response(compaction(body, self.number) if compacts else input_tokens(body))

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
            script = replace(script, early="")
        seen.open += 1
        arrived = {"body": body, "headers": dict(request.headers), "path": request.path_qs}
        seen.requests.append({**arrived, "manners": manners})
        del seen.requests[:-200]
        self.number += 1
        call = self.calls.arrived(self.number, script.tag)
        try:
            reply = await self.answer(request, body, script, manners=manners, call=call)
            seen.finished += 1
            if call.how == "open":
                call.end("finished")
        except (ConnectionError, asyncio.CancelledError):
            self.seen.left += 1
            call.end("left")
            raise
        finally:
            self.seen.open -= 1
        return reply

    async def answer(
        self, request: web.Request, body: Json, script: Script, *, manners: str, call: Call
    ) -> web.StreamResponse:
        """A refusal, a JSON object or a stream."""
        number = call.number
        await asyncio.sleep(script.before)
        if script.early == "hangup" and request.transport is not None:
            request.transport.abort()
        refused = self.gate(request) or objection(body, manners) or self.scripted_error(script)
        if refused is None and manners == "storing":
            refused = self.storing.objection(body)
        if refused is not None:
            call.end("refused")
            return refused
        if manners == "storing" and body.get("background"):
            return await self.storing.create(request, body, script, number=number)
        if script.queued:
            return web.json_response({"id": f"resp_{number}", "status": "queued", "output": []})
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
            await asyncio.sleep(script.linger)
        await reply.write_eof()
        return reply

    async def play(
        self, answer: Answer, script: Script, body: Json, request: web.Request, *, number: int
    ) -> None:
        """The whole stream."""
        await answer.open()
        if script.early == "stall":
            await asyncio.sleep(3_600)
        if script.early == "drop" and request.transport is not None:
            request.transport.abort()
            raise Cut
        if script.reasoning:
            item: Json = {"type": "reasoning", "id": f"rs_{number}", "summary": []}
            if "reasoning.encrypted_content" in (body.get("include") or ()):
                item["encrypted_content"] = f"gAAAA-scripted-{number}"
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
