"""Seeds that once broke an invariant, each with what was wrong.

A seed means the same only as long as the simulation draws the same; the defects that were the
product's own have a unit test beside, which stays.
"""

import pytest

from tests.simulation.world import simulate

_STOPPED = [
    *(679, 968, 1089, 3106, 3237, 3360, 4076, 4175, 5393),
    *(5503, 5546, 6166, 6679, 7542, 7855, 8236, 8789, 8835),
]
SEEDS = {
    0: "a claim under way when the drain began came back to an executor that was gone",
    11: "the same, with the run left claimed until the next start",
    906: "a reader of a run larger than one slice waited for a heartbeat between slices",
    3392: "a run whose retention ended while it was being deleted was kept, and answered deleted",
    1707: "a clock's jump that a refused write met was never written down: a key made a second run",
    6945: "the same: runs were gone a day early",
    2217: "an end waited for the disk while the clock jumped back: it was kept two days too long",
    9274: "the same, and forward: it was gone at once",
    9421: "the same, on a disk that was quick",
    9372: "no defect: a run was overtaken by another's with the better turn",
    10486: "no defect: the caller of a run that waited was revoked for a while",
    4265: "a large piece could not be kept: the stop met the end that was being written",
    **dict.fromkeys(_STOPPED, "an append failed when the end was decided, and stopped its writing"),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_that_once_failed_holds(seed: int) -> None:
    assert simulate(seed).violations == ()
