"""Which calls of the SDK are guarded in its own process, and which pass."""

import json

import httpx2
import openai
import pytest

from handrail import LibrarySettings
from handrail.integrations.openai import AsyncHandrailTransport
from tests.integration.sdk_clients import (
    OFF,
    ON,
    UPSTREAM_RUN,
    Either,
    Recorder,
    asynchronous,
)


async def test_the_verbs_on_kept_responses_pass(either: Either, recorder: Recorder) -> None:
    url, seen = recorder
    for call in (
        lambda responses: responses.retrieve("resp_1"),
        lambda responses: responses.cancel("resp_1"),
        lambda responses: responses.delete("resp_1"),
    ):
        await either.ask(url, OFF, call)
    assert [entry[:2] for entry in seen] == [
        ("GET", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("DELETE", "/v1/responses/resp_1"),
    ]


async def test_other_apis_pass_unchanged(recorder: Recorder) -> None:
    url, seen = recorder
    body = {"model": "m", "background": True, "store": True}
    async with asynchronous(url, OFF) as client:
        for path in ("/embeddings", "/files", "/deployments/my-responses/x"):
            await client.post(path, body=body, cast_to=object)
    assert [json.loads(entry[2]) for entry in seen] == [body] * 3


SPELLINGS = [
    "/responses/",
    "/x//responses",
    "/Responses",
    "/%72esponses",
    "/responses;x=1",
    "/responses%20",
    "/responses/other",
    "/responses/a/b/cancel",
    "/responses//cancel",
    "/responses/%63ompact",
]


@pytest.mark.parametrize("path", SPELLINGS)
async def test_a_create_in_another_spelling_is_not_sent(recorder: Recorder, path: str) -> None:
    url, seen = recorder
    async with asynchronous(url, UPSTREAM_RUN) as client:
        with pytest.raises(openai.NotFoundError):
            await client.post(path, body={"model": "m", "background": True}, cast_to=object)
    assert seen == []


@pytest.mark.parametrize("path", ["/responses", "/v1/responses", "/responses?beta=true"])
async def test_every_path_that_ends_so_is_a_create(recorder: Recorder, path: str) -> None:
    url, seen = recorder
    async with asynchronous(url, OFF) as client:
        with pytest.raises(openai.BadRequestError, match="background mode is disabled"):
            await client.post(path, body={"model": "m", "background": True}, cast_to=object)
        assert seen == []
        await client.post(path, body={"model": "m", "store": True}, cast_to=object)
    assert seen[0][1] == f"/v1{path}"
    assert json.loads(seen[0][2])["store"] is False


@pytest.mark.parametrize("settings", [OFF, LibrarySettings(switch=ON), UPSTREAM_RUN])
@pytest.mark.parametrize("path", ["/responses/compact", "/responses/input_tokens"])
async def test_the_endpoints_beside_create_take_no_background(
    recorder: Recorder, settings: LibrarySettings, path: str
) -> None:
    url, seen = recorder
    async with asynchronous(url, settings) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.post(path, body={"model": "m", "background": True}, cast_to=object)
        assert caught.value.param == "background"
        assert seen == []
        body = {"model": "m", "input": "hi", "background": False, "providerOptions": {}}
        await client.post(path, body=body, cast_to=object)
    assert json.loads(seen[0][2]) == {"model": "m", "input": "hi"}


async def test_an_endpoint_that_the_upstream_lacks_is_not_called(recorder: Recorder) -> None:
    url, seen = recorder
    settings = LibrarySettings().for_profile("codex")
    async with asynchronous(url, settings) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.post("/responses/input_tokens", body={"model": "m"}, cast_to=object)
    assert (caught.value.code, seen) == ("unsupported_endpoint", [])


async def test_a_redirect_does_not_carry_a_request_elsewhere(
    either: Either, recorder: Recorder
) -> None:
    url, seen = recorder
    with pytest.raises(openai.InternalServerError, match="redirects are not followed"):
        await either.create(f"{url}/moved")
    assert [entry[1] for entry in seen] == ["/v1/moved/responses"]


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": ""}, {"content-encoding": "gzip"}],
)
async def test_a_body_that_cannot_be_read_is_not_sent(
    recorder: Recorder, headers: dict[str, str]
) -> None:
    url, seen = recorder
    transport = AsyncHandrailTransport(OFF)
    async with httpx2.AsyncClient(transport=transport) as client:
        given = {"content-type": "application/json", **headers}
        reply = await client.post(f"{url}/responses", content=b'{"model":"m"}', headers=given)
    assert (reply.status_code, reply.json()["error"]["param"]) == (415, "content-type")
    assert seen == []


async def test_a_websocket_upgrade_is_refused(recorder: Recorder) -> None:
    url, seen = recorder
    async with httpx2.AsyncClient(transport=AsyncHandrailTransport(OFF)) as client:
        reply = await client.get(
            f"{url}/responses", headers={"connection": "upgrade", "upgrade": "websocket"}
        )
    assert (reply.status_code, reply.json()["error"]["code"]) == (426, "upgrade_required")
    assert seen == []


# --- rules ---------------------------------------------------------------------------------------
