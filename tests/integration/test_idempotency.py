"""Idempotency-Key through the real SDK: a create that is sent twice runs once."""

import asyncio
from typing import Any

import openai
import pytest

from tests.conftest import BACKGROUND, Scripted, Start
from tests.integration.test_lifecycle import finished

KEY = {"Idempotency-Key": "key-1"}
SLOW = "hi [[words=20 delay=0.02]]"


async def test_the_same_create_gives_the_same_response_and_one_upstream_call(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        create = client.responses.with_raw_response.create
        first = await create(model="m", input="hi", background=True, extra_headers=KEY)
        again = await create(model="m", input="hi", background=True, extra_headers=KEY)
        assert first.parse().id == again.parse().id
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        await finished(client, first.parse().id)
        late = await create(model="m", input="hi", background=True, extra_headers=KEY)
        assert (late.parse().id, late.parse().status) == (first.parse().id, "completed")
        assert upstream.seen.calls == 1


async def test_creates_at_the_same_moment_are_one(start: Start, upstream: Scripted) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        made = await asyncio.gather(
            *(
                client.responses.create(model="m", input=SLOW, background=True, extra_headers=KEY)
                for _ in range(20)
            )
        )
        assert len({response.id for response in made}) == 1
        await finished(client, made[0].id)
        assert upstream.seen.calls == 1


async def test_a_stream_that_is_asked_for_again_begins_again_at_the_first_event(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        seen: list[list[Any]] = []
        for _ in range(2):
            stream = await client.responses.create(
                model="m", input="hi", background=True, stream=True, extra_headers=KEY
            )
            seen.append([event async for event in stream])
        assert seen[0] == seen[1]
        assert upstream.seen.calls == 1


async def test_a_key_holds_over_a_restart(start: Start, upstream: Scripted) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        first = await client.responses.create(
            model="m", input="hi", background=True, extra_headers=KEY
        )
        await finished(client, first.id)
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        again = await client.responses.create(
            model="m", input="hi", background=True, extra_headers=KEY
        )
        assert (again.id, upstream.seen.calls) == (first.id, 1)


async def test_another_body_under_the_key_is_refused(start: Start, upstream: Scripted) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        await client.responses.create(model="m", input="hi", background=True, extra_headers=KEY)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="m", input="ho", background=True, extra_headers=KEY)
        assert (caught.value.code, caught.value.param) == (
            "idempotency_key_reused",
            "idempotency-key",
        )


async def test_the_key_of_a_deleted_response_is_used_up(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        first = await client.responses.create(
            model="m", input="hi", background=True, extra_headers=KEY
        )
        await client.responses.delete(first.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="m", input="hi", background=True, extra_headers=KEY)
        assert caught.value.code == "idempotency_key_expired"


async def test_without_background_a_key_is_ignored_and_that_is_told(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        for _ in range(2):
            raw = await client.responses.with_raw_response.create(
                model="m", input="hi", extra_headers=KEY
            )
            assert "idempotency-key=ignored" in raw.headers["handrail-decision"]
        assert upstream.seen.calls == 2


async def test_what_is_no_key_is_refused(start: Start, upstream: Scripted) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(
                model="m", input="hi", background=True, extra_headers={"Idempotency-Key": "a b"}
            )
        assert (caught.value.param, upstream.seen.calls) == ("idempotency-key", 0)
