"""A few hundred seeds of the simulation, and that a seed always means the same.

`python -m tests.simulation --seeds 10000` runs more of them.
"""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.situations import REQUIRED
from tests.simulation.world import Outcome, simulate

SEEDS = 250


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [simulate(seed) for seed in range(SEEDS)]


@pytest.mark.slow
def test_no_seed_breaks_an_invariant(outcomes: list[Outcome]) -> None:
    broken = {outcome.seed: outcome.violations[:3] for outcome in outcomes if outcome.violations}
    assert broken == {}


@pytest.mark.slow
def test_what_the_seeds_are_about_has_happened_in_them(outcomes: list[Outcome]) -> None:
    counts = sum((outcome.counts for outcome in outcomes), Counter[str]())
    assert [situation for situation in REQUIRED if not counts[situation]] == []


def test_a_seed_goes_the_same_way_every_time() -> None:
    digests = [[simulate(seed).digest for seed in range(8)] for _ in range(2)]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 8


def test_a_seed_goes_the_same_way_in_a_process_that_hashes_otherwise() -> None:
    script = (
        "from tests.simulation.world import simulate\n"
        "print(*(simulate(seed).digest for seed in range(8)))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": number},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for number in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(said[0].split()) == 8
