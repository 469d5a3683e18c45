"""What any run store must do about creates that come again because their reply was lost."""

import asyncio

import pytest

from handrail.errors import RequestRejected
from handrail.store.base import NewRun, Resend, Store
from tests.contract.runs import Now, frames, limits

MINUTES = 60.0


async def create(
    store: Store,
    run_id: str,
    *,
    again: bool = False,
    body: bytes = b"b",
    caller: str = "ann",
    queued: int = 100,
) -> str:
    """Accept a create, or the same sent again; the id of the run that stands."""
    run = NewRun(
        id=run_id,
        caller=caller,
        created_at=0.0,
        target="t",
        plan=b"{}",
        request=b"{}",
        response=b"{}",
        opening=frames(0),
        resend=Resend(digest=body, again=again, kept_seconds=15 * MINUTES),
    )
    return await store.accept(run, limits=limits(queued=queued))


async def test_what_was_not_answered_is_given_to_its_repeat(store: Store) -> None:
    assert await create(store, "r1") == "r1"
    for number in range(3):
        assert await create(store, f"again{number}", again=True) == "r1"
    assert await store.counts() == {"waiting": 1, "running": 0}


async def test_a_first_sending_is_always_a_run_of_its_own(store: Store) -> None:
    found = await asyncio.gather(*(create(store, f"r{n}") for n in range(20)))
    assert found == [f"r{n}" for n in range(20)]


async def test_what_was_answered_is_not_and_what_turns_out_unanswered_is(store: Store) -> None:
    await create(store, "r1")
    await store.answered({"r1": True})
    assert await create(store, "r2", again=True) == "r2"
    await store.answered({"r1": False, "r2": True})
    assert await create(store, "r3", again=True) == "r1"
    await store.answered({"unknown": True})


async def test_it_is_its_callers_own_and_of_one_body(store: Store) -> None:
    await create(store, "r1")
    assert await create(store, "r2", again=True, caller="bob") == "r2"
    assert await create(store, "r3", again=True, body=b"other") == "r3"


async def test_repeats_of_several_lost_creates_get_one_each(store: Store) -> None:
    made = {await create(store, f"r{n}") for n in range(10)}
    repeats = (create(store, f"again{n}", again=True) for n in range(10))
    assert set(await asyncio.gather(*repeats)) == made


async def test_a_repeat_that_was_a_new_run_can_be_repeated_itself(store: Store) -> None:
    assert await create(store, "r1", again=True) == "r1"
    assert await create(store, "r2", again=True) == "r1"


async def test_a_repeat_finds_its_run_also_when_the_queue_is_full(store: Store) -> None:
    await create(store, "r1", queued=1)
    assert await create(store, "again", again=True, queued=1) == "r1"
    with pytest.raises(RequestRejected, match="queue"):
        await create(store, "r2", queued=1)
    assert await create(store, "again", again=True, body=b"other", queued=2) == "again"


async def test_what_was_deleted_is_not_given_to_anybody(store: Store) -> None:
    await create(store, "r1")
    await store.delete("r1", caller="ann")
    assert await create(store, "r2", again=True) == "r2"


async def test_after_a_quarter_of_an_hour_nobody_sends_it_again(store: Store, now: Now) -> None:
    await create(store, "r1")
    now.seconds += 15 * MINUTES - 1
    await store.sweep(limit=10)
    assert await create(store, "r2", again=True) == "r1"
    now.seconds += 2
    assert await create(store, "r3", again=True) == "r3"
    await store.sweep(limit=10)
    assert await store.get("r1", caller="ann") is not None
