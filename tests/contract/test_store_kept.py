"""Runs that their caller waits for: what any run store must do."""

import pytest

from handrail.core.lifecycle import State
from handrail.core.retry import Cause
from handrail.errors import RequestRejected
from handrail.store.base import NewRun, Run, Store
from tests.contract.runs import Now, accept, close_as, ending, frames, limits


def new_run(run_id: str, *, caller: str = "ann", previous: str | None = None) -> NewRun:
    """A run that is under way from its first event on."""
    return NewRun(
        id=run_id,
        caller=caller,
        created_at=7.0,
        target="t",
        plan=b"{}",
        request=b'{"input":[{"id":"msg_in","role":"user"}]}',
        response=b'{"output":[]}',
        opening=frames(0, 2),
        items=("msg_in",),
        previous=previous,
    )


async def kept(store: Store, run_id: str, **options: str) -> Run:
    """Such a run, kept by this process."""
    return await store.keep(new_run(run_id, **options), owner="me")


async def test_a_kept_run_is_under_way_from_the_start(store: Store) -> None:
    run = await kept(store, "r1")
    assert (run.state, run.last_seq, run.attempt, run.calls) == (State.IN_PROGRESS, 1, 1, 1)
    assert (run.created_at, run.sent_at, run.finished_at) == (7.0, 7.0, None)
    assert await store.get("r1", caller="ann") == run
    assert await store.get("r1", caller="bob") is None
    part = await store.read("r1", after=-1, caller="ann")
    assert part is not None
    assert (part.frames, part.state) == (frames(0, 2).frames, State.IN_PROGRESS)
    assert set(await store.find_items("ann", ["msg_in"])) == {"msg_in"}


async def test_its_fence_lets_its_maker_write_until_somebody_ends_it(store: Store) -> None:
    run = await kept(store, "r1")
    assert await store.call_again("r1", run.fence, now=8.0, cause=Cause.MENDED)
    calls = await store.calls("r1", caller="ann")
    assert [call.cause for call in calls] == [Cause.FIRST, Cause.MENDED]
    assert await store.append("r1", run.fence, frames(2))
    assert await store.conclude("r1", caller="ann", close=close_as(State.CANCELLED)) is not None
    assert not await store.append("r1", run.fence, frames(4))
    assert not await store.finish("r1", run.fence, ending(4))
    other = await kept(store, "r2")
    assert await store.finish("r2", other.fence, ending(2))


async def test_nobody_else_claims_it_and_it_never_waits(store: Store) -> None:
    run = await kept(store, "r1")
    assert await store.claim(owner="me", limits=limits()) is None
    await store.requeue("r1")
    assert not await store.release("r1", run.fence)
    assert await store.claim(owner="me", limits=limits()) is None
    assert await store.counts() == {"waiting": 0, "running": 0}  # it holds no slot


async def test_it_takes_no_room_and_no_slot_of_those_that_wait(store: Store) -> None:
    tight = limits(running=1, queued=1, each=1, waiting=1)
    await accept(store, "waiting", within=tight)
    for number in range(5):
        await kept(store, f"r{number}")
    run = await store.claim(owner="me", limits=tight)
    assert run is not None
    assert run.id == "waiting"
    await accept(store, "another", within=tight)
    assert await store.claim(owner="me", limits=tight) is None


async def test_what_a_dead_process_kept_is_found_and_so_is_that_of_a_revoked_caller(
    store: Store,
) -> None:
    await kept(store, "r1")
    assert list(await store.abandoned(owner="another")) == ["r1"]
    assert list(await store.abandoned(owner="me")) == []
    assert list(await store.unfinished_of_others(["bob"])) == ["r1"]
    assert list(await store.unfinished_of_others(["ann"])) == []


async def test_a_discarded_one_leaves_nothing(store: Store) -> None:
    run = await kept(store, "r1")
    assert await store.delete("r1", caller="ann")
    assert await store.get("r1", caller="ann") is None
    assert await store.find_items("ann", ["msg_in"]) == {}
    assert not await store.append("r1", run.fence, frames(2))
    assert await store.counts() == {"waiting": 0, "running": 0}


async def test_it_goes_on_from_what_is_there_alone(store: Store, now: Now) -> None:
    run = await kept(store, "r1")
    await store.finish("r1", run.fence, ending(2, kept_seconds=5))
    await kept(store, "r2", previous="r1")
    with pytest.raises(RequestRejected) as caught:
        await kept(store, "r3", previous="r1", caller="bob")
    assert caught.value.fault.code == "previous_response_not_found"
    now.seconds += 10
    seen: list[Run] = []
    assert await store.ancestry("r2", caller="ann", visit=seen.append) is None
    assert [run.id for run in seen] == ["r2", "r1"]
