"""Measures Handrail next to going direct, to a bare proxy and, if there is one, to nginx.

    .venv/bin/python bench/run.py [--rounds N] [--only NAME ...] [--json FILE] [--quick]

Everything is measured once a round, one side right after the other and in another order each time,
so that a neighbour's noise hits all sides alike; what to read are the ratios, and the CPU times.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import background, leaving, memory, replies, rewriting, startup, streams
from bench.client import Seen
from bench.goals import GOALS
from bench.machine import describe
from bench.processes import Cores, Launcher, Server, allow_many_files, has_nginx
from bench.record import BARE, DIRECT, HANDRAIL, NGINX, Record
from bench.sides import Bench, Measure, Side

MEASURES: Mapping[str, Measure] = {
    "requests": replies.small,
    "large": replies.large,
    "streams": streams.measure,
    "memory": memory.measure,
    "startup": startup.measure,
    "background": background.measure,
    "leaving": leaving.measure,
    "rewriting": rewriting.measure,
}


async def run(launcher: Launcher, names: list[str], *, rounds: int, quick: bool) -> Record:
    """All rounds; every process that was started is ended."""
    with ExitStack() as running:

        def keep(server: Server) -> Server:
            running.callback(server.stop)
            return server

        upstream = keep(launcher.upstream())
        port = upstream.port
        servers = {BARE: keep(launcher.bare(port)), HANDRAIL: keep(launcher.handrail(port))}
        if has_nginx():
            servers[NGINX] = keep(launcher.nginx(port))
        sides = [Side(name=DIRECT, port=port, server=None)]
        sides += [Side(name=name, port=it.port, server=it) for name, it in servers.items()]
        bench = Bench(
            launcher=launcher,
            upstream=upstream,
            sides=sides,
            record=Record(),
            seen=Seen(port),
            quick=quick,
        )
        for number in range(rounds):
            await _round(bench, names, number=number + 1)
            bench.sides = [*bench.sides[1:], bench.sides[0]]
    return bench.record


async def _round(bench: Bench, names: list[str], *, number: int) -> None:
    for name in names:
        started = time.perf_counter()
        await MEASURES[name](bench)
        took = time.perf_counter() - started
        print(f"round {number}, {name}: {took:.1f} s", file=sys.stderr, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="how often everything is measured (5)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=MEASURES, default=[])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    given = parser.parse_args()
    rounds = given.rounds or (2 if given.quick else 5)
    cores = Cores.of_machine()
    machine = describe(cores)
    for name, value in machine.items():
        print(f"{name + ':':<14}{value}")
    print(f"{'rounds:':<14}{rounds}{', short ones' if given.quick else ''}\n", flush=True)
    os.sched_setaffinity(0, cores.load)
    allow_many_files()
    with tempfile.TemporaryDirectory(prefix="handrail-bench-") as home:
        launcher = Launcher(home=Path(home), cores=cores)
        names = given.only or list(MEASURES)
        record = uvloop.run(run(launcher, names, rounds=rounds, quick=given.quick))
    verdicts = [verdict for goal in GOALS if (verdict := goal.verdict(record))]
    print("\n".join([*record.table(), "", *verdicts]))
    if given.json is not None:
        told = {"machine": machine, "rounds": rounds, "figures": record.plain(), "goals": verdicts}
        given.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
