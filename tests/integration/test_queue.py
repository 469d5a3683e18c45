"""Waiting responses through the whole gateway: who starts next, and who is refused."""

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.conftest import OTHER_KEY, Scripted, Start, eventually
from tests.integration.test_lifecycle import finished

TOML = """
[server]
drain = "0s"
[background]
enabled = true
max_running = {running}
max_queued = {queued}
[callers.default]
max_queued = {queued}
[callers.other]
key_env = "OTHER_KEY"
"""
OTHER = {"OTHER_KEY": OTHER_KEY}


def options(*, running: int = 1, queued: int = 2_000, more: str = "") -> dict[str, Any]:
    return {"toml": TOML.format(running=running, queued=queued) + more, "environment": OTHER}


async def create(client: AsyncOpenAI, text: str, **headers: str) -> Any:
    return await client.responses.create(
        model="m", input=text, background=True, extra_headers=headers
    )


def begun(upstream: Scripted) -> list[str]:
    """The inputs of the upstream's calls, in the order in which they came."""
    return [str(request["body"]["input"]) for request in upstream.seen.requests]


async def test_a_thousand_waiting_responses_of_one_caller_do_not_delay_anothers_first(
    start: Start, upstream: Scripted
) -> None:
    async with (
        start(**options()) as gateway,
        gateway.client() as ann,
        gateway.client(key=OTHER_KEY) as bob,
    ):
        held = await create(ann, "[[stall=0]]")
        await eventually(lambda: upstream.seen.open == 1)
        for _ in range(20):
            await asyncio.gather(*(create(ann, "[[stall=0]] of ann") for _ in range(50)))
        assert (await gateway.gateway._store.counts())["waiting"] == 1_000
        first = await create(bob, "of bob")
        await ann.responses.cancel(held.id)
        assert (await finished(bob, first.id)).status == "completed"
        assert begun(upstream)[:2] == ["[[stall=0]]", "of bob"]


async def test_a_priority_orders_a_callers_own_waiting_responses_alone(
    start: Start, upstream: Scripted
) -> None:
    async with (
        start(**options()) as gateway,
        gateway.client() as ann,
        gateway.client(key=OTHER_KEY) as bob,
    ):
        held = await create(ann, "[[stall=0]]")
        await eventually(lambda: upstream.seen.open == 1)
        of_bob = [await create(bob, f"bob {n}", **{"handrail-priority": "low"}) for n in range(2)]
        of_ann = [
            await create(ann, f"ann {priority}", **{"handrail-priority": priority})
            for priority in ("low", "normal", "high")
        ]
        await ann.responses.cancel(held.id)
        for response in of_bob:
            await finished(bob, response.id)
        for response in of_ann:
            await finished(ann, response.id)
        # Each had one turn after the first of bob's: then who has waited longest, high or low.
        assert begun(upstream)[1:] == ["bob 0", "bob 1", "ann high", "ann normal", "ann low"]


async def test_a_priority_is_told_and_one_that_does_not_exist_is_refused(start: Start) -> None:
    async with start(**options()) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="m", input="hi", background=True, extra_headers={"handrail-priority": "low"}
        )
        assert "priority=low" in raw.headers["handrail-decision"]
        with pytest.raises(openai.BadRequestError) as caught:
            await create(client, "hi", **{"handrail-priority": "urgent"})
        assert caught.value.param == "handrail-priority"


async def test_a_weight_is_a_callers_share_of_what_runs(start: Start, upstream: Scripted) -> None:
    more = "weight = 3\n"
    async with (
        start(**options(running=8, more=more)) as gateway,
        gateway.client() as ann,
        gateway.client(key=OTHER_KEY) as bob,
    ):
        held = [await create(ann, "[[stall=0]] held") for _ in range(8)]
        await eventually(lambda: upstream.seen.open == 8)
        for _ in range(10):
            await create(ann, "[[stall=0]] ann")
            await create(bob, "[[stall=0]] bob")
        for response in held:
            await ann.responses.cancel(response.id)
        await eventually(lambda: len(begun(upstream)) == 16)
        texts = begun(upstream)[8:]
        assert (texts.count("[[stall=0]] ann"), texts.count("[[stall=0]] bob")) == (2, 6)


@pytest.mark.parametrize(("queued", "taken"), [(30, 30), (7, 7)])
async def test_of_many_creates_at_once_exactly_as_many_wait_as_may(
    start: Start, upstream: Scripted, queued: int, taken: int
) -> None:
    async with start(**options(queued=queued)) as gateway, gateway.client() as client:
        held = await create(client, "[[stall=0]]")
        await eventually(lambda: upstream.seen.open == 1)
        outcomes = await asyncio.gather(
            *(create(client, "hi") for _ in range(60)), return_exceptions=True
        )
        refused = [each for each in outcomes if isinstance(each, openai.RateLimitError)]
        assert len(outcomes) - len(refused) == taken
        assert {each.code for each in refused} == {"queue_full"}
        assert {each.response.headers["retry-after"] for each in refused} == {"5"}
        assert (await gateway.gateway._store.counts()) == {"waiting": taken, "running": 1}
        await client.responses.cancel(held.id)


async def test_a_caller_who_is_paused_waits_and_is_not_refused(
    start: Start, upstream: Scripted
) -> None:
    async with (
        start(**options(more="max_running = 0\n")) as gateway,
        gateway.client() as ann,
        gateway.client(key=OTHER_KEY) as bob,
    ):
        paused = await create(bob, "of bob")
        served = await create(ann, "of ann")
        assert (await finished(ann, served.id)).status == "completed"
        assert (await bob.responses.retrieve(paused.id)).status == "queued"
        assert (await bob.responses.cancel(paused.id)).status == "cancelled"
        assert begun(upstream) == ["of ann"]
