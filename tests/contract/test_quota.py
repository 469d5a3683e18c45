"""Disk quotas, as any store must keep them: exact, before anything is kept, and nobody else's."""

import asyncio
from pathlib import Path

import pytest

from handrail.core.lifecycle import State
from handrail.core.quota import Quota
from handrail.errors import Code, HandrailError, RequestRejected, StoreFailed
from handrail.store.base import Store
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.contract.runs import Allowed, Now, accept, close_as, ending, frames, started

ROOMY = 1 << 30


async def refusal(store: Store, run_id: str, *, caller: str = "ann") -> HandrailError:
    with pytest.raises(HandrailError) as error:
        await accept(store, run_id, caller=caller)
    assert await store.get(run_id, caller=caller) is None
    return error.value


async def size_of_one(store: Store, allowed: Allowed) -> int:
    """The bytes that one accepted run counts: the smallest quota that lets it in."""
    low, high = 1, 1 << 16
    while low < high:
        middle = (low + high) // 2
        allowed.quota = Quota(caller_bytes={"cyd": middle})
        try:
            await accept(store, "probe", caller="cyd")
        except RequestRejected:
            low = middle + 1
        else:
            high = middle
            await store.delete("probe", caller="cyd")
    allowed.quota = Quota()
    return low


async def test_a_callers_own_quota_refuses_its_creates_and_nobody_elses(
    store: Store, allowed: Allowed
) -> None:
    size = await size_of_one(store, allowed)
    allowed.quota = Quota(max_bytes=ROOMY, caller_bytes={"ann": 3 * size})
    for name in ("r1", "r2", "r3"):
        await accept(store, name)
    error = await refusal(store, "r4")
    assert isinstance(error, RequestRejected)
    assert (error.fault.status, error.fault.code) == (429, Code.STORAGE_QUOTA_EXCEEDED)
    assert f"{3 * size} bytes" in error.fault.message
    for number in range(10):
        await accept(store, f"b{number}", caller="bob")
    assert await store.delete("r2", caller="ann")
    await accept(store, "r4")


async def test_the_gateways_quota_refuses_everybody_and_is_nobodys_fault(
    store: Store, allowed: Allowed
) -> None:
    size = await size_of_one(store, allowed)
    allowed.quota = Quota(max_bytes=2 * size)
    await accept(store, "r1")
    await accept(store, "b1", caller="bob")
    error = await refusal(store, "c1", caller="cyd")
    assert isinstance(error, StoreFailed)
    assert (error.fault.status, error.fault.code) == (503, Code.STORAGE_FULL)
    assert await store.get("r1", caller="ann") is not None  # nothing is thrown out to make room


async def test_quotas_are_exact_under_concurrent_creates(store: Store, allowed: Allowed) -> None:
    size = await size_of_one(store, allowed)
    allowed.quota = Quota(caller_bytes={"ann": 7 * size + size // 2})
    outcomes = await asyncio.gather(
        *(accept(store, f"r{number % 10}{number // 10}") for number in range(30)),
        return_exceptions=True,
    )
    assert sum(outcome is None for outcome in outcomes) == 7


async def test_a_run_under_way_that_would_exceed_it_is_stopped_and_may_still_end(
    store: Store, allowed: Allowed
) -> None:
    run = await started(store, "r1")
    allowed.quota = Quota(caller_bytes={"ann": 3_000})
    with pytest.raises(StoreFailed) as error:
        await store.append(run.id, run.fence, frames(3, 1, "x" * 3_000))
    assert error.value.fault.code == Code.STORAGE_FULL
    part = await store.read("r1", after=2, caller="ann")
    assert part is not None
    assert (part.frames, part.last_seq) == ((), 2)  # nothing of it was written
    assert await store.append(run.id, run.fence, frames(3))
    allowed.quota = Quota(caller_bytes={"ann": 1})
    assert await store.finish(run.id, run.fence, ending(4, State.FAILED))
    ended = await store.get("r1", caller="ann")
    assert ended is not None
    assert ended.state is State.FAILED


async def test_a_waiting_run_may_be_cancelled_beyond_the_quota(
    store: Store, allowed: Allowed
) -> None:
    await accept(store, "r1")
    allowed.quota = Quota(max_bytes=1)
    ended = await store.conclude("r1", caller="ann", close=close_as(State.CANCELLED))
    assert ended is not None
    assert ended.state is State.CANCELLED


async def test_what_expires_frees_its_room(store: Store, allowed: Allowed, now: Now) -> None:
    size = await size_of_one(store, allowed)
    run = await started(store, "r1")
    await store.finish(run.id, run.fence, ending(3, kept_seconds=10))
    allowed.quota = Quota(caller_bytes={"ann": size})
    await refusal(store, "r2")
    now.seconds += 11
    assert await store.sweep(limit=10) == 1
    await accept(store, "r2")


async def test_what_counts_outlives_a_restart(
    store: Store, allowed: Allowed, tmp_path: Path, now: Now
) -> None:
    size = await size_of_one(store, allowed)
    await accept(store, "r1")
    await store.close()
    vault = Vault(bytes(range(32)))
    quota = Quota(caller_bytes={"ann": size})
    again = SqliteStore(tmp_path / "runs.db", vault=vault, now=now, quota=lambda: quota)
    again.open()
    await refusal(again, "r2")
    await again.close()
