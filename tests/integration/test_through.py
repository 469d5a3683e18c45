"""Other routes of an upstream, passed through where the settings say so, by the real SDK."""

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from handrail.bootstrap.data_dir import LEDGER
from tests.conftest import CALLER_KEY, OTHER_KEY, UPSTREAM_KEY, Running, Scripted, Start
from tests.raw_http import Reply, ask, get, post

LISTED = '[upstream]\npass_through = ["/embeddings", "/chat/completions", "/files", "/files/*"]\n'
ANN = '[callers.ann]\nkey_env = "OTHER_KEY"\nmodels = ["gpt-*"]\n'
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


class Others:
    """The other routes of a server that has them."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.refusals: list[web.Response] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.method, request.path_qs, dict(request.headers), body))
        if self.refusals:
            return self.refusals.pop(0)
        name = request.path.removeprefix("/v1")
        if name.endswith("/embeddings"):
            usage = {"prompt_tokens": 8, "total_tokens": 8}
            data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
            return web.json_response(
                {"object": "list", "model": "e", "data": data, "usage": usage},
                headers={"openai-organization": "org-canary", "x-request-id": "req_there"},
            )
        if name == "/chat/completions":
            return await self._chat(request, json.loads(body))
        if name.endswith("/content"):
            return web.Response(
                body=b"\x00\x01bytes",
                content_type="application/octet-stream",
                headers={"content-disposition": 'attachment; filename="\u043e\u0442.jsonl"'},
            )
        if request.method == "DELETE":
            return web.json_response({"id": "f-1", "object": "file", "deleted": True})
        if request.method == "GET" and name.endswith("/files"):
            return web.json_response({"object": "list", "data": [], "has_more": False})
        file = {"id": "f-1", "object": "file", "bytes": 4, "created_at": 1, "filename": "a"}
        return web.json_response({**file, "purpose": "batch", "status": "processed"})

    async def _chat(self, request: web.Request, body: Any) -> web.StreamResponse:
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "hi"}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            return web.json_response({**whole, "choices": [choice], "usage": USAGE})
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        part = {**whole, "object": "chat.completion.chunk"}
        delta = {"index": 0, "delta": {"content": "hi"}, "finish_reason": None}
        for event in ({**part, "choices": [delta]}, {**part, "choices": [], "usage": USAGE}):
            await reply.write(b"data: %b\n\n" % json.dumps(event).encode())
        await reply.write(b"data: [DONE]\n\n")
        return reply


@pytest.fixture
async def others() -> AsyncIterator[tuple[Others, str]]:
    server = Others()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield server, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()


def options(url: str, *, toml: str = LISTED, **environment: str) -> dict[str, Any]:
    return {
        "toml": toml,
        "flags": {"upstream.url": url},
        "environment": {"OTHER_KEY": OTHER_KEY, **environment},
    }


async def rows(gateway: Running, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What the ledger has of calls, once it is written."""
    ledger = gateway.gateway._parts.ledger
    assert ledger is not None
    await ledger.flush()

    with contextlib.closing(sqlite3.connect(tmp_path / "data" / LEDGER)) as connection:
        return connection.execute(
            "select mode, endpoint, model, outcome, input, output from calls order by ended_at"
        ).fetchall()


async def sent(gateway: Running, method: str, path: str, body: bytes, key: str) -> Reply:
    """The reply to one request, spelled as it is given."""
    if method == "GET":
        reply = await ask(gateway.port, get(path, key=key))
    else:
        line = f"{method} {path} HTTP/1.1".encode()
        reply = await ask(gateway.port, post(body, line=line, key=key))
    assert reply is not None
    return reply


