"""What the commands for races have in common: their arguments, and how they tell the outcome."""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import uvloop

from tests.crash.journal import Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Figures by name, and the promises that were broken."""

    figures: Mapping[str, Any]
    violations: list[Violation]


class Experiment(Protocol):
    """What is run."""

    def __call__(self, directory: Path, *, count: int, seed: int) -> Awaitable[Outcome]:
        """So many times, with randomness from the seed."""


def command(about: str, experiment: Experiment, *, count: int) -> int:
    """Run it and print what came of it; the exit status, 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    async def run(directory: str) -> Outcome:
        return await experiment(Path(directory), count=options.count, seed=options.seed)

    with (
        tempfile.TemporaryDirectory(prefix="handrail-race-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        outcome = runner.run(run(directory))
    for name, value in outcome.figures.items():
        print(f"{name:>18}  {round(value, 4) if isinstance(value, float) else value}")
    for violation in outcome.violations:
        print(f"BROKEN (--seed {options.seed}, part {violation.cycle}) {violation.what}")
    return 1 if outcome.violations else 0
