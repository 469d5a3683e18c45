"""Chains of responses: what any run store must do, written against the port."""

import pytest

from handrail.core.lifecycle import State
from handrail.errors import RequestRejected
from handrail.store.base import Remote, Run, Store
from tests.contract.runs import Now, accept, ending, limits, started


async def kept(
    store: Store, run_id: str, previous: str | None = None, *, kept_seconds: float = 1e9
) -> None:
    """A run that has ended, in a chain."""
    await accept(store, run_id, previous=previous)
    run = await store.claim(owner="me", limits=limits())
    assert run is not None
    assert await store.finish(
        run.id, run.fence, ending(run.last_seq + 1, State.FAILED, kept_seconds=kept_seconds)
    )


async def chain_of(store: Store, run_id: str, caller: str = "ann") -> tuple[list[str], str | None]:
    """The ids of the runs that a walk shows, and the id that leads nowhere."""
    seen: list[Run] = []
    missing = await store.ancestry(run_id, caller=caller, visit=seen.append)
    assert all(run.caller == caller for run in seen)
    assert all(run.request and run.response for run in seen)
    assert [run.previous for run in seen[:-1]] == [run.id for run in seen[1:]]
    return [run.id for run in seen], missing


async def test_a_chain_is_walked_from_its_end_to_its_beginning(store: Store) -> None:
    await kept(store, "r1")
    await kept(store, "r2", "r1")
    await kept(store, "r3", "r2")
    assert await chain_of(store, "r3") == (["r3", "r2", "r1"], None)
    assert await chain_of(store, "r1") == (["r1"], None)


async def test_a_chain_of_any_depth_is_walked(store: Store) -> None:
    ids = [f"r{number}" for number in range(1_200)]
    for previous, run_id in zip([None, *ids], ids, strict=False):
        await accept(store, run_id, previous=previous, within=limits(queued=5_000, waiting=5_000))
    assert await chain_of(store, ids[-1]) == (ids[::-1], None)


async def test_two_responses_may_go_on_from_one(store: Store) -> None:
    await kept(store, "r1")
    await kept(store, "left", "r1")
    await kept(store, "right", "r1")
    assert await chain_of(store, "left") == (["left", "r1"], None)
    assert await chain_of(store, "right") == (["right", "r1"], None)


async def test_another_callers_chain_is_not_there(store: Store) -> None:
    await kept(store, "r1")
    await kept(store, "r2", "r1")
    assert await chain_of(store, "r2", "bob") == ([], "r2")
    assert await chain_of(store, "unknown") == ([], "unknown")


async def test_a_deleted_ancestor_is_what_the_walk_ends_at(store: Store) -> None:
    await kept(store, "r1")
    await kept(store, "r2", "r1")
    await kept(store, "r3", "r2")
    assert await store.delete("r2", caller="ann")
    assert await chain_of(store, "r3") == (["r3"], "r2")


async def test_what_a_visitor_raises_ends_the_walk(store: Store) -> None:
    await kept(store, "r1")
    await kept(store, "r2", "r1")
    seen: list[str] = []

    def visit(run: Run) -> None:
        seen.append(run.id)
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        await store.ancestry("r2", caller="ann", visit=visit)
    assert seen == ["r2"]
    assert await chain_of(store, "r2") == (["r2", "r1"], None)


@pytest.mark.parametrize("previous", ["unknown", "foreign", "expired", "deleted"])
async def test_a_run_is_not_accepted_when_what_it_goes_on_from_is_gone(
    store: Store, now: Now, previous: str
) -> None:
    await kept(store, "expired", kept_seconds=-1)
    await kept(store, "deleted")
    await store.delete("deleted", caller="ann")
    await started(store, "foreign", caller="bob")
    with pytest.raises(RequestRejected) as caught:
        await accept(store, "r2", previous=previous)
    fault = caught.value.fault
    assert (fault.code, fault.param) == ("previous_response_not_found", "previous_response_id")
    assert f"'{previous}' not found" in fault.message
    assert await store.get("r2", caller="ann") is None


async def test_a_run_may_go_on_from_what_an_upstream_keeps(store: Store, now: Now) -> None:
    remote = Remote(id="theirs", caller="ann", target="t", created_at=1.0)
    assert await store.remember(remote, kept_seconds=9)
    await accept(store, "r1", previous="theirs")
    assert await chain_of(store, "r1") == (["r1"], "theirs")
    with pytest.raises(RequestRejected):
        await accept(store, "r2", previous="theirs", caller="bob")
