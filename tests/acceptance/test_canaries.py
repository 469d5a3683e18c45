"""Planted secrets are in no byte that leaves: replies, errors, logs, commands, files, crashes.

The upstream of these tests gives every credential back that it is shown, wherever it can.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from handrail.cli.main import cli
from handrail.server.admin import ADMIN_ROUTES
from tests.acceptance import processes
from tests.acceptance.leaving import KEY_FILES, World
from tests.acceptance.parrot import FORMS, Parrot, parrot
from tests.acceptance.processes import Child
from tests.canaries import Canaries
from tests.forward_proxy import forward_proxy
from tests.integration.issuers import running
from tests.issuer import Issuer

STATUSES = (400, 401, 402, 403, 404, 422, 429, 500, 502, 503, 504)
STREAMS = ("ends", "error", "failed", "malformed", "pieces", "cut")
CONFIG = """
[background]
enabled = true
[callers.default]
store = "keep"
[callers.team]
key_env = "TEAM_KEY"
[upstream]
pass_through = ["/embeddings"]
[upstream.accounts]
from-env = "env:KEY_OF_ENV"
from-file = "file:{file}"
[oauth]
issuer = "{issuer}"
"""
WRONG = (
    '[upstream]\nurl = "http://ann:{}@upstream.test/v1"\n',
    '[upstream.accounts]\nnew = "{}"\n',
    '[callers.team]\nkey = "{}"\n',
    '[callers.team]\nkey_sha256 = "{}"\n',
    "data_dir = {}\n",
    '[server]\nport = "{}"\n',
    '[oauth]\nissuer = "http://ann:{}@issuer.test"\n',
)


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture
def world(tmp_path: Path, canaries: Canaries) -> World:
    plant = canaries.plant
    caller = plant("caller key", form="hr_{}")
    password = plant("password of the proxy")
    (tmp_path / "key.txt").write_text(plant("account key of a file"))
    return World(
        directory=tmp_path,
        canaries=canaries,
        environment={
            "HANDRAIL_CALLER_KEY": caller,
            "HANDRAIL_UPSTREAM_API_KEY": plant("upstream key"),
            "TEAM_KEY": plant("caller key of another"),
            "KEY_OF_ENV": plant("account key of the environment"),
            "HTTP_PROXY": f"http://{plant('user of the proxy')}:{password}@127.0.0.1:PORT",
        },
        headers={
            "authorization": f"Bearer {caller}",
            "cookie": f"session={plant('cookie of a client')}",
            "chatgpt-account-id": plant("account id of a client"),
            "openai-organization": plant("organization of a client"),
            "proxy-authorization": f"Basic {plant('proxy login of a client')}",
        },
    )


@asynccontextmanager
async def upstream(world: World) -> AsyncIterator[Parrot]:
    """The upstream behind a proxy with a login, and where both are in the environment."""
    async with parrot(world.canaries) as (server, port), forward_proxy(port) as proxy:
        environment = world.environment
        environment["HTTP_PROXY"] = environment["HTTP_PROXY"].replace("PORT", str(proxy.port))
        environment["HANDRAIL_UPSTREAM_URL"] = "http://upstream.test/v1"
        yield server
        assert proxy.asked


async def breaking(world: World) -> Child:
    """A gateway on a client that raises what no client should."""
    place = ["--data-dir", str(world.directory / "data"), "--port", "0", "--background"]
    child = await asyncio.to_thread(
        lambda: Child(
            [sys.executable, "-m", "tests.acceptance.breaking", "breaking", *place],
            ready=r"Handrail listens on (\S+)",
            environment=world.environment,
            log=world.directory / "gateway.log",
        )
    )
    world.url = child.url.removesuffix("/v1")
    return child


@asynccontextmanager
async def gateway(world: World, *arguments: str) -> AsyncIterator[Child]:
    """A gateway over the world's settings, until the block is left."""
    config = str(world.directory / "handrail.toml")
    child = await asyncio.to_thread(
        processes.gateway,
        world.directory,
        *("--port", "0", "--log-level", "debug", "--config", config, *arguments),
        upstream=world.environment["HANDRAIL_UPSTREAM_URL"],
        environment=world.environment,
    )
    world.url = child.url.removesuffix("/v1")
    try:
        yield child
    finally:
        await asyncio.to_thread(child.stop)


