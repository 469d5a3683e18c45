"""Background responses that the upstream itself runs, through the real SDK."""

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.conftest import OTHER_KEY, Scripted, Start, eventually

TOML = """
background.enabled = true
background.executor = "upstream"
"""
TWO_CALLERS = """
callers.bob.key_env = "BOB_KEY"
"""
SLOW = "[[words=60 delay=0.05]]"


def storing(start: Start, toml: str = TOML, **options: Any) -> Any:
    """A gateway in front of a server that keeps responses."""
    return start(manners="storing", profile="openai", toml=toml, **options)


async def ended(client: AsyncOpenAI, response_id: str) -> Any:
    """The response once it is over, by polling."""
    async with asyncio.timeout(10):
        while True:
            response = await client.responses.retrieve(response_id)
            if response.status not in ("queued", "in_progress"):
                return response


async def test_the_upstream_gets_store_true_and_everything_as_it_was_sent(
    start: Start, upstream: Scripted
) -> None:
    given: Any = [
        {"type": "message", "id": "msg_1", "role": "user", "content": "hi [[words=3]]"},
        {"type": "function_call_output", "call_id": "c", "output": "o"},
    ]
    options = {"background_options": {"completion_window": "2h"}}
    async with storing(start) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="m",
            input=given,
            background=True,
            reasoning={"effort": "low"},
            extra_body={**options, "providerOptions": {"openai": {"include": ["x"]}}},
        )
        response = raw.parse()
        assert (response.status, response.background) == ("queued", True)
        sent = upstream.last
        assert (sent["store"], sent["background"], sent["stream"]) == (True, True, False)
        assert (sent["input"], sent["include"]) == (given, ["x"])
        assert sent["background_options"] == options["background_options"]
        assert "providerOptions" not in sent
        decision = raw.headers["handrail-decision"]
        assert decision.startswith("mode=background-upstream; background=enabled(file); store=ups")


