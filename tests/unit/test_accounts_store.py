"""Accounts in a file that several processes use: leases, versions, cool-downs, and no secret."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handrail.bootstrap.accounts import ACCOUNTS_KEY, open_accounts
from handrail.core.limits import Cooldown, Told, Window
from handrail.core.select import State
from handrail.errors import ConfigInvalid
from handrail.store.accounts import Busy, Leased, NewAccount, Renewal, Renewed
from handrail.store.sqlite_accounts import SqliteAccounts

NOW = 1_000.0
SECRET = b"canary-credential-8f2a"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteAccounts]:
    found = open_accounts(tmp_path)
    yield found
    found.close()


@pytest.fixture
def other(store: SqliteAccounts, tmp_path: Path) -> Iterator[SqliteAccounts]:
    """The same file, as another process has it open."""
    assert store
    found = open_accounts(tmp_path)
    yield found
    found.close()


def kept(store: SqliteAccounts, name: str = "work", **rest: Any) -> str:
    values: dict[str, Any] = {"target": "upstream", "kind": "oauth", "credential": SECRET}
    values["expires_at"] = 2_000.0
    return store.keep(NewAccount(name=name, **values | rest), now=NOW)


async def lease(store: SqliteAccounts, account: str, owner: str, **rest: Any) -> Any:
    values = {"version": 1, "now": NOW, "seconds": 60.0}
    return await store.lease(account, owner=owner, **values | rest)


async def test_what_is_kept_is_listed_without_its_credential(store: SqliteAccounts) -> None:
    account = kept(store, plan="plus")
    (row,) = await store.all(now=NOW)
    assert (row.id, row.name, row.kind, row.state, row.plan) == (
        account,
        "work",
        "oauth",
        State.ACTIVE,
        "plus",
    )
    assert b"canary" not in repr(row).encode()
    found = await store.credential(account)
    assert found is not None
    assert (found.credential, found.version) == (SECRET, 1)
    assert "canary" not in repr(found)


def test_no_byte_of_a_credential_is_in_a_file(store: SqliteAccounts, tmp_path: Path) -> None:
    kept(store)
    for file in tmp_path.iterdir():
        assert b"canary" not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0


async def test_only_one_may_refresh_at_a_time(store: SqliteAccounts, other: SqliteAccounts) -> None:
    account = kept(store)
    assert isinstance(await lease(store, account, "one"), Leased)
    assert await lease(other, account, "two") == Busy(until=NOW + 60)
    assert isinstance(await lease(store, account, "one"), Leased)
    await store.release(account, owner="two")
    assert isinstance(await lease(other, account, "two"), Busy)
    await store.release(account, owner="one")
    assert isinstance(await lease(other, account, "two"), Leased)


async def test_a_lease_of_a_process_that_died_ends_with_it(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    account = kept(store)
    await lease(store, account, "one")
    assert isinstance(await lease(other, account, "two"), Busy)
    store._locks.close()  # what the kernel does
    assert isinstance(await lease(other, account, "two"), Leased)
    assert isinstance(await lease(store, account, "one"), Busy)


async def test_whoever_comes_second_reads_what_the_first_has_kept(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    account = kept(store)
    await lease(store, account, "one")
    renewal = Renewal(credential=b"new", expires_at=9_000.0, plan="pro")
    assert await store.renew(account, version=1, renewal=renewal, now=NOW)
    second = await lease(other, account, "two")
    assert isinstance(second, Renewed)
    assert (second.kept.credential, second.kept.version) == (b"new", 2)
    (row,) = await other.all(now=NOW)
    assert (row.expires_at, row.plan, row.refreshed_at, row.version) == (9_000.0, "pro", NOW, 2)
    assert isinstance(await lease(other, account, "two", version=2), Leased)


async def test_renewals_of_two_processes_do_not_take_each_other_back(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    work, home = kept(store), kept(store, name="home")
    assert isinstance(await lease(store, work, "one"), Leased)
    assert isinstance(await lease(other, home, "two"), Leased)
    await other.renew(home, version=1, renewal=Renewal(credential=b"h2", expires_at=9.0), now=NOW)
    await store.renew(work, version=1, renewal=Renewal(credential=b"w2", expires_at=9.0), now=NOW)
    for either in (store, other):
        found = [await either.credential(account) for account in (work, home)]
        assert [each and each.credential for each in found] == [b"w2", b"h2"]


def test_what_is_kept_is_on_the_disk_before_anybody_uses_it(store: SqliteAccounts) -> None:
    full = 2
    assert store.file.now(lambda c: c.execute("pragma synchronous").fetchone()[0]) == full


async def test_a_renewal_that_comes_too_late_changes_nothing(store: SqliteAccounts) -> None:
    account = kept(store)
    kept(store, credential=b"signed in again")
    renewal = Renewal(credential=b"late", expires_at=None)
    assert not await store.renew(account, version=1, renewal=renewal, now=NOW)
    found = await store.credential(account)
    assert found is not None
    assert found.credential == b"signed in again"
    await store.end(account, version=1, why="late")
    assert (await store.all(now=NOW))[0].state is State.ACTIVE


async def test_an_account_that_has_ended_is_not_refreshed_until_somebody_signs_in(
    store: SqliteAccounts,
) -> None:
    account = kept(store)
    await store.end(account, version=1, why="withdrawn")
    (row,) = await store.all(now=NOW)
    assert (row.state, row.why_ended) == (State.ENDED, "withdrawn")
    assert await lease(store, account, "one") is None
    assert kept(store, credential=b"new") == account
    (row,) = await store.all(now=NOW)
    assert (row.state, row.why_ended, row.version) == (State.ACTIVE, None, 2)


async def test_of_an_account_that_is_gone_nothing_is_kept_but_what_it_alone_could_read(
    store: SqliteAccounts,
) -> None:
    account = kept(store)
    await store.cool(account, Cooldown(scope="", until=NOW + 9, reason="limit"))
    await store.saw_quota(account, Told(windows=(Window(name="p", used_percent=5),)), now=NOW)
    await store.made({b"digest": account}, until=NOW + 9)
    store.pin(account)
    store.remove(account)
    await store.cool(account, Cooldown(scope="", until=NOW + 9, reason="limit"))
    await store.saw_quota(account, Told(windows=(Window(name="p", used_percent=5),)), now=NOW)
    await store.made({b"digest": account}, until=NOW + 9)
    assert await store.all(now=NOW) == ()
    assert await store.pinned() is None
    assert await store.makers([b"digest"], now=NOW) == {b"digest": account}
    assert await store.credential(account) is None
    assert await lease(store, account, "one") is None


async def test_cool_downs_end_and_what_was_said_holds_over_a_guess(store: SqliteAccounts) -> None:
    account = kept(store)
    said = Cooldown(scope="m", until=NOW + 20, reason="limit")
    await store.cool(account, Cooldown(scope="m", until=NOW + 50, reason="guess", guessed=True))
    await store.cool(account, said)
    await store.cool(account, Cooldown(scope="m", until=NOW + 90, reason="guess", guessed=True))
    await store.cool(account, Cooldown(scope="m", until=NOW + 10, reason="sooner"))
    assert (await store.all(now=NOW))[0].cooldowns == (said,)
    assert (await store.all(now=NOW + 20))[0].cooldowns == ()
    await store.sweep(now=NOW + 20)
    assert (await store.all(now=NOW))[0].cooldowns == ()


async def test_an_operator_makes_an_account_usable_again(store: SqliteAccounts) -> None:
    account = kept(store)
    await store.cool(account, Cooldown(scope="", until=NOW + 50, reason="limit"))
    store.set_state(account, State.PAUSED)
    assert (await store.all(now=NOW))[0].state is State.PAUSED
    store.set_state(account, State.ACTIVE)
    store.set_weight(account, 2.5)
    (row,) = store.listed(now=NOW)
    assert (row.state, row.cooldowns, row.weight) == (State.ACTIVE, (), 2.5)


async def test_the_last_word_about_a_quota_holds(store: SqliteAccounts) -> None:
    account = kept(store)
    await store.saw_quota(
        account, Told(windows=(Window(name="p", used_percent=5, seconds=60),)), now=NOW
    )
    later = Window(name="p", used_percent=7.5, resets_at=NOW + 9, seen_at=NOW + 1)
    await store.saw_quota(account, Told(windows=(later,)), now=NOW + 1)
    assert (await store.all(now=NOW))[0].quota == (later,)


async def test_who_made_something_is_known_for_a_while(store: SqliteAccounts) -> None:
    account = kept(store)
    await store.made({b"a": account, b"b": account}, until=NOW + 9)
    assert await store.makers([b"unknown", b"b"], now=NOW) == {b"b": account}
    assert await store.makers([b"unknown"], now=NOW) == {}
    assert await store.makers([b"b"], now=NOW + 9) == {}


async def test_another_process_change_is_noticed(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    before = await store.changes()
    assert await store.changes() == before
    kept(other)
    assert await store.changes() != before


def test_a_name_is_of_one_account(store: SqliteAccounts) -> None:
    kept(store)
    with pytest.raises(ConfigInvalid, match="is an account of kind oauth"):
        kept(store, kind="key")
    with pytest.raises(ConfigInvalid, match="already"):
        store.declare({"work": "upstream"}, now=NOW)


def test_accounts_of_the_settings_come_and_go_with_them(store: SqliteAccounts) -> None:
    kept(store)
    store.declare({"a": "upstream", "b": "upstream"}, now=NOW)
    (a, b, _) = store.listed(now=NOW)
    store.set_state(a.id, State.PAUSED)
    store.declare({"a": "upstream"}, now=NOW)
    assert [(row.name, row.state) for row in store.listed(now=NOW)] == [
        ("a", State.PAUSED),
        ("work", State.ACTIVE),
    ]
    assert b.kind == "settings"


def test_without_its_key_the_file_is_refused(store: SqliteAccounts, tmp_path: Path) -> None:
    kept(store)
    (tmp_path / ACCOUNTS_KEY).unlink()
    with pytest.raises(ConfigInvalid, match="is missing but accounts"):
        open_accounts(tmp_path)


async def test_many_tasks_of_two_processes_get_one_lease(
    store: SqliteAccounts, other: SqliteAccounts
) -> None:
    account = kept(store)
    asked = [lease(s, account, f"{n}") for n, s in enumerate([store, other] * 20)]
    found = await asyncio.gather(*asked)
    assert sum(isinstance(each, Leased) for each in found) == 1


async def test_what_an_upstream_tells_stays_until_it_tells_otherwise(store: SqliteAccounts) -> None:
    account = kept(store)
    windows = tuple(
        Window(name=name, used_percent=5, about=about, seen_at=NOW)
        for name, about in (("codex-primary", None), ("codex-x-primary", "gpt-x"))
    )
    await store.saw_quota(account, Told(windows=windows, credits="9.5", plan="pro"), now=NOW)
    await store.saw_quota(account, Told(), now=NOW + 1)
    (row,) = await store.all(now=NOW)
    assert (row.quota, row.credits, row.plan) == (windows, "9.5", "pro")
    await store.sweep(now=NOW + 41 * 86_400)
    assert (await store.all(now=NOW))[0].quota == ()


async def test_how_often_an_account_was_resumed_is_counted(store: SqliteAccounts) -> None:
    account = kept(store)
    before = store.listed(now=NOW)[0].resumed
    store.set_state(account, State.PAUSED)
    assert store.listed(now=NOW)[0].resumed == before
    store.set_state(account, State.ACTIVE)
    await store.put(account, State.ACTIVE)
    assert store.listed(now=NOW)[0].resumed == before + 2
    kept(store)
    assert store.listed(now=NOW)[0].resumed == before + 3


@pytest.mark.parametrize("state", [State.PAUSED, State.DRAINING, State.ACTIVE])
async def test_no_word_of_an_operator_brings_an_ended_login_back(
    store: SqliteAccounts, other: SqliteAccounts, state: State
) -> None:
    """Whoever asks has looked a moment ago, when it had not ended yet."""
    account = kept(store)
    cooldown = Cooldown(scope="", until=NOW + 9, reason="limit")
    await store.cool(account, cooldown)
    await other.end(account, version=1, why="withdrawn")
    assert not await store.put(account, state)
    assert not store.set_state(account, state)
    (row,) = store.listed(now=NOW)
    assert (row.state, row.why_ended, row.resumed) == (State.ENDED, "withdrawn", 0)
    assert row.cooldowns == (cooldown,)
    store.remove(account)
    assert not await store.put(account, state)


async def test_a_key_of_the_settings_that_has_ended_is_resumed_and_nothing_else(
    store: SqliteAccounts,
) -> None:
    store.declare({"a": "upstream"}, now=NOW)
    (a,) = store.listed(now=NOW)
    await store.end(a.id, version=1, why="withdrawn")
    assert not await store.put(a.id, State.PAUSED)
    assert store.listed(now=NOW)[0].why_ended == "withdrawn"
    assert await store.put(a.id, State.ACTIVE)
    (row,) = store.listed(now=NOW)
    assert (row.state, row.why_ended) == (State.ACTIVE, None)
