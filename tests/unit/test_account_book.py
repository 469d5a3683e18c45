"""What a person does with accounts: taken over once, under a name that can be typed."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from handrail.bootstrap.pool import AccountBook
from handrail.core.account_files import read_account_file
from handrail.core.select import State
from handrail.errors import ConfigInvalid
from tests.unit.core.jwts import of
from tests.unit.reading import KEYS, Read

WORK = {
    "accountId": "acct-canary",
    "email": "ann@canary.example",
    "label": "work",
    "refreshToken": "refresh-canary",
    "accessToken": of("acct-canary", "plus"),
}


@pytest.fixture
def book(read: Read) -> Iterator[AccountBook]:
    found = AccountBook(read(env={**KEYS}))
    yield found
    found.close()


def taken(book: AccountBook, *rows: dict[str, Any]) -> list[str]:
    """The names of what is imported from a pool of these."""
    said = {"version": 3, "accounts": list(rows)}
    return book.keep_file(read_account_file(json.dumps(said).encode()))


def test_a_label_that_can_be_typed_is_the_name(book: AccountBook) -> None:
    for number, label in enumerate(["a b", "x" * 65, "", None, "ann@canary.example"], 1):
        row = {"label": label, "refreshToken": f"refresh-{number}"}
        assert taken(book, row) == [f"account-{number}"]
    assert taken(book, {"label": "my.login_1", "refreshToken": "r"}) == ["my.login_1"]


def test_a_label_that_is_taken_is_no_name(book: AccountBook) -> None:
    other = {**WORK, "accountId": "acct-other", "refreshToken": "other"}
    assert taken(book, WORK, other) == ["work", "account-1"]


def test_the_same_login_once_more_takes_its_place(book: AccountBook) -> None:
    assert taken(book, WORK) == ["work"]
    assert taken(book, {**WORK, "label": "home", "refreshToken": "newer"}) == ["work"]
    assert [account.name for account in book.listed()] == ["work"]


@pytest.mark.parametrize(
    "less",
    [
        {"email": None},
        {"accountId": None, "accessToken": None},
        {"accountId": "acct-other", "email": "bob@canary.example"},
    ],
)
def test_no_two_accounts_have_one_refresh_credential(
    book: AccountBook, less: dict[str, Any]
) -> None:
    assert taken(book, WORK) == ["work"]
    assert taken(book, {**WORK, **less}) == ["work"]
    assert [account.name for account in book.listed()] == ["work"]


def test_what_was_switched_off_is_paused(book: AccountBook) -> None:
    taken(book, {**WORK, "enabled": False})
    assert book.named("work").state is State.PAUSED


async def test_an_account_that_has_ended_is_back_with_a_new_login_and_not_by_a_word(
    book: AccountBook,
) -> None:
    taken(book, WORK)
    account = book.named("work")
    await book._store.end(account.id, version=account.version, why="withdrawn")
    with pytest.raises(ConfigInvalid, match=r"has ended \(withdrawn\); sign in again"):
        book.set_state("work", State.ACTIVE)
    assert taken(book, {**WORK, "refreshToken": "newer"}) == ["work"]
    assert book.named("work").state is State.ACTIVE


def test_a_key_that_is_pasted_for_a_name_is_not_shown(book: AccountBook) -> None:
    with pytest.raises(ConfigInvalid, match=r"there is none called '\[redacted\]'"):
        book.named("sk-proj-0123456789abcdefghij")


def test_tags_are_given_and_taken_and_outlive_a_new_login(book: AccountBook) -> None:
    taken(book, WORK)
    assert book.tag("work", ["eu", "paid"]) == ("eu", "paid")
    assert book.tag("work", ["paid", "lab"]) == ("eu", "paid", "lab")
    assert taken(book, {**WORK, "refreshToken": "newer"}) == ["work"]
    assert book.untag("work", ["eu", "never"]) == ("paid", "lab")
    assert book.named("work").shown(pinned=False)["tags"] == ["paid", "lab"]
    for wrong in (["e u"], [""], ["x" * 65], [f"t{n}" for n in range(17)]):
        with pytest.raises(ConfigInvalid, match=r"^accounts: must be a list"):
            book.tag("work", wrong)
    assert book.named("work").tags == ("paid", "lab")


SETTINGS = '[upstream.accounts]\nhome = {{ key = "env:HOME_KEY"{} }}\n'


def reopened(read: Read, more: str, **env: str) -> AccountBook:
    """The same data directory, with other settings of its account."""
    return AccountBook(read(SETTINGS.format(more), env={**KEYS, **env}, credentials=False))


def test_what_the_settings_say_of_an_account_holds_and_is_changed_there(read: Read) -> None:
    key = {"HOME_KEY": "sk-home"}
    with closing(reopened(read, ', tags = ["eu"], weight = 3', **key)) as book:
        home = book.named("home")
        assert (home.tags, home.weight) == (("eu",), 3.0)
        with pytest.raises(ConfigInvalid, match=r"upstream\.accounts\.home\.tags"):
            book.tag("home", ["us"])
    with closing(reopened(read, "", **key)) as book:
        assert book.named("home").tags == ()


def test_an_account_whose_key_a_command_line_has_not_stays(read: Read) -> None:
    with closing(reopened(read, "", HOME_KEY="sk-home")) as book:
        there = book.named("home")
    with closing(reopened(read, "")) as book:
        assert book.named("home").id == there.id


async def test_whose_call_it_is_decides_who_would_serve_it(read: Read) -> None:
    toml = SETTINGS.format(', tags = ["eu"]') + (
        '[callers.default]\n[callers.ann]\naccount_tags = ["eu"]\n'
        '[callers.bob]\naccount_tags = ["us"]\n'
    )
    with closing(AccountBook(read(toml, env={**KEYS, "HOME_KEY": "sk-home"}))) as book:
        home = book.named("home").id
        assert (await book.best(model="m")).account == home
        assert (await book.best(model="m", caller="ann")).account == home
        choice = await book.best(model="m", caller="bob")
        assert (choice.account, choice.reason) == (None, "no account has one of the caller's tags")
        with pytest.raises(ConfigInvalid, match="there is no caller 'eve'"):
            await book.best(model="m", caller="eve")
