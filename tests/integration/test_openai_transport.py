"""The guardrails inside the openai SDK: real client, real sockets, no gateway."""

import asyncio
import json

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from handrail import CallerPolicy, ConfigInvalid, LibrarySettings
from handrail.integrations.openai import AsyncHandrailTransport, HandrailTransport
from tests.conftest import UPSTREAM_KEY, Scripted
from tests.integration.sdk_clients import (
    CODEX,
    COMPATIBLE,
    OFF,
    ON,
    UPSTREAM_RUN,
    Either,
    asynchronous,
)


async def test_a_stateless_call_is_lowered_and_answered(either: Either, upstream: Scripted) -> None:
    response, headers = await either.create(upstream.base_url("openai"), store=True)
    assert response.status == "completed"
    assert headers["handrail-decision"].startswith(
        "mode=stateless; store=lowered; steps=store: set"
    )
    assert (upstream.last["store"], upstream.last["stream"]) == (False, False)
    sent = upstream.seen.requests[-1]["headers"]
    assert sent["Authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert sent["Accept"] == "application/json"


async def test_ids_are_stripped_and_unknown_fields_survive(
    either: Either, upstream: Scripted
) -> None:
    item = {"type": "message", "id": "msg_1", "role": "user", "content": "hi"}
    await either.create(upstream.base_url("openai"), input=[item], extra_body={"brand_new": [1]})
    assert upstream.last["brand_new"] == [1]
    assert "id" not in upstream.last["input"][0]


async def test_a_stream_passes_as_it_comes(upstream: Scripted) -> None:
    async with asynchronous(
        upstream.base_url("openai"), OFF, _strict_response_validation=True
    ) as client:
        stream = await client.responses.create(model="m", input="hi [[words=3]]", stream=True)
        kinds = [event.type async for event in stream]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert kinds.count("response.output_text.delta") == 3
    assert upstream.last["stream"] is True


async def test_a_reader_who_leaves_closes_the_upstream_call(upstream: Scripted) -> None:
    async with asynchronous(upstream.base_url("openai"), OFF) as client:
        stream = await client.responses.create(
            model="m", input="hi [[words=3 stall=1]]", stream=True
        )
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
        await stream.close()
    async with asyncio.timeout(5):
        while upstream.seen.open:
            await asyncio.sleep(0.01)


async def test_background_is_refused_before_anything_is_sent(
    either: Either, upstream: Scripted
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await either.create(upstream.base_url("openai"), background=True)
    assert (caught.value.code, caught.value.param) == ("background_not_enabled", "background")
    assert upstream.seen.calls == 0


async def test_what_needs_a_store_names_the_gateway_and_the_other_way(
    either: Either, upstream: Scripted
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await either.create(
            upstream.base_url("openai"), LibrarySettings(switch=ON), background=True
        )
    assert caught.value.code == "background_not_supported"
    for word in ("handrail serve", "base_url", 'executor = "upstream"'):
        assert word in caught.value.message
    assert upstream.seen.calls == 0


async def test_what_the_upstream_runs_is_sent_with_its_ids(
    either: Either, upstream: Scripted
) -> None:
    item = {"type": "message", "id": "msg_1", "role": "user", "content": "hi"}
    _, headers = await either.create(
        upstream.base_url("vllm"),
        UPSTREAM_RUN,
        background=True,
        input=[item],
        previous_response_id="resp_1",
    )
    assert headers["handrail-decision"].startswith("mode=background-upstream; ")
    sent = upstream.last
    assert (sent["background"], sent["store"], sent["input"]) == (True, True, [item])
    assert sent["previous_response_id"] == "resp_1"


async def test_without_a_store_anywhere_there_is_nothing_to_continue_from(
    either: Either, upstream: Scripted
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await either.create(upstream.base_url("openai"), previous_response_id="resp_1")
    assert caught.value.code == "previous_response_not_found"
    assert upstream.seen.calls == 0


async def test_a_caller_of_json_gets_the_folded_stream_of_an_upstream_that_only_streams(
    either: Either, upstream: Scripted
) -> None:
    response, headers = await either.create(upstream.base_url("codex"), CODEX, temperature=1)
    assert response.status == "completed"
    assert response.output[0].content[0].text.endswith(" 1 2 3 4 5 6 7 ")
    assert response.to_dict()["store"] is False
    assert headers["content-type"] == "application/json"
    assert "temperature" not in upstream.last


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("eof=1", openai.InternalServerError),
        ("malformed=1", openai.InternalServerError),
        ("fail", openai.InternalServerError),
        ("error=1", openai.InternalServerError),
    ],
)
async def test_a_stream_that_fails_is_an_error_for_a_caller_of_json(
    either: Either, upstream: Scripted, script: str, kind: type[openai.APIStatusError]
) -> None:
    with pytest.raises(kind) as caught:
        await either.create(upstream.base_url("codex"), CODEX, input=f"hi [[{script}]]")
    assert caught.value.body
    assert UPSTREAM_KEY not in str(caught.value)


async def test_a_stream_that_breaks_off_is_the_clients_own_error(
    either: Either, upstream: Scripted
) -> None:
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
        await either.create(upstream.base_url("codex"), CODEX, input="hi [[drop=1]]")


async def test_an_include_that_was_ours_is_left_out_when_the_model_refuses_it(
    either: Either, upstream: Scripted
) -> None:
    response, _ = await either.create(
        upstream.base_url("openai"), model="plain-1", reasoning={"effort": "low"}
    )
    assert response.status == "completed"
    includes = [seen["body"].get("include") for seen in upstream.seen.requests]
    assert includes == [["reasoning.encrypted_content"], None]


async def test_an_include_that_was_the_callers_is_not(either: Either, upstream: Scripted) -> None:
    with pytest.raises(openai.BadRequestError, match="Encrypted content"):
        await either.create(
            upstream.base_url("openai"),
            model="plain-1",
            reasoning={"effort": "low"},
            include=["reasoning.encrypted_content"],
        )
    assert upstream.seen.calls == 1


async def test_another_refusal_reaches_the_caller_as_it_came(
    either: Either, upstream: Scripted
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await either.create(upstream.base_url("openai"), reasoning={}, input="hi [[status=400]]")
    assert (caught.value.code, caught.value.type) == ("boo", "scripted")
    assert caught.value.response.headers["handrail-decision"].startswith("mode=stateless")
    assert upstream.seen.calls == 1


async def test_only_what_a_half_compatible_server_takes_is_sent(
    either: Either, upstream: Scripted
) -> None:
    response, _ = await either.create(
        upstream.base_url("transformers"), COMPATIBLE, max_output_tokens=5, prompt_cache_key="x"
    )
    assert response.status == "completed"
    assert "prompt_cache_key" not in upstream.last


def test_the_rules_of_a_named_caller_hold_and_a_wrong_name_is_told_at_once() -> None:
    settings = LibrarySettings(callers={"ann": CallerPolicy(name="ann")})
    for transport in (HandrailTransport, AsyncHandrailTransport):
        transport(settings, caller="ann")
        for name in (None, "bob"):
            with pytest.raises(ConfigInvalid, match="ann"):
                transport(settings, caller=name)


async def test_without_settings_they_are_those_of_the_environment(
    upstream: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANDRAIL_BACKGROUND_RESPONSES", "0")
    client = AsyncOpenAI(
        base_url=upstream.base_url("openai"),
        api_key=UPSTREAM_KEY,
        http_client=DefaultAsyncHttpxClient(transport=AsyncHandrailTransport()),
    )
    async with client:
        with pytest.raises(openai.BadRequestError, match="HANDRAIL_BACKGROUND_RESPONSES"):
            await client.responses.create(model="m", input="hi", background=True)


async def test_another_transport_may_carry_the_calls() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=json.loads(request.content))

    transport = HandrailTransport(OFF, transport=httpx2.MockTransport(answer))
    with httpx2.Client(transport=transport) as client:
        reply = client.post("http://up.example/v1/responses", json={"model": "m"})
    assert reply.json() == {"model": "m", "store": False, "stream": False}


@pytest.mark.parametrize("fallbacks", [{}, {"old": ("older", "new")}])
def test_a_model_that_is_not_served_gives_way_only_where_the_rules_say_so(
    fallbacks: dict[str, tuple[str, ...]],
) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        model = json.loads(request.content)["model"]
        if model != "new":
            error = {"message": "No such model.", "code": "model_not_found", "param": "model"}
            return httpx2.Response(404, json={"error": error})
        return httpx2.Response(200, json={"model": model})

    settings = LibrarySettings(model_fallbacks=fallbacks)
    transport = HandrailTransport(settings, transport=httpx2.MockTransport(answer))
    with httpx2.Client(transport=transport) as client:
        reply = client.post("http://up.example/v1/responses", json={"model": "old"})
    if fallbacks:
        assert reply.json() == {"model": "new"}
        assert "model: changed to new" in reply.headers["handrail-decision"]
    else:
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
