"""compact and input_tokens through the real server, with the real SDK."""

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import BACKGROUND, UPSTREAM_KEY, Scripted, Start, eventually
from tests.raw_http import ask, get, post

PATHS = ["/v1/responses/compact", "/v1/responses/input_tokens"]
EVERY = pytest.mark.parametrize("path", PATHS)

CONVERSATION: Any = [
    {"type": "message", "id": "msg_1", "role": "user", "content": "hi"},
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA-earlier"},
    {"role": "user", "content": "and now?"},
]


def line(path: str, method: str = "POST") -> bytes:
    """A request line."""
    return f"{method} {path} HTTP/1.1".encode()


@pytest.mark.parametrize("manners", ["openai", "codex"])
async def test_a_compaction_is_strictly_valid_and_stateless(
    start: Start, upstream: Scripted, manners: str
) -> None:
    async with start(manners=manners) as gateway:
        strict = manners == "openai"  # the SDK's strict models know no user message in an output
        async with gateway.client(_strict_response_validation=strict) as client:
            raw = await client.responses.with_raw_response.compact(model="m", input="hi")
            compacted = raw.parse()
        assert compacted.object == "response.compaction"
        assert compacted.output[-1].to_dict()["encrypted_content"] == "gAAAA-compacted"
        assert raw.headers["handrail-decision"].startswith("mode=stateless; store=false")
        assert raw.headers["x-request-id"].startswith("req_")
        assert set(upstream.last) == {"model", "input"}
        call = upstream.seen.requests[-1]
        assert call["path"].endswith("/responses/compact")
        assert call["headers"]["Authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert call["headers"]["Accept"] == "application/json"


async def test_input_tokens_are_counted_by_the_upstream(start: Start, upstream: Scripted) -> None:
    async with start() as gateway, gateway.client() as client:
        count = await client.responses.input_tokens.count(model="m", input="one two three")
        assert (count.object, count.input_tokens) == ("response.input_tokens", 3)
        assert (await client.responses.input_tokens.count(input="one")).input_tokens == 1
        assert upstream.last == {"input": "one"}


async def test_what_came_out_of_a_compaction_goes_in_again_whole(
    start: Start, upstream: Scripted
) -> None:
    async with (
        start() as gateway,
        gateway.client(_strict_response_validation=False) as client,
    ):
        raw = await client.responses.with_raw_response.compact(model="m", input=CONVERSATION)
        bare = [{key: item[key] for key in item if key != "id"} for item in CONVERSATION]
        assert upstream.last["input"] == bare
        again = raw.http_response.json()["output"]
        assert [item["type"] for item in again] == ["message", "message", "compaction"]
        response = await client.responses.create(model="m", input=again)
        assert response.status == "completed"
        assert upstream.last["input"][-1] == {
            "type": "compaction",
            "encrypted_content": "gAAAA-compacted",
        }


@EVERY
async def test_fields_of_a_create_do_not_reach_an_endpoint_that_lacks_them(
    start: Start, upstream: Scripted, path: str
) -> None:
    fields = {
        "model": "m",
        "input": "hi",
        "instructions": "be brief",
        "store": True,
        "stream": False,
        "include": ["reasoning.encrypted_content"],
        "providerOptions": {"openai": {"store": False}},
        "some_new_field": {"a": 1},
    }
    async with start() as gateway:
        reply = await ask(gateway.port, post(json.dumps(fields).encode(), line=line(path)))
        assert reply is not None
        assert (reply.status, reply.headers["handrail-decision"]) == (
            200,
            "mode=stateless; store=lowered; steps=providerOptions: removed, store: removed, "
            "stream: removed, include: removed",
        )
        assert set(upstream.last) == {"model", "input", "instructions", "some_new_field"}


async def test_the_codex_backend_gets_what_it_demands_at_compact_too(
    start: Start, upstream: Scripted
) -> None:
    async with (
        start(manners="codex") as gateway,
        gateway.client(_strict_response_validation=False) as client,
    ):
        extra = {"temperature": 0.5, "metadata": {"a": "b"}, "prompt_cache_key": "k"}
        await client.responses.compact(
            model="m", input=CONVERSATION, extra_body=extra, extra_headers={"session-id": "s1"}
        )
        assert set(upstream.last) == {"model", "input", "prompt_cache_key"}
        assert all("id" not in item for item in upstream.last["input"])
        assert upstream.seen.requests[-1]["headers"]["session-id"] == "s1"


@pytest.mark.parametrize(
    ("manners", "path"),
    [("codex", PATHS[1]), ("vllm", PATHS[0]), ("vllm", PATHS[1]), ("llamacpp", PATHS[0])],
)
async def test_an_endpoint_that_the_upstream_lacks_is_a_404_of_ours_that_names_the_profile(
    start: Start, upstream: Scripted, manners: str, path: str
) -> None:
    profile = "codex" if manners == "codex" else "compatible"
    async with start(manners=manners) as gateway:
        reply = await ask(gateway.port, post(line=line(path)))
        assert reply is not None
        assert (reply.status, reply.error["code"]) == (404, "unsupported_endpoint")
        assert f"'{profile}'" in reply.error["message"]
        assert upstream.seen.calls == 0


@EVERY
@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"background": True}, "background_not_enabled", "background"),
        ({"background": True, "store": False}, "background_not_enabled", "background"),
        ({"background": "true"}, "invalid_type", "background"),
        ({"stream": True}, "unsupported_parameter", "stream"),
        ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
        ({"previous_response_id": "r"}, "previous_response_not_found", "previous_response_id"),
        ({"input": [1]}, "invalid_type", "input[0]"),
    ],
)
async def test_an_endpoint_is_guarded_like_create_and_the_upstream_sees_nothing(
    start: Start, upstream: Scripted, *, path: str, body: dict[str, Any], code: str, param: str
) -> None:
    data = json.dumps({"model": "m", "input": "hi", **body}).encode()
    async with start() as gateway:
        reply = await ask(gateway.port, post(data, line=line(path)))
        assert reply is not None
        assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, param)
        assert upstream.seen.calls == 0


