"""The command line of the experiments."""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.accounts.expiries import expiries
from tests.accounts.failover import failover


async def _main(given: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="handrail-accounts-") as home:
        if given.what == "failover":
            found = await failover(Path(home), requests=given.requests, seed=given.seed)
            print(json.dumps(found.as_dict(), indent=2))
            return 1 if found.client_errors or found.calls_to_cooling else 0
        ended = await expiries(Path(home), count=given.count, kills=given.kills)
        print(json.dumps(ended.as_dict(), indent=2))
        for problem in ended.problems():
            print(problem)
        return 1 if ended.problems() else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Experiments on accounts.")
    parser.add_argument("what", choices=["failover", "expiries"])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    sys.exit(asyncio.run(_main(parser.parse_args())))
