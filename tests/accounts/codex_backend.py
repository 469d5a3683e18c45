"""A Codex backend that knows who asks: responses, models, and the usage of each account."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.accounts.upstream import bearer

DONE = (
    b'data: {"type":"response.created","response":{"id":"r","status":"in_progress"}}\n\n'
    b'data: {"type":"response.completed","response":{"id":"r","status":"completed",'
    b'"model":"gpt-5.4","output":[],"usage":{"input_tokens":1000,"output_tokens":10}}}\n\n'
)


class CodexBackend:
    """`names` are accounts by their credentials; `usage` is what each is told, by name.

    What is in `refused` is answered so, whatever it asks; `headers` come with every response.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.usage: dict[str, Any] = {}
        self.refused: dict[str, tuple[int, Any]] = {}
        self.headers: dict[str, str] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.url = ""

    def _refusal(self, request: web.Request) -> tuple[str, web.Response | None]:
        name = self.names.get(bearer(request), "nobody")
        self.asked[name, request.path] += 1
        status, body = self.refused.get(name, (0, None))
        if name == "nobody":
            status, body = 401, {"detail": "unknown"}
        return name, web.json_response(body, status=status) if status else None

    async def _create(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        _, refused = self._refusal(request)
        if refused is not None:
            return refused
        headers = {"content-type": "text/event-stream", **self.headers}
        return web.Response(body=DONE, headers=headers)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return self._refusal(request)[1] or web.json_response({"models": []})

    async def _usage(self, request: web.Request) -> web.StreamResponse:
        name, refused = self._refusal(request)
        found = self.usage.get(name)
        if isinstance(found, bytes):
            return refused or web.Response(body=found)
        return refused or web.json_response(found or {"plan_type": "free"})

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """On a free port; `url` is the base URL that a target has."""
        app = web.Application()
        app.router.add_post("/backend-api/codex/responses", self._create)
        app.router.add_get("/backend-api/codex/models", self._models)
        app.router.add_get("/backend-api/wham/usage", self._usage)
        app.router.add_get("/api/codex/usage", self._usage)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/backend-api/codex"
        try:
            yield
        finally:
            await runner.cleanup()
