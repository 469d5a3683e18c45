"""How long what others go on from is kept: what any run store must do."""

import random
from dataclasses import dataclass, field

import pytest

from handrail.core.lifecycle import State
from handrail.store.base import NewRun, Repeat, Store
from tests.contract.runs import Now, accept, close_as, ending, frames, limits
from tests.contract.test_store_chains import chain_of, kept


async def there(store: Store, *ids: str) -> list[str]:
    """Which of these are there."""
    return [run_id for run_id in ids if await store.get(run_id, caller="ann") is not None]


async def swept(store: Store, *, limit: int = 100) -> int:
    """How many runs sweeping destroys, until there is nothing to do."""
    count = 0
    while done := await store.sweep(limit=limit):
        count += done
    return count


async def test_what_a_kept_response_goes_on_from_is_there_in_every_way(
    store: Store, now: Now
) -> None:
    await kept(store, "r1", kept_seconds=10)
    await kept(store, "r2", "r1", kept_seconds=20)
    await kept(store, "r3", "r2", kept_seconds=30)
    now.seconds += 25
    assert await there(store, "r1", "r2", "r3") == ["r1", "r2", "r3"]
    assert await store.read("r1", after=-1, caller="ann") is not None
    assert await store.conclude("r1", caller="ann", close=close_as(State.CANCELLED)) is not None
    assert await chain_of(store, "r3") == (["r3", "r2", "r1"], None)
    assert set(await store.find_items("ann", ["msg_out"])) == {"msg_out"}
    await accept(store, "another", previous="r1")
    assert await there(store, "another") == ["another"]


async def test_it_is_not_there_any_more_from_the_moment_that_its_last_descendant_is_over(
    store: Store, now: Now
) -> None:
    await kept(store, "r1", kept_seconds=10)
    await kept(store, "r2", "r1", kept_seconds=30)
    now.seconds += 30
    assert await there(store, "r1", "r2") == []
    assert await chain_of(store, "r2") == ([], "r2")
    assert not await store.delete("r1", caller="bob")
    assert await store.delete("r1", caller="ann")  # its bytes were still there
    assert not await store.delete("r1", caller="ann")


async def test_sweeping_keeps_it_and_then_takes_the_whole_chain_at_once(
    store: Store, now: Now
) -> None:
    ids = [f"r{number}" for number in range(300)]
    for previous, run_id in zip([None, *ids], ids, strict=False):
        await kept(store, run_id, previous, kept_seconds=10)
    await kept(store, "leaf", ids[-1], kept_seconds=20)
    now.seconds += 15
    assert await swept(store) == 0
    assert await chain_of(store, "leaf") == (["leaf", *ids[::-1]], None)
    now.seconds += 5
    assert await store.sweep(limit=100) == 100
    assert await store.sweep(limit=1_000) == 201
    assert await store.sweep(limit=1_000) == 0


async def test_an_unfinished_descendant_keeps_it(store: Store, now: Now) -> None:
    await kept(store, "r1", kept_seconds=10)
    await accept(store, "r2", previous="r1")
    now.seconds += 1_000_000
    assert await swept(store) == 0
    assert await there(store, "r1") == ["r1"]
    assert await store.conclude("r2", caller="ann", close=close_as(State.CANCELLED)) is not None
    assert await there(store, "r1") == ["r1"]


async def test_the_youngest_of_several_branches_decides(store: Store, now: Now) -> None:
    await kept(store, "r1", kept_seconds=10)
    await kept(store, "left", "r1", kept_seconds=20)
    await kept(store, "right", "r1", kept_seconds=30)
    now.seconds += 20
    assert await swept(store) == 1
    assert await there(store, "r1", "left", "right") == ["r1", "right"]
    now.seconds += 10
    assert await swept(store) == 2


async def test_deleting_a_descendant_lets_what_it_went_on_from_go(store: Store, now: Now) -> None:
    await kept(store, "r1", kept_seconds=10)
    await kept(store, "r2", "r1", kept_seconds=20)
    await kept(store, "r3", "r2", kept_seconds=1_000)
    now.seconds += 30
    assert await swept(store) == 0
    await store.delete("r3", caller="ann")
    assert await there(store, "r1", "r2") == []
    assert await swept(store) == 2


