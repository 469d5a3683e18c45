"""The command: `python -m tests.crash --cycles 1500 --seed 1`.

With `--faults drains` each cycle ends by SIGTERM, with `--faults pauses` the gateway is stopped and
goes on.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

import uvloop

from tests.crash.driver import experiment
from tests.crash.faults import drains, pauses, schedule

FAULTS: Final = {"kills": schedule, "drains": drains, "pauses": pauses}


def main() -> int:
    """Run it, print the report; exit status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description="Kills the gateway and checks what it promised.")
    parser.add_argument("--cycles", type=int, default=30)
    parser.add_argument("--faults", choices=FAULTS, default="kills")
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
        report = runner.run(
            experiment(
                Path(directory), cycles=cycles, seed=options.seed, plan=FAULTS[options.faults]
            )
        )
    print("\n".join(report.lines()))
    again = f"--faults {options.faults} --seed {options.seed} --only-cycle"
    for violation in report.violations:
        print(f"BROKEN ({again} {violation.cycle}) {violation.what}")
    if options.json is not None:
        report.save(options.json)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
