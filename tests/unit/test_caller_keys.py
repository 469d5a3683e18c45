"""The keys of callers as a process has them, over the real file."""

import asyncio
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from handrail import telemetry
from handrail.core.caller_keys import CallerKey, Wish, key_digest
from handrail.engine.caller_keys import CallerKeys
from handrail.errors import Code, RequestRejected, StoreFailed
from handrail.store.callers import Keys, SqliteKeys
from handrail.store.migrate import ACCOUNTS
from handrail.store.shared import SharedFile
from tests.clocks import HandClock

CALLERS = ("ann", "bob")


class StepClock(HandClock):
    """A clock that goes by hand; who sleeps waits for `tick`."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []
        self._turn = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._turn.clear()
        await self._turn.wait()

    def tick(self) -> None:
        self._turn.set()


class Counted:
    """The real keys, with what is asked of them, and the disk's refusal when a test wants it."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.read = 0
        self.written: list[dict[str, float]] = []
        self.sick = False

    def _may_fail(self) -> None:
        if self.sick:
            raise StoreFailed(Code.STORE_UNAVAILABLE, "sick", detail="SQLITE_IOERR")

    async def add(self, key: CallerKey) -> None:
        await self._keys.add(key)

    async def all(self) -> Sequence[CallerKey]:
        self._may_fail()
        self.read += 1
        return await self._keys.all()

    async def revoke(self, key_id: str, *, now: float) -> CallerKey | None:
        return await self._keys.revoke(key_id, now=now)

    async def rotate(self, key_id: str, **rest: Any) -> tuple[CallerKey, CallerKey] | None:
        return await self._keys.rotate(key_id, **rest)

    async def used(self, times: Mapping[str, float]) -> None:
        self._may_fail()
        self.written.append(dict(times))
        await self._keys.used(times)

    async def changes(self) -> int:
        self._may_fail()
        return await self._keys.changes()


