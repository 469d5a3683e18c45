"""What a person does with accounts: taken over once, under a name that can be typed."""

import json
from collections.abc import Iterator
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