def plant_grant(world: World, grant: Mapping[str, Any]) -> dict[str, str]:
    """The three JWTs and codes of a sign-in; those in an auth.json of Codex CLI."""
    names = ("id_token", "access_token", "refresh_token")
    for name in names:
        world.canaries.plant(f"{name} {grant['refresh_token'][-6:]}", grant[name])
    return {name: grant[name] for name in names}


def plant_issued(world: World, issuer: Issuer) -> None:
    """Whatever the issuer has given out by now."""
    for number, secret in enumerate([*issuer.book.refreshes, *issuer.book.accesses]):
        world.canaries.plant(f"given out {number}", secret)


def plant_keys(world: World) -> None:
    """The keys that the gateway has made for itself."""
    for file, name in KEY_FILES.items():
        path = world.directory / "data" / file
        if path.exists():
            world.canaries.plant(name, path.read_bytes().strip())


async def sign_in(world: World, issuer: Issuer) -> None:
    """Two accounts come: a login of Codex CLI's, and an API key."""
    account = world.canaries.plant("ChatGPT account id")
    address = world.canaries.plant("e-mail", form="ann.{}@example.org")
    grant = issuer.book.grant(issuer.book.login(address, account, "plus"))
    path = world.directory / "auth.json"
    path.write_text(json.dumps({"auth_mode": "chatgpt", "tokens": plant_grant(world, grant)}))
    await world.on_data("accounts", "import", str(path))
    workspace = world.canaries.plant("workspace id", form="ws-{}")
    await world.on_data("accounts", "workspace", "account-1", workspace)
    key = world.canaries.plant("account key of the vault")
    await world.on_data("accounts", "add", "--name", "kept", given=key)


async def ask_everything(world: World) -> None:
    """Every account, status, form and stream there is, in the foreground and in background."""
    key = world.canaries.plant("key in the metadata", form="sk-proj-{}")
    idempotency = {"idempotency-key": world.canaries.plant("idempotency key")}
    for account in ("from-env", "from-file", "account-1", "kept", "nobody"):
        pinned = {"handrail-account": account}
        await world.response("m", headers=pinned)
        await world.response("m", headers=pinned, store=True, metadata={"key": key})
        for status in STATUSES if account == "account-1" else STATUSES[:2]:
            await world.response(f"status-{status}", headers=pinned, stream=status % 2 == 1)
    for n in range(len(FORMS) * 2):
        # Their words about a key are passed on to whoever sent it, without it.
        but = world.canaries.those("prompt", "output")
        await world.response("status-400", metadata={"key": key}, stream=n % 2 == 0, but=but)
        await world.response("status-503", metadata={"key": key}, but=but)
    for how in STREAMS:
        await world.response(f"stream-{how}", stream=True)
        shown = world.content if how == "ends" else world.canaries.those("prompt", "output")
        await world.response(f"stream-{how}", stream=True, metadata={"key": key}, but=shown)
        await world.response(f"stream-{how}", metadata={"key": key}, but=shown)
        await world.response(f"stream-{how}", stream=True, store=True)
    await world.response("stream-silent", stream=True, patience=0.5)
    ids = []
    for model in ("m", "status-401", "status-400", "stream-failed", "stream-error", "stream-cut"):
        headers = {"idempotency-key": f"{idempotency['idempotency-key']}-{model}"}
        made = await world.response(model, background=True, headers=headers)
        ids.append(json.loads(made)["id"])
        await world.call("GET", f"/v1/responses/{ids[-1]}?stream=true")
    made = await world.response("stream-silent", background=True, metadata={"key": key})
    await world.call("POST", f"/v1/responses/{json.loads(made)['id']}/cancel")
    for each in ids:
        await world.call("GET", f"/v1/responses/{each}")
        await world.call("GET", f"/v1/responses/{each}/input_items")
    await world.call("DELETE", f"/v1/responses/{ids[0]}")
    body = {"model": "m", "input": "hi"}
    for path in ("/v1/responses/compact", "/v1/responses/input_tokens"):
        await world.call("POST", path, body)
        await world.call("POST", path, {**body, "model": "status-400"})
    for model in ("m", "status-400", "status-401", "status-500"):
        await world.call("POST", "/v1/embeddings", {"model": model, "input": "hi"})
    for path in ("/v1/models", "/v1/models/m", "/healthz", "/readyz", "/metrics", "/v1/nothing"):
        await world.call("GET", path)


