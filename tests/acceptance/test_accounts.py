"""`handrail accounts` as processes of their own, beside a running gateway, over real files."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, HANDRAIL, ROOT, UPSTREAM_KEY, Child
from tests.accounts.upstream import bearer, upstream
from tests.integration.issuers import running
from tests.issuer import Issuer

KEYS = {"home": "sk-canary-home-0123456789", "spare": "sk-canary-spare-0123456789"}
LIMITED = {"error": {"message": "spent", "type": "usage_limit_reached", "resets_in_seconds": 900}}


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


class World:
    """A gateway with `[upstream.accounts] home`, an issuer, and an upstream that knows who asks."""

    def __init__(self, directory: Path, issuer: Issuer) -> None:
        self.directory = directory
        self.issuer = issuer
        self.asked: Counter[str] = Counter()
        self.limited: set[str] = set()
        self.said: list[str] = []
        self.url = ""
        self.gateway: Child | None = None
        (directory / "handrail.toml").write_text(
            f'[upstream.accounts]\nhome = "env:KEY_HOME"\n[oauth]\nissuer = "{issuer.origin}"\n'
        )
        self.environment = {"KEY_HOME": KEYS["home"], "HANDRAIL_UPSTREAM_API_KEY": ""}

    async def judge(self, request: web.Request) -> web.Response | None:
        """Whoever asks must be known."""
        shown = bearer(request)
        known = {key: name for name, key in KEYS.items()}
        name = known.get(shown) or request.headers.get("chatgpt-account-id", "nobody")
        if shown not in known and not self.issuer.book.is_live(shown):
            return web.json_response({"error": {"message": f"unknown: {shown}"}}, status=401)
        self.asked[str(name)] += 1
        if name in self.limited:
            return web.json_response(LIMITED, status=429)
        return None

    def grant(self, number: int, *, email: str = "ann.canary@example.com") -> dict[str, Any]:
        """What somebody who has signed in elsewhere has."""
        login = self.issuer.book.login(email, f"acct-canary-{number}", "plus")
        return self.issuer.book.grant(login)

    def pool(self) -> dict[str, Any]:
        """An accounts file of codex-multi-auth, with what it may hold."""
        granted = [self.grant(1), self.grant(2, email="bob.canary@example.com")]
        rows: list[dict[str, Any]] = [
            {
                "recordId": f"canary-record-{number}",
                "accountId": f"acct-canary-{number}",
                "accountIdSource": "token",
                "email": "ann.canary@example.com",
                "refreshToken": grant["refresh_token"],
                "accessToken": grant["access_token"],
                "expiresAt": int((self.issuer.book.now() + 3_600) * 1_000),
                "addedAt": 1,
                "workspaces": [{"id": "canary-workspace", "enabled": True}],
            }
            for number, grant in enumerate(granted, 1)
        ]
        rows[0]["label"] = "work"
        rows[1]["enabled"] = False
        ended = {"refreshToken": "rt-canary-ended", "authInvalidatedAt": 5}
        return {
            "version": 3,
            "accounts": [*rows, rows[0], ended],
            "activeIndex": 0,
            "activeIndexByFamily": {"gpt-5.2": 1},
            "pinnedAccountIndex": 0,
        }

    def official(self, **tokens: Any) -> dict[str, Any]:
        """An auth.json of Codex CLI."""
        grant = self.grant(3)
        names = ("id_token", "access_token", "refresh_token")
        taken = {name: grant[name] for name in names}
        return {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": {**taken, **tokens}}

    def file(self, name: str, said: Any) -> str:
        path = self.directory / name
        path.write_text(json.dumps(said))
        return str(path)

    async def run(self, word: str, *arguments: str, given: str = "", status: int = 0) -> Done:
        """One command, and that it ends so."""
        flags = ["--data-dir", str(self.directory / "data")]
        flags += ["--config", str(self.directory / "handrail.toml")]
        process = await asyncio.create_subprocess_exec(
            *HANDRAIL,
            "accounts",
            word,
            *flags,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                "HANDRAIL_UPSTREAM_URL": self.url,
                **self.environment,
            },
        )
        out, err = await process.communicate(given.encode())
        done = Done(status=process.returncode or 0, out=out.decode(), err=err.decode())
        self.said += [done.out, done.err]
        assert done.status == status, (word, done)
        return done

    async def listed(self) -> dict[str, dict[str, Any]]:
        """All accounts by name."""
        rows = json.loads((await self.run("list", "--json")).out)["accounts"]
        return {row["name"]: row for row in rows}

    async def ask(self, **headers: str) -> None:
        """One response."""
        assert self.gateway is not None
        async with openai.AsyncOpenAI(
            base_url=self.gateway.url, api_key=CALLER_KEY, max_retries=0, default_headers=headers
        ) as client:
            await client.responses.create(model="m", input="hi")

    async def refused(self, **headers: str) -> openai.APIStatusError:
        """One response that is refused."""
        with pytest.raises(openai.APIStatusError) as caught:
            await self.ask(**headers)
        error = caught.value
        self.said += [error.response.text, str(error.response.headers)]
        return error

    async def served(self, *, by: set[str]) -> None:
        """Wait until all calls are made with these, which takes a second at the most."""
        async with asyncio.timeout(20):
            while True:
                before = Counter(self.asked)
                for _ in range(len(by) * 2):
                    await self.ask()
                if set(self.asked - before) == by:
                    return

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Child]:
        """The gateway, until the block is left."""
        config = str(self.directory / "handrail.toml")
        self.gateway = await asyncio.to_thread(
            processes.gateway,
            self.directory,
            *("--port", "0", "--log-level", "debug", "--config", config),
            upstream=self.url,
            environment=self.environment,
        )
        try:
            yield self.gateway
        finally:
            await asyncio.to_thread(self.gateway.stop)

    def written(self) -> dict[str, bytes]:
        """Every file of the data directory, and the gateway's log."""
        files = [*(self.directory / "data").rglob("*"), self.directory / "gateway.log"]
        return {path.name: path.read_bytes() for path in files if path.is_file()}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running() as issuer:
        found = World(tmp_path, issuer)
        async with upstream(found.judge) as url:
            found.url = url
            yield found


