"""How many foreground requests a caller may have under way: exact, and given back on every path."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI

from tests.conftest import BACKGROUND, OTHER_KEY, Running, Scripted, Start, eventually
from tests.integration.test_budgets import refused, status_of

LONG = "[[words=500 delay=0.05]]"


def at_once(count: int, more: str = "") -> str:
    """A settings file with a limit for the caller."""
    return f"[callers.default]\nmax_foreground = {count}\n{more}"


async def opened(client: AsyncOpenAI, **body: Any) -> Any:
    """A stream of which the first event has come."""
    stream = await client.responses.create(model="m", input=LONG, stream=True, **body)
    await anext(aiter(stream))
    return stream


async def test_so_many_at_once_and_the_next_when_one_has_ended(
    start: Start, upstream: Scripted
) -> None:
    async with start(toml=at_once(5)) as gateway, gateway.client() as client:
        text = "[[before=0.3]]"
        answers = await asyncio.gather(*(status_of(client, input=text) for _ in range(20)))
        assert sorted(answers) == [200] * 5 + [429] * 15
        assert upstream.seen.calls == 5
        assert await status_of(client) == 200


async def test_the_refusal_says_why_and_to_try_again_soon(start: Start) -> None:
    async with start(toml=at_once(1)) as gateway, gateway.client() as client:
        stream = await opened(client)
        error = await refused(client)
        assert isinstance(error.body, dict)
        assert error.body["code"] == "concurrency_exceeded"
        assert error.body["type"] == "rate_limit_error"
        assert "1 requests of this caller are under way" in error.body["message"]
        assert error.response.headers["retry-after"] == "1"
        await stream.close()


def under_way(gateway: Running) -> int:
    return gateway.gateway._parts.charging.concurrency.under_way("default")


@pytest.mark.parametrize("body", [{}, {"store": True}], ids=["stateless", "kept"])
async def test_a_reader_that_leaves_gives_its_place_back(
    start: Start, body: dict[str, Any]
) -> None:
    toml = at_once(1, 'store = "keep"\nwhen_left = "continue"\n')
    async with start(toml=toml) as gateway, gateway.client() as client:
        for _ in range(3):
            stream = await opened(client, **body)
            assert await status_of(client) == 429
            await stream.close()
            await eventually(lambda: under_way(gateway) == 0)
        assert await status_of(client) == 200


async def test_whoever_has_the_whole_answer_may_ask_again_at_once(start: Start) -> None:
    # The upstream's connection is read to its end behind the caller's back.
    text = "[[linger=5]]"
    async with (
        start(toml=at_once(1)) as gateway,
        gateway.client() as first,
        gateway.client() as second,
    ):
        for client in (first, second, first, second):
            answer = await client.responses.create(model="m", input=text, stream=True)
            assert [event.type async for event in answer][-1] == "response.completed"


@pytest.mark.parametrize(
    ("text", "status"),
    [("[[status=400]]", 400), ("[[status=500]]", 500), ("[[status=429]]", 429)],
)
async def test_an_error_gives_its_place_back(start: Start, text: str, status: int) -> None:
    async with start(toml=at_once(1)) as gateway, gateway.client() as client:
        for _ in range(3):
            assert await status_of(client, input=text) == status
            assert under_way(gateway) == 0
        for wrong in ({"model": 7}, {"conversation": "c"}, {"previous_response_id": "r"}):
            assert await status_of(client, **wrong) == 400
        assert under_way(gateway) == 0
        assert await status_of(client) == 200


async def test_a_compaction_is_one_of_them_and_a_background_response_is_not(
    start: Start,
) -> None:
    async with start(toml=at_once(1), **BACKGROUND) as gateway, gateway.client() as client:
        stream = await opened(client)
        with pytest.raises(APIStatusError) as caught:
            await client.post(
                "/responses/compact", body={"model": "m", "input": "hi"}, cast_to=object
            )
        assert caught.value.status_code == 429
        runs = [
            await client.responses.create(model="m", input=LONG, background=True) for _ in range(3)
        ]
        reading = await client.responses.retrieve(runs[0].id, stream=True)
        await anext(aiter(reading))
        await stream.close()
        await eventually(lambda: under_way(gateway) == 0)
        assert await status_of(client) == 200
        await reading.close()
        for run in runs:
            await client.responses.cancel(run.id)


async def test_each_caller_has_its_own_and_a_reload_knows_what_is_under_way(
    start: Start, tmp_path: Path
) -> None:
    ann = '[callers.ann]\nkey_env = "ANN_KEY"\n'
    options: Any = {"toml": ann, "environment": {"ANN_KEY": OTHER_KEY}}
    async with (
        start(**options) as gateway,
        gateway.client() as client,
        gateway.client(key=OTHER_KEY) as other,
    ):
        streams = [await opened(client), await opened(client)]
        (tmp_path / "data.toml").write_text(at_once(2, ann + "max_foreground = 1\n"))
        await gateway.gateway.reload()
        assert await status_of(client) == 429
        assert await status_of(other) == 200
        for stream in streams:
            await stream.close()
        await eventually(lambda: under_way(gateway) == 0)
        assert await status_of(client) == 200


async def test_the_end_of_the_process_gives_every_place_back(start: Start) -> None:
    async with start(toml=at_once(9)) as gateway, gateway.client() as client:
        streams = [await opened(client) for _ in range(3)]
        assert under_way(gateway) == 3
        running = gateway
        del streams
    assert under_way(running) == 0
