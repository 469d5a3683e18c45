"""Fault row 19 through the whole gateway: time-outs, order and retention while the clock jumps."""

import asyncio

from tests.clocks import JumpingClock
from tests.conftest import Scripted, Start, eventually
from tests.integration.test_lifecycle import events_of, finished

DAY = 86_400.0
JUMPS = (3_600.0, -3_600.0, DAY, -DAY)
TOML = """
[background]
enabled = true
max_duration = "{}"
[upstream]
idle_timeout = "{}"
[callers.default]
retention = "30m"
"""
LONG = TOML.format("10m", "5m")  # though shorter than any jump
SHORT = TOML.format("4s", "2s")


async def test_twenty_jumps_end_no_run_forget_no_response_and_break_no_stream(
    start: Start, upstream: Scripted
) -> None:
    clock = JumpingClock()
    async with start(toml=LONG, clock=clock) as gateway, gateway.client() as client:
        store = gateway.gateway._store
        early = await client.responses.create(model="m", input="hi", background=True)
        await finished(client, early.id)
        slow = await client.responses.create(
            model="m", input="[[words=20 delay=0.1]]", background=True
        )
        live = asyncio.create_task(events_of(client, slow.id))
        await eventually(lambda: upstream.seen.open == 1)
        for number in range(20):
            clock.wrong_by += JUMPS[number % 4] * (1 + number // 8)
            await store.sweep(limit=100)
            assert (await client.responses.retrieve(early.id)).status == "completed"
            made = await client.responses.create(model="m", input="hi", background=True)
            assert (await finished(client, made.id)).status == "completed"
            await store.sweep(limit=100)
            assert (await client.responses.retrieve(made.id)).status == "completed"
        response = await finished(client, slow.id)
        assert (response.status, len(response.output_text.split())) == ("completed", 20)
        events = await live
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert upstream.seen.calls == 22


async def test_a_clock_that_stands_in_the_past_keeps_no_run_alive(
    start: Start, upstream: Scripted
) -> None:
    clock = JumpingClock()
    async with start(toml=SHORT, clock=clock) as gateway, gateway.client() as client:
        stalled = await client.responses.create(model="m", input="[[stall=1]]", background=True)
        endless = await client.responses.create(
            model="m", input="[[words=1000 delay=0.1]]", background=True
        )
        await eventually(lambda: upstream.seen.open == 2)
        clock.wrong_by = -DAY
        first = await finished(client, stalled.id, seconds=8)
        assert (first.status, first.error.type) == ("failed", "upstream_stalled")
        second = await finished(client, endless.id, seconds=8)
        assert (second.status, second.error.type) == ("failed", "deadline_exceeded")


async def test_after_a_jump_and_a_restart_what_was_kept_is_still_there(start: Start) -> None:
    clock = JumpingClock()
    async with start(toml=LONG, clock=clock) as gateway, gateway.client() as client:
        made = await client.responses.create(model="m", input="hi", background=True)
        await finished(client, made.id)
        clock.wrong_by = DAY
        await client.responses.create(model="m", input="hi", background=True)
    async with start(toml=LONG, clock=clock) as gateway, gateway.client() as client:
        await gateway.gateway._store.sweep(limit=100)
        assert (await client.responses.retrieve(made.id)).status == "completed"
    clock.wrong_by = 0.0
    async with start(toml=LONG, clock=clock) as gateway, gateway.client() as client:
        assert (await client.responses.retrieve(made.id)).status == "completed"