async def ask_wrongly(world: World) -> None:
    """Keys that open nothing, in every spelling, and bodies and addresses that cannot be read."""
    wrong = world.canaries.plant("wrong key", form="sk-{}")
    body = {"model": "m", "input": "hi"}
    for header, form in (("authorization", "Bearer {}"), ("authorization", "Basic {}"),
                         ("api-key", "{}"), ("x-api-key", "{}")):  # fmt: skip
        name = f"wrong key in {header} {form}"
        headers = {header: form.format(world.canaries.plant(name))}
        await world.call("POST", "/v1/responses", body, headers=headers, but=())
        await world.call("GET", "/admin/settings", headers=headers, but=())
    both = {"authorization": f"Bearer {wrong}", "x-api-key": world.headers["authorization"]}
    await world.call("POST", "/v1/responses", body, headers=both, but=())
    secret = world.canaries.plant("key in an address")
    await world.call("GET", f"/v1/responses/resp_x?stream={secret}", but=())
    await world.call("GET", f"/v1/nothing?api_key={secret}", but=())
    prompt = world.canaries.plant("prompt of a broken body")
    for data in (f'{{"model": "m", "input": "{prompt}', f"{prompt}", f'["{prompt}"]',
                 f'{{"model": "m", "input": "hi", "store": "{prompt}"}}',
                 f'{{"model": "m", "input": [{{"type": "{prompt}", "role": 7}}]}}'):  # fmt: skip
        await world.call("POST", "/v1/responses", data.encode(), but=())


async def administer(world: World) -> None:
    """Every route of the admin API."""
    admin = {"authorization": f"Bearer {world.canaries.plant('admin key', _admin_key(world))}"}
    for path, methods in ADMIN_ROUTES.items():
        if "GET" in methods and "{" not in path:
            await world.call("GET", path, headers=admin, but=())
    # The only reply that ever holds a key: looked at for all others, and planted from then on.
    made = await world.call("POST", "/admin/keys", {"caller": "team"}, headers=admin, but=())
    new = json.loads(made)
    world.canaries.plant("key made over HTTP", new["key"])
    world.left[-1].but = ["key made over HTTP"]
    posts = [f"keys/{new['id']}/revoke", "accounts/kept/pause", "accounts/kept/resume", "reload"]
    for path in posts:
        await world.call("POST", f"/admin/{path}", headers=admin, but=())
    secret = world.canaries.plant("secret of a wrong setting")
    before = (world.directory / "handrail.toml").read_text()
    for wrong in WRONG:
        world.config(wrong.format(secret))
        await world.call("POST", "/admin/reload", headers=admin, but=())
        await world.call("GET", "/admin/settings", headers=admin, but=())
    world.config(before)


def _admin_key(world: World) -> str:
    return (world.directory / "data" / "admin.key").read_text().strip()


