"""Refreshers of two processes over one real file and a real issuer, when something goes wrong."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handrail.bootstrap.accounts import exchange_at, open_accounts
from handrail.core.credentials import OAUTH, pack, unpack
from handrail.core.select import State
from handrail.engine.refresh import BUSY_SECONDS, LEASE_SECONDS, Refresher, RefreshFailed
from handrail.store.accounts import Leased, NewAccount
from handrail.store.sqlite_accounts import SqliteAccounts
from tests.clocks import HandClock
from tests.integration.issuers import granted, running, settings_of
from tests.issuer import Issuer


class PassingClock(HandClock):
    """Whoever waits has waited."""

    async def sleep(self, seconds: float) -> None:
        """That much has passed, and everybody else had a turn."""
        self.passes(seconds)
        await asyncio.sleep(0)


class House:
    """A login of an issuer, and two processes that know it."""

    def __init__(self, issuer: Issuer, directory: Path) -> None:
        self.issuer = issuer
        self.clock = PassingClock()
        self.stores = [open_accounts(directory) for _ in range(2)]
        self.here, self.there = self.stores
        exchange = exchange_at(lambda: settings_of(issuer.origin), self.clock)
        self.refreshers = [
            Refresher(store, exchange, clock=self.clock, owner=f"process {number}")
            for number, store in enumerate(self.stores)
        ]
        self.account = self.sign_in()

    def sign_in(self) -> str:
        """Sign in, again if it is not the first time; the account's id."""
        grant = granted(self.issuer)
        account = NewAccount(
            name="plus",
            target="upstream",
            kind=OAUTH,
            credential=pack(grant),
            expires_at=grant.expires_at,
        )
        return self.there.keep(account, now=self.clock.now())

    def shown(self, number: int = 0) -> str:
        """The access credential that a process reads in the file."""
        kept = self.stores[number].credential_now(self.account)
        assert kept is not None
        return unpack(kept.credential).access

    def close(self) -> None:
        """Both processes end."""
        for store in self.stores:
            store.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with running() as issuer:
        found = House(issuer, tmp_path)
        yield found
        found.close()


async def leased(store: SqliteAccounts, house: House, owner: str) -> object:
    return await store.lease(
        house.account, version=1, owner=owner, now=house.clock.now(), seconds=LEASE_SECONDS
    )


async def test_a_process_that_hangs_keeps_its_lease_and_nobody_waits_for_ever(
    house: House,
) -> None:
    assert isinstance(await leased(house.there, house, "hangs"), Leased)
    begun = house.clock.monotonic()
    with pytest.raises(RefreshFailed) as caught:
        await house.refreshers[0].fresh(house.account, version=1)
    assert not caught.value.permanent
    assert BUSY_SECONDS <= house.clock.monotonic() - begun < BUSY_SECONDS + 1
    assert house.issuer.counts["requests"] == 0


async def test_an_issuer_that_is_ill_sees_no_credential_twice_at_once(house: House) -> None:
    house.issuer.manners.fail = 1
    house.issuer.manners.slow_after = 0.05
    asked = [each.fresh(house.account, version=1) for each in house.refreshers]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(each, RefreshFailed) for each in found) == 1
    assert house.issuer.counts["exchanges"] == 1
    assert house.issuer.counts["overlaps"] == house.issuer.counts["reuses"] == 0


async def test_an_end_that_cannot_be_written_leaves_the_lease_to_others(house: House) -> None:
    house.issuer.book.logins[-1].ended = "refresh_token_invalidated"
    refuse = (
        "create temp trigger no before update of why_ended on accounts begin "
        "select raise(abort, 'no'); end"
    )
    house.here.file.now(lambda c: c.execute(refuse))
    for refresher in house.refreshers:
        with pytest.raises(Exception, match=house.account):
            await refresher.fresh(house.account, version=1)
    assert house.there.listed(now=0.0)[0].state is State.ENDED
