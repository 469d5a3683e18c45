"""A create that an SDK sends again, without a key, because its reply was lost: it runs once."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from handrail.store.sqlite import SqliteStore
from tests.conftest import BACKGROUND, Running, Scripted, Start, eventually
from tests.cutting_proxy import ANSWERED, ASKED, CuttingProxy, cutting_proxy
from tests.integration.test_lifecycle import finished

BODY: dict[str, Any] = {"model": "m", "input": "hi [[tag=t]]", "background": True}


@asynccontextmanager
async def through(gateway: Running, cuts: Sequence[str]) -> AsyncIterator[tuple[Any, CuttingProxy]]:
    """The real SDK, which sends again by itself, behind a proxy."""
    async with (
        cutting_proxy(gateway.port, cuts) as proxy,
        AsyncOpenAI(base_url=proxy.url, api_key=gateway.key, max_retries=3, timeout=10) as client,
    ):
        yield client, proxy


async def runs(gateway: Running) -> int:
    """How many runs the gateway has."""
    store = gateway.gateway._store
    assert isinstance(store, SqliteStore)
    rows = await store._read(lambda c: c.execute("select 1 from runs").fetchall())
    return len(rows)


def again(client: AsyncOpenAI, count: int = 1, **fields: Any) -> Any:
    """The same create, as an SDK sends it for the `count`-th time again; with its headers."""
    return client.responses.with_raw_response.create(
        **{**BODY, **fields}, extra_headers={"x-stainless-retry-count": str(count)}
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("cuts", [[ANSWERED], [ANSWERED, ANSWERED], [ASKED], [ASKED, ANSWERED]])
async def test_a_reply_that_never_reached_the_client_is_given_to_its_repeat(
    start: Start, upstream: Scripted, cuts: list[str], stream: bool
) -> None:
    async with start(**BACKGROUND) as gateway, through(gateway, cuts) as (client, proxy):
        made = await client.responses.create(**BODY, stream=stream)
        if stream:
            events = [event async for event in made]
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert events[-1].response.status == "completed"
        else:
            await finished(client, made.id)
        assert len(proxy.requests) == len(cuts)
        assert all(b"x-stainless-retry-count" in request.lower() for request in proxy.requests)
        assert (await runs(gateway), upstream.seen.tags["t"]) == (1, 1)


async def test_many_clients_at_once_lose_their_replies_and_each_has_one_run_of_its_own(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway:

        async def one(number: int) -> str:
            async with through(gateway, [(ASKED, ANSWERED)[number % 2]]) as (client, _):
                made = await client.responses.create(**{**BODY, "input": f"[[tag=t{number}]]"})
                await finished(client, made.id)
                return str(made.id)

        ids = await asyncio.gather(*(one(number) for number in range(20)))
        assert (len(set(ids)), await runs(gateway)) == (20, 20)
        assert set(upstream.seen.tags.values()) == {1}


async def test_the_repeat_is_told_that_it_is_one(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, through(gateway, [ANSWERED]) as (client, _):
        raw = await client.responses.with_raw_response.create(**BODY)
        assert raw.headers["idempotent-replayed"] == "true"
        raw = await client.responses.with_raw_response.create(**BODY)
        assert "idempotent-replayed" not in raw.headers


async def test_creates_that_are_alike_on_purpose_are_as_many_runs(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client(max_retries=2) as client:
        made = await asyncio.gather(*(client.responses.create(**BODY) for _ in range(10)))
        assert len({response.id for response in made}) == 10


async def test_a_create_that_was_answered_is_not_given_to_a_later_repeat(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        first = await client.responses.create(**BODY)
        # Its own first sending was refused, or never arrived: it is a create of its own.
        second = await again(client)
        assert second.parse().id != first.id
        third = await again(client)
        assert third.parse().id not in (first.id, second.parse().id)


async def test_a_create_that_was_refused_is_a_new_one_when_it_comes_again(
    start: Start, upstream: Scripted
) -> None:
    toml = "[background]\nenabled = true\nmax_running = 1\nmax_queued = 1\n"
    async with start(toml=toml) as gateway, gateway.client() as client:
        slow = {**BODY, "input": "[[stall=1 tag=slow]]"}
        running = await client.responses.create(**slow)
        await eventually(lambda: upstream.seen.tags["slow"] == 1)
        waiting = await client.responses.create(**slow)
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(**slow)
        with pytest.raises(openai.RateLimitError):
            await again(client, input=slow["input"])
        await client.responses.cancel(waiting.id)
        made = await again(client, 2, input=slow["input"])
        assert made.parse().id not in (running.id, waiting.id)
        for response_id in (running.id, made.parse().id):
            await client.responses.cancel(response_id)


async def test_another_caller_and_another_body_are_never_given_the_same(start: Start) -> None:
    toml = '[background]\nenabled = true\n[callers.other]\nkey_env = "OTHER"\n'
    other_key = "hr_another-callers-key-31415926"
    async with (
        start(toml=toml, environment={"OTHER": other_key}) as gateway,
        cutting_proxy(gateway.port, [ANSWERED]) as proxy,
        gateway.client() as direct,
        gateway.client(key=other_key) as other,
    ):
        async with AsyncOpenAI(base_url=proxy.url, api_key=gateway.key, max_retries=0) as client:
            with pytest.raises(openai.APIConnectionError):
                await client.responses.create(**BODY)
        assert await runs(gateway) == 1
        assert "idempotent-replayed" not in (await again(other)).headers
        assert "idempotent-replayed" not in (await again(direct, input="ho")).headers
        assert "idempotent-replayed" not in (await again(direct, stream=True)).headers
        assert (await again(direct)).headers["idempotent-replayed"] == "true"
        assert await runs(gateway) == 4


async def test_it_is_recognised_after_a_restart(start: Start, upstream: Scripted) -> None:
    async with start(**BACKGROUND) as gateway:
        async with (
            cutting_proxy(gateway.port, [ANSWERED]) as proxy,
            AsyncOpenAI(base_url=proxy.url, api_key=gateway.key, max_retries=0) as client,
        ):
            with pytest.raises(openai.APIConnectionError):
                await client.responses.create(**BODY)
        await eventually(lambda: upstream.seen.tags["t"] == 1)
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        made = await again(client)
        assert made.headers["idempotent-replayed"] == "true"
        await finished(client, made.parse().id)
        assert (await runs(gateway), upstream.seen.tags["t"]) == (1, 1)


async def test_a_repeat_that_arrives_while_the_first_is_still_being_accepted_waits_for_it(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway:
        held, free = threading.Event(), threading.Event()

        def hold(_: object) -> None:
            held.set()
            free.wait(10)

        # A disk that takes its time: everything that is written waits behind this.
        store = gateway.gateway._store
        assert isinstance(store, SqliteStore)
        holding = asyncio.create_task(store._writer.run(hold))
        await asyncio.to_thread(held.wait)
        async with gateway.client(max_retries=5, timeout=0.4) as client:
            creating = asyncio.create_task(client.responses.create(**BODY))
            # The executor's claim, the first sending, and, when the SDK has given up, the second.
            waiting = store._writer._queue
            await eventually(lambda: waiting.qsize() >= 3, seconds=10)
            free.set()
            await holding
            made = await creating
        async with gateway.client() as client:
            await finished(client, made.id)
        assert (await runs(gateway), upstream.seen.tags["t"]) == (1, 1)


async def test_without_the_sdks_count_every_create_is_a_run(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        no_count = {"x-stainless-retry-count": openai.Omit()}
        made = [await client.responses.create(**BODY, extra_headers=no_count) for _ in range(2)]
        assert made[0].id != made[1].id
