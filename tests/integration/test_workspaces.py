"""Workspaces of a login: which one is called for, who changes it, and one that is deactivated."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from handrail.bootstrap.accounts import open_accounts
from handrail.bootstrap.pool import AccountBook
from handrail.cli.login import Way
from handrail.core.credentials import pack, unpack
from handrail.core.oauth import Grant
from handrail.engine.clock import SystemClock
from handrail.errors import ConfigInvalid
from handrail.settings.model import Settings
from handrail.store.accounts import Leased, Renewal
from tests.conftest import Scripted, Start, eventually, settings_for
from tests.integration.issuers import client_of, granted, running
from tests.integration.sign_ins import Stage
from tests.issuer import Issuer

GONE = {"error": {"message": "no", "code": "deactivated_workspace"}}


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running() as found:
        yield found


class House:
    """A data directory, and an upstream that notes for which workspace it is asked."""

    def __init__(self, issuer: Issuer, upstream: Scripted, directory: Path) -> None:
        self.issuer = issuer
        self.directory = directory
        self.asked: list[tuple[str, str]] = []
        self.gone: set[str] = set()
        upstream.server.gate = self._pass
        self._url = upstream.base_url("openai")
        (directory.parent / "data.toml").write_text(f'[oauth]\nissuer = "{issuer.origin}"\n')

    def _pass(self, request: web.Request) -> web.Response | None:
        shown = request.headers["authorization"].removeprefix("Bearer ")
        workspace = request.headers.get("chatgpt-account-id", "")
        self.asked.append((workspace, shown))
        if workspace in self.gone:
            return web.json_response(GONE, status=402)
        if self.issuer.book.is_live(shown):
            return None
        return web.json_response({"error": {"message": "expired"}}, status=401)

    @property
    def settings(self) -> Settings:
        return settings_for(self.directory, upstream_url=self._url)

    @property
    def workspaces(self) -> list[str]:
        """For which ones the upstream was asked, in their order."""
        return [workspace for workspace, _ in self.asked]

    def sign_in(self, grant: Grant, *, name: str | None = None) -> str:
        """Keep what a sign-in has given."""
        book = AccountBook(self.settings)
        try:
            return book.keep_grant(grant, name=name)
        finally:
            book.close()

    async def choose(self, name: str, workspace: str | None) -> None:
        """`handrail accounts workspace`."""
        book = AccountBook(self.settings)
        try:
            await book.set_workspace(name, workspace)
        finally:
            book.close()

    def rows(self) -> dict[str, dict[str, Any]]:
        """What `handrail accounts list --json` shows."""
        book = AccountBook(self.settings)
        try:
            return {each.name: dict(each.shown(pinned=False)) for each in book.listed()}
        finally:
            book.close()


@pytest.fixture
def house(issuer: Issuer, upstream: Scripted, tmp_path: Path) -> House:
    return House(issuer, upstream, tmp_path / "data")


async def ask(client: openai.AsyncOpenAI, **headers: str) -> Any:
    return await client.responses.create(model="m", input="hi", extra_headers=headers)


async def test_a_sign_in_asks_for_a_workspace_and_calls_for_it(issuer: Issuer) -> None:
    async with client_of(Stage(None, issuer).settings) as client:  # type: ignore[arg-type]
        stage = Stage(client, issuer, workspace="ws-team")
        await stage.run(Way.BROWSER)
        assert "allowed_workspace_id=ws-team" in stage.url
        assert (stage.kept[0].workspace, stage.kept[0].account_id) == ("ws-team", "acct-canary-1")
        plain = Stage(client, issuer)
        await plain.run(Way.BROWSER)
        assert "allowed_workspace_id" not in plain.url
        assert plain.kept[0].workspace is None
    assert "ws-team" not in repr(stage.kept)


async def test_two_workspaces_of_one_person_are_two_logins_with_credentials_of_their_own(
    house: House, start: Start
) -> None:
    def login(workspace: str | None = None) -> Grant:
        return replace(granted(house.issuer), workspace=workspace)

    assert house.sign_in(login()) == "account-1"
    assert house.sign_in(login("ws-team")) == "account-2"
    # Each once more takes its own place.
    assert house.sign_in(login("ws-team")) == "account-2"
    assert house.sign_in(login("acct-canary-1")) == "account-1"
    assert set(house.rows()) == {"account-1", "account-2"}
    async with start() as gateway, gateway.client() as client:
        for name in ("account-1", "account-2"):
            await ask(client, **{"handrail-account": name})
    assert house.workspaces == ["acct-canary-1", "ws-team"]
    assert len({shown for _, shown in house.asked}) == 2


async def test_a_workspace_is_chosen_beside_a_running_gateway_and_outlives_a_refresh(
    house: House, start: Start
) -> None:
    assert house.sign_in(granted(house.issuer), name="work") == "work"
    async with start() as gateway, gateway.client() as client:
        await ask(client)
        await house.choose("work", "ws-team")

        async def asked_for(workspace: str) -> None:
            async with asyncio.timeout(20):
                while not house.workspaces or house.workspaces[-1] != workspace:
                    await ask(client)

        await asked_for("ws-team")
        house.issuer.book.accesses.clear()  # the next call is refused, and refreshes
        await ask(client)
        assert house.issuer.counts["exchanges"] == 1
        assert house.workspaces[-2:] == ["ws-team", "ws-team"]
        await house.choose("work", None)
        await asked_for("acct-canary-1")
    # A new sign-in goes on for what was chosen.
    await house.choose("work", "ws-team")
    assert house.sign_in(granted(house.issuer), name="work") == "work"
    house.asked.clear()
    async with start() as gateway, gateway.client() as client:
        await ask(client)
    assert house.workspaces == ["ws-team"]
    assert "ws-team" not in json.dumps(house.rows())


async def test_a_choice_waits_for_a_refresh_that_is_under_way_and_loses_nothing_of_it(
    house: House,
) -> None:
    house.sign_in(granted(house.issuer), name="work")
    store = open_accounts(house.directory)
    clock = SystemClock()
    (account,) = store.listed(now=clock.now())
    leased = await store.lease(
        account.id, version=account.version, owner="gateway", now=clock.now(), seconds=60.0
    )
    assert isinstance(leased, Leased)
    choosing = asyncio.create_task(house.choose("work", "ws-team"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not choosing.done()
    following = replace(unpack(leased.kept.credential), refresh="the-next")
    renewal = Renewal(credential=pack(following), expires_at=None)
    assert await store.renew(account.id, version=account.version, renewal=renewal, now=clock.now())
    await choosing
    kept = await store.credential(account.id)
    assert kept is not None
    grant = unpack(kept.credential)
    assert (grant.refresh, grant.workspace) == ("the-next", "ws-team")
    store.close()


async def test_what_has_no_workspaces_or_has_ended_is_refused_in_a_line(house: House) -> None:
    house.sign_in(granted(house.issuer), name="work")
    book = AccountBook(house.settings)
    book.keep_key("sk-canary-key", name="key")
    with pytest.raises(ConfigInvalid, match="'key' is an API key, which has no workspaces"):
        await book.set_workspace("key", "ws-1")
    with pytest.raises(ConfigInvalid, match="a workspace is 1 to 128 letters"):
        await book.set_workspace("work", "ws 1")
    account = book.named("work")
    await book._store.end(account.id, version=account.version, why="withdrawn")
    with pytest.raises(ConfigInvalid, match="'work' has ended; sign in again"):
        await book.set_workspace("work", "ws-1")
    book.close()


async def test_an_account_whose_workspace_is_deactivated_is_set_aside_and_the_others_serve(
    house: House, start: Start
) -> None:
    house.sign_in(granted(house.issuer), name="one")
    with pytest.raises(ConfigInvalid, match=r"already, as 'one' \(another workspace of it needs"):
        house.sign_in(granted(house.issuer), name="two")
    house.sign_in(replace(granted(house.issuer), workspace="ws-gone"), name="two")
    house.gone = {"ws-gone"}
    async with start() as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client, **{"handrail-account": "two"})
        # It is no proof that the call did not run, so it is not made with the other one.
        assert caught.value.code == "upstream_credentials_rejected"
        assert house.workspaces == ["ws-gone"]
        for _ in range(5):
            assert (await ask(client)).status == "completed"
        assert house.workspaces[1:] == ["acct-canary-1"] * 5
        await eventually(lambda: house.rows()["two"]["cooldowns"])
        (cooldown,) = house.rows()["two"]["cooldowns"]
        assert cooldown["reason"] == "its workspace is deactivated, disabled or expired"