async def command(world: World) -> None:
    """Every command."""
    made = await world.on_data("keys", "create", "team")
    world.canaries.plant("key made by a command", made.strip())
    world.left[-1].but = ["key made by a command"]
    listed = json.loads(await world.on_data("keys", "list", "--json"))
    rotated = await world.on_data("keys", "rotate", listed[-1]["id"])
    world.canaries.plant("key made by a rotation", rotated.strip())
    world.left[-1].but = ["key made by a rotation"]
    body = world.directory / "body.json"
    key = world.canaries.plant("key in the metadata", form="sk-proj-{}")
    body.write_text(json.dumps({"model": "m", "input": "hi", "metadata": {"key": key}}))
    backup = world.directory / "data" / "copy.db"
    for arguments in (
        "accounts list", "accounts list --json", "accounts show from-env", "accounts check",
        "accounts show account-1", "accounts best", "accounts best --model m", "keys list",
        f"accounts show {key}", f"accounts add {key}", f"keys create {key}", f"serve --{key}",
        "status", "status --live", "status --json", "why", "why --json --account account-1",
        "usage", "usage --json", "config explain", "config explain --json", "db check",
        f"db backup {backup}",
    ):  # fmt: skip
        await world.on_data(*arguments.split())
    config = str(world.directory / "handrail.toml")
    await world.run("explain", str(body), "--config", config)
    await world.run("explain", str(body), "--config", config, "--json")
    for group in ("", *cli.commands):
        await world.run(*group.split(), "--help")


async def stop_and_restore(world: World) -> None:
    """What only a stopped gateway allows."""
    await world.on_data("db", "vacuum")
    await world.on_data("db", "rotate-key")
    await world.on_data("accounts", "remove", "account-1")


def check_received(world: World, server: Parrot, known: set[str]) -> None:
    """Each request shows the upstream the one credential that it is for, and nothing else."""
    assert {credential for credential, _ in server.received} <= known
    workspace = world.canaries.plant("workspace id", form="ws-{}")
    for credential, request in server.received:
        rest = request.replace(credential.encode(), b"")
        if credential.startswith("eyJ"):
            rest = rest.replace(workspace.encode(), b"", 1)
        assert world.canaries.found(rest, but=world.content) == [], rest[:300]


async def test_no_canary_leaves_a_gateway_with_accounts(world: World) -> None:
    async with running() as issuer, upstream(world) as server:
        file = world.directory / "key.txt"
        world.config(CONFIG.format(file=file, issuer=issuer.origin))
        await sign_in(world, issuer)
        async with gateway(world) as child:
            plant_keys(world)
            await ask_everything(world)
            await ask_wrongly(world)
            issuer.manners.echo = 1
            await world.response("status-401", headers={"handrail-account": "account-1"})
            assert issuer.manners.echo == 0
            await administer(world)
            await command(world)
            child.process.send_signal(signal.SIGHUP)
        plant_issued(world, issuer)
        await stop_and_restore(world)
        plant_keys(world)
    world.written()
    lines = [json.loads(line) for line in child.log.read_text().splitlines()]
    seen = {line["event"] for line in lines}
    assert {"run_accepted", "run_ended", "request_failed", "refresh_failed"} <= seen
    assert len(world.canaries) > 30
    assert world.leaks() == {}
    keys = {world.canaries.plant(name) for name in world.canaries.those("account key")}
    assert len(keys) == 3
    check_received(world, server, keys | set(issuer.book.accesses))
    assert keys <= {credential for credential, _ in server.received}


async def test_no_canary_leaves_a_gateway_whose_credential_a_command_prints(world: World) -> None:
    printed = world.canaries.plant("output of a command")
    secret = world.canaries.plant("secret among the words of a command")
    command = json.dumps(["sh", "-c", f"printf {printed}", secret])
    async with upstream(world) as server:
        world.environment["HANDRAIL_UPSTREAM_API_KEY"] = ""
        world.config(f"[upstream]\nbearer_command = {command}\n[background]\nenabled = true\n")
        async with gateway(world, "--background"):
            plant_keys(world)
            for status in (200, *STATUSES):
                await world.response(f"status-{status}" if status > 200 else "m")
            for how in STREAMS:
                await world.response(f"stream-{how}", stream=True)
            await world.response("stream-failed", background=True)
            for arguments in ("config explain", "config explain --json", "accounts best"):
                await world.on_data(*arguments.split())
            admin = {"api-key": world.canaries.plant("admin key", _admin_key(world))}
            await world.call("GET", "/admin/settings", headers=admin, but=())
            path = world.config(f'[upstream]\nbearer_command = ["false", "{secret}"]\n')
            await world.call("POST", "/admin/reload", headers=admin, but=())
            await world.response("m")
            path.write_text('[upstream]\nbearer_command = ["/nonexistent/{secret}"]\n')
            await world.call("POST", "/admin/reload", headers=admin, but=())
            await world.response("m")
    world.written()
    assert world.leaks() == {}
    check_received(world, server, {printed})


