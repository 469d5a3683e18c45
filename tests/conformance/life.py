"""The life of a background response, through the real gateway over real sockets.

The rows were recorded with the reference's custom fetch in front of a scripted upstream; here the
same upstream stands behind a gateway. Verbs on a response (poll, resume, cancel, delete, items) are
called on one that the gateway runs, in the state that the row's upstream tells.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from handrail import telemetry
from handrail.bootstrap.gateway import Gateway
from tests.conformance.recorded import Json, Outcome, Row
from tests.conftest import CALLER_KEY, settings_for

_BASE: Final = "/backend-api/codex"
_DONE: Final = {"type": "response.completed", "response": {"id": "resp_up", "output": []}}
_ENDS: Final = frozenset({"completed", "failed", "incomplete", "cancelled"})


@dataclass
class Script:
    """What the upstream answers, one reply after the other, the last one again and again.

    While it `holds`, it accepts a create and says nothing more.
    """

    replies: list[Json]
    holds: bool = False
    calls: list[Json] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Any call."""
        body = await request.read()
        self.calls.append({"path": request.path, "body": json.loads(body) if body else None})
        if self.holds:
            reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await reply.prepare(request)
            await asyncio.Event().wait()
        said = self.replies[min(len(self.calls), len(self.replies)) - 1]
        headers = {"content-type": "application/json", **said.get("headers", {})}
        return web.Response(status=said.get("status", 200), headers=headers, text=said["body"])


@asynccontextmanager
async def _listening(script: Script) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.serve)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{_BASE}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _gateway(folder: Path, url: str, row: Row) -> AsyncIterator[aiohttp.ClientSession]:
    telemetry.configure("error")
    gateway = Gateway(
        lambda: settings_for(
            folder / "data", upstream_url=url, profile="codex", environment=dict(row.env)
        )
    )
    listening = asyncio.Event()
    serving = asyncio.create_task(gateway.serve(started=listening.set))
    await listening.wait()
    key = {"authorization": f"Bearer {CALLER_KEY}"}
    try:
        async with aiohttp.ClientSession(gateway.url + "/", headers=key) as client:
            yield client
    finally:
        gateway.stop()
        gateway.stop()
        await serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """A reply as its caller sees it."""

    status: int
    kind: str
    text: str

    @property
    def body(self) -> Json:
        """Its JSON object, {} when it is none."""
        body: Json = json.loads(self.text) if self.kind == "application/json" else {}
        return body


async def _call(client: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Got:
    async with client.request(method, path, json=body) as reply:
        return Got(status=reply.status, kind=reply.content_type, text=await reply.text())


async def life(row: Row, folder: Path) -> Outcome:
    """One row."""
    request = row.args[0]["request"]
    verb = urlsplit(request["url"]).path.partition("/responses")[2]
    script = Script(replies=row.args[0]["upstream"])
    async with _listening(script) as url, _gateway(folder, url, row) as client:
        if verb:
            return await _verb(row, client, script, verb=verb)
        got = await _call(client, "POST", "responses", request["body"])
        if got.body.get("background"):
            await _ended(client, got.body["id"])
        recorded, ours = _recorded(row), _seen(got)
        if got.status == 200 and not request["body"].get("background"):
            ours["output"] = got.body["output"]
            recorded["output"] = row.result["body"]["output"]
        calls = _recorded_calls(row)
        beside = Outcome(
            recorded=_arrived([{**call, "path": urlsplit(call["url"]).path} for call in calls]),
            ours=_arrived(script.calls),
        )
        return Outcome(recorded=recorded, ours=ours, beside=beside)


async def _verb(row: Row, client: aiohttp.ClientSession, script: Script, *, verb: str) -> Outcome:
    answers = [json.loads(reply["body"]) for reply in script.replies if reply["body"][:1] == "{"]
    state = answers[0].get("status") if answers else "completed"
    script.holds = state in ("in_progress", "cancelled")
    done = f"data: {json.dumps(_DONE)}\n\n"
    script.replies = [{"headers": {"content-type": "text/event-stream"}, "body": done}]
    create = {"model": "gpt-5.4", "input": "hi", "background": True}
    made = await _call(client, "POST", "responses", create)
    if not script.holds:
        await _ended(client, made.body["id"])
    # A 404 of the reference is one of the wrong account; here it is an id that nobody gave out.
    known = made.body["id"] if "error" not in (answers or [{}])[0] else "resp_bg"
    request = row.args[0]["request"]
    query = urlsplit(request["url"]).query
    path = f"responses{verb.replace('resp_bg', known)}" + (f"?{query}" if query else "")
    if script.holds:
        await _under_way(client, script, known)
    before = len(script.calls)
    got = await _call(client, request["method"], path)
    beside = Outcome(
        recorded={"calls": len(_recorded_calls(row))}, ours={"calls": len(script.calls) - before}
    )
    return Outcome(recorded=_recorded(row), ours=_seen(got), beside=beside)


def _recorded_calls(row: Row) -> list[Json]:
    calls: list[Json] = (row.result or {}).get("upstreamCalls", [])
    return calls


async def _under_way(client: aiohttp.ClientSession, script: Script, run: str) -> None:
    async with asyncio.timeout(5):
        while not script.calls or (await _state(client, run)) == "queued":
            await asyncio.sleep(0.005)


async def _ended(client: aiohttp.ClientSession, run: str) -> None:
    async with asyncio.timeout(5):
        while (await _state(client, run)) not in _ENDS:
            await asyncio.sleep(0.005)


async def _state(client: aiohttp.ClientSession, run: str) -> str:
    state: str = (await _call(client, "GET", f"responses/{run}")).body["status"]
    return state


def _sentence(message: str) -> str:
    return " ".join(message.split()[:5])


def _seen(got: Got) -> Json:
    error = got.body.get("error") or {}
    message = error.get("message", "")
    if error.get("param") == "background":
        return {"outcome": _sentence(message)}
    state = got.body.get("status")
    return {"outcome": str(got.status), "kind": got.kind, "state": state, "message": message}


def _recorded(row: Row) -> Json:
    if row.error is not None:
        return {"outcome": _sentence(row.error["message"])}
    got = Got(
        status=row.result["status"],
        kind=row.result["contentType"].partition(";")[0],
        text=json.dumps(row.result["body"]),
    )
    return _seen(got)


def _arrived(calls: list[Json]) -> Json:
    """How many creates there were, and what both upstreams saw of the first."""
    if not calls:
        return {"calls": 0}
    path, body = calls[0]["path"], calls[0]["body"]
    fields = ("model", "store", "stream", "background")
    return {
        "calls": len(calls),
        "path": path,
        **{name: body[name] for name in fields if name in body},
    }
