"""Run it by itself: `python -m tests.scripted_upstream --port 9000`."""

import argparse
import asyncio

from tests.scripted_upstream.server import start


async def _main(port: int) -> None:
    _, _, origin = await start(port)
    print(f"scripted model server on {origin}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A scripted model server.")
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_main(parser.parse_args().port))
