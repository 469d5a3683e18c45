"""Stateless calls through each profile, with the real SDK over real sockets."""

import asyncio
import re
from typing import Any

import openai
import pytest

from tests.conftest import UPSTREAM_KEY, Scripted, Start, eventually

MANNERS = ["openai", "codex", "transformers", "llamacpp", "vllm"]


@pytest.mark.parametrize("manners", MANNERS)
async def test_a_json_answer_is_strictly_valid_and_says_that_nothing_is_kept(
    start: Start, upstream: Scripted, manners: str
) -> None:
    async with start(manners=manners) as gateway, gateway.client() as client:
        response = await client.responses.create(model="m", input="hi [[words=3]]")
        assert response.status == "completed"
        assert len(response.output_text.split()) == 3
        assert response.to_dict()["store"] is False
        if manners != "transformers" or "store" in upstream.last:
            assert upstream.last["store"] is False
        assert upstream.last["stream"] is (manners == "codex")


@pytest.mark.parametrize("manners", MANNERS)
async def test_a_stream_is_strictly_valid_numbered_and_whole(start: Start, manners: str) -> None:
    async with start(manners=manners) as gateway, gateway.client() as client:
        stream = await client.responses.create(
            model="m", input="hi [[words=5 reasoning]]", stream=True
        )
        events: list[Any] = [event async for event in stream]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[0].type == "response.created"
        assert [event.type for event in events].count("response.created") == 1
        assert events[-1].type == "response.completed"
        lifecycle = [event.response for event in events if hasattr(event, "response")]
        assert all(response.to_dict()["store"] is False for response in lifecycle)
        async with client.responses.stream(model="m", input="hi [[words=5]]") as helper:
            final = await helper.get_final_response()
        assert len(final.output_text.split()) == 5 or manners == "codex"


@pytest.mark.parametrize("manners", ["openai", "vllm", "codex"])
@pytest.mark.parametrize("background", [True, False])
async def test_an_event_that_the_upstream_sends_twice_is_told_once(
    start: Start, manners: str, background: bool
) -> None:
    async with (
        start(manners=manners, flags={"background.enabled": True}) as gateway,
        gateway.client() as client,
    ):
        stream = await client.responses.create(
            model="m", input="hi [[words=5 twice=3]]", stream=True, background=background
        )
        events: list[Any] = [event async for event in stream]
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == "call1 1 2 3 4 "
        assert len({event.sequence_number for event in events}) == len(events)


@pytest.mark.parametrize("manners", MANNERS)
async def test_a_cut_answer_is_incomplete_whatever_the_server_calls_it(
    start: Start, manners: str
) -> None:
    async with start(manners=manners) as gateway, gateway.client() as client:
        stream = await client.responses.create(model="m", input="[[incomplete]]", stream=True)
        events: list[Any] = [event async for event in stream]
        assert events[-1].type == "response.incomplete"
        assert events[-1].response.status == "incomplete"
        response = await client.responses.create(model="m", input="[[incomplete]]")
        assert response.status == "incomplete"