@EVERY
async def test_background_is_refused_here_when_it_is_enabled_too(
    start: Start, upstream: Scripted, path: str
) -> None:
    async with start(**BACKGROUND) as gateway:
        for store in (b"", b',"store":false'):
            body = b'{"model":"m","input":"hi","background":true%b}' % store
            reply = await ask(gateway.port, post(body, line=line(path)))
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (400, "unsupported_parameter")
            assert reply.error["param"] == "background"
        assert upstream.seen.calls == 0


@EVERY
async def test_an_endpoint_is_no_response_of_that_name(start: Start, path: str) -> None:
    async with start(**BACKGROUND) as gateway:
        for method in ("GET", "DELETE"):
            reply = await ask(gateway.port, get(path, method=method))
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (405, "method_not_allowed")
            assert reply.headers["allow"] == "POST"
        reply = await ask(gateway.port, get(f"{path}/cancel", method="POST"))
        assert reply is not None
        assert (reply.status, reply.error["param"]) == (404, "response_id")


@EVERY
async def test_a_body_of_another_type_or_none_is_refused(
    start: Start, upstream: Scripted, path: str
) -> None:
    async with start() as gateway:
        reply = await ask(gateway.port, post(line=line(path), kind=b"text/plain"))
        assert reply is not None
        assert (reply.status, reply.error["code"]) == (415, "unsupported_media_type")
        reply = await ask(gateway.port, post(b"", line=line(path)))
        assert reply is not None
        assert (reply.status, reply.error["code"]) == (400, "invalid_json")
        assert upstream.seen.calls == 0


@EVERY
@pytest.mark.parametrize(
    ("directives", "status", "code"),
    [
        ("status=400", 400, "boo"),
        ("status=429 retry_after=7", 429, "boo"),
        ("status=401", 503, "upstream_credentials_rejected"),
        ("status=500 html", 500, None),
        ("html", 502, "upstream_protocol_error"),
    ],
)
async def test_an_upstreams_error_is_told_as_at_create(
    start: Start, *, path: str, directives: str, status: int, code: str | None
) -> None:
    body = json.dumps({"model": "m", "input": f"[[{directives}]]"}).encode()
    async with start() as gateway:
        reply = await ask(gateway.port, post(body, line=line(path)))
        assert reply is not None
        assert (reply.status, reply.error["code"]) == (status, code)
        assert ("retry-after" in reply.headers) is (status in (429, 503))


async def test_the_call_is_closed_as_soon_as_its_caller_leaves(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway, gateway.client() as client:
        call = asyncio.create_task(client.responses.compact(model="m", input="[[before=60]]"))
        await eventually(lambda: upstream.seen.open == 1)
        call.cancel()
        await eventually(lambda: upstream.seen.open == 0, seconds=1.0)


@EVERY
async def test_a_body_is_bounded_like_a_creates(
    start: Start, upstream: Scripted, path: str
) -> None:
    async with start(toml="[server]\nmax_body_bytes = 2048\n") as gateway:
        for size, status in ((1_000, 200), (3_000, 413)):
            body = b'{"model":"m","input":"%b"}' % (b"x" * size)
            reply = await ask(gateway.port, post(body, line=line(path)))
            assert reply is not None
            assert reply.status == status
        assert upstream.seen.calls == 1


async def test_a_large_conversation_is_counted(start: Start) -> None:
    async with start() as gateway, gateway.client() as client:
        count = await client.responses.input_tokens.count(model="m", input="word " * 500_000)
        assert count.input_tokens == 500_000
