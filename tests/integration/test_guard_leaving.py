"""Clients that leave at any moment, or stay and read nothing: what remains of them."""

import asyncio
import contextlib
import io
import json
import random
import time
from pathlib import Path

from handrail import telemetry
from tests.acceptance.processes import scripted_upstream
from tests.conftest import Scripted, Start, eventually
from tests.integration.test_guard_limits import MIB, watched
from tests.raw_http import CHUNKED, CREATE, Wire, ask, chunked, connected, get, head, post

SCRIPTS = [
    "[[words=40 delay=0.005]]",
    "[[words=2000 size=500]]",
    "[[before=1]]",
    "[[first=1]]",
    "[[stall=3]]",
    "[[words=3]]",
]


def create(script: str, *, stream: bool = True) -> bytes:
    """The body of a create."""
    return json.dumps({"model": "m", "input": script, "stream": stream}).encode()


async def leave_at_random(port: int, chance: random.Random) -> None:
    """One client: connects, sends one of many things, reads a little or nothing, and leaves."""
    body = create(chance.choice(SCRIPTS), stream=chance.random() < 0.7)
    request = chance.choice([post(body), head(CREATE, CHUNKED) + chunked(body[:9], body[9:])])
    kind = chance.random()
    if kind < 0.1:
        request += request
    elif kind < 0.2:
        request = request[: chance.randrange(1, len(request))]
    with contextlib.suppress(ConnectionError):
        async with connected(port) as wire:
            cut = chance.randrange(1, len(request) + 1)
            await wire.send(request[:cut], request[cut:])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(chance.random() ** 2 * 0.2):
                    while await wire.reader.read(chance.choice([100, 10_000])):
                        pass
            if chance.random() < 0.5:
                wire.reset()


async def test_three_hundred_clients_that_leave_at_random_moments_leave_nothing_behind(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        log = io.StringIO()
        telemetry.configure("warning", stream=log)
        room = asyncio.Semaphore(40)

        async def client(number: int) -> None:
            async with room:
                await leave_at_random(gateway.port, random.Random(number))

        await asyncio.gather(*(client(number) for number in range(300)))
        await eventually(lambda: upstream.seen.open == 0, seconds=2.0)
        assert upstream.seen.calls > 100
        # The scripted upstream is in this process too, and its library logs when it is left.
        lines = log.getvalue().splitlines()
        ours = [line for line in lines if "Error handling request" not in line]
        assert ours == []
        reply = await ask(gateway.port, post())
        assert reply is not None
        assert reply.status == 200


async def test_two_hundred_resets_before_the_first_byte_use_nothing_up(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        for number in range(200):
            async with connected(gateway.port) as wire:
                await wire.send(post(create("[[before=60]]", stream=bool(number % 2))))
                wire.reset()
        await eventually(lambda: upstream.seen.open == 0, seconds=2.0)
        reply = await ask(gateway.port, post(create("hi")))
        assert reply is not None
        assert b"response.completed" in reply.body


async def at_rest() -> None:
    """Wait until this process has nothing left to do."""
    idle = 0
    async with asyncio.timeout(30):
        while idle < 5:
            before = time.process_time()
            await asyncio.sleep(0.1)
            idle = idle + 1 if time.process_time() - before < 0.01 else 0


async def open_calls(origin: str) -> int:
    """How many calls are open at an upstream in another process."""
    reply = await ask(int(origin.rpartition(":")[2]), get("/seen", key=None))
    assert reply is not None
    opened: int = json.loads(reply.body)["open"]
    return opened


async def test_readers_that_take_nothing_of_a_flood_cost_a_bounded_amount_of_memory(
    start: Start, tmp_path: Path
) -> None:
    with scripted_upstream(tmp_path) as child:
        options = {"flags": {"upstream.url": f"{child.url}/openai/v1"}}
        async with start(**options) as gateway, watched() as memory:
            async with contextlib.AsyncExitStack() as stack:

                async def reader(port: int) -> Wire:
                    wire = await stack.enter_async_context(connected(port, receive_buffer=4_096))
                    wire.stop_reading()
                    return await wire.send(post(create("[[words=200000 size=1000]]")))

                await asyncio.gather(*(reader(gateway.port) for _ in range(20)))
                await at_rest()
                assert memory.peak < 64 * MIB
                assert await open_calls(child.url) == 20
                reply = await ask(gateway.port, post())
                assert reply is not None
                assert reply.status == 200
            async with asyncio.timeout(2):
                while await open_calls(child.url):
                    await asyncio.sleep(0.01)
