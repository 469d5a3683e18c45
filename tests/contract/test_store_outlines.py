"""What a run store tells an operator of the runs of all callers, without their content."""

from handrail.core.lifecycle import State
from handrail.store.base import Outline, Share, Store
from tests.contract.runs import CANARY, accept, close_as, limits, started


async def test_runs_of_all_callers_come_newest_first_in_pages(store: Store) -> None:
    for number in range(5):
        await accept(store, f"r{number}", caller=("ann", "bob")[number % 2])
    first = await store.outlines(after=None, limit=2)
    assert first is not None
    assert [(run.id, run.caller) for run in first] == [("r4", "ann"), ("r3", "bob")]
    rest = await store.outlines(after="r3", limit=10)
    assert rest is not None
    assert [run.id for run in rest] == ["r2", "r1", "r0"]
    assert await store.outlines(after="r0", limit=10) == []


async def test_no_runs_are_an_empty_page_and_an_unknown_place_is_none(store: Store) -> None:
    assert await store.outlines(after=None, limit=10) == []
    assert await store.outlines(after="r9", limit=10) is None
    assert await store.shares() == []


async def test_an_outline_says_how_far_a_run_is_and_nothing_of_what_it_is_about(
    store: Store,
) -> None:
    await started(store, "r1")
    found = await store.outlines(after=None, limit=1)
    run = await store.get("r1", caller="ann")
    assert run is not None
    assert found == [
        Outline(
            id="r1",
            caller="ann",
            state=State.IN_PROGRESS,
            created_at=run.created_at,
            sent_at=run.sent_at,
            finished_at=None,
            target=run.target,
            attempts=1,
            calls=1,
        )
    ]
    assert CANARY.decode() not in repr(found)
    await store.conclude("r1", caller=None, close=close_as(State.CANCELLED))
    ended = await store.outlines(after=None, limit=1)
    assert ended is not None
    assert (ended[0].state, ended[0].finished_at is not None) == (State.CANCELLED, True)


async def test_the_share_of_a_caller_is_what_waits_what_runs_and_what_is_kept(
    store: Store,
) -> None:
    for name, caller in (("a1", "ann"), ("a2", "ann"), ("b1", "bob")):
        await accept(store, name, caller=caller)
    claimed = await store.claim(owner="me", limits=limits())
    assert claimed is not None
    ann, bob = await store.shares()
    assert ann == Share(caller="ann", waiting=1, running=1, kept=2, bytes=ann.bytes)
    assert bob == Share(caller="bob", waiting=1, running=0, kept=1, bytes=bob.bytes)
    assert ann.bytes > bob.bytes > 0
    await store.delete("b1", caller="bob")
    assert [share.caller for share in await store.shares()] == ["ann"]