async def test_accounts_come_beside_a_running_gateway(world: World) -> None:
    async with world.started():
        await world.served(by={"home"})
        done = await world.run("add", "--name", "spare", given=KEYS["spare"] + "\n")
        assert done.out.endswith("The account is called 'spare'.\n")
        await world.served(by={"home", "spare"})
        path = world.file("accounts.json", world.pool())
        before = Path(path).read_bytes()
        done = await world.run("import", path)
        assert Path(path).read_bytes() == before
        lines = done.out.splitlines()
        assert lines[:2] == ["work: imported.", "account-1: imported."]
        assert "From now on Handrail refreshes these logins." in lines[2]
        assert "accounts[2]: is the same login as accounts[0]." in done.err
        assert "accounts[3]: its login has ended" in done.err
        rows = await world.listed()
        assert {name: (row["kind"], row["state"]) for name, row in rows.items()} == {
            "home": ("settings", "active"),
            "spare": ("key", "active"),
            "work": ("oauth", "active"),
            "account-1": ("oauth", "paused"),  # it was switched off there
        }
        assert rows["work"]["plan"] == "plus"
        await world.served(by={"home", "spare", "acct-canary-1"})


async def test_accounts_are_looked_after_beside_a_running_gateway(world: World) -> None:
    await world.run("add", "--name", "spare", given=KEYS["spare"])
    await world.run("import", world.file("accounts.json", world.pool()))
    async with world.started():
        await world.run("pause", "home")
        await world.run("drain", "spare")
        await world.served(by={"acct-canary-1"})
        text = (await world.run("list")).out
        assert "home  settings  paused" in text
        assert "spare  key  draining" in text
        best = (await world.run("best", "--model", "m")).out
        assert best.startswith("work: the only one that may be used\n")
        assert "  not home: paused\n" in best
        assert "  not spare: draining\n" in best

        for name in ("home", "spare", "account-1"):
            await world.run("resume", name)
        await world.run("pin", "spare")
        await world.served(by={"spare"})
        assert json.loads((await world.run("show", "spare")).out)["pinned"]
        assert (await world.run("best")).out.startswith("spare: the operator pinned it\n")
        await world.run("unpin")
        await world.run("weight", "home", "3")
        assert json.loads((await world.run("show", "home")).out)["weight"] == 3.0
        await world.run("weight", "home", "1")
        done = await world.run("tag", "spare", "eu", "lab")
        assert done.out == "spare: tags eu lab.\n"
        assert "spare  key  active  tags eu lab\n" in (await world.run("list")).out
        assert (await world.run("untag", "spare", "eu", "lab")).out == "spare: no tags.\n"
        await world.run("tag", "home", "eu", status=2)
        await world.run("remove", "account-1")
        await world.run("remove", "spare")
        await world.served(by={"home", "acct-canary-1"})
        assert set(await world.listed()) == {"home", "work"}


