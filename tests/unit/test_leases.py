"""Who may refresh: one process at a time, whatever the clock says and however an exchange ends.

A refresh credential that is shown twice ends the whole login, so each of these is about two
processes (two open files) that want the same one.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.bootstrap.accounts import open_accounts
from handrail.core.select import State
from handrail.errors import Code, StoreFailed
from handrail.store.accounts import Busy, Leased, Renewal, Renewed
from handrail.store.sqlite_accounts import SqliteAccounts
from tests.unit.test_accounts_store import NOW, kept, lease, other, store

__all__ = ["other", "store"]  # fixtures


@pytest.fixture
def third(store: SqliteAccounts, tmp_path: Path) -> Iterator[SqliteAccounts]:
    """The same file, in one more process."""
    assert store
    found = open_accounts(tmp_path)
    yield found
    found.close()


async def asked_until_not_busy(store: SqliteAccounts, account: str) -> object:
    while True:
        found = await lease(store, account, "two")
        if not isinstance(found, Busy):
            return found


async def test_a_lease_that_is_over_is_not_given_away_while_its_holder_lives(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    """The wall clock has jumped, or the exchange takes longer than anybody thought."""
    account = kept(store)
    await lease(store, account, "one")
    assert await lease(other, account, "two", now=NOW + 59) == Busy(until=NOW + 60)
    assert await lease(other, account, "two", now=NOW + 600) == Busy(until=NOW + 600.1)
    await store.release(account, owner="one")
    assert isinstance(await lease(other, account, "two", now=NOW + 601), Leased)


async def test_an_exchange_that_failed_frees_the_lease_for_one_other_and_not_for_two(
    store: SqliteAccounts, other: SqliteAccounts, third: SqliteAccounts
) -> None:
    """The process that gives its lease back is too busy to do anything else just then."""
    account = kept(store)
    await lease(store, account, "one")
    found: list[object] = []
    releasing = asyncio.create_task(store.release(account, owner="one"))
    await asyncio.sleep(0)  # it is handed in, and this loop does nothing more for a while
    asking = threading.Thread(
        target=lambda: found.append(asyncio.run(asked_until_not_busy(other, account)))
    )
    asking.start()
    asking.join()
    await releasing
    assert isinstance(found[0], Leased)
    assert isinstance(await lease(third, account, "three"), Busy)
    assert isinstance(await lease(store, account, "one"), Busy)


async def test_a_lease_is_free_again_after_somebody_has_signed_in_meanwhile(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    account = kept(store)
    await lease(store, account, "one")
    kept(other, credential=b"signed in again")
    assert isinstance(await lease(other, account, "two", version=2), Busy)
    await store.release(account, owner="one")
    assert isinstance(await lease(other, account, "two", version=2), Leased)


async def test_a_renewal_that_came_too_late_frees_the_lease(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    account = kept(store)
    await lease(store, account, "one")
    kept(other, credential=b"signed in again")
    renewal = Renewal(credential=b"late", expires_at=None)
    assert not await store.renew(account, version=1, renewal=renewal, now=NOW)
    assert isinstance(await lease(other, account, "two", version=2), Leased)


async def test_an_end_that_came_too_late_does_not_free_a_lease_of_a_newer_credential(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    account = kept(store)
    kept(other, credential=b"signed in again")
    assert isinstance(await lease(store, account, "one", version=2), Leased)
    await store.end(account, version=1, why="withdrawn")
    assert isinstance(await lease(other, account, "two", version=2), Busy)


async def test_a_lease_of_the_old_credential_is_none_of_the_new_one(store: SqliteAccounts) -> None:
    """Both would be of this process; the first one's end must not free the second."""
    account = kept(store)
    await lease(store, account, "one")
    kept(store, credential=b"signed in again")
    assert isinstance(await lease(store, account, "one", version=2), Busy)
    await store.release(account, owner="one")
    assert isinstance(await lease(store, account, "one", version=2), Leased)


async def test_a_disk_that_does_not_take_a_release_leaves_the_lease_to_others(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    account = kept(store)
    await lease(store, account, "one")
    with Locked(store), pytest.raises(StoreFailed):
        await store.release(account, owner="one")
    assert isinstance(await lease(other, account, "two"), Leased)


async def test_a_disk_that_does_not_take_a_renewal_keeps_the_lease(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    """What was granted is not known to others yet, and what they know must not be shown again."""
    account = kept(store)
    await lease(store, account, "one")
    renewal = Renewal(credential=b"new", expires_at=None)
    with Locked(store), pytest.raises(StoreFailed):
        await store.renew(account, version=1, renewal=renewal, now=NOW)
    assert isinstance(await lease(other, account, "two", now=NOW + 600), Busy)
    assert await store.renew(account, version=1, renewal=renewal, now=NOW)
    assert isinstance(await lease(other, account, "two"), Renewed)


async def test_a_lease_that_could_not_be_written_is_nobodys(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    account = kept(store)
    refuse = "create temp trigger no before update on accounts begin select raise(abort, 'no'); end"
    store.file.now(lambda c: c.execute(refuse))
    with pytest.raises(StoreFailed):
        await lease(store, account, "one")
    assert isinstance(await lease(other, account, "two"), Leased)


async def test_where_no_lock_can_be_had_nobody_refreshes(
    store: SqliteAccounts, tmp_path: Path
) -> None:
    account = kept(store)
    (tmp_path / f"accounts.{account}.lock").mkdir()
    with pytest.raises(StoreFailed) as caught:
        await lease(store, account, "one")
    assert (caught.value.fault.code, caught.value.final) == (Code.STORE_UNAVAILABLE.value, False)
    assert "IsADirectoryError" in str(caught.value.detail)
    assert store.listed(now=NOW)[0].state is State.ACTIVE


class Locked:
    """Somebody else writes to the file all the time, and nobody waits long for that."""

    def __init__(self, store: SqliteAccounts) -> None:
        self._file = store.file
        self._other = sqlite3.connect(store.file.path, isolation_level=None)

    def __enter__(self) -> None:
        self._patience, self._file.patience = self._file.patience, 0.05
        self._other.execute("begin immediate")

    def __exit__(self, *_: object) -> None:
        self._file.patience = self._patience
        self._other.execute("rollback")
        self._other.close()
