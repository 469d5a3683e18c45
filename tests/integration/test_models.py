"""The list of models through the real server, for SDKs and for Codex CLI."""

import openai
import pytest

from tests.conftest import Scripted, Start
from tests.raw_http import ask, get


async def test_models_are_the_upstreams_own(start: Start) -> None:
    async with start() as gateway, gateway.client() as client:
        assert [model.id async for model in client.models.list()] == ["scripted"]
        assert (await client.models.retrieve("scripted")).id == "scripted"
        assert (await client.models.retrieve("org/model-1")).id == "org/model-1"


@pytest.mark.parametrize("manners", ["openai", "codex", "vllm"])
async def test_one_list_serves_sdks_and_codex(start: Start, manners: str) -> None:
    async with start(manners=manners) as gateway, gateway.client() as client:
        raw = await client.models.with_raw_response.list()
        body = raw.http_response.json()
        assert body["object"] == "list"
        assert [model.id for model in raw.parse().data] == ["scripted"]
        slugs = [model["slug"] for model in body["models"]]
        assert slugs == (["scripted"] if manners == "codex" else [])
        assert ("first_id" in body) is (manners != "codex")


async def test_one_model_of_a_backend_that_only_lists_is_looked_up_in_the_list(
    start: Start, upstream: Scripted
) -> None:
    async with start(manners="codex") as gateway, gateway.client() as client:
        model = await client.models.retrieve("scripted")
        assert (model.id, model.created, model.owned_by) == ("scripted", 0, "openai")
        with pytest.raises(openai.NotFoundError) as error:
            await client.models.retrieve("another")
        assert (error.value.code, error.value.param) == ("model_not_found", "model")
        assert upstream.seen.models == ["/codex/models"] * 2


async def test_the_version_that_codex_tells_goes_along(start: Start, upstream: Scripted) -> None:
    async with start(manners="codex") as gateway:
        for version in ("0.169.0", "x%26y=z"):
            await ask(gateway.port, get(f"/v1/models?client_version={version}"))
        await ask(gateway.port, get("/v1/models/scripted?client_version=0.169.0"))
        versioned = "/codex/models?client_version=0.169.0"
        assert upstream.seen.models == [versioned, "/codex/models", versioned]


async def test_a_name_that_no_model_can_have_is_the_same_404_without_a_call(
    start: Start, upstream: Scripted
) -> None:
    for manners in ("openai", "codex"):
        async with start(manners=manners, name=manners) as gateway:
            reply = await ask(gateway.port, get("/v1/models/a%20b"))
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (404, "model_not_found")
            assert reply.error["param"] == "model"
    assert upstream.seen.models == []
