"""An account that ends while its latest credential is not on the disk stays ended."""

from handrail.core.select import State
from handrail.engine.endings import Endings
from handrail.store.accounts import Renewal
from handrail.store.sqlite_accounts import SqliteAccounts
from tests.unit.test_accounts_store import NOW, kept, store

__all__ = ["store"]  # a fixture


async def test_the_end_of_an_unsaved_credential_is_written_after_it(store: SqliteAccounts) -> None:
    account = kept(store)
    (row,) = store.listed(now=NOW)
    endings = Endings(store)
    endings.hold(row, version=row.version + 1, why="withdrawn")
    await endings.write(but={account})
    assert store.listed(now=NOW)[0].state is State.ACTIVE
    await store.lease(account, version=row.version, owner="one", now=NOW, seconds=60)
    renewal = Renewal(credential=b"new", expires_at=NOW + 9)
    assert await store.renew(account, version=row.version, renewal=renewal, now=NOW)
    await endings.write(but=())
    assert store.listed(now=NOW)[0].state is State.ENDED


async def test_an_end_is_not_that_of_who_has_signed_in_meanwhile(store: SqliteAccounts) -> None:
    account = kept(store)
    (before,) = store.listed(now=NOW)
    endings = Endings(store)
    endings.hold(before, version=before.version + 1, why="withdrawn")
    kept(store)  # signed in again: the version is one more, and it is another start
    (after,) = store.listed(now=NOW)
    assert after.version == before.version + 1
    await endings.write(but=())
    assert store.listed(now=NOW)[0].state is State.ACTIVE
    assert account == after.id
