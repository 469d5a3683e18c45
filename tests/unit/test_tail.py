"""Readers of runs: what they get, and that they get it without waiting for nothing."""

from pathlib import Path

from handrail.core import wire
from handrail.core.events import event
from handrail.core.lifecycle import State
from handrail.core.sse import COMMENT
from handrail.engine.clock import SystemClock
from handrail.engine.journal import Journal
from handrail.engine.tail import Tails
from handrail.store.runs import SLICE_BYTES
from tests.contract.runs import limits
from tests.unit.test_journal import Gated, delta, new_run, opened


async def test_a_run_larger_than_one_slice_is_read_to_its_end_without_a_pause(
    tmp_path: Path,
) -> None:
    store = Gated(tmp_path / "runs.db")
    store.open()
    tails = Tails(store, heartbeat_seconds=0.05)
    await store.accept(new_run("r1"), limits=limits())
    run = await store.claim(owner="me", limits=limits())
    assert run is not None
    log = Journal(store=store, tails=tails, clock=SystemClock()).open(run)
    assert await log.begin(event("response.in_progress", {"sequence_number": wire.raw(2)}))
    for _ in range(5):
        log.add(delta("x" * (SLICE_BYTES // 2)))
        await log.flush()
    assert await log.close(State.COMPLETED)
    chunks = [chunk async for chunk in tails.follow("r1", caller="ann", after=-1)]
    await store.close()
    assert b"".join(chunks).count(b"\n\n") == 9
    assert COMMENT not in chunks
    assert chunks[0].startswith(opened(0))
