"""The profile azure: its header, its version, its names, and credentials that a command prints."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from handrail import LibrarySettings, prepare
from tests.conftest import ENVIRONMENT, UPSTREAM_KEY, Scripted, Start, eventually
from tests.integration.test_upstream_runs import ended
from tests.raw_http import ask, get

NO_KEY = {"environment": {"HANDRAIL_UPSTREAM_API_KEY": ""}}
VERSIONED = "[upstream]\napi_version = '2025-04-01-preview'\n"


def command(path: Path, text: str) -> str:
    """Settings with a command that runs this Python text."""
    path.write_text(text)
    words = json.dumps([sys.executable, str(path)])
    return f"[upstream]\nbearer_command = {words}\n"


def sent_headers(upstream: Scripted) -> dict[str, str]:
    headers = upstream.seen.requests[-1]["headers"]
    return {name.lower(): value for name, value in headers.items()}


async def test_the_key_goes_in_its_own_header(start: Start, upstream: Scripted) -> None:
    async with start(profile="azure") as gateway, gateway.client() as client:
        await client.responses.create(model="prod-deployment", input="hi")
    headers = sent_headers(upstream)
    assert headers["api-key"] == UPSTREAM_KEY
    assert "authorization" not in headers
    assert upstream.last["model"] == "prod-deployment"
    assert upstream.seen.requests[-1]["path"] == "/openai/v1/responses"


async def test_any_profile_may_show_it_so_and_azure_may_show_a_bearer(
    start: Start, upstream: Scripted
) -> None:
    toml = "[upstream]\nauth = '{}'\n"
    for profile, auth, header in (
        ("openai", "api-key", {"api-key": UPSTREAM_KEY}),
        ("azure", "bearer", {"authorization": f"Bearer {UPSTREAM_KEY}"}),
    ):
        options: dict[str, Any] = {"profile": profile, "toml": toml.format(auth), "name": profile}
        async with start(**options) as gateway, gateway.client() as client:
            await client.responses.create(model="m", input="hi")
        headers = sent_headers(upstream)
        assert {name: headers.get(name) for name in header} == header
        assert len({"api-key", "authorization"} & headers.keys()) == 1


async def test_the_version_is_a_parameter_of_every_url(start: Start, upstream: Scripted) -> None:
    async with start(profile="azure", toml=VERSIONED) as gateway, gateway.client() as client:
        await client.responses.create(model="m", input="hi")
        await ask(gateway.port, get("/v1/models?client_version=0.169.0"))
    path = upstream.seen.requests[-1]["path"]
    assert path == "/openai/v1/responses?api-version=2025-04-01-preview"
    (models,) = upstream.seen.models
    assert models == "/openai/v1/models?client_version=0.169.0&api-version=2025-04-01-preview"


async def test_a_response_that_azure_runs_is_polled_and_deleted_with_the_version(
    start: Start, upstream: Scripted
) -> None:
    toml = f'{VERSIONED}[background]\nenabled = true\nexecutor = "upstream"\n'
    async with (
        start(manners="storing", profile="azure", toml=toml) as gateway,
        gateway.client() as client,
    ):
        made = await client.responses.create(model="m", input="hi [[words=2]]", background=True)
        assert (await ended(client, made.id)).status == "completed"
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)
    assert (upstream.last["store"], upstream.last["background"]) == (True, True)


def test_what_would_be_called_is_told_with_the_version() -> None:
    settings = LibrarySettings(
        profile="azure", base_url="https://r.example/openai", api_version="2025-04-01-preview"
    )
    found = prepare({"model": "gpt-5.5-high", "input": "hi"}, settings=settings)
    assert found.url == "https://r.example/openai/responses?api-version=2025-04-01-preview"
    assert found.body["reasoning"] == {"effort": "high"}


async def test_a_deployment_that_does_not_exist_is_about_the_model(start: Start) -> None:
    async def missing(_: web.Request) -> web.Response:
        words = "The API deployment for this resource does not exist."
        error = {"code": "DeploymentNotFound", "message": words}
        return web.json_response({"error": error}, status=404)

    app = web.Application()
    app.router.add_post("/openai/v1/responses", missing)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    flags = {"upstream.url": f"http://127.0.0.1:{runner.addresses[0][1]}/openai/v1"}
    try:
        async with start(profile="azure", flags=flags) as gateway, gateway.client() as client:
            with pytest.raises(openai.NotFoundError) as caught:
                await client.responses.create(model="nobody", input="hi")
    finally:
        await runner.cleanup()
    assert (caught.value.code, caught.value.param) == ("DeploymentNotFound", "model")


# --- credentials of a command ---------------------------------------------------------------------

COUNTING = """
import json, pathlib
file = pathlib.Path(__file__).with_suffix(".count")
count = int(file.read_text()) + 1 if file.exists() else 1
file.write_text(str(count))
print(json.dumps({"accessToken": f"printed-{count}", "expires_in": %d}))
"""


async def test_a_command_is_run_once_for_many_calls(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    toml = command(tmp_path / "az.py", COUNTING % 3_600)
    async with start(profile="azure", toml=toml, **NO_KEY) as gateway, gateway.client() as client:
        await asyncio.gather(
            *(client.responses.create(model="m", input=f"hi {n}") for n in range(5))
        )
    shown = {request["headers"]["Authorization"] for request in upstream.seen.requests}
    assert shown == {"Bearer printed-1"}
    assert len(upstream.seen.requests) == 5
    assert not [r for r in upstream.seen.requests if "api-key" in r["headers"]]


async def test_a_credential_that_has_ended_is_asked_for_again(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    toml = command(tmp_path / "az.py", COUNTING % 30)
    async with start(profile="azure", toml=toml, **NO_KEY) as gateway, gateway.client() as client:
        for _ in range(2):
            await client.responses.create(model="m", input="hi")
    shown = [request["headers"]["Authorization"] for request in upstream.seen.requests]
    assert shown == ["Bearer printed-1", "Bearer printed-2"]


async def test_a_credential_that_is_refused_is_forgotten(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    toml = command(tmp_path / "az.py", COUNTING % 3_600)
    async with start(profile="azure", toml=toml, **NO_KEY) as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.create(model="m", input="hi [[status=401]]")
        assert (caught.value.status_code, caught.value.code) == (
            503,
            "upstream_credentials_rejected",
        )
        await client.responses.create(model="m", input="hi")
    shown = [request["headers"]["Authorization"] for request in upstream.seen.requests]
    assert shown == ["Bearer printed-1", "Bearer printed-2"]


@pytest.mark.parametrize(
    "text",
    [
        "raise SystemExit(3)",
        "print('two words')",
        "print('{\"accessToken\": 5}')",
        "print('x' * 100_000)",
        "",
    ],
)
async def test_a_command_that_gives_nothing_is_a_503_that_shows_nothing_of_it(
    start: Start, upstream: Scripted, tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    toml = command(tmp_path / "az.py", text)
    async with start(profile="azure", toml=toml, **NO_KEY) as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.create(model="m", input="hi")
    error = caught.value
    assert (error.status_code, error.code) == (503, "upstream_credentials_rejected")
    assert error.response.headers["x-should-retry"] == "false"
    assert "az.py" not in error.message
    assert upstream.seen.requests == []
    said = capfd.readouterr()
    assert "two words" not in said.out + said.err
    assert "xxxx" not in said.out + said.err


async def test_a_command_that_does_not_exist_is_a_503_too(start: Start) -> None:
    toml = "[upstream]\nbearer_command = ['/nowhere/az']\n"
    async with start(profile="azure", toml=toml, **NO_KEY) as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.create(model="m", input="hi")
    assert caught.value.code == "upstream_credentials_rejected"


WAITING = """
import pathlib, sys, time
place = pathlib.Path(__file__).with_suffix(".running")
if place.exists():
    print("printed-2")
    sys.exit()
