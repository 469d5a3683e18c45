"""The real gateway over real sockets, with a row's upstream behind it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from handrail import telemetry
from handrail.bootstrap.gateway import Gateway
from handrail.engine.meter import CallRecord, unheard
from tests.conformance.recorded import Json
from tests.conftest import CALLER_KEY, settings_for

_BASE: Final = "/backend-api/codex"
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
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = {"path": request.path, "body": json.loads(body) if body else None}
        self.calls.append({**call, "headers": headers})
        if self.holds:
            reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await reply.prepare(request)
            await asyncio.Event().wait()
        said = self.replies[min(len(self.calls), len(self.replies)) - 1]
        named = {"content-type": "application/json", **said.get("headers", {})}
        return web.Response(status=said.get("status", 200), headers=named, text=said["body"])


@asynccontextmanager
async def listening(script: Script) -> AsyncIterator[str]:
    """The upstream on a socket of its own; its base URL."""
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
async def gateway(
    folder: Path,
    url: str,
    *,
    environment: Mapping[str, str],
    toml: str = "",
    on_call: Callable[[CallRecord], None] = unheard,
) -> AsyncIterator[str]:
    """A gateway before that upstream; its base URL. Raises ConfigInvalid when it does not start."""
    telemetry.configure("error")
    (folder / "data.toml").write_text(toml)
    made = Gateway(
        lambda: settings_for(
            folder / "data", upstream_url=url, profile="codex", environment=environment
        ),
        on_call=on_call,
    )
    started = asyncio.Event()
    serving = asyncio.create_task(made.serve(started=started.set))
    waiting = asyncio.ensure_future(started.wait())
    await asyncio.wait([serving, waiting], return_when="FIRST_COMPLETED")
    try:
        if started.is_set():
            yield made.url
    finally:
        waiting.cancel()
        made.stop()
        made.stop()
        await serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """A reply as its caller sees it."""

    status: int
    kind: str
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> Json:
        """Its JSON object, {} when it is none."""
        body: Json = json.loads(self.text) if self.kind == "application/json" else {}
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Calls a gateway at `url`, with a caller's key unless other headers are given."""

    url: str

    async def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Got:
        """One call; `path` is below the base URL."""
        shown = {"authorization": f"Bearer {CALLER_KEY}"} if headers is None else dict(headers)
        async with (
            aiohttp.ClientSession(headers=shown) as session,
            session.request(method, f"{self.url}/{path}", json=body) as reply,
        ):
            return Got(
                status=reply.status,
                kind=reply.content_type,
                text=await reply.text(),
                headers={name.lower(): value for name, value in reply.headers.items()},
            )

    async def state(self, run: str) -> str:
        """The status of a background response."""
        state: str = (await self.call("GET", f"responses/{run}")).body["status"]
        return state

    async def ended(self, run: str) -> None:
        """Wait for its end."""
        async with asyncio.timeout(5):
            while (await self.state(run)) not in _ENDS:
                await asyncio.sleep(0.005)

    async def under_way(self, script: Script, run: str) -> None:
        """Wait until the upstream has been called for it."""
        async with asyncio.timeout(5):
            while not script.calls or (await self.state(run)) == "queued":
                await asyncio.sleep(0.005)
