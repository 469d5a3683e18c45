"""Run it by itself: `python -m tests.issuer --port 0 --json-log FILE`."""

import argparse
import asyncio
from contextlib import ExitStack
from pathlib import Path

from tests.issuer.server import start


async def _main(port: int, log: Path | None) -> None:
    with ExitStack() as files:
        _, issuer = await start(port, log=files.enter_context(log.open("a")) if log else None)
        print(f"mock issuer on {issuer.origin}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A mock OAuth issuer.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--json-log", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.port, arguments.json_log))
