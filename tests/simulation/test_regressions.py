"""Seeds that once broke an invariant, each with what was wrong.

A seed means the same only as long as the simulation draws the same; the defects that were the
product's own have a unit test beside, which stays.
"""

import pytest

from tests.simulation.world import simulate

SEEDS = {
    0: "a claim under way when the drain began came back to an executor that was gone",
    11: "the same, with the run left claimed until the next start",
    906: "a reader of a run larger than one slice waited for a heartbeat between slices",
    3392: "a run whose retention ended while it was being deleted was kept, and answered deleted",
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_that_once_failed_holds(seed: int) -> None:
    assert simulate(seed).violations == ()