async def test_deleting_in_the_middle_wins_and_frees_what_was_before(
    store: Store, now: Now
) -> None:
    await kept(store, "r1", kept_seconds=10)
    await kept(store, "r2", "r1", kept_seconds=10)
    await kept(store, "r3", "r2", kept_seconds=1_000)
    now.seconds += 30
    assert await store.delete("r2", caller="ann")
    assert await there(store, "r1", "r2", "r3") == ["r3"]
    assert await swept(store) == 1


async def test_deleting_a_descendant_early_leaves_the_others_their_own_time(
    store: Store, now: Now
) -> None:
    await kept(store, "r1", kept_seconds=10)
    await kept(store, "r2", "r1", kept_seconds=10)
    await store.delete("r2", caller="ann")
    assert await swept(store) == 0
    assert await there(store, "r1") == ["r1"]
    now.seconds += 10
    assert await swept(store) == 1


async def test_what_must_stay_does_not_keep_the_rest_from_being_swept(
    store: Store, now: Now
) -> None:
    for number in range(30):
        await kept(store, f"old{number}", kept_seconds=1)
        await kept(store, f"young{number}", f"old{number}", kept_seconds=1_000)
    for number in range(30):
        await kept(store, f"single{number}", kept_seconds=2)
    now.seconds += 10
    assert await store.sweep(limit=10) == 10
    assert await swept(store, limit=10) == 20


async def test_a_key_stands_for_its_response_as_long_as_that_is_kept_for_another(
    store: Store, now: Now
) -> None:
    def create(run_id: str) -> NewRun:
        repeat = Repeat(key="k", digest=b"d", kept_seconds=5)
        return NewRun(
            id=run_id,
            caller="ann",
            created_at=1.0,
            target="t",
            plan=b"{}",
            request=b"{}",
            response=b'{"output":[]}',
            opening=frames(0, 2),
            repeat=repeat,
        )

    assert await store.accept(create("r1"), limits=limits()) == "r1"
    run = await store.claim(owner="me", limits=limits())
    assert run is not None
    await store.finish("r1", run.fence, ending(2, State.FAILED, kept_seconds=10))
    await kept(store, "r2", "r1", kept_seconds=100)
    now.seconds += 50
    await swept(store)
    assert await store.accept(create("new"), limits=limits()) == "r1"
    now.seconds += 50
    await swept(store)
    now.seconds += 3_600  # a key may be known for longer than its response is
    assert await store.accept(create("new"), limits=limits()) == "new"


@dataclass
class Forest:
    """What should be kept, by the words of the rule: no index, no link back, no laziness."""

    expires: dict[str, float] = field(default_factory=dict)
    previous: dict[str, str | None] = field(default_factory=dict)

    def kept(self, run_id: str, now: float) -> bool:
        """Whether a run is there."""
        if run_id not in self.expires:
            return False
        younger = [other for other, link in self.previous.items() if link == run_id]
        own = self.expires[run_id] > now
        return own or any(self.kept(other, now) for other in younger)

    def drop(self, run_id: str) -> None:
        """It is deleted."""
        del self.expires[run_id]
        del self.previous[run_id]


@pytest.mark.parametrize("seed", range(12))
async def test_any_forest_is_kept_and_swept_as_the_rule_says(
    store: Store, now: Now, seed: int
) -> None:
    chance = random.Random(seed)
    forest = Forest()
    for step in range(150):
        present = [run_id for run_id in forest.expires if forest.kept(run_id, now())]
        deed = chance.choice(["root", "child", "child", "child", "wait", "wait", "delete", "sweep"])
        if deed == "wait":
            now.seconds += chance.choice([1, 5, 20])
        elif deed == "sweep":
            await store.sweep(limit=chance.choice([1, 3, 100]))
        elif deed == "delete" and present:
            gone = chance.choice(present)
            assert await store.delete(gone, caller="ann")
            forest.drop(gone)
        elif deed in ("root", "child"):
            link = chance.choice(present) if deed == "child" and present else None
            run_id = f"r{step}"
            seconds = chance.choice([1, 10, 40, 200])
            forest.expires[run_id] = now() + seconds
            forest.previous[run_id] = link
            await kept(store, run_id, link, kept_seconds=seconds)
        wanted = [run_id for run_id in forest.expires if forest.kept(run_id, now())]
        assert await there(store, *forest.expires) == wanted, (seed, step, deed)
    await swept(store)
    wanted = [run_id for run_id in forest.expires if forest.kept(run_id, now())]
    now.seconds = 0.0  # so that nothing is expired: what is there now has not been destroyed
    assert await there(store, *forest.expires) == wanted
