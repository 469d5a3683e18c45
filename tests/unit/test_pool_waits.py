"""Requests that wait for a refresh: what has become of their account by then is looked at again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from handrail.core.budgets import Budget, Totals, Window
from handrail.core.credentials import pack
from handrail.core.oauth import Grant
from handrail.core.select import State, Wants
from handrail.core.upstream_errors import refusal
from handrail.engine.accounts import Pool
from handrail.engine.budgets import Budgets, settle
from handrail.engine.single import NoAccount, Taken
from handrail.store.accounts import Renewal
from tests.unit.test_pool import House

TOLD = refusal(429, {"retry-after": "3600"}, b'{"error":{"message":"no"}}', now=0.0)


class Issuer:
    """Answers when it is let, and says when it was asked."""

    def __init__(self, house: House) -> None:
        self.asked = asyncio.Event()
        self.may = asyncio.Event()
        self._house = house

    async def __call__(self, credential: bytes) -> Renewal:
        """The port."""
        self.asked.set()
        await self.may.wait()
        ends = self._house.clock.now() + 3_600
        grant = Grant(access="new", refresh="r-new", expires_at=ends)
        return Renewal(credential=pack(grant), expires_at=ends)


class Waiting:
    """A pool whose one login is being refreshed, and calls that wait for it."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.issuer = Issuer(house)
        self.pool: Pool = house.pool_with(self.issuer)
        self.calls: list[asyncio.Task[Taken]] = []

    async def begin(self, count: int) -> None:
        await self.pool.follow()
        for _ in range(count):
            work = self.pool.take(self.house.target, Wants(), model="m")
            self.calls.append(asyncio.create_task(work))
        asked = asyncio.create_task(self.issuer.asked.wait())
        await asyncio.wait([asked, *self.calls], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()

    async def end(self) -> list[Taken | BaseException]:
        self.issuer.may.set()
        found = await asyncio.gather(*self.calls, return_exceptions=True)
        await self.pool.settle()
        return found


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[Waiting]:
    house = House(tmp_path / "data")
    house.login("login")
    yield Waiting(house)
    house.store.close()
    house.other.close()


async def test_those_who_wait_for_one_refresh_share_the_budget_of_its_account(
    waiting: Waiting,
) -> None:
    budgets = Budgets(now=waiting.house.clock.now)
    only_one = Budget(
        name="b",
        window=Window.DAY,
        account="login",
        max_requests=1,
        reserve=Totals(requests=1),
    )
    budgets.install(budgets.coming([only_one], ZoneInfo("UTC")))
    settle(budgets.in_force, {sums.window.start: () for sums in budgets.in_force}, ())
    waiting.pool.heed(budgets.of_account)
    await waiting.begin(50)
    found = await waiting.end()
    assert [each.name for each in found if isinstance(each, Taken)] == ["login"]
    assert sum(isinstance(each, NoAccount) for each in found) == 49


async def test_an_account_that_is_limited_during_the_wait_is_not_used(waiting: Waiting) -> None:
    await waiting.begin(1)
    (account,) = waiting.pool.known()
    before = Taken(account=account.id, name="login", shown=None, model="m")
    await waiting.pool.failed(before, TOLD, target=waiting.house.target, model="m")
    (found,) = await waiting.end()
    assert isinstance(found, NoAccount)
    assert found.fault.retry_after == 3_600.0
    assert waiting.pool.view(account)[1] == 0


@pytest.mark.parametrize("state", [State.PAUSED, State.DRAINING])
async def test_what_the_operator_wants_meanwhile_holds_for_those_who_wait(
    waiting: Waiting, state: State
) -> None:
    await waiting.begin(3)
    (account,) = waiting.pool.known()
    waiting.house.other.set_state(account.id, state)
    await waiting.pool.follow()
    await waiting.house.with_keys("key")
    await waiting.pool.follow()
    names = [each.name for each in await waiting.end() if isinstance(each, Taken)]
    assert names == ["key"] * 3


async def test_an_account_that_is_removed_during_the_wait_is_not_used(waiting: Waiting) -> None:
    await waiting.begin(1)
    waiting.house.other.remove(waiting.pool.known()[0].id)
    await waiting.pool.follow()
    (found,) = await waiting.end()
    assert isinstance(found, Exception)


async def test_those_who_wait_count_as_calls_so_that_others_go_elsewhere(waiting: Waiting) -> None:
    await waiting.house.with_keys("key")
    await waiting.begin(4)
    names = [each.name for each in await waiting.end() if isinstance(each, Taken)]
    assert sorted(names) == ["key", "key", "login", "login"]