async def test_check_tells_which_account_cannot_be_used(world: World) -> None:
    await world.run("add", "--name", "spare", given=KEYS["spare"])
    await world.run("add", "--name", "wrong", given="sk-canary-wrong-0123456789")
    await world.run("import", world.file("auth.json", world.official()))
    done = await world.run("check", "home", "spare", "account-1")
    assert sorted(done.out.splitlines()) == ["account-1: ok", "home: ok", "spare: ok"]
    done = await world.run("check", status=1)
    assert "wrong: upstream_credentials_rejected" in done.out
    assert "home: ok" in done.out
    world.limited = {"spare"}
    assert "spare: " in (await world.run("check", "spare", status=1)).out
    await world.run("check", "nobody", status=2)
    assert not [text for text in world.said if "canary" in text]


async def test_a_file_that_cannot_be_taken_is_told_in_a_line_and_changes_nothing(
    world: World,
) -> None:
    theirs = world.official(oauth_provenance={"issuer": "https://canary.example"})
    wrong = {
        "theirs.json": (theirs, "tokens: was granted by another issuer than oauth.issuer names."),
        "other.json": ({"canary": 1}, "neither an auth.json"),
        "ended.json": (
            {"version": 3, "accounts": [{"refreshToken": "rt-canary", "authInvalidatedAt": 1}]},
            "accounts[0]: its login has ended",
        ),
        "old.json": ({"version": 1, "accounts": []}, "version: only 3"),
    }
    for name, (said, words) in wrong.items():
        path = world.file(name, said)
        before = Path(path).read_bytes()
        done = await world.run("import", path, status=1)
        assert words in done.err
        assert len(done.err.splitlines()) == 1
        assert Path(path).read_bytes() == before
    assert set(await world.listed()) == {"home"}
    mine = world.official(oauth_provenance={"issuer": f"{world.issuer.origin}/"})
    path = world.file("mine.json", mine)
    assert (await world.run("import", path)).out.startswith("account-1: imported.\n")
    # The same once more takes its place.
    assert (await world.run("import", path)).out.startswith("account-1: imported.\n")
    assert set(await world.listed()) == {"home", "account-1"}


async def test_nothing_of_an_account_is_shown_or_kept_in_the_clear(world: World) -> None:
    async with world.started():
        await world.run("add", "--name", "spare", given=KEYS["spare"])
        world.issuer.book.lifetime = 3_600.0
        await world.run("import", world.file("accounts.json", world.pool()))
        await world.run("import", world.file("auth.json", world.official()))
        await world.served(by={"home", "spare", "acct-canary-1", "acct-canary-3"})
        for word in ("list", "best"):
            await world.run(word)
        for name in await world.listed():
            await world.run("show", name)
        assert "account-1: paused, so it was not asked\n" in (await world.run("check")).out
        await world.run("add", "--name", "spare", given="two canary words", status=2)
        assert "called '[redacted]'" in (await world.run("show", KEYS["home"], status=2)).err
        world.limited = {"home", "spare", "acct-canary-1", "acct-canary-3"}
        error = await world.refused()
        assert error.status_code == 429
        assert 800 < float(error.response.headers["retry-after"]) <= 901
        world.issuer.book.accesses.clear()
        await world.refused(**{"handrail-account": "work"})
        await world.run("remove", "work")
    secrets = [*KEYS.values(), UPSTREAM_KEY, "canary", "@example.com", "eyJ"]
    shown = "\n".join(world.said)
    assert [secret for secret in secrets if secret in shown] == []
    for name, data in world.written().items():
        assert [secret for secret in secrets if secret.encode() in data] == [], name
