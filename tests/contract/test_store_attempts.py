"""What any run store must do about upstream calls and attempts: count them, never splice two."""

import asyncio

import pytest

from handrail.core.lifecycle import State
from handrail.core.retry import Cause
from handrail.store.base import Call, Run, Store
from tests.contract.runs import accept, close_as, ending, frames, limits, started


async def row_of(store: Store, run_id: str = "r1") -> Run:
    run = await store.get(run_id, caller="ann")
    assert run is not None
    return run


async def claimed(store: Store) -> Run:
    run = await store.claim(owner="me", limits=limits())
    assert run is not None
    return run


def call(number: int, attempt: int, cause: Cause, sent_at: float) -> Call:
    return Call(number=number, attempt=attempt, cause=cause, sent_at=sent_at)


async def test_every_call_is_written_down_with_its_attempt_its_cause_and_its_time(
    store: Store,
) -> None:
    run = await started(store, "r1")
    assert await store.call_again(run.id, run.fence, now=2.5, cause=Cause.UNREACHED)
    fence = await store.begin_again(run.id, run.fence, now=3.5, cause=Cause.STALLED)
    assert fence is not None
    assert await store.call_again(run.id, fence, now=4.5, cause=Cause.MENDED)
    assert await store.calls("r1", caller="ann") == [
        call(1, 1, Cause.FIRST, 1.5),
        call(2, 1, Cause.UNREACHED, 2.5),
        call(3, 2, Cause.STALLED, 3.5),
        call(4, 2, Cause.MENDED, 4.5),
    ]
    row = await row_of(store)
    assert (row.calls, row.attempt, row.sent_at, row.last_seq) == (4, 2, 1.5, 2)


async def test_the_calls_of_a_run_are_its_callers_own_and_go_with_it(store: Store) -> None:
    await started(store, "r1")
    assert await store.calls("r1", caller="bob") == []
    assert len(await store.calls("r1", caller="ann")) == 1
    assert await store.delete("r1", caller="ann")
    assert await store.calls("r1", caller="ann") == []


async def test_a_run_that_was_never_sent_has_no_attempt_and_no_call(store: Store) -> None:
    await accept(store, "r1")
    run = await claimed(store)
    assert (run.attempt, run.calls) == (0, 0)
    assert await store.release(run.id, run.fence)
    again = await claimed(store)
    assert (again.attempt, again.calls, await store.calls("r1", caller="ann")) == (0, 0, [])


async def test_a_new_attempt_moves_the_fence_and_shuts_the_old_one_out(store: Store) -> None:
    run = await started(store, "r1")
    fence = await store.begin_again(run.id, run.fence, now=2.0, cause=Cause.ENDED_EARLY)
    assert fence is not None
    assert fence > run.fence
    assert not await store.append(run.id, run.fence, frames(3))
    assert not await store.call_again(run.id, run.fence, now=2.0, cause=Cause.REFUSED)
    assert not await store.finish(run.id, run.fence, ending(3))
    assert not await store.release(run.id, run.fence)
    assert await store.begin_again(run.id, run.fence, now=2.0, cause=Cause.STALLED) is None
    assert await store.append(run.id, fence, frames(3))
    assert await store.finish(run.id, fence, ending(4))


async def test_once_an_event_of_an_answer_is_kept_there_is_no_other_attempt(store: Store) -> None:
    run = await started(store, "r1")
    assert await store.append(run.id, run.fence, frames(3))
    assert await store.begin_again(run.id, run.fence, now=2.0, cause=Cause.STALLED) is None
    assert not await store.release(run.id, run.fence)
    await store.requeue(run.id)
    assert await store.counts() == {"waiting": 0, "running": 1}
    assert len(await store.calls("r1", caller="ann")) == 1


async def test_of_a_late_event_and_a_new_attempt_exactly_one_wins(store: Store) -> None:
    for number in range(100):
        run = await started(store, f"r{number}")
        late = store.append(run.id, run.fence, frames(3))
        new = store.begin_again(run.id, run.fence, now=2.0, cause=Cause.STALLED)
        if number % 2:
            kept, fence = await asyncio.gather(late, new)
        else:
            fence, kept = await asyncio.gather(new, late)
        assert kept is (fence is None)
        row = await row_of(store, run.id)
        assert (row.last_seq, row.attempt) == ((3, 1) if kept else (2, 2))
        await store.conclude(run.id, caller="ann", close=close_as(State.CANCELLED))


@pytest.mark.parametrize("whose", ["own", "of the dead"])
async def test_a_run_that_is_put_back_waits_and_stays_in_progress(store: Store, whose: str) -> None:
    run = await started(store, "r1")
    if whose == "own":
        assert await store.release(run.id, run.fence)
    else:
        await store.requeue(run.id)
    assert await store.counts() == {"waiting": 1, "running": 0}
    assert await store.abandoned(owner="new") == []
    assert not await store.append(run.id, run.fence, frames(3))
    again = await claimed(store)
    assert (again.id, again.state, again.attempt) == ("r1", State.IN_PROGRESS, 1)
    assert not await store.begin(again.id, again.fence, now=2.0, segment=frames(3))
    fence = await store.begin_again(again.id, again.fence, now=2.0, cause=Cause.WORKER_LOST)
    assert fence is not None
    assert await store.finish(run.id, fence, ending(3))
    row = await row_of(store)
    assert (row.state, row.attempt, row.calls) == (State.COMPLETED, 2, 2)


async def test_a_run_that_was_put_back_can_be_cancelled_and_is_then_never_claimed(
    store: Store,
) -> None:
    run = await started(store, "r1")
    assert await store.release(run.id, run.fence)
    assert await store.unfinished_of_others(set()) == ["r1"]
    after = await store.conclude("r1", caller="ann", close=close_as(State.CANCELLED))
    assert after is not None
    assert after.state is State.CANCELLED
    assert await store.claim(owner="me", limits=limits()) is None
    await store.requeue("r1")
    assert await store.counts() == {"waiting": 0, "running": 0}


async def test_nothing_is_called_again_or_anew_after_the_end(store: Store) -> None:
    run = await started(store, "r1")
    assert await store.finish(run.id, run.fence, ending(3))
    assert not await store.call_again(run.id, run.fence, now=2.0, cause=Cause.REFUSED)
    assert await store.begin_again(run.id, run.fence, now=2.0, cause=Cause.STALLED) is None
    assert not await store.release(run.id, run.fence)
    assert len(await store.calls("r1", caller="ann")) == 1