async def test_the_sdk_uses_other_routes_of_the_upstream(
    start: Start, others: tuple[Others, str]
) -> None:
    server, url = others
    async with start(**options(url)) as gateway, gateway.client() as client:
        raw = await client.embeddings.with_raw_response.create(
            model="e", input="hi", encoding_format="float"
        )
        assert raw.parse().data[0].embedding == [0.5]
        assert raw.headers["handrail-decision"] == "mode=passed-through"
        assert raw.headers["handrail-upstream-request-id"] == "req_there"
        assert "openai-organization" not in raw.headers
        messages: Any = [{"role": "user", "content": "hi"}]
        answer = await client.chat.completions.create(model="c", messages=messages)
        assert answer.choices[0].message.content == "hi"
        stream = await client.chat.completions.create(model="c", messages=messages, stream=True)
        assert [part.choices[0].delta.content async for part in stream if part.choices] == ["hi"]
        made = await client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
        assert made.id == "f-1"
        content = await client.files.content("f-1")
        assert content.content == b"\x00\x01bytes"
        named = content.response.headers["content-disposition"].encode("utf-8", "replace")
        assert b"jsonl" in named
        await client.files.delete("f-1")
    assert [(method, path) for method, path, _, _ in server.seen] == [
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/files"),
        ("GET", "/v1/files/f-1/content"),
        ("DELETE", "/v1/files/f-1"),
    ]
    for _, _, headers, _ in server.seen:
        assert headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert CALLER_KEY not in str(headers)


async def test_each_call_that_may_cost_something_has_a_row(
    start: Start, others: tuple[Others, str], tmp_path: Path
) -> None:
    _, url = others
    async with start(**options(url)) as gateway, gateway.client() as client:
        await client.embeddings.create(model="e", input="hi", encoding_format="float")
        messages: Any = [{"role": "user", "content": "hi"}]
        async for _ in await client.chat.completions.create(
            model="c", messages=messages, stream=True
        ):
            pass
        await client.files.retrieve("f-1")
        found = await rows(gateway, tmp_path)
    assert found == [
        ("passed-through", "embeddings", "e", "completed", 8, 0),
        ("passed-through", "chat", "c", "completed", 7, 5),
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/batches"),
        ("GET", "/v1/filesystem"),
        ("GET", "/v1/files/../responses/r_1"),
        ("GET", "/v1/files/%2e%2e/responses"),
        ("POST", "/v1/files/responses"),
        ("POST", "/v1//embeddings"),
        ("POST", "/v1/embeddings/"),
        ("POST", "/embeddings"),
    ],
)
async def test_what_is_not_listed_is_not_there(
    start: Start, others: tuple[Others, str], method: str, path: str
) -> None:
    server, url = others
    async with start(**options(url)) as gateway:
        assert (await sent(gateway, method, path, b"{}", CALLER_KEY)).status == 404
    assert server.seen == []


async def test_nothing_is_passed_through_without_a_key_or_by_another_method(
    start: Start, others: tuple[Others, str]
) -> None:
    server, url = others
    async with start(**options(url)) as gateway:
        nobody = await sent(gateway, "POST", "/v1/embeddings", b"{}", "hr_wrong")
        assert nobody.status == 401
        patched = await sent(gateway, "PATCH", "/v1/embeddings", b"{}", CALLER_KEY)
        assert patched.status == 405
    assert server.seen == []


async def test_a_caller_keeps_to_its_models_on_these_routes_too(
    start: Start, others: tuple[Others, str]
) -> None:
    server, url = others
    async with (
        start(**options(url, toml=LISTED + ANN)) as gateway,
        gateway.client(key=OTHER_KEY) as client,
    ):
        messages: Any = [{"role": "user", "content": "hi"}]
        await client.chat.completions.create(model="gpt-x", messages=messages)
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="other", messages=messages)
        with pytest.raises(openai.BadRequestError) as caught:  # a form may name any model
            await client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
        assert caught.value.param == "model"
    assert len(server.seen) == 1


async def test_a_body_that_is_no_json_object_is_refused(
    start: Start, others: tuple[Others, str]
) -> None:
    server, url = others
    async with start(**options(url)) as gateway:
        for body in (b"[]", b"{", b'{"model": 1}', b'{"model": "a", "model": "b"}'):
            answer = await sent(gateway, "POST", "/v1/embeddings", body, CALLER_KEY)
            assert answer.status == 400, body
            assert json.loads(answer.body)["error"]["message"]
    assert server.seen == []


