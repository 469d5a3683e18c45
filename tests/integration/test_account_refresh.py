"""Logins behind a gateway: one exchange an expiry, and what becomes of one that has ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from handrail.bootstrap.accounts import open_accounts, pool_of
from handrail.core.credentials import OAUTH, pack
from handrail.core.select import Wants
from handrail.engine.clock import SystemClock
from handrail.settings.model import Settings
from handrail.store.accounts import NewAccount
from handrail.store.sqlite_accounts import SqliteAccounts
from tests.conftest import Running, Scripted, Start, eventually, settings_for
from tests.integration.issuers import granted, running
from tests.issuer import Issuer

SOON = 30.0
"""Seconds that an access credential is good for: less than the gateway's margin."""


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running() as found:
        yield found


class House:
    """A data directory with logins, an issuer, and an upstream that takes what that has granted."""

    def __init__(self, start: Start, issuer: Issuer, upstream: Scripted, directory: Path) -> None:
        self._start = start
        self.issuer = issuer
        self.directory = directory
        self.asked: list[str] = []
        upstream.server.gate = self._pass
        self._url = upstream.base_url("openai")
        (directory.parent / "data.toml").write_text(f'[oauth]\nissuer = "{issuer.origin}"\n')

    def _pass(self, request: web.Request) -> web.Response | None:
        shown = request.headers["authorization"].removeprefix("Bearer ")
        self.asked.append(request.headers.get("chatgpt-account-id", ""))
        if self.issuer.book.is_live(shown):
            return None
        return web.json_response({"error": {"message": "expired"}}, status=401)

    @property
    def settings(self) -> Settings:
        """Read as the gateway reads them."""
        return settings_for(self.directory, upstream_url=self._url)

    def store(self) -> SqliteAccounts:
        """The accounts, as another process has them open."""
        return open_accounts(self.directory)

    def login(self, name: str, *, lifetime: float, ago: float = 3_600.0) -> None:
        """Sign in, `ago` seconds before now; the credential is good for `lifetime` from now on."""
        self.issuer.book.lifetime = lifetime
        grant = granted(self.issuer)
        store = self.store()
        store.keep(
            NewAccount(
                name=name,
                target="upstream",
                kind=OAUTH,
                credential=pack(grant),
                expires_at=grant.expires_at,
            ),
            now=SystemClock().now() - ago,
        )
        store.close()

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[tuple[Running, openai.AsyncOpenAI]]:
        """The gateway, and a client of it."""
        async with self._start() as gateway, gateway.client() as client:
            yield gateway, client


@pytest.fixture
def house(start: Start, issuer: Issuer, upstream: Scripted, tmp_path: Path) -> House:
    return House(start, issuer, upstream, tmp_path / "data")


async def ask(client: openai.AsyncOpenAI) -> Any:
    return await client.responses.create(model="m", input="hi")


async def test_a_login_that_lasts_is_used_as_it_is(house: House) -> None:
    house.login("plus", lifetime=3_600)
    async with house.gateway() as (_, client):
        assert (await ask(client)).status == "completed"
    assert house.issuer.counts["requests"] == 0
    assert house.asked == ["acct-canary-1"]


async def test_a_credential_that_is_good_for_seconds_only_is_not_refreshed_with_every_call(
    house: House,
) -> None:
    house.login("plus", lifetime=SOON, ago=0.0)
    async with house.gateway() as (_, client):
        for _ in range(5):
            assert (await ask(client)).status == "completed"
    assert house.issuer.counts["requests"] == 0


async def test_fifty_requests_at_an_expiry_make_one_exchange(house: House) -> None:
    house.login("plus", lifetime=SOON)
    house.issuer.book.lifetime = 3_600
    house.issuer.manners.slow_after = 0.2
    async with house.gateway() as (_, client):
        answers = await asyncio.gather(*(ask(client) for _ in range(50)))
    assert all(answer.status == "completed" for answer in answers)
    assert house.issuer.counts["exchanges"] == house.issuer.counts["requests"] == 1