async def test_an_upstream_stream_that_needs_nothing_passes_byte_for_byte(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway, gateway.client() as client:
        body = {"model": "m", "input": "[[words=5 size=4]]", "store": False, "stream": True}
        replies = [
            await client._client.post(
                f"{base}/responses", json=body, headers={"authorization": f"Bearer {gateway.key}"}
            )
            for base in (upstream.base_url("openai"), gateway.url)
        ]
        # The server numbers its answers, so its own ids differ from call to call.
        direct, relayed = (re.sub(rb"(upstream|msg_)\d+", rb"\1", r.content) for r in replies)
        assert relayed == direct


async def test_the_codex_profile_gets_what_its_backend_demands(
    start: Start, upstream: Scripted
) -> None:
    async with start(manners="codex") as gateway, gateway.client() as client:
        items: Any = [
            {"type": "message", "id": "msg_1", "role": "user", "content": "hi"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        ]
        await client.responses.create(
            model="m",
            input=items,
            max_output_tokens=5,
            temperature=0.5,
            metadata={"a": "b"},
            user="u",
            store=True,
            instructions="be brief",
            extra_body={"client_metadata": {"k": "v"}, "some_new_field": 1},
        )
        sent = upstream.last
        assert set(sent) == {
            "model",
            "input",
            "store",
            "stream",
            "include",
            "instructions",
            "client_metadata",
            "some_new_field",
        }
        assert all("id" not in item for item in sent["input"])
        assert sent["instructions"] == "be brief"


async def test_a_compatible_server_gets_only_fields_that_it_is_known_to_take(
    start: Start, upstream: Scripted
) -> None:
    options = {"toml": '[upstream]\nextra_fields = ["seed"]\n'}
    async with start(manners="vllm", **options) as gateway, gateway.client() as client:
        await client.responses.create(
            model="m",
            input="hi",
            extra_body={"client_metadata": {"k": "v"}, "prompt_cache_key": "k", "seed": 3},
        )
        assert set(upstream.last) == {"model", "input", "store", "stream", "seed"}


async def test_a_large_request_arrives_whole(start: Start, upstream: Scripted) -> None:
    text = "word " * 1_000_000
    async with start() as gateway, gateway.client() as client:
        response = await client.responses.create(model="m", input=text)
        assert response.status == "completed"
        assert upstream.last["input"] == text


async def test_reasoning_travels_encrypted_when_there_is_no_store_to_keep_it(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway, gateway.client() as client:
        await client.responses.create(model="m", input="hi", reasoning={"effort": "low"})
        assert upstream.last["include"] == ["reasoning.encrypted_content"]
        await client.responses.create(model="m", input="hi")
        assert "include" not in upstream.last


async def test_an_include_that_we_added_and_the_model_refuses_is_taken_back_once(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway, gateway.client() as client:
        response = await client.responses.create(
            model="plain-1", input="hi", reasoning={"effort": "low"}
        )
        assert response.status == "completed"
        assert upstream.seen.calls == 2
        with pytest.raises(openai.BadRequestError, match="not supported with this model"):
            await client.responses.create(
                model="plain-1", input="hi", include=["reasoning.encrypted_content"]
            )
        assert upstream.seen.calls == 3


@pytest.mark.parametrize("manners", ["openai", "codex", "llamacpp"])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
async def test_an_upstream_error_keeps_status_message_code_and_param(
    start: Start, manners: str, status: int, error: type[openai.APIStatusError]
) -> None:
    async with start(manners=manners) as gateway, gateway.client() as client:
        for stream in (False, True):
            with pytest.raises(error) as caught:
                await client.responses.create(
                    model="m", input=f"[[status={status} retry_after=7]]", stream=stream
                )
            assert (caught.value.code, caught.value.param) == ("boo", "input")
            assert caught.value.type == "scripted"
            assert "Scripted." in caught.value.message
            assert caught.value.response.headers["retry-after"] == "7"


async def test_a_detail_error_is_rewritten_to_the_envelope(start: Start) -> None:
    async with start(manners="transformers") as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(model="m", input="hi")
        assert raw.status_code == 200
    async with start(manners="codex", profile="openai") as gateway, gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as error:
            await client.responses.create(model="m", input="hi", stream=True)
        assert error.value.body == {
            "message": "Input must be a list",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }


async def test_an_html_error_page_is_named_and_not_passed_on(start: Start) -> None:
    async with start() as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError, match="502 with an HTML page"):
            await client.responses.create(model="m", input="[[status=502 html]]")


async def test_a_usage_limit_keeps_its_type_and_reset(start: Start) -> None:
    async with start(manners="codex") as gateway, gateway.client() as client:
        with pytest.raises(openai.RateLimitError) as error:
            await client.responses.create(model="m", input="[[status=429 usage_limit]]")
        body: Any = error.value.body
        assert (body["type"], body["resets_at"]) == ("usage_limit_reached", 1_900_000_000)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_credential_is_our_problem_and_shows_nothing_of_it(
    start: Start, status: int
) -> None:
    async with start() as gateway, gateway.client() as client:
        with pytest.raises(openai.APIStatusError) as error:
            await client.responses.create(model="m", input=f"[[status={status}]]")
        assert error.value.status_code == 503
        assert error.value.code == "upstream_credentials_rejected"
        assert error.value.response.headers["x-should-retry"] == "false"
        assert UPSTREAM_KEY not in error.value.response.text


async def test_an_unreachable_upstream_is_a_502_with_its_cause_and_no_secret(start: Start) -> None:
    options = {"flags": {"upstream.url": "http://127.0.0.1:1/v1"}}
    async with start(**options) as gateway, gateway.client() as client:
        for stream in (False, True):
            with pytest.raises(openai.APIStatusError) as error:
                await client.responses.create(model="m", input="hi", stream=stream)
            assert error.value.status_code == 502
            assert error.value.code == "upstream_unreachable"
            assert "127.0.0.1:1" in error.value.message
            assert UPSTREAM_KEY not in error.value.response.text


@pytest.mark.parametrize(
    ("directive", "cause"),
    [
        ("drop=2", "upstream_ended_early"),
        ("eof=2", "upstream_ended_early"),
        ("malformed=2", "upstream_protocol_error"),
    ],
)
async def test_a_stream_that_breaks_off_ends_with_a_failed_event(
    start: Start, directive: str, cause: str
) -> None:
    async with start() as gateway, gateway.client() as client:
        stream = await client.responses.create(model="m", input=f"[[{directive}]]", stream=True)
        events: list[Any] = [event async for event in stream]
        assert events[-1].type == "response.failed"
        assert events[-1].response.error.type == cause
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert sum(event.type == "response.output_text.delta" for event in events) == 2
    async with start(manners="codex") as gateway, gateway.client() as client:
        with pytest.raises(openai.APIStatusError) as error:
            await client.responses.create(model="m", input=f"[[{directive}]]")
        assert (error.value.status_code, error.value.code) == (502, cause)


async def test_an_error_event_is_flat_and_followed_by_a_failed_event(start: Start) -> None:
    async with start() as gateway, gateway.client() as client:
        stream = await client.responses.create(model="m", input="[[error=2]]", stream=True)
        events: list[Any] = [event async for event in stream]
        assert [event.type for event in events[-2:]] == ["error", "response.failed"]
        assert events[-2].message == "Scripted error."
        assert events[-1].response.error.message == "Scripted error."


async def test_a_silent_upstream_is_given_up_after_its_idle_bound(
    start: Start, upstream: Scripted
) -> None:
    options = {"toml": '[upstream]\nidle_timeout = "1s"\n'}
    async with start(**options) as gateway, gateway.client() as client:
        stream = await client.responses.create(model="m", input="[[stall=2]]", stream=True)
        events: list[Any] = [event async for event in stream]
        assert events[-1].response.error.type == "upstream_stalled"
        await eventually(lambda: upstream.seen.open == 0)


async def test_silence_is_filled_with_comments_and_for_codex_with_numbered_events(
    start: Start,
) -> None:
    options = {"toml": '[server]\nheartbeat = "1s"\n'}
    async with start(**options) as gateway, gateway.client() as client:
        http = client._client
        for agent, sign in (("sdk", b": keep-alive\n\n"), ("codex_exec/1", b"event: keepalive\n")):
            reply = await http.post(
                f"{gateway.url}/responses",
                json={"model": "m", "input": "[[words=3 first=1.5]]", "stream": True},
                headers={"authorization": f"Bearer {gateway.key}", "user-agent": agent},
            )
            assert sign in reply.content
            numbers = [
                int(line.partition(b'"sequence_number":')[2].split(b",")[0].strip(b" }"))
                for line in reply.content.split(b"\n")
                if b'"sequence_number":' in line
            ]
            assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", ["before=60", "first=60", "words=500 delay=0.05"])
async def test_the_upstream_call_is_closed_as_soon_as_its_caller_leaves(
    start: Start, upstream: Scripted, *, stream: bool, phase: str
) -> None:
    async with start() as gateway, gateway.client() as client:
        call = asyncio.create_task(
            client.responses.create(model="m", input=f"[[{phase}]]", stream=stream)
        )
        await eventually(lambda: upstream.seen.open == 1)
        await asyncio.wait([call], timeout=0.1)
        if call.done():
            await call.result().close()  # type: ignore[union-attr]
        call.cancel()
        await eventually(lambda: upstream.seen.open == 0, seconds=1.0)


async def test_many_callers_that_leave_at_random_moments_leave_nothing_behind(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway, gateway.client() as client:

        async def call(patience: float) -> None:
            try:
                async with asyncio.timeout(patience):
                    stream = await client.responses.create(
                        model="m", input="[[words=50 delay=0.01]]", stream=True
                    )
                    async for _ in stream:
                        pass
            except (TimeoutError, openai.APIError):
                pass

        await asyncio.gather(*(call(number * 0.003) for number in range(100)))
        await eventually(lambda: upstream.seen.open == 0, seconds=2.0)


async def test_headers_go_by_allow_list_both_ways(start: Start, upstream: Scripted) -> None:
    async with start(manners="codex") as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="m",
            input="hi",
            extra_headers={
                "session-id": "s1",
                "x-codex-window-id": "w1",
                "cookie": "secret=1",
                "x-api-key": gateway.key,
                "OpenAI-Organization": "org-caller",
            },
        )
        sent = {k.lower(): v for k, v in upstream.seen.requests[-1]["headers"].items()}
        assert sent["authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert (sent["session-id"], sent["x-codex-window-id"]) == ("s1", "w1")
        assert not {"cookie", "x-api-key", "openai-organization"} & set(sent)
        assert not any(name.startswith("x-stainless") for name in sent)
        assert gateway.key not in str(sent)
        assert raw.headers["handrail-decision"].startswith("mode=stateless; store=false; steps=")
        assert raw.headers["x-request-id"].startswith("req_")
        assert "server" not in raw.headers