place.write_text(str(__import__("os").getpid()))
time.sleep(60)
"""


async def test_a_caller_who_leaves_ends_the_command_and_the_next_runs_it_again(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    toml = command(tmp_path / "az.py", WAITING)
    mark = tmp_path / "az.running"
    async with start(profile="azure", toml=toml, **NO_KEY) as gateway, gateway.client() as client:
        first = asyncio.create_task(client.responses.create(model="m", input="hi"))
        await eventually(lambda: mark.exists() and mark.read_text() != "")
        first.cancel()
        await client.responses.create(model="m", input="hi")
    (request,) = upstream.seen.requests
    assert request["headers"]["Authorization"] == "Bearer printed-2"
    process = int(mark.read_text())
    await eventually(lambda: not Path(f"/proc/{process}").exists())


async def test_a_background_run_has_the_credential_too(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    toml = command(tmp_path / "az.py", COUNTING % 3_600) + "[background]\nenabled = true\n"
    async with start(profile="azure", toml=toml, **NO_KEY) as gateway, gateway.client() as client:
        made = await client.responses.create(model="m", input="hi [[words=2]]", background=True)
        assert (await ended(client, made.id)).status == "completed"
    assert sent_headers(upstream)["authorization"] == "Bearer printed-1"


def test_the_key_of_the_environment_is_there_without_a_command() -> None:
    assert ENVIRONMENT["HANDRAIL_UPSTREAM_API_KEY"] == UPSTREAM_KEY
