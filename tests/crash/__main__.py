"""The command: `python -m tests.crash --cycles 1500 --seed 1`."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.crash.driver import experiment


def main() -> int:
    """Run it, print the report; exit status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description="Kills the gateway and checks what it promised.")
    parser.add_argument("--cycles", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only-cycle", type=int, help="Repeat one cycle of this seed.")
    parser.add_argument("--json", type=Path, help="Where the report is kept.")
    options = parser.parse_args()
    only = options.only_cycle
    cycles = range(options.cycles) if only is None else range(only, only + 1)
    with (
        tempfile.TemporaryDirectory(prefix="handrail-crash-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        report = runner.run(experiment(Path(directory), cycles=cycles, seed=options.seed))
    print("\n".join(report.lines()))
    for violation in report.violations:
        print(f"BROKEN (--seed {options.seed} --only-cycle {violation.cycle}) {violation.what}")
    if options.json is not None:
        report.save(options.json)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
