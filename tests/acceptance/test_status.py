"""`handrail status` and `handrail why` as processes of their own, over real files and sockets."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, HANDRAIL, ROOT, Child
from tests.accounts.codex_backend import CodexBackend

KEYS = {"home": "sk-canary-home-0123456789", "work": "sk-canary-work-0123456789"}
SETTINGS = (
    '[upstream]\nprofile = "codex"\n[upstream.accounts]\nhome = "env:KEY_HOME"\n'
    'work = "env:KEY_WORK"\n[[budgets]]\nname = "small"\naccount = "home"\nwindow = "day"\n'
    "max_requests = 2\n"
)
WINDOW = {"limit_window_seconds": 18_000, "reset_after_seconds": 600}
LIMITED = {"error": {"message": "spent", "type": "usage_limit_reached", "resets_in_seconds": 900}}


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed."""
        return json.loads(self.out)


class Desk:
    """A data directory, a Codex backend, and the command."""

    def __init__(self, directory: Path, backend: CodexBackend) -> None:
        self.directory = directory
        self.backend = backend
        self.said: list[str] = []
        self.config = str(directory / "handrail.toml")
        (directory / "handrail.toml").write_text(SETTINGS)
        self.environment = {
            "HANDRAIL_UPSTREAM_URL": backend.url,
            **{f"KEY_{name.upper()}": key for name, key in KEYS.items()},
        }
        self.gateway: Child | None = None

    async def run(self, *arguments: str, status: int = 0) -> Done:
        """One command, and that it ends so."""
        flags = ["--data-dir", str(self.directory / "data"), "--config", self.config]
        process = await asyncio.create_subprocess_exec(
            *HANDRAIL,
            *arguments,
            *flags,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory), **self.environment},
        )
        out, err = await process.communicate()
        done = Done(status=process.returncode or 0, out=out.decode(), err=err.decode())
        self.said += [done.out, done.err]
        assert done.status == status, done
        return done

    async def ask(self, **headers: str) -> None:
        """One response of the gateway."""
        assert self.gateway is not None
        async with openai.AsyncOpenAI(
            base_url=self.gateway.url, api_key=CALLER_KEY, max_retries=0, default_headers=headers
        ) as client:
            await client.responses.create(model="gpt-5.4", input="hi")

    def gateway_url(self) -> str:
        """The base URL of the one that is running."""
        assert self.gateway is not None
        return self.gateway.url

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The gateway on a port that no setting names, until the block is left."""
        self.gateway = await asyncio.to_thread(
            processes.gateway,
            self.directory,
            *("--port", "0", "--config", self.config),
            upstream=self.backend.url,
            profile="codex",
            environment={**self.environment, "HANDRAIL_UPSTREAM_API_KEY": ""},
        )
        try:
            yield
        finally:
            await asyncio.to_thread(self.gateway.stop)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    backend = CodexBackend({key: name for name, key in KEYS.items()})
    async with backend.served():
        found = Desk(tmp_path, backend)
        yield found
    assert not [text for text in found.said if "canary" in text]


async def test_the_status_of_a_stopped_gateway_is_what_is_kept(desk: Desk) -> None:
    told = (await desk.run("status", "--json")).json
    assert told["gateway"]["state"] == "stopped"
    assert told["gateway"]["url"] is None
    assert [(row["name"], row["state"], row["running"]) for row in told["accounts"]] == [
        ("home", "active", None),
        ("work", "active", None),
    ]
    text = (await desk.run("status")).out
    assert text.startswith("gateway  stopped\ntarget   upstream  codex  http://127.0.0.1:")
    assert "No gateway is running here" in text


async def test_quotas_are_asked_for_at_the_usage_endpoint_and_kept(desk: Desk) -> None:
    desk.backend.usage["home"] = {
        "plan_type": "plus",
        "rate_limit": {"primary_window": {**WINDOW, "used_percent": 40}},
        "credits": {"has_credits": True, "unlimited": False, "balance": "9.5"},
        "additional_rate_limits": [
            {
                "metered_feature": "codex_bengalfox",
                "limit_name": "gpt-5.2-codex-sonic",
                "rate_limit": {"primary_window": {**WINDOW, "used_percent": 100}},
            }
        ],
    }
    desk.backend.usage["work"] = b"<html>"
    text = (await desk.run("status", "--live")).out
    assert "home  settings  active  plan plus  credits 9.5\n" in text
    assert "codex-primary  ████████░░░░░░░░░░░░  40 % used, begins anew " in text
    assert "codex-bengalfox-primary (gpt-5.2-codex-sonic)  ████████████████████  100 %" in text
    assert "no new word about its quota: what it answers cannot be read" in text
    assert desk.backend.asked["home", "/backend-api/wham/usage"] == 1

    kept = (await desk.run("status", "--json")).json["accounts"][0]
    primary = next(each for each in kept["quota"] if each["name"] == "codex-primary")
    assert (primary["used_percent"], primary["seconds"], primary["model"]) == (40.0, 18_000, None)
    # What one model has used up stands against that model alone.
    other = (await desk.run("why", "--model", "gpt-5.2-codex-sonic")).out
    assert other.startswith("work: the only one that may be used\n")
    assert "not home: its quota codex-bengalfox-primary is used to 100 %, until " in other
    assert (await desk.run("why", "--model", "gpt-5.4", "--account", "home")).status == 0


async def test_an_account_at_its_limit_is_asked_all_the_same_and_a_refusal_is_told(
    desk: Desk,
) -> None:
    desk.backend.refused["home"] = (429, LIMITED)
    async with desk.serving():
        await desk.ask()
        await desk.ask()
    assert desk.backend.asked["home", "/backend-api/codex/responses"] == 1
    told = (await desk.run("status", "--live", "--json")).json
    assert desk.backend.asked["home", "/backend-api/wham/usage"] == 1
    assert "usage_limit_reached" in json.dumps(told["not_asked"])
    (cooldown,) = told["accounts"][0]["cooldowns"]
    assert (cooldown["model"], cooldown["reason"]) == ("*", "usage_limit_reached")
    desk.backend.refused.clear()
    told = (await desk.run("status", "--live", "--json")).json
    assert told["not_asked"] == {}
    assert len(told["accounts"][0]["cooldowns"]) == 1  # the upstream's word holds until its end


async def test_a_paused_account_is_not_asked(desk: Desk) -> None:
    await desk.run("accounts", "pause", "home")
    told = (await desk.run("status", "--live", "--json")).json
    assert told["not_asked"] == {"home": "paused, so it was not asked"}
    assert not [path for name, path in desk.backend.asked if name == "home"]


async def test_a_running_gateway_tells_what_only_it_knows(desk: Desk) -> None:
    desk.backend.headers = {
        "x-codex-primary-used-percent": "12.5",
        "x-codex-primary-reset-after-seconds": "600",
    }
    async with desk.serving():
        for _ in range(4):
            await desk.ask()
        told = (await desk.run("status", "--json")).json
        assert told["gateway"]["state"] == "running"
        assert told["gateway"]["answers"]
        assert (told["gateway"]["store"], told["gateway"]["settings"]) == ("ok", "current")
        assert [row["running"] for row in told["accounts"]] == [0, 0]
        assert [row["quota"][0]["used_percent"] for row in told["accounts"]] == [12.5, 12.5]
        # A budget, which is in the ledger of the process that makes the calls.
        (obstacle,) = told["accounts"][0]["obstacles"]
        assert "budget" in obstacle["reason"]
        found = (await desk.run("why", "--model", "gpt-5.4", "--json")).json
        assert found["source"] == "gateway"
        (here,) = found["targets"]
        assert (here["account"], here["reason"]) == ("work", "the only one that may be used")
        assert "budget" in here["candidates"][0]["why_not"]
        text = (await desk.run("why", "--model", "gpt-5.4")).out
        assert text.startswith("work: the only one that may be used\n  not home: ")
        done = await desk.run("why", "--account", "home", status=1)
        assert done.out.startswith("none: the request demands it, but it cannot be used: ")
        assert "not work: another is set: the request demands it" in done.out
        await desk.run("why", "--account", "nobody", status=2)
        text = (await desk.run("status")).out
        assert text.startswith(f"gateway  running  at {desk.gateway_url()}  store ok")
    # It has gone, and with it what only it knew.
    found = (await desk.run("why", "--json")).json
    assert (found["source"], found["gateway"]) == ("store", "stopped")


async def test_a_look_never_keeps_a_gateway_from_starting(desk: Desk) -> None:
    looks = [asyncio.create_task(desk.run("why")) for _ in range(4)]
    for _ in range(3):
        async with desk.serving():
            await desk.ask()
    await asyncio.gather(*looks)


async def test_the_admin_key_is_told_to_nobody_who_took_a_dead_gateways_place(
    desk: Desk,
) -> None:
    async with desk.serving():
        pass
    shown: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(await reader.read(1_000))
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    (desk.directory / "data" / "gateway.url").write_text(f"http://127.0.0.1:{port}/v1\n")
    assert (await desk.run("status", "--json")).json["gateway"]["state"] == "stopped"
    assert shown == []
    server.close()
    await server.wait_closed()


async def test_a_check_keeps_what_the_usage_endpoint_says(desk: Desk) -> None:
    desk.backend.usage["home"] = {"rate_limit": {"primary_window": {**WINDOW, "used_percent": 3}}}
    desk.backend.usage["work"] = b"<html>"
    done = await desk.run("accounts", "check")
    assert done.out == "home: ok\nwork: ok, but its quota could not be asked for\n"
    row = (await desk.run("status", "--json")).json["accounts"][0]
    assert [each["used_percent"] for each in row["quota"]] == [3.0]


async def test_a_command_with_other_settings_takes_no_account_away_from_a_gateway(
    desk: Desk,
) -> None:
    other = desk.directory / "other.toml"
    other.write_text("")
    mine = desk.config
    async with desk.serving():
        desk.config = str(other)
        for word in ("status", "why"):
            await desk.run(word, "--json")
        await desk.run("accounts", "list")
        desk.config = mine
        rows = (await desk.run("status", "--json")).json["accounts"]
        assert [row["name"] for row in rows] == ["home", "work"]
