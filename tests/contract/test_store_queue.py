"""What any run store must do about waiting runs: limits, order, shares, true counts."""

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest

from handrail.core.caller_policy import Priority
from handrail.core.lifecycle import State
from handrail.core.retry import Cause
from handrail.errors import RequestRejected
from handrail.store.base import NewRun, Run, Store
from tests.contract.runs import accept, close_as, ending, frames, limits

CALLERS = ("ann", "bob", "cyd")


async def wait_with(store: Store, run_id: str, priority: Priority, caller: str = "ann") -> None:
    """A waiting run of a priority."""
    run = NewRun(
        id=run_id,
        caller=caller,
        created_at=0.0,
        target="t",
        plan=b"{}",
        request=b"{}",
        response=b"{}",
        opening=frames(0, 2),
        priority=priority,
    )
    await store.accept(run, limits=limits())


async def claim(store: Store, **within: int) -> Run | None:
    return await store.claim(owner="me", limits=limits(**within))


async def order(store: Store, count: int, **within: int) -> list[str]:
    """The ids of the next runs, as they are claimed."""
    claims = [await claim(store, **within) for _ in range(count)]
    return [run.id for run in claims if run is not None]


async def test_of_one_callers_runs_the_more_urgent_goes_first_and_equals_as_they_came(
    store: Store,
) -> None:
    for number, priority in enumerate(("low", "normal", "high", "low", "normal", "high")):
        await wait_with(store, f"{priority}{number}", Priority(priority))
    assert await order(store, 6) == ["high2", "high5", "normal1", "normal4", "low0", "low3"]


async def test_a_priority_is_nothing_between_callers(store: Store) -> None:
    for number in range(3):
        await wait_with(store, f"low{number}", Priority.LOW)
    for number in range(3):
        await wait_with(store, f"high{number}", Priority.HIGH, caller="bob")
    assert await order(store, 6) == ["low0", "high0", "low1", "high1", "low2", "high2"]


async def test_a_run_that_was_put_back_keeps_its_place(store: Store) -> None:
    for number in range(3):
        await accept(store, f"r{number}")
    first = await claim(store)
    assert first is not None
    await store.begin(first.id, first.fence, now=1.0, segment=frames(2))
    await store.requeue(first.id)
    assert await order(store, 3) == ["r0", "r1", "r2"]


@pytest.mark.parametrize("slots", [1, 2, 5])
async def test_a_thousand_waiting_do_not_delay_anothers_first(store: Store, slots: int) -> None:
    await asyncio.gather(
        *(accept(store, f"a{n}", within=limits(queued=2_000, waiting=2_000)) for n in range(1_000))
    )
    running = [await claim(store, running=slots) for _ in range(slots)]
    await accept(store, "b0", caller="bob", within=limits(queued=2_000, waiting=2_000))
    assert await claim(store, running=slots) is None
    [*_, last] = running
    assert last is not None
    assert await store.finish(last.id, last.fence, ending(2, State.FAILED))
    assert await order(store, 1, running=slots) == ["b0"]


async def test_shares_are_as_the_weights_are_also_where_one_run_fits_in(store: Store) -> None:
    rules = replace(limits(running=1), weights={"ann": 3})
    for number in range(40):
        for caller in ("ann", "bob"):
            await accept(store, f"{caller}{number}", caller=caller)
    started: Counter[str] = Counter()
    for _ in range(40):
        run = await store.claim(owner="me", limits=rules)
        assert run is not None
        started[run.caller] += 1
        assert await store.finish(run.id, run.fence, ending(2, State.FAILED))
    assert (started["ann"], started["bob"]) == (30, 10)


