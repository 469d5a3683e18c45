"""Fixtures for the SDK with the guardrails in it."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.integration.sdk_clients import Either, Recorder


@pytest.fixture(params=["async", "sync"])
def either(request: pytest.FixtureRequest) -> Either:
    return Either(request.param)


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    """A server that takes anything: its base URL, and what it has seen."""
    seen: list[tuple[str, str, str]] = []

    async def record(request: web.Request) -> web.Response:
        seen.append((request.method, request.path_qs, (await request.read()).decode()))
        if "moved" in request.path:
            return web.Response(status=307, headers={"location": "/elsewhere"})
        return web.json_response({"id": "resp_1", "object": "response"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", record)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}/v1", seen
    await runner.cleanup()
