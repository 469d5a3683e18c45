"""Who made what, as one process knows it: at once, in bounded memory, written in one go."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handrail.core.credentials import SETTINGS
from handrail.engine.clock import SystemClock
from handrail.engine.memory import Memory
from handrail.store.accounts import Account


class Book:
    """What of the store the memory uses."""

    def __init__(self) -> None:
        self.written: list[dict[bytes, str]] = []
        self.there = False

    def digest(self, sealed: str) -> bytes:
        return sealed.encode()

    async def made(self, makers: Mapping[bytes, str], *, until: float) -> None:
        assert until > 0
        self.written.append(dict(makers))

    async def makers(self, digests: list[bytes], *, now: float) -> Mapping[bytes, str]:
        assert now > 0
        known = {digest: maker for batch in self.written for digest, maker in batch.items()}
        return {digest: known[digest] for digest in digests if digest in known}

    async def any_made(self) -> bool:
        return self.there


def memory(book: Any) -> Memory:
    return Memory(book, clock=SystemClock())


def account(name: str, kind: str = SETTINGS) -> Any:
    return Account(
        id=f"acct_{name}", name=name, target="upstream", kind=kind, version=1, added_at=0.0
    )


async def test_what_waits_is_written_in_one_go() -> None:
    book = Book()
    known = memory(book)
    assert known.made("a", ["one", "two"])
    assert known.made("b", ["three"])
    await known.write()
    assert book.written == [{b"one": "a", b"two": "a", b"three": "b"}]
    assert not known.made("a", ["one"])


async def test_what_is_learnt_is_known_before_it_is_written() -> None:
    known = memory(Book())
    known.made("a", ["one"])
    assert await known.makers(["one", "two"]) == {"one": "a"}


async def test_what_cannot_be_written_for_long_is_learnt_again(tmp_path: Path) -> None:
    book = Book()
    known = memory(book)
    known.made("a", ["first", *(str(number) for number in range(50_000))])
    assert await known.makers(["first", "49999"]) == {"49999": "a"}
    assert known.made("a", ["first"])
    await known.write()
    assert len(book.written[0]) == 50_000
    assert b"first" in book.written[0]


async def test_of_an_account_of_the_settings_that_is_gone_nothing_is_known() -> None:
    book = Book()
    known = memory(book)
    await known.look([account("a"), account("b", kind="key")])
    known.made("acct_a", ["one"])
    known.made("acct_b", ["two"])
    await known.look([])
    assert await known.makers(["one", "two"]) == {"two": "acct_b"}
    await known.write()
    assert book.written == [{b"two": "acct_b"}]


async def test_whether_anything_is_sealed_at_all_is_known() -> None:
    found = []
    for there in (False, True):
        book = Book()
        book.there = there
        known = memory(book)
        await known.look([])
        found.append(known.any)
    learning = memory(Book())
    learning.made("a", ["one"])
    assert [*found, learning.any] == [False, True, True]
