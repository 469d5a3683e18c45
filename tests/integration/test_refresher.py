"""Refreshers of two processes over one real file and a real issuer, when something goes wrong."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handrail.bootstrap.accounts import exchange_at, open_accounts
from handrail.core.credentials import OAUTH, pack, unpack
from handrail.core.select import State, Strategy, Wants
from handrail.core.upstream_errors import refusal
from handrail.engine.accounts import Pool
from handrail.engine.refresh import (
    BUSY_SECONDS,
    LEASE_SECONDS,
    AccountEnded,
    Refresher,
    RefreshFailed,
)
from handrail.errors import StoreFailed
from handrail.store.accounts import Leased, NewAccount
from handrail.store.sqlite_accounts import SqliteAccounts
from tests.clocks import HandClock
from tests.conformance.upstream_stub import target
from tests.conftest import eventually
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


REFUSE = """
create temp trigger no_renewal before update of credential on accounts
begin select raise(abort, 'no'); end
"""


def disk(store: SqliteAccounts, *, takes: bool) -> None:
    """From now on the disk takes what this process renews, or does not."""
    store.file.now(lambda c: c.execute("drop trigger no_renewal" if takes else REFUSE))


async def granted_but_not_kept(house: House) -> str:
    """The first process has a credential that its disk did not take for half a minute."""
    disk(house.here, takes=False)
    kept = await house.refreshers[0].fresh(house.account, version=1)
    assert kept.version == 2
    return unpack(kept.credential).access


async def test_what_the_disk_does_not_take_serves_this_process_and_is_not_asked_for_again(
    house: House,
) -> None:
    access = await granted_but_not_kept(house)
    assert house.issuer.book.is_live(access)
    again = await house.refreshers[0].fresh(house.account, version=1)
    assert unpack(again.credential).access == access
    with pytest.raises(RefreshFailed):  # the other process has only what is spent
        await house.refreshers[1].fresh(house.account, version=1)
    assert house.issuer.counts["requests"] == 1


async def test_what_the_disk_did_not_take_is_written_as_soon_as_it_does(house: House) -> None:
    access = await granted_but_not_kept(house)
    assert await house.refreshers[0].save() == []
    assert house.shown(1) != access
    disk(house.here, takes=True)
    assert await house.refreshers[0].save() == []
    assert house.shown(1) == access
    kept = await house.refreshers[1].fresh(house.account, version=1)
    assert unpack(kept.credential).access == access
    assert house.issuer.counts["requests"] == 1


async def test_nothing_is_asked_of_an_issuer_before_the_last_answer_is_kept(house: House) -> None:
    access = await granted_but_not_kept(house)
    with pytest.raises(StoreFailed):
        await house.refreshers[0].fresh(house.account, version=2)
    assert house.issuer.counts["requests"] == 1
    disk(house.here, takes=True)
    kept = await house.refreshers[0].fresh(house.account, version=2)
    assert (kept.version, house.issuer.counts["exchanges"]) == (3, 2)
    assert unpack(kept.credential).access == house.shown(1) != access
    assert house.issuer.counts["reuses"] == 0


async def test_a_process_that_ends_keeps_what_it_could_not_before(house: House) -> None:
    access = await granted_but_not_kept(house)
    disk(house.here, takes=True)
    await house.refreshers[0].settle(seconds=5.0)
    assert house.shown(1) == access


async def test_a_process_ends_although_its_disk_takes_nothing(house: House) -> None:
    access = await granted_but_not_kept(house)
    await house.refreshers[0].settle(seconds=0.05)
    assert house.shown(1) != access


async def test_of_what_could_not_be_kept_a_sign_in_elsewhere_is_told(house: House) -> None:
    access = await granted_but_not_kept(house)
    house.sign_in()
    disk(house.here, takes=True)
    assert await house.refreshers[0].save() == [house.account]
    assert house.shown() != access
    assert await house.refreshers[0].save() == []
    await granted_but_not_kept_again(house)
    house.there.remove(house.account)
    assert await house.refreshers[0].save() == [house.account]


async def granted_but_not_kept_again(house: House) -> None:
    disk(house.here, takes=False)
    await house.refreshers[0].fresh(house.account, version=2)
    disk(house.here, takes=True)


async def test_who_signs_in_during_an_exchange_has_the_last_word(house: House) -> None:
    house.issuer.manners.slow_after = 0.1
    asking = asyncio.create_task(house.refreshers[0].fresh(house.account, version=1))
    await eventually(lambda: house.issuer.counts["exchanges"] == 1)
    house.sign_in()
    kept = await asking
    assert unpack(kept.credential).access == house.shown(1)


async def test_an_account_that_is_removed_during_an_exchange_has_ended(house: House) -> None:
    house.issuer.manners.slow_after = 0.1
    asking = asyncio.create_task(house.refreshers[0].fresh(house.account, version=1))
    await eventually(lambda: house.issuer.counts["exchanges"] == 1)
    house.there.remove(house.account)
    with pytest.raises(AccountEnded):
        await asking


async def test_calls_show_what_was_granted_until_somebody_signs_in(house: House) -> None:
    pool = Pool(
        house.here,
        house.refreshers[0],
        clock=house.clock,
        strategy=lambda: Strategy.HYBRID,
        spread=lambda: 0.5,
    )
    await pool.load()
    (at, first) = target(), house.shown()
    disk(house.here, takes=False)
    taken = await pool.take(at, Wants(), model="m")
    expired = refusal(401, {}, b'{"error":{"message":"expired"}}', now=0.0)
    await pool.failed(taken, expired, target=at, model="m")
    taken = await pool.take(at, Wants(), model="m")
    assert taken.shown is not None
    assert taken.shown.secret not in (first, house.shown())
    house.sign_in()
    disk(house.here, takes=True)
    await pool.follow()
    taken = await pool.take(at, Wants(), model="m")
    assert taken.shown is not None
    assert taken.shown.secret == house.shown()
    await pool.settle()
