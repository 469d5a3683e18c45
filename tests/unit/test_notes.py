"""Notes about accounts that wait for a file that somebody else holds."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from handrail.core.limits import Told, Window
from handrail.engine.notes import Notes
from handrail.engine.single import Taken
from handrail.errors import Code, StoreFailed
from tests.conformance.upstream_stub import target
from tests.unit.test_leases import Locked
from tests.unit.test_pool import House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    found = House(tmp_path / "data")
    await found.with_keys("a", "b")
    yield found
    await found.pool.settle()
    found.store.close()
    found.other.close()


class Desk:
    """Writes notes down while it can."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.sick: StoreFailed | None = None
        self.tried: list[str] = []

    async def write(self, name: str) -> None:
        self.tried.append(name)
        if self.sick is not None:
            raise self.sick
        self.written.append(name)


async def test_what_is_read_does_not_wait_for_whoever_writes(house: House) -> None:
    (a, _) = house.pool.known()
    await house.store.made({b"digest": a.id}, until=house.clock.now() + 9)
    with Locked(house.store):
        before = await house.store.changes()
        assert len(await house.store.all(now=house.clock.now())) == 2
        assert await house.store.pinned() is None
        assert await house.store.credential(a.id) is not None
        assert await house.store.makers([b"digest"], now=0.0) == {b"digest": a.id}
        assert len(house.store.listed(now=0.0)) == 2
        assert house.store.pinned_now() is None
        assert house.store.credential_now(a.id) is not None
        assert (await house.take("a")).shown is not None
        assert await house.store.changes() == before
    house.other.pin(a.id)
    assert await house.store.changes() != before
    assert await house.store.pinned() == a.id


async def test_a_read_cannot_write(house: House) -> None:
    with pytest.raises(StoreFailed) as caught:
        await house.store.file.read(lambda c: c.execute("delete from accounts"))
    assert (caught.value.detail, caught.value.final) == ("SQLITE_READONLY", False)
    assert len(house.store.listed(now=0.0)) == 2


async def test_what_waits_behind_a_locked_file_fails_with_the_first_of_it(house: House) -> None:
    """Each would wait as long again: two minutes for these, with the gateway's patience."""
    with Locked(house.store):
        house.store.file.patience = 1.0
        async with asyncio.timeout(10.0):
            work = [house.store.file.run(lambda c: None) for _ in range(25)]
            found = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(each, StoreFailed) for each in found)


async def test_notes_wait_for_the_file_and_are_written_then(house: House) -> None:
    (a, b) = house.pool.known()
    with Locked(house.store):
        for percent in range(50):
            for account in (a, b):
                told = Told(windows=(Window(name="p", used_percent=float(percent)),))
                house.pool.told(account.id, told)
        taken = Taken(account=a.id, name="a", shown=None)
        house.pool.noted(taken, ["sealed"], target=target())
        await house.pool.settle()
        assert house.other.listed(now=0.0)[0].quota == ()
    await house.pool.follow()
    await house.pool.settle()
    assert [row.quota[0].used_percent for row in house.other.listed(now=0.0)] == [49.0, 49.0]
    digest = house.store.digest("sealed")
    assert await house.other.makers([digest], now=0.0) == {digest: a.id}


async def test_of_notes_that_are_alike_the_last_is_written() -> None:
    desk, notes = Desk(), Notes(most=10)
    for n in range(5):
        notes.add(partial(desk.write, f"quota {n}"), instead="a")
    notes.add(partial(desk.write, "made"))
    await notes.settle(seconds=5.0)
    assert desk.written == ["made", "quota 4"]


async def test_when_too_many_wait_those_that_are_told_again_anyway_go_first() -> None:
    desk, notes = Desk(), Notes(most=3)
    desk.sick = StoreFailed(Code.STORE_UNAVAILABLE, "no", detail="SQLITE_BUSY")
    notes.add(partial(desk.write, "quota"), instead="a")
    for n in range(5):
        notes.add(partial(desk.write, f"made {n}"))
    assert len(notes) == 3
    desk.sick = None
    await notes.settle(seconds=5.0)
    assert desk.written == ["made 2", "made 3", "made 4"]


async def test_after_one_failure_the_others_are_not_tried_until_the_next_time() -> None:
    desk, notes = Desk(), Notes(most=10)
    desk.sick = StoreFailed(Code.STORE_UNAVAILABLE, "no", detail="SQLITE_BUSY")
    for n in range(3):
        notes.add(partial(desk.write, str(n)))
    await notes.settle(seconds=5.0)
    assert desk.tried == ["0"]
    await notes.settle(seconds=5.0)
    assert desk.tried == ["0", "1"]  # one that is never taken must not keep the others waiting
    desk.sick = None
    await notes.settle(seconds=5.0)
    assert sorted(desk.written) == ["0", "1", "2"]


async def test_a_disk_that_has_failed_for_good_is_not_asked_again() -> None:
    desk, notes = Desk(), Notes(most=10)
    desk.sick = StoreFailed(Code.STORE_UNAVAILABLE, "no", detail="SQLITE_IOERR", final=True)
    for n in range(3):
        notes.add(partial(desk.write, str(n)))
    await notes.settle(seconds=5.0)
    assert (len(notes), desk.tried) == (0, ["0"])


async def test_a_defect_of_one_note_costs_that_note() -> None:
    async def broken() -> None:
        raise ValueError("defect")

    desk, notes = Desk(), Notes(most=10)
    notes.add(broken)
    notes.add(partial(desk.write, "other"))
    await notes.settle(seconds=5.0)
    assert desk.written == ["other"]


async def test_an_end_does_not_wait_for_notes_for_ever() -> None:
    notes = Notes(most=10)
    waiting = asyncio.Event()

    async def hangs() -> None:
        await waiting.wait()

    notes.add(hangs)
    await notes.settle(seconds=0.01)
    assert len(notes) == 1
    waiting.set()
    await notes.settle(seconds=5.0)
    assert len(notes) == 0


async def test_what_only_the_earlier_of_two_notes_says_is_written_too(house: House) -> None:
    (a, _) = house.pool.known()
    windows = tuple(Window(name="p", used_percent=float(percent)) for percent in (5, 9))
    with Locked(house.store):
        house.pool.told(a.id, Told(windows=windows[:1], plan="pro"))
        house.pool.told(a.id, Told(windows=windows[1:]))
    await house.pool.settle()
    await house.pool.settle()
    (row, _) = house.other.listed(now=0.0)
    assert (row.plan, row.quota[0].used_percent) == ("pro", 9.0)
