"""Short runs of the crash driver; the long ones are commands (docs/explanation/durability.md)."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.driver import experiment
from tests.crash.faults import EACH_POINT_CYCLES, Fault, drains, each_point, pauses
from tests.crash.points import POINTS
from tests.crash.report import Report, key


async def test_no_promise_is_broken_by_a_kill_at_any_point(tmp_path: Path) -> None:
    # In two halves at once, because most of the time something is being waited for.
    middle = EACH_POINT_CYCLES // 2
    halves = (range(middle), range(middle, EACH_POINT_CYCLES))
    reports = await asyncio.gather(*(half(tmp_path, cycles) for cycles in halves))
    assert [report.violations for report in reports] == [[], []]
    reached = reports[0].reached + reports[1].reached
    # What the load has to bring about by chance, it may miss now and then in so short a run.
    missed = {key(point) for point in POINTS} - set(reached)
    assert len(missed) <= 3, missed
    assert sum(report.accepted for report in reports) > 5 * EACH_POINT_CYCLES
    ends = reports[0].ends + reports[1].ends
    assert {"completed", "failed", "cancelled", "incomplete"} <= set(ends)


async def half(directory: Path, cycles: range) -> Report:
    """Some cycles, in a directory of their own."""
    own = directory / str(cycles.start)
    own.mkdir()
    return await experiment(own, cycles=cycles, seed=20_261_123, plan=each_point, quick=True)


@pytest.mark.parametrize("plan", [drains, pauses])
async def test_no_promise_is_broken_by_stopping_in_order_or_by_standing_still(
    tmp_path: Path, plan: Callable[[int], Fault]
) -> None:
    report = await experiment(tmp_path, cycles=range(1), seed=2, plan=plan, quick=True)
    assert report.violations == []
    assert report.accepted > 10
