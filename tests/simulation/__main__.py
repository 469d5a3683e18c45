"""`python -m tests.simulation --seeds 10000`: many seeds, or one with its trace."""

import argparse
import sys
from collections import Counter
from time import perf_counter

from tests.simulation.world import Outcome, simulate


def main() -> int:
    """The command; exit status 1 when an invariant was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="print what happened in it")
    options = parser.parse_args()
    if options.seed is not None:
        outcome = simulate(options.seed)
        if options.trace:
            print("\n".join(outcome.lines))
        return _tell([outcome.seed] if outcome.violations else [], outcome)
    began, counts, failed, seconds = perf_counter(), Counter[str](), [], 0.0
    for seed in range(options.first, options.first + options.seeds):
        outcome = simulate(seed)
        counts += outcome.counts
        seconds += outcome.seconds
        if outcome.violations:
            failed.append(seed)
            _tell([seed], outcome)
    took = perf_counter() - began
    for name, count in sorted(counts.items()):
        print(f"{count:>9}  {name}")
    print(f"{options.seeds} seeds in {took:.0f} s, {options.seeds / took:.1f} a second;", end=" ")
    print(f"{seconds / 3600:.1f} simulated hours; {len(failed)} failed: {failed[:50]}")
    return 1 if failed else 0


def _tell(failed: list[int], outcome: Outcome) -> int:
    for seed in failed:
        for violation in outcome.violations[:5]:
            print(f"seed {seed}: {violation}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