class World:
    """A gateway's keys, and a command line's on the same file."""

    def __init__(self, path: Path) -> None:
        self.clock = StepClock()
        self.files = [SharedFile(path, schema=ACCOUNTS) for _ in range(2)]
        for file in self.files:
            file.open()
        self.counted = Counted(SqliteKeys(self.files[0]))
        numbers = itertools.count(1)
        self.gateway, self.elsewhere = (
            CallerKeys(
                keys,
                clock=self.clock,
                new_secret=lambda: f"hr_canary-{next(numbers)}",
                new_id=lambda: f"key_{next(numbers)}",
            )
            for keys in (self.counted, SqliteKeys(self.files[1]))
        )
        self.log = io.StringIO()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What was logged under a name, without its time."""
        assert "hr_canary" not in self.log.getvalue()
        found = [json.loads(line) for line in self.log.getvalue().splitlines()]
        for line in found:
            del line["timestamp"]
        return [line for line in found if line["event"] == event]

    async def key(self, caller: str = "ann", **fields: Any) -> tuple[str, bytes]:
        """A key that the command line has made: its id, and the digest of what is offered."""
        issued = await self.elsewhere.create(Wish(caller=caller, **fields), callers=CALLERS)
        return issued.key.id, key_digest(issued.secret.reveal())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    stream = io.StringIO()
    telemetry.configure("info", stream=stream)
    made = World(tmp_path / "accounts.db")
    made.log = stream
    yield made
    for file in made.files:
        file.close()
    telemetry.configure("error")


async def test_a_key_that_another_process_makes_is_known_after_the_next_look(world: World) -> None:
    await world.gateway.look()
    key_id, digest = await world.key()
    assert world.gateway.caller_of(digest, CALLERS) is None
    await world.gateway.look()
    assert world.gateway.caller_of(digest, CALLERS) == "ann"
    assert [line["key_id"] for line in world.lines("key_added")] == [key_id]
    assert world.gateway.caller_of(key_digest("another"), CALLERS) is None


async def test_a_file_that_has_not_changed_is_not_read_again(world: World) -> None:
    await world.key()
    for _ in range(5):
        await world.gateway.look()
    assert world.counted.read == 1
    await world.key()
    for _ in range(5):
        await world.gateway.look()
    assert world.counted.read == 2


async def test_the_loop_looks_once_a_second(world: World) -> None:
    loop = asyncio.create_task(world.gateway.loop())
    _, digest = await world.key()
    async with asyncio.timeout(5):
        while world.gateway.caller_of(digest, CALLERS) is None:
            world.clock.tick()
            await asyncio.sleep(0.001)
    loop.cancel()
    assert set(world.clock.slept) == {1.0}


async def test_a_revoked_key_is_refused_after_the_next_look_and_named_in_the_log(
    world: World,
) -> None:
    key_id, digest = await world.key()
    await world.gateway.look()
    await world.elsewhere.revoke(key_id)
    await world.gateway.look()
    assert world.gateway.caller_of(digest, CALLERS) is None
    assert [line["key_id"] for line in world.lines("key_revoked")] == [key_id]
    assert world.lines("key_refused") == [
        {
            "event": "key_refused",
            "level": "warning",
            "key_id": key_id,
            "caller": "ann",
            "why": "revoked",
        }
    ]


async def test_an_expired_key_is_refused_at_once_without_a_look(world: World) -> None:
    key_id, digest = await world.key(lifetime=60)
    await world.gateway.look()
    world.clock.passes(59.9)
    assert world.gateway.caller_of(digest, CALLERS) == "ann"
    world.clock.passes(0.2)
    assert world.gateway.caller_of(digest, CALLERS) is None
    refused = world.lines("key_refused")
    assert [(line["key_id"], line["why"]) for line in refused] == [(key_id, "expired")]


async def test_a_key_whose_caller_is_gone_names_nobody(world: World) -> None:
    _, digest = await world.key("bob")
    await world.gateway.look()
    assert world.gateway.caller_of(digest, ("ann",)) is None
    assert [line["why"] for line in world.lines("key_refused")] == ["caller_gone"]
    assert world.gateway.caller_of(digest, CALLERS) == "bob"


async def test_a_key_that_is_offered_over_and_over_is_logged_once_a_minute(world: World) -> None:
    key_id, digest = await world.key()
    await world.elsewhere.revoke(key_id)
    await world.gateway.look()
    for seconds in (0.0, 1.0, 58.9, 0.2, 59.0):
        world.clock.passes(seconds)
        world.gateway.caller_of(digest, CALLERS)
    assert len(world.lines("key_refused")) == 2


async def test_the_use_of_a_key_is_written_once_a_minute_and_the_rest_at_the_end(
    world: World,
) -> None:
    key_id, digest = await world.key()
    other_id, other = await world.key("bob")
    await world.gateway.look()
    start = world.clock.now()
    for second in range(90):
        world.clock.wall, world.clock.mono = start + second, 500.0 + second
        assert world.gateway.caller_of(digest, CALLERS) == "ann"
        await world.gateway.look()
    world.gateway.caller_of(other, CALLERS)
    await world.gateway.close()
    await world.gateway.close()
    assert world.counted.written == [
        {key_id: start},
        {key_id: start + 60},
        {key_id: start + 89, other_id: start + 89},
    ]
    shown = {key.id: key.last_used_at for key in await world.elsewhere.listed()}
    assert shown == {key_id: start + 89, other_id: start + 89}


async def test_a_file_that_cannot_be_read_leaves_the_old_keys_and_says_so_once(
    world: World,
) -> None:
    stale = [world.gateway.stale]
    _, digest = await world.key()
    await world.gateway.look()
    stale.append(world.gateway.stale)
    assert world.gateway.caller_of(digest, CALLERS) == "ann"
    world.counted.sick = True
    for _ in range(3):
        await world.gateway.look()
    stale.append(world.gateway.stale)
    assert world.gateway.caller_of(digest, CALLERS) == "ann"
    assert [line["why"] for line in world.lines("keys_unusable")] == ["SQLITE_IOERR"]
    await world.gateway.close()
    assert [line["why"] for line in world.lines("key_uses_lost")] == ["SQLITE_IOERR"]
    world.counted.sick = False
    await world.gateway.look()
    stale.append(world.gateway.stale)
    assert stale == [True, False, True, False]
    assert len(world.counted.written) == 1  # the use from meanwhile is not forgotten


async def test_before_the_keys_could_be_read_there_are_none(world: World) -> None:
    _, digest = await world.key()
    world.counted.sick = True
    await world.gateway.look()
    assert world.gateway.stale
    assert world.gateway.caller_of(digest, CALLERS) is None


async def test_what_could_not_be_read_after_a_change_is_read_at_the_next_look(
    world: World,
) -> None:
    await world.gateway.look()
    issued = await world.gateway.create(Wish(caller="ann"), callers=CALLERS)
    digest = key_digest(issued.secret.reveal())
    world.counted.sick = True
    with pytest.raises(StoreFailed):
        await world.gateway.refresh()
    world.counted.sick = False
    assert world.gateway.caller_of(digest, CALLERS) is None
    await world.gateway.look()
    assert world.gateway.caller_of(digest, CALLERS) == "ann"


async def test_a_successor_belongs_to_the_same_caller_and_the_old_key_overlaps(
    world: World,
) -> None:
    key_id, old = await world.key("bob", label="ci")
    issued = await world.elsewhere.rotate(key_id, callers=CALLERS, overlap=100)
    assert issued.old is not None
    assert (issued.old.id, issued.key.caller, issued.key.label) == (key_id, "bob", "ci")
    new = key_digest(issued.secret.reveal())
    await world.gateway.look()
    assert [world.gateway.caller_of(each, CALLERS) for each in (old, new)] == ["bob", "bob"]
    world.clock.passes(100)
    assert [world.gateway.caller_of(each, CALLERS) for each in (old, new)] == [None, "bob"]


async def test_what_cannot_be_made_is_refused_and_leaves_nothing(world: World) -> None:
    key_id, _ = await world.key("bob")
    with pytest.raises(RequestRejected, match="no caller 'eve'"):
        await world.gateway.create(Wish(caller="eve"), callers=CALLERS)
    with pytest.raises(RequestRejected, match="no caller 'bob'"):
        await world.gateway.rotate(key_id, callers=("ann",), overlap=0)
    with pytest.raises(RequestRejected, match="no key 'key_9'") as caught:
        await world.gateway.rotate("key_9", callers=CALLERS, overlap=0)
    assert (caught.value.fault.status, caught.value.fault.param) == (404, "id")
    with pytest.raises(RequestRejected, match="no key 'x" + "x" * 63 + "'"):
        await world.gateway.revoke("x" * 500)
    assert [key.id for key in await world.gateway.listed()] == [key_id]


async def test_callers_without_a_key_that_opens_anything_are_known(world: World) -> None:
    assert world.gateway.without(CALLERS) == ["ann", "bob"]
    await world.key("bob", lifetime=60)
    key_id, _ = await world.key("ann")
    await world.gateway.look()
    assert world.gateway.without(("eve", *CALLERS)) == ["eve"]
    await world.elsewhere.revoke(key_id)
    await world.gateway.look()
    world.clock.passes(60)
    assert world.gateway.without(CALLERS) == ["ann", "bob"]


async def test_a_key_shows_in_no_repr(world: World) -> None:
    issued = await world.gateway.create(Wish(caller="ann"), callers=CALLERS)
    assert issued.secret.reveal().startswith("hr_canary-")
    assert "hr_canary" not in repr(issued) + str(issued) + repr(vars(world.gateway))