async def test_several_processes_at_an_expiry_make_one_exchange(house: House) -> None:
    house.login("plus", lifetime=SOON)
    house.issuer.book.lifetime = 3_600
    house.issuer.manners.slow_after = 0.2
    stores = [house.store() for _ in range(4)]
    settings = house.settings
    pools = [await pool_of(s, settings=lambda: settings, clock=SystemClock()) for s in stores]
    taken = await asyncio.gather(
        *(pool.take(settings.target, Wants(), model="m") for pool in pools * 5)
    )
    shown = {each.shown.secret for each in taken if each.shown is not None}
    assert len(shown) == 1
    assert house.issuer.book.is_live(shown.pop())
    assert house.issuer.counts["requests"] == 1
    for store in stores:
        store.close()


async def test_a_login_is_refreshed_before_anybody_needs_it(house: House) -> None:
    house.login("plus", lifetime=100)
    house.issuer.book.lifetime = 3_600
    async with house.gateway() as (_, client):
        await eventually(lambda: house.issuer.counts["exchanges"] == 1)
        assert (await ask(client)).status == "completed"
    assert house.issuer.counts["requests"] == 1


async def test_a_refused_credential_is_renewed_once_and_the_caller_notices_nothing(
    house: House,
) -> None:
    house.login("plus", lifetime=3_600)
    for access in list(house.issuer.book.accesses):
        del house.issuer.book.accesses[access]
    async with house.gateway() as (_, client):
        assert (await ask(client)).status == "completed"
    assert house.issuer.counts["exchanges"] == 1
    assert len(house.asked) == 2


async def test_an_exchange_whose_caller_leaves_is_kept_all_the_same(house: House) -> None:
    house.login("plus", lifetime=SOON)
    house.issuer.book.lifetime = 3_600
    house.issuer.manners.slow_after = 0.3
    async with house.gateway() as (_, client):
        asking = asyncio.ensure_future(ask(client))
        await eventually(lambda: house.issuer.counts["requests"] == 1)
        asking.cancel()
        assert (await ask(client)).status == "completed"
    assert house.issuer.counts["requests"] == 1


async def test_a_login_that_was_ended_is_set_aside_and_the_others_serve(house: House) -> None:
    house.login("plus", lifetime=SOON)
    house.issuer.book.logins[-1].ended = "refresh_token_invalidated"
    house.login("pro", lifetime=3_600)
    async with house.gateway() as (gateway, client):
        for _ in range(4):
            assert (await ask(client)).status == "completed"
        (plus, pro) = await gateway.gateway._accounts.all(now=0.0)
    assert (plus.state, pro.state) == ("ended", "active")
    assert "sign" in str(plus.why_ended)
    assert house.issuer.counts["refused"] == 1


async def test_when_the_only_login_has_ended_the_caller_hears_no_detail(house: House) -> None:
    house.login("plus", lifetime=SOON)
    house.issuer.book.logins[-1].ended = "refresh_token_expired"
    async with house.gateway() as (_, client):
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client)
    assert caught.value.code == "upstream_credentials_rejected"
    assert "plus" not in caught.value.response.text
    assert house.issuer.counts["requests"] == 1


async def test_an_issuer_that_is_ill_does_not_end_a_login(house: House) -> None:
    house.login("plus", lifetime=SOON)
    house.issuer.book.lifetime = 3_600
    house.issuer.manners.fail = 2
    async with house.gateway() as (_, client):
        # What it has is good for a while yet.
        assert (await ask(client)).status == "completed"
        assert (await ask(client)).status == "completed"
        assert (await ask(client)).status == "completed"
    assert house.issuer.counts["exchanges"] == 1


async def test_a_lost_answer_is_asked_for_once_more(house: House) -> None:
    house.login("plus", lifetime=SOON)
    house.issuer.book.lifetime = 3_600
    house.issuer.book.leeway = 60
    house.issuer.manners.lose = 1
    async with house.gateway() as (_, client):
        assert (await ask(client)).status == "completed"
    assert (house.issuer.counts["exchanges"], house.issuer.counts["repeats"]) == (1, 1)


async def test_after_a_sign_in_an_ended_login_serves_again_without_a_restart(house: House) -> None:
    house.login("plus", lifetime=SOON)
    house.issuer.book.logins[-1].ended = "refresh_token_expired"
    async with house.gateway() as (gateway, client):
        with pytest.raises(openai.InternalServerError):
            await ask(client)
        house.login("plus", lifetime=3_600)
        pool: Any = gateway.gateway._parts.accounts
        await eventually(lambda: pool._accounts[0].state == "active")
        assert (await ask(client)).status == "completed"
