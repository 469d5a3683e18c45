"""What upstreams answer and how it reaches a client, through the real SDK."""

from typing import Any

import openai
import pytest

from tests.conftest import Scripted, Start

FALLBACKS = 'upstream.model_fallbacks = { "unserved-1" = ["unserved-2", "m"] }\n'
MANNERS = pytest.mark.parametrize("manners", ["openai", "codex", "vllm"])


@MANNERS
async def test_a_model_that_is_not_served_is_a_400_that_names_it(
    start: Start, upstream: Scripted, manners: str
) -> None:
    async with start(manners=manners) as gateway, gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="unserved-1", input="hi")
        assert (caught.value.code, caught.value.param) == ("model_not_supported", "model")
        assert "unserved-1" in caught.value.message
        assert upstream.seen.calls == 1


@MANNERS
@pytest.mark.parametrize("stream", [True, False])
async def test_a_chain_of_models_is_tried_in_turn_and_told(
    start: Start, upstream: Scripted, manners: str, stream: bool
) -> None:
    async with start(manners=manners, toml=FALLBACKS) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="unserved-1", input="hi", stream=stream
        )
        models = [request["body"]["model"] for request in upstream.seen.requests]
        assert models == ["unserved-1", "unserved-2", "m"]
        assert "model: changed to m" in raw.headers["handrail-decision"]
        assert not [name for name in raw.headers if name.endswith("openai-model")]


async def test_a_background_response_goes_down_the_chain_as_well(
    start: Start, upstream: Scripted
) -> None:
    toml = FALLBACKS + "background.enabled = true\n"
    async with start(toml=toml) as gateway, gateway.client() as client:
        stream = await client.responses.create(
            model="unserved-1", input="hi", background=True, stream=True
        )
        events = [event async for event in stream]
        assert events[-1].type == "response.completed"
        assert events[-1].response.model == "m"
        assert upstream.seen.calls == 3


@MANNERS
async def test_a_chain_that_ends_leaves_the_last_refusal(start: Start, manners: str) -> None:
    toml = 'upstream.model_fallbacks = { "unserved-1" = ["unserved-2"] }\n'
    async with start(manners=manners, toml=toml) as gateway, gateway.client() as client:
        with pytest.raises(openai.BadRequestError, match="unserved-2"):
            await client.responses.create(model="unserved-1", input="hi")


async def test_a_usage_limit_says_when_it_ends_and_that_asking_again_is_in_vain(
    start: Start, upstream: Scripted
) -> None:
    async with start(manners="codex") as gateway, gateway.client(max_retries=2) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.responses.create(model="m", input="hi [[status=404 usage_limit]]")
        reply = caught.value.response
        assert reply.status_code == 429
        assert caught.value.type == "usage_limit_reached"
        assert reply.json()["error"]["resets_at"] == 1_900_000_000
        assert int(reply.headers["retry-after"]) == 604_800
        assert reply.headers["x-should-retry"] == "false"
        assert upstream.seen.calls == 1


async def test_a_fraction_of_a_second_is_told_exactly_and_never_shortened(start: Start) -> None:
    async with start() as gateway, gateway.client() as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.responses.create(model="m", input="hi [[status=429 retry_after=1.25]]")
        headers = caught.value.response.headers
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1250")


@pytest.mark.parametrize("background", [True, False])
async def test_a_response_that_is_only_queued_is_no_end_of_a_stream(
    start: Start, background: bool
) -> None:
    async with (
        start(flags={"background.enabled": True}) as gateway,
        gateway.client(_strict_response_validation=False) as client,
    ):
        stream = await client.responses.create(
            model="m", input="hi [[queued]]", stream=True, background=background
        )
        events: list[Any] = [event async for event in stream]
        assert events[-1].type == "response.failed"
        assert events[-1].response.error.type == "upstream_protocol_error"
