"""What any run store must do; written against the port, so that another store can be held to it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from handrail.core.lifecycle import State
from handrail.core.retry import Cause
from handrail.errors import RequestRejected, StoreFailed
from handrail.store.base import Closing, NewRun, Remote, Repeat, Run, Store
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.contract.runs import CANARY, Now, accept, close_as, ending, frames, limits, started


async def test_an_accepted_run_is_waiting_with_its_opening_events(store: Store) -> None:
    await accept(store, "r1")
    run = await store.get("r1", caller="ann")
    assert run is not None
    assert (run.state, run.last_seq, run.attempt, run.calls) == (State.QUEUED, 1, 0, 0)
    part = await store.read("r1", after=-1, caller="ann")
    assert part is not None
    assert part.frames == frames(0, 2, CANARY.decode()).frames
    assert await store.counts() == {"waiting": 1, "running": 0}


async def test_another_caller_sees_nothing_and_can_do_nothing(store: Store) -> None:
    await accept(store, "r1")
    assert await store.get("r1", caller="bob") is None
    assert await store.read("r1", after=-1, caller="bob") is None
    assert await store.conclude("r1", caller="bob", close=close_as(State.CANCELLED)) is None
    assert not await store.delete("r1", caller="bob")
    assert await store.find_items("bob", ["msg_in"]) == {}
    assert await store.get("r1", caller="ann") is not None


async def test_runs_are_claimed_in_order_each_once(store: Store) -> None:
    for number in range(20):
        await accept(store, f"r{number}")
    claims = await asyncio.gather(*(store.claim(owner="me", limits=limits()) for _ in range(30)))
    ids = [run.id for run in claims if run is not None]
    assert ids == [f"r{number}" for number in range(20)]


async def test_limits_are_exact_under_concurrent_claims(store: Store) -> None:
    for number in range(30):
        await accept(store, f"r{number}", caller=("ann", "bob", "cyd")[number % 3])
    within = limits(running=7, each=3)
    claims = await asyncio.gather(*(store.claim(owner="me", limits=within) for _ in range(30)))
    taken = [run.caller for run in claims if run is not None]
    assert len(taken) == 7
    assert max(taken.count(caller) for caller in set(taken)) == 3


async def test_a_backlog_of_one_does_not_delay_anothers_first(store: Store) -> None:
    for number in range(50):
        await accept(store, f"a{number}")
    await accept(store, "b0", caller="bob")
    first = await store.claim(owner="me", limits=limits())
    second = await store.claim(owner="me", limits=limits())
    assert first is not None
    assert second is not None
    assert (first.id, second.id) == ("a0", "b0")


async def test_a_run_whose_retention_has_just_ended_is_destroyed_when_asked(
    store: Store, now: Now
) -> None:
    run = await started(store, "r1")
    expires = ending(3, kept_seconds=1)
    assert await store.finish(run.id, run.fence, expires)
    now.seconds += 2
    assert not await store.delete("r1", caller="bob")
    assert await store.delete("r1", caller="ann")
    now.seconds -= 2
    assert await store.get("r1", caller="ann") is None


async def test_a_full_queue_refuses_and_keeps_nothing(store: Store) -> None:
    await accept(store, "r1")
    with pytest.raises(RequestRejected, match="Your queue is full"):
        await accept(store, "r2", within=limits(waiting=1))
    with pytest.raises(RequestRejected, match="gateway's queue"):
        await accept(store, "r3", within=limits(queued=1))
    assert await store.get("r2", caller="ann") is None
    outcomes = await asyncio.gather(
        *(accept(store, f"c{n}", within=limits(waiting=11)) for n in range(30)),
        return_exceptions=True,
    )
    assert sum(outcome is None for outcome in outcomes) == 10


async def test_events_are_read_back_from_any_number(store: Store) -> None:
    run = await started(store, "r1")
    for first in range(3, 23, 4):
        assert await store.append(run.id, run.fence, frames(first, 4, str(first)))
    whole = await store.read("r1", after=-1, caller="ann")
    assert whole is not None
    assert (len(whole.frames), whole.last_seq, whole.state) == (23, 22, State.IN_PROGRESS)
    for after in range(-1, 25):
        part = await store.read("r1", after=after, caller="ann")
        assert part is not None
        assert part.frames == whole.frames[after + 1 :]


async def test_a_long_log_is_read_in_bounded_parts(store: Store) -> None:
    run = await started(store, "r1")
    for number in range(40):
        segment = frames(3 + number, 1, "y" * 50_000)
        assert await store.append(run.id, run.fence, segment)
    part = await store.read("r1", after=2, caller="ann")
    assert part is not None
    assert 0 < len(part.frames) < 40
    assert part.last_seq == 42


async def test_a_segment_that_does_not_follow_is_not_taken(store: Store) -> None:
    run = await started(store, "r1")
    assert not await store.append(run.id, run.fence, frames(2))
    assert not await store.append(run.id, run.fence, frames(4))
    assert await store.append(run.id, run.fence, frames(3))


async def test_a_run_begins_only_under_its_fence_and_only_once(store: Store) -> None:
    await accept(store, "r1")
    run = await store.claim(owner="me", limits=limits())
    assert run is not None
    assert not await store.begin(run.id, run.fence + 1, now=1.0, segment=frames(2))
    assert await store.begin(run.id, run.fence, now=1.0, segment=frames(2))
    assert not await store.begin(run.id, run.fence, now=1.0, segment=frames(3))
    assert await store.call_again(run.id, run.fence, now=2.0, cause=Cause.REFUSED)
    row = await store.get("r1", caller="ann")
    assert row is not None
    assert (row.state, row.calls, row.sent_at) == (State.IN_PROGRESS, 2, 1.0)


async def test_a_released_run_waits_again_and_its_old_fence_is_worth_nothing(store: Store) -> None:
    await accept(store, "r1")
    first = await store.claim(owner="me", limits=limits())
    assert first is not None
    assert await store.release(first.id, first.fence)
    second = await store.claim(owner="me", limits=limits())
    assert second is not None
    assert (second.attempt, second.fence > first.fence) == (0, True)
    assert not await store.begin(first.id, first.fence, now=1.0, segment=frames(2))
    assert not await store.release(first.id, first.fence)


async def test_nothing_leaves_a_terminal_state(store: Store) -> None:
    run = await started(store, "r1")
    assert await store.finish(run.id, run.fence, ending(3))
    assert not await store.finish(run.id, run.fence, ending(4, State.FAILED))
    assert not await store.append(run.id, run.fence, frames(4))
    assert not await store.call_again(run.id, run.fence, now=2.0, cause=Cause.REFUSED)
    assert not await store.release(run.id, run.fence)
    after = await store.conclude("r1", caller="ann", close=close_as(State.CANCELLED))
    assert after is not None
    assert (after.state, after.last_seq) == (State.COMPLETED, 3)
    assert await store.claim(owner="me", limits=limits()) is None


async def test_a_conclusion_from_outside_shuts_the_execution_out(store: Store) -> None:
    run = await started(store, "r1")
    after = await store.conclude("r1", caller="ann", close=close_as(State.CANCELLED))
    assert after is not None
    assert (after.state, after.last_seq) == (State.CANCELLED, 3)
    assert not await store.append(run.id, run.fence, frames(4))
    assert not await store.finish(run.id, run.fence, ending(4))
    again = await store.conclude("r1", caller="ann", close=close_as(State.FAILED))
    assert again == after


async def test_of_a_racing_cancel_and_finish_exactly_one_wins(store: Store) -> None:
    for number in range(100):
        run = await started(store, f"r{number}")
        finish = store.finish(run.id, run.fence, ending(3))
        cancel = store.conclude(run.id, caller="ann", close=close_as(State.CANCELLED))
        pair = (finish, cancel) if number % 2 else (cancel, finish)
        await asyncio.gather(*pair)
        row = await store.get(run.id, caller="ann")
        part = await store.read(run.id, after=2, caller="ann")
        assert row is not None
        assert part is not None
        assert row.state is (State.COMPLETED if number % 2 else State.CANCELLED)
        assert len(part.frames) == 1


async def test_a_conclusion_sees_the_events_so_far(store: Store) -> None:
    run = await started(store, "r1")
    await store.append(run.id, run.fence, frames(3, 2))
    seen: list[int] = []

    def close(_: Run, stored: Sequence[bytes]) -> Closing | None:
        seen.append(len(stored))
        return None

    await store.conclude("r1", caller=None, close=close, events=True)
    assert seen == [5]


async def test_abandoned_runs_are_those_of_other_owners(store: Store) -> None:
    answered = await started(store, "r1")
    await store.append(answered.id, answered.fence, frames(3))
    await accept(store, "r2")
    assert await store.claim(owner="dead", limits=limits()) is not None
    await accept(store, "r3")
    assert await store.abandoned(owner="me") == ["r2"]
    assert await store.abandoned(owner="new") == ["r1", "r2"]
    await store.requeue("r2")
    await store.requeue("r1")  # a part of an answer is visible, so this does nothing
    assert await store.abandoned(owner="new") == ["r1"]
    assert sorted(await store.unfinished_of_others({"bob"})) == ["r1", "r2", "r3"]
    assert await store.unfinished_of_others({"ann"}) == []


async def test_an_expired_run_is_unreadable_at_once_and_swept_later(store: Store, now: Now) -> None:
    for number in range(5):
        run = await started(store, f"r{number}")
        await store.finish(run.id, run.fence, ending(3, kept_seconds=10))
    now.seconds += 9.9
    assert await store.get("r0", caller="ann") is not None
    assert await store.sweep(limit=10) == 0
    now.seconds += 0.2
    assert await store.get("r0", caller="ann") is None
    assert await store.read("r0", after=-1, caller="ann") is None
    assert await store.sweep(limit=3) == 3
    assert await store.sweep(limit=3) == 2
    assert await store.sweep(limit=3) == 0


async def test_items_are_found_by_their_id_until_their_run_is_deleted(store: Store) -> None:
    await accept(store, "r1", items=("msg_in",))
    run = await store.claim(owner="me", limits=limits())
    assert run is not None
    await store.begin(run.id, run.fence, now=1.0, segment=frames(2))
    await store.finish(run.id, run.fence, ending(3))
    found = await store.find_items("ann", ["msg_in", "msg_out", "msg_other"])
    assert set(found) == {"msg_in", "msg_out"}
    assert b'"content":"hi"' in found["msg_in"]
    assert await store.delete("r1", caller="ann")
    assert await store.find_items("ann", ["msg_in", "msg_out"]) == {}
    assert not await store.delete("r1", caller="ann")


async def test_what_is_kept_survives_closing_and_opening(tmp_path: Path, now: Now) -> None:
    vault = Vault(bytes(range(32)))
    first = SqliteStore(tmp_path / "runs.db", vault=vault, now=now)
    first.open()
    run = await started(first, "r1")
    await first.append(run.id, run.fence, frames(3))
    await first.close()
    with pytest.raises(StoreFailed):
        await first.append(run.id, run.fence, frames(4))
    second = SqliteStore(tmp_path / "runs.db", vault=vault, now=now)
    second.open()
    row = await second.get("r1", caller="ann")
    assert row is not None
    assert (row.state, row.last_seq) == (State.IN_PROGRESS, 3)
    await second.close()


def remote(response_id: str = "resp_far", caller: str = "ann", **fields: Any) -> Remote:
    """Where a response is."""
    values = {"target": "openai x", "created_at": 1_000_000.0, **fields}
    return Remote(id=response_id, caller=caller, **values)


async def test_where_a_response_is_is_known_to_its_caller_alone(store: Store) -> None:
    assert await store.remember(remote(), kept_seconds=60)
    assert await store.locate("resp_far", caller="ann") == remote()
    assert await store.locate("resp_far", caller="bob") is None
    assert await store.locate("resp_near", caller="ann") is None


async def test_an_id_that_another_caller_has_is_not_taken_over(store: Store) -> None:
    assert await store.remember(remote(), kept_seconds=60)
    assert not await store.remember(remote(caller="bob"), kept_seconds=60)
    assert not await store.remember(remote(target="openai y"), kept_seconds=60)
    assert await store.locate("resp_far", caller="ann") == remote()
    later = remote(created_at=1_000_001.0)
    assert await store.remember(later, kept_seconds=90)
    assert await store.locate("resp_far", caller="ann") == later


async def test_what_is_forgotten_is_unknown(store: Store) -> None:
    await store.remember(remote(), kept_seconds=60)
    await store.forget("resp_far", caller="bob")
    assert await store.locate("resp_far", caller="ann") is not None
    await store.forget("resp_far", caller="ann")
    assert await store.locate("resp_far", caller="ann") is None


async def test_a_place_that_nobody_asks_for_expires(store: Store, now: Now) -> None:
    await store.remember(remote(), kept_seconds=60)
    now.seconds += 61
    assert await store.locate("resp_far", caller="ann") is None
    await store.sweep(limit=10)
    assert await store.remember(remote(caller="bob"), kept_seconds=60)


async def repeat(
    store: Store, run_id: str, *, key: str = "k", body: bytes = b"b", caller: str = "ann"
) -> str:
    """Accept a run under a key; the id of the run that stands."""
    run = NewRun(
        id=run_id,
        caller=caller,
        created_at=0.0,
        target="t",
        plan=b"{}",
        request=b"{}",
        response=b"{}",
        opening=frames(0),
        repeat=Repeat(key=key, digest=body, kept_seconds=60),
    )
    return await store.accept(run, limits=limits(queued=1, waiting=1))


async def test_the_same_create_under_the_same_key_is_one_run(store: Store) -> None:
    assert await repeat(store, "r1") == "r1"
    assert await repeat(store, "r2") == "r1"  # although the queue is full by now
    assert await store.get("r2", caller="ann") is None
    found = await asyncio.gather(*(repeat(store, f"x{n}") for n in range(20)))
    assert set(found) == {"r1"}


async def test_a_key_stands_for_one_body(store: Store) -> None:
    await repeat(store, "r1")
    with pytest.raises(RequestRejected) as caught:
        await repeat(store, "r2", body=b"other")
    assert caught.value.fault.code == "idempotency_key_reused"


async def test_a_key_is_its_callers_own(store: Store) -> None:
    await repeat(store, "r1")
    with pytest.raises(RequestRejected, match="queue"):
        await repeat(store, "r2", caller="bob")


async def test_a_create_that_was_refused_leaves_its_key_free(store: Store) -> None:
    await repeat(store, "r1", key="first")
    with pytest.raises(RequestRejected, match="queue"):
        await repeat(store, "r2", key="second")
    await store.delete("r1", caller="ann")
    assert await repeat(store, "r3", key="second", body=b"other") == "r3"


async def test_the_key_of_a_deleted_run_makes_no_new_one_until_its_time_is_over(
    store: Store, now: Now
) -> None:
    await repeat(store, "r1")
    await store.delete("r1", caller="ann")
    for _ in range(2):
        with pytest.raises(RequestRejected) as caught:
            await repeat(store, "r2")
        assert caught.value.fault.code == "idempotency_key_expired"
        await store.sweep(limit=10)
    now.seconds += 61
    assert await repeat(store, "r3") == "r3"


async def test_a_key_is_known_as_long_as_its_run_is_kept(store: Store, now: Now) -> None:
    await repeat(store, "r1")
    now.seconds += 1_000
    await store.sweep(limit=10)
    assert await repeat(store, "r2") == "r1"