async def test_the_whole_life_goes_through_the_upstream_that_made_it(start: Start) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        created = await client.responses.create(model="m", input="hi [[words=4]]", background=True)
        done = await ended(client, created.id)
        assert (done.id, done.status, done.output_text) == (created.id, "completed", "call1 1 2 3 ")
        items = await client.responses.input_items.list(created.id)
        assert items.data[0].type == "message"
        await client.responses.delete(created.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(created.id)


async def test_a_stream_can_be_left_and_resumed_at_any_number(start: Start) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        stream = await client.responses.create(
            model="m", input="hi [[words=20 delay=0.02]]", background=True, stream=True
        )
        seen = []
        async for event in stream:
            seen.append(event)
            if len(seen) == 6:
                break
        await stream.close()
        created: Any = seen[0]
        again = await client.responses.retrieve(
            created.response.id, stream=True, starting_after=seen[-1].sequence_number
        )
        rest = [event async for event in again]
        numbers = [event.sequence_number for event in [*seen, *rest]]
        assert numbers == list(range(len(numbers)))
        assert rest[-1].type == "response.completed"


async def test_cancelling_stops_it_there_and_a_second_time_changes_nothing(start: Start) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        created = await client.responses.create(model="m", input=f"hi {SLOW}", background=True)
        assert (await client.responses.cancel(created.id)).status == "cancelled"
        assert (await client.responses.cancel(created.id)).status == "cancelled"
        assert (await client.responses.retrieve(created.id)).status == "cancelled"


async def test_what_the_upstream_answers_to_a_late_cancel_reaches_the_caller(start: Start) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        created = await client.responses.create(model="m", input="hi", background=True)
        await ended(client, created.id)
        with pytest.raises(openai.BadRequestError, match="Cannot cancel a completed response"):
            await client.responses.cancel(created.id)
        with pytest.raises(openai.BadRequestError, match="was not created with stream=true"):
            await client.responses.retrieve(created.id, stream=True)


async def test_it_is_found_again_after_a_restart(start: Start) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        created = await client.responses.create(model="m", input="hi", background=True)
    off = "background.enabled = false"
    async with storing(start, toml=off) as gateway, gateway.client() as client:
        assert (await ended(client, created.id)).status == "completed"


async def test_an_expiry_at_the_upstream_is_mirrored(start: Start, upstream: Scripted) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        created = await client.responses.create(model="m", input="hi", background=True)
        upstream.server.storing.kept.clear()
        for _ in range(2):
            with pytest.raises(openai.NotFoundError) as caught:
                await client.responses.retrieve(created.id)
            assert caught.value.param == "response_id"


async def test_a_route_that_the_upstream_does_not_have_is_not_taken_for_an_expiry(
    start: Start, upstream: Scripted
) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        created = await client.responses.create(model="partly-storing", input="hi", background=True)
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.input_items.list(created.id)
        assert caught.value.message.endswith("Not Found")
        assert (await ended(client, created.id)).status == "completed"


async def test_another_caller_gets_the_404_of_an_unknown_id_on_every_route(start: Start) -> None:
    options = {"environment": {"BOB_KEY": OTHER_KEY}}
    async with (
        storing(start, toml=TOML + TWO_CALLERS, **options) as gateway,
        gateway.client() as ann,
        gateway.client(key=OTHER_KEY) as bob,
    ):
        created = await ann.responses.create(model="m", input=f"hi {SLOW}", background=True)
        for response_id in (created.id, "resp_unknown"):
            calls = [
                bob.responses.retrieve(response_id),
                bob.responses.retrieve(response_id, stream=True),
                bob.responses.cancel(response_id),
                bob.responses.delete(response_id),
                bob.get(f"/responses/{response_id}/input_items", cast_to=dict),
            ]
            for call in calls:
                with pytest.raises(openai.NotFoundError) as caught:
                    await call
                assert caught.value.body == {
                    "message": f"Response with id '{response_id}' not found.",
                    "type": "invalid_request_error",
                    "param": "response_id",
                    "code": None,
                }
        with pytest.raises(openai.BadRequestError) as refused:
            await bob.responses.create(model="m", input="on", previous_response_id=created.id)
        assert refused.value.code == "previous_response_not_found"


@pytest.mark.parametrize("background", [True, False])
async def test_one_continues_from_what_the_upstream_keeps(
    start: Start, upstream: Scripted, background: bool
) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        first = await client.responses.create(model="m", input="hi", background=True)
        await ended(client, first.id)
        await client.responses.create(
            model="m", input="on", previous_response_id=first.id, background=background
        )
        assert upstream.last["previous_response_id"] == first.id
        assert upstream.last["store"] is background


async def test_an_unknown_previous_response_is_refused_before_anything_is_sent(
    start: Start, upstream: Scripted
) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        for background in (True, False):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(
                    model="m", input="on", previous_response_id="resp_x", background=background
                )
            assert caught.value.param == "previous_response_id"
        assert upstream.seen.calls == 0


@pytest.mark.parametrize("manners", ["codex", "transformers"])
async def test_an_upstream_that_cannot_refuses_before_anything_is_sent(
    start: Start, upstream: Scripted, manners: str
) -> None:
    async with start(manners=manners, toml=TOML) as gateway, gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="m", input="hi", background=True)
        assert (caught.value.code, caught.value.param) == ("background_not_supported", "background")
        assert upstream.seen.calls == 0


async def test_a_store_false_that_may_run_is_run_by_the_gateway(
    start: Start, upstream: Scripted
) -> None:
    toml = TOML + 'callers.default.store_false = "gateway"\n'
    async with storing(start, toml=toml) as gateway, gateway.client() as client:
        created = await client.responses.create(model="m", input="hi", background=True, store=False)
        assert (await ended(client, created.id)).status == "completed"
        assert upstream.last["store"] is False
        assert "background" not in upstream.last


async def test_a_cut_stream_gets_no_made_up_end(start: Start, upstream: Scripted) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        stream = await client.responses.create(
            model="m", input="hi [[words=9 delay=0.02 drop=3]]", background=True, stream=True
        )
        seen: list[Any] = []

        async def read() -> None:
            async for event in stream:
                seen.append(event)  # noqa: PERF401 - what came before the cut counts

        with pytest.raises(openai.APIConnectionError):
            await read()
        assert seen[-1].type == "response.output_text.delta"
        assert (await ended(client, seen[0].response.id)).status == "failed"


async def test_a_target_that_is_gone_is_said_to_be(start: Start, upstream: Scripted) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        created = await client.responses.create(model="m", input="hi", background=True)
    async with start(manners="openai", toml="") as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.retrieve(created.id)
        assert (caught.value.status_code, caught.value.code) == (503, "target_gone")


async def test_a_caller_who_leaves_does_not_stop_it(start: Start, upstream: Scripted) -> None:
    async with storing(start) as gateway, gateway.client() as client:
        stream = await client.responses.create(
            model="m", input="hi [[words=8 delay=0.02]]", background=True, stream=True
        )
        first: Any = await anext(aiter(stream))
        await stream.close()
        await eventually(lambda: upstream.server.storing.kept[first.response.id].ended)
        assert (await ended(client, first.response.id)).status == "completed"