@pytest.mark.parametrize(("running", "each"), [(1, 1), (7, 3), (10, 10), (100, 2)])
async def test_limits_are_exact_when_everybody_claims_and_ends_at_once(
    store: Store, running: int, each: int
) -> None:
    for number in range(60):
        await accept(store, f"r{number}", caller=CALLERS[number % 3])
    under_way: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def work() -> None:
        while True:
            run = await claim(store, running=running, each=each)
            if run is None:
                if not (await store.counts())["waiting"]:
                    return
                await asyncio.sleep(0)
                continue
            under_way[run.caller] += 1
            assert under_way.total() <= running
            assert under_way[run.caller] <= each
            most[run.caller] = max(most[run.caller], under_way[run.caller])
            await store.begin(run.id, run.fence, now=1.0, segment=frames(2))
            under_way[run.caller] -= 1  # before the store knows: it may let nobody in too early
            assert await store.finish(run.id, run.fence, ending(3))

    await asyncio.gather(*(work() for _ in range(20)))
    assert await store.counts() == {"waiting": 0, "running": 0}
    assert set(most) == set(CALLERS)


@pytest.mark.parametrize(("queued", "waiting", "taken"), [(100, 5, 15), (7, 5, 7), (100, 0, 0)])
async def test_exactly_as_many_creates_are_accepted_at_once_as_may_wait(
    store: Store, queued: int, waiting: int, taken: int
) -> None:
    within = limits(queued=queued, waiting=waiting)
    outcomes = await asyncio.gather(
        *(accept(store, f"r{n}", caller=CALLERS[n % 3], within=within) for n in range(60)),
        return_exceptions=True,
    )
    refused = [each for each in outcomes if each is not None]
    assert len(outcomes) - len(refused) == taken == (await store.counts())["waiting"]
    for each in refused:
        assert isinstance(each, RequestRejected)
        assert (each.fault.status, each.fault.code, each.fault.retry_after) == (
            429,
            "queue_full",
            5,
        )


async def test_counts_are_true_after_whatever_happens(store: Store) -> None:
    """Two thousand steps at random, against what a list says of every run."""
    dice = random.Random(5)
    runs: dict[str, str] = {}  # id -> where it is
    fences: dict[str, int] = {}
    for number in range(2_000):
        step = dice.choice(
            ["accept", "claim", "begin", "release", "requeue", "end", "cancel", "drop"]
        )
        known = dice.choice(list(runs)) if runs else ""
        if step == "accept":
            await accept(store, f"r{number}", caller=dice.choice(CALLERS), within=WIDE)
            runs[f"r{number}"] = "waiting"
        elif step == "claim":
            run = await store.claim(owner="me", limits=WIDE)
            if run is not None:
                assert runs[run.id] == "waiting"
                runs[run.id], fences[run.id] = "running", run.fence
        elif known:
            await one_step(store, step, known, runs, fences)
        places = Counter(runs.values())
        assert await store.counts() == {
            "waiting": places["waiting"],
            "running": places["running"],
        }


WIDE = limits(running=10_000, queued=10_000, each=10_000, waiting=10_000)


async def one_step(
    store: Store, step: str, run_id: str, runs: dict[str, str], fences: dict[str, int]
) -> None:
    """Something happens to a run, which may be anywhere in its life."""
    fence = fences.get(run_id, 0)
    claimed = runs[run_id] == "running"
    if step == "begin":
        await store.begin(run_id, fence, now=1.0, segment=frames(2))
        await store.call_again(run_id, fence, now=1.0, cause=Cause.REFUSED)
    elif step == "release" and await store.release(run_id, fence) and claimed:
        runs[run_id] = "waiting"
    elif step == "requeue":
        await store.requeue(run_id)
        if claimed:
            runs[run_id] = "waiting"
    elif step in ("end", "cancel"):
        close = close_as(State.CANCELLED if step == "cancel" else State.FAILED)
        await store.conclude(run_id, caller=None, close=close)
        runs[run_id] = "ended"
    elif step == "drop":
        assert any([await store.delete(run_id, caller=caller) for caller in CALLERS])
        del runs[run_id]