async def test_no_canary_is_in_what_a_crash_leaves(world: World) -> None:
    async with upstream(world):
        child = await breaking(world)
        plant_keys(world)
        for model in ("break-send", "break-read", "break-thread", "break-thread-break-send"):
            await world.response(model)
            await world.response(model, stream=True)
            await world.response(model, background=True)
        assert await asyncio.to_thread(child.stop) == 1
    log = (world.directory / "gateway.log").read_text()
    assert log.count("builtins.ValueError") >= 10
    assert log.rstrip().endswith("builtins.ValueError")  # what has ended it
    world.written()
    assert world.leaks() == {}


async def test_no_canary_is_in_what_a_start_that_fails_says(world: World) -> None:
    secret = world.canaries.plant("secret of a wrong setting")
    world.environment["HTTP_PROXY"] = f"http://ann:{secret}@:0"
    url = "http://upstream.test/v1"
    await world.run("serve", "--upstream", url)
    del world.environment["HTTP_PROXY"]
    for name, value in (
        ("HANDRAIL_UPSTREAM_URL", f"http://ann:{secret}@upstream.test/v1"),
        ("HANDRAIL_UPSTREAM_URL", f"http://upstream.test/v1?key={secret}"),
        ("HANDRAIL_PORT", secret),
        ("HANDRAIL_BACKGROUND_RESPONSES", secret),
        ("HANDRAIL_UPSTREAM_API_KEY", f"{secret}\u00e9"),
        ("HANDRAIL_CALLER_KEY", f"changeme-{secret}"),
        ("HANDRAIL_CALLER_KEY", f"a b {secret}"),
    ):
        await world.run("serve", environment={name: value})
        assert " (2)" in world.left[-1].where
        await world.run("config", "explain", environment={name: value})
    for wrong in WRONG:
        path = str(world.config(wrong.format(secret)))
        for words in ("serve", "config explain", "accounts list", "keys list", "usage"):
            await world.run(*words.split(), "--config", path)
    for flag in ("--port", "--upstream", "--profile", "--log-level", f"--{secret}"):
        await world.run("serve", flag, secret, but=["secret of a wrong setting"])
    assert world.leaks() == {}


async def test_no_canary_leaves_a_sign_in(world: World) -> None:
    del world.environment["HTTP_PROXY"]
    async with running() as issuer:
        world.config(f'[oauth]\nissuer = "{issuer.origin}"\n')
        account = world.canaries.plant("ChatGPT account id")
        address = world.canaries.plant("e-mail", form="ann.{}@example.org")
        issuer.who |= {"account_id": account, "email": address}
        code = world.canaries.plant("authorization code")
        state = world.canaries.plant("state of a sign-in")
        back = "http://127.0.0.1:1455/auth/callback"
        for pasted in (
            f"{back}?code={code}&state={state}",
            f"{back}?error=access_denied&error_description={code}%20{state}",
            f"{back}?error={code}&state={state}",
            code,
            f"{code}#{state}",
        ):
            await world.on_data("accounts", "login", "--paste", given=f"{pasted}\n" * 3)
        await world.on_data("accounts", "login", "--device-code")
        issuer.manners.echo = 1
        await world.on_data("accounts", "login", "--device-code")
        issuer.manners.deny = True
        await world.on_data("accounts", "login", "--device-code")
        for number, device in enumerate(issuer.devices):
            world.canaries.plant(f"device {number}", device)
        for number, request in enumerate(issuer.requests):
            for name in ("code", "code_verifier", "refresh_token"):
                if request["body"].get(name):
                    world.canaries.plant(f"{name} {number}", request["body"][name])
        await world.on_data("accounts", "show", "account-1")
        plant_issued(world, issuer)
        plant_keys(world)
    world.written()
    assert len(issuer.book.refreshes) == 1
    assert len(world.canaries) > 15
    assert world.leaks() == {}
