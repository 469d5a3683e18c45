"""What any keeper of callers' keys must do; written against the port."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handrail.core.caller_keys import CallerKey, key_digest
from handrail.errors import RequestRejected
from handrail.store.callers import Keys, SqliteKeys
from handrail.store.migrate import ACCOUNTS
from handrail.store.shared import SharedFile


def opened(path: Path) -> SharedFile:
    file = SharedFile(path, schema=ACCOUNTS)
    file.open()
    return file


@pytest.fixture(params=["sqlite"])
async def both(tmp_path: Path) -> AsyncIterator[tuple[Keys, Keys]]:
    """The same keys as two processes have them open."""
    files = [opened(tmp_path / "accounts.db") for _ in range(2)]
    one, other = (SqliteKeys(file) for file in files)
    yield one, other
    for file in files:
        file.close()


@pytest.fixture
def keys(both: tuple[Keys, Keys]) -> Keys:
    return both[0]


def key(number: int, **fields: Any) -> CallerKey:
    values: dict[str, Any] = {
        "id": f"key_{number}",
        "caller": "ann",
        "digest": key_digest(str(number)),
        "label": f"number {number}",
        "created_at": 1_000.0 + number,
        **fields,
    }
    return CallerKey(**values)


async def test_keys_are_kept_as_they_were_given_the_oldest_first(both: tuple[Keys, Keys]) -> None:
    one, other = both
    given = [key(3), key(1, expires_at=2_000.5), key(2, caller="bob", label="")]
    for each in given:
        await one.add(each)
    assert list(await other.all()) == [given[1], given[2], given[0]]


async def test_there_are_no_keys_at_first(keys: Keys) -> None:
    assert list(await keys.all()) == []


async def test_a_revoked_key_stays_in_the_list_and_keeps_its_first_date(
    both: tuple[Keys, Keys],
) -> None:
    one, other = both
    await one.add(key(1))
    await one.add(key(2))
    ended = replace(key(1), revoked_at=5_000.0)
    assert await one.revoke("key_1", now=5_000.0) == ended
    assert await other.revoke("key_1", now=6_000.0) == ended
    assert list(await other.all()) == [ended, key(2)]


async def test_what_is_not_there_is_not_revoked_or_rotated(keys: Keys) -> None:
    await keys.add(key(1))
    assert await keys.revoke("key_2", now=5_000.0) is None
    made = await keys.rotate(
        "key_2", new_id="key_3", digest=key_digest("3"), now=5_000.0, overlap=60.0
    )
    assert made is None
    assert list(await keys.all()) == [key(1)]


async def test_a_rotated_key_has_a_successor_and_an_end(both: tuple[Keys, Keys]) -> None:
    one, other = both
    await one.add(key(1))
    values: dict[str, Any] = {"new_id": "key_2", "digest": key_digest("2"), "now": 5_000.0}
    made = await one.rotate("key_1", **values, overlap=60.0)
    new = key(2, label="number 1", created_at=5_000.0)
    old = replace(key(1), expires_at=5_060.0)
    assert made == (new, old)
    assert list(await other.all()) == [old, new]


async def test_a_key_that_is_rotated_by_two_at_once_has_two_successors_or_one_refusal(
    both: tuple[Keys, Keys],
) -> None:
    await both[0].add(key(1))
    results = await asyncio.gather(
        *(
            who.rotate(
                "key_1",
                new_id=f"key_{number}",
                digest=key_digest(str(number)),
                now=5_000.0,
                overlap=0.0,
            )
            for number, who in enumerate(both, start=2)
        ),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, RequestRejected)]
    assert len(refused) == 1  # with no overlap the old key has ended for the second one
    assert len(await both[0].all()) == 2


async def test_a_refused_rotation_leaves_everything_as_it_was(keys: Keys) -> None:
    await keys.add(key(1, expires_at=2_000.0))
    with pytest.raises(RequestRejected, match="expired"):
        await keys.rotate("key_1", new_id="k", digest=key_digest("k"), now=2_000.0, overlap=9.0)
    assert list(await keys.all()) == [key(1, expires_at=2_000.0)]


async def test_the_last_use_is_written_for_many_at_once_and_never_goes_back(keys: Keys) -> None:
    for number in range(3):
        await keys.add(key(number))
    await keys.used({"key_0": 7_000.0, "key_1": 8_000.0, "key_9": 1.0})
    await keys.used({"key_0": 6_000.0, "key_1": 9_000.0})
    assert [each.last_used_at for each in await keys.all()] == [7_000.0, 9_000.0, None]


async def test_another_process_sees_that_something_has_changed(both: tuple[Keys, Keys]) -> None:
    one, other = both
    before = await other.changes()
    assert await other.changes() == before
    await one.add(key(1))
    after_adding = await other.changes()
    await one.revoke("key_1", now=5_000.0)
    assert len({before, after_adding, await other.changes()}) == 3


async def test_the_file_holds_no_key(tmp_path: Path) -> None:
    file = opened(tmp_path / "secret.db")
    await SqliteKeys(file).add(key(1, digest=key_digest("hr_canary-of-a-caller-key")))
    for path in tmp_path.glob("secret.db*"):
        assert b"hr_canary" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
    file.close()