async def test_a_refused_call_goes_to_another_account_and_an_error_comes_back_in_the_envelope(
    start: Start, others: tuple[Others, str]
) -> None:
    server, url = others
    accounts = '[upstream.accounts]\na = "env:KEY_A"\nb = "env:KEY_B"\n'
    keys = {"KEY_A": "sk-canary-a", "KEY_B": "sk-canary-b"}
    server.refusals = [web.Response(status=429), web.json_response({"detail": "no"}, status=400)]
    async with (
        start(**options(url, toml=LISTED + accounts, **keys)) as gateway,
        gateway.client() as client,
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.embeddings.create(model="e", input="hi")
        assert caught.value.type == "invalid_request_error"
    shown = [headers["Authorization"] for _, _, headers, _ in server.seen]
    assert len(set(shown)) == 2


async def test_a_budget_holds_for_these_routes(start: Start, others: tuple[Others, str]) -> None:
    server, url = others
    budget = '[[budgets]]\nname = "two"\nwindow = "day"\nmax_requests = 2\n'
    async with (
        start(**options(url, toml=LISTED + budget)) as gateway,
        gateway.client() as client,
    ):
        for _ in range(2):
            await client.embeddings.create(model="e", input="hi")
        with pytest.raises(openai.RateLimitError) as caught:
            await client.embeddings.create(model="e", input="hi")
        assert caught.value.code == "budget_exceeded"
        await client.files.retrieve("f-1")  # costs nothing
    assert len(server.seen) == 3


async def test_the_target_is_that_of_the_model_or_the_one_that_is_named(
    start: Start, others: tuple[Others, str], upstream: Scripted
) -> None:
    server, url = others
    one, two = url.replace("/v1", "/one"), url.replace("/v1", "/two")
    text = "".join(
        f'[targets.{name}]\nurl = "{address}"\nprofile = "compatible"\n'
        'pass_through = ["/embeddings", "/files"]\n'
        for name, address in (("one", one), ("two", two))
    )
    text += '[[routes]]\nmodel = "e*"\ntargets = ["two", "one"]\n'
    given = options(url, toml=text, HANDRAIL_UPSTREAM_API_KEY="")
    given["flags"] = {"upstream.url": None, "upstream.profile": None}
    async with start(**given) as gateway, gateway.client() as client:
        await client.embeddings.create(model="e", input="hi")
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="x", input="hi")
        await client.files.list()
        raw = await client.files.with_raw_response.list(extra_headers={"handrail-target": "two"})
        assert raw.headers["handrail-decision"] == "mode=passed-through; target=two"
        with pytest.raises(openai.BadRequestError) as caught:
            await client.files.list(extra_headers={"handrail-target": "three"})
        assert caught.value.param == "handrail-target"
    assert [path for _, path, _, _ in server.seen] == [
        "/two/embeddings",
        "/one/files",
        "/two/files",
    ]


@pytest.mark.parametrize(
    ("field", "toml", "code"),
    [
        ("background", "", "unsupported_parameter"),
        ("store", 'store = "refuse"\n', "store_not_allowed"),
    ],
)
async def test_what_the_rules_of_responses_forbid_is_not_to_be_had_here(
    start: Start, others: tuple[Others, str], field: str, toml: str, code: str
) -> None:
    server, url = others
    text = LISTED + f"[callers.default]\n{toml}"
    async with start(**options(url, toml=text)) as gateway, gateway.client() as client:
        messages: Any = [{"role": "user", "content": "hi"}]
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="c", messages=messages, extra_body={field: True}
            )
        assert (caught.value.code, caught.value.param) == (code, field)
    assert server.seen == []


async def test_a_body_whose_kind_is_not_known_is_refused(
    start: Start, others: tuple[Others, str]
) -> None:
    server, url = others
    async with start(**options(url)) as gateway:
        request = post(b'{"model": "m"}', line=b"POST /v1/embeddings HTTP/1.1", kind=b"text/plain")
        reply = await ask(gateway.port, request)
        assert reply is not None
        assert reply.status == 415
        old = post(b'{"model": "m"}', line=b"POST /v1/embeddings HTTP/1.0")
        reply = await ask(gateway.port, old)
        assert reply is not None
        assert reply.status == 505
    assert server.seen == []


async def test_a_target_that_is_named_must_be_one_for_the_model(
    start: Start, others: tuple[Others, str]
) -> None:
    server, url = others
    text = "".join(
        f'[targets.{name}]\nurl = "{url}"\nprofile = "compatible"\npass_through = ["/embeddings"]\n'
        for name in ("one", "two")
    )
    text += '[[routes]]\nmodel = "e*"\ntargets = ["two"]\n'
    given = options(url, toml=text, HANDRAIL_UPSTREAM_API_KEY="")
    given["flags"] = {"upstream.url": None, "upstream.profile": None}
    async with start(**given) as gateway, gateway.client() as client:
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(
                model="e", input="hi", extra_headers={"handrail-target": "one"}
            )
    assert server.seen == []
