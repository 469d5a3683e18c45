"""Several targets behind one gateway: where requests go, and where next when one cannot be used."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from tests import scripted_upstream
from tests.conftest import CALLER_KEY, OTHER_KEY, Scripted, Start, eventually
from tests.integration.test_accounts import KEYS, Gate, ask, reasoning
from tests.integration.test_lifecycle import finished

ENVIRONMENT = {
    "HANDRAIL_UPSTREAM_API_KEY": "",
    "HANDRAIL_CALLER_KEY": CALLER_KEY,
    "OTHER_KEY": OTHER_KEY,
    **{f"KEY_{name.upper()}": key for name, key in KEYS.items()},
}
ONLY_FILE = {"upstream.url": None, "upstream.profile": None}


def toml(upstream: Scripted, *routes: str, more: str = "", **manners: str) -> str:
    """Targets a, b and c with a key each, at servers of these manners."""
    text = more
    for name in KEYS:
        kind = manners.get(name, "openai")
        profile = kind if kind in ("openai", "codex") else "compatible"
        text += f'[targets.{name}]\nurl = "{upstream.base_url(kind)}"\nprofile = "{profile}"\n'
        text += f'api_key_env = "KEY_{name.upper()}"\n'
        if kind == "storing":
            text += "runs_background = true\n"
    return text + "".join(f"[[routes]]\n{route}\n" for route in routes)


def options(text: str, *, background: bool = False) -> dict[str, Any]:
    flags = ONLY_FILE | ({"background.enabled": True} if background else {})
    return {"toml": text, "flags": flags, "environment": ENVIRONMENT}


ALL = 'targets = ["a", "b", "c"]'


@pytest.fixture
async def elsewhere() -> AsyncIterator[Scripted]:
    runner, server, origin = await scripted_upstream.start()
    yield Scripted(server, origin)
    await runner.cleanup()


def at(server: Scripted, target: str, text: str, before: Scripted) -> str:
    """The same settings with one target at another server."""
    head, table, rest = text.partition(f"[targets.{target}]")
    return head + table + rest.replace(before.origin, server.origin, 1)


@pytest.fixture
def gate(upstream: Scripted) -> Gate:
    return Gate(upstream)


async def test_a_model_goes_where_its_route_leads(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    text = toml(upstream, 'model = "x-*"\ntargets = ["b"]', 'model = "m"\ntargets = ["a"]')
    async with start(**options(text)) as gateway, gateway.client() as client:
        answer = await client.responses.with_raw_response.create(model="x-1", input="hi")
        assert "target=b" in answer.headers["handrail-decision"]
        await ask(client)
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.create(model="other", input="hi")
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as missing:
            await client.responses.create(input="hi")
        assert missing.value.param == "model"
    assert gate.asked == {"a": 1, "b": 1}


@pytest.mark.parametrize("status", [401, 429, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_that_proves_that_nothing_ran_is_followed_by_another_target(
    start: Start, upstream: Scripted, gate: Gate, *, status: int, stream: bool
) -> None:
    gate.refuse("a", "b", status=status)
    async with start(**options(toml(upstream, ALL))) as gateway, gateway.client() as client:
        answer = await ask(client, stream=stream)
        if stream:
            assert [event.type async for event in answer][-1] == "response.completed"
        else:
            assert answer.status == "completed"
    assert gate.asked == {"a": 1, "b": 1, "c": 1}


async def test_a_target_that_cannot_be_reached_is_followed_by_another(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    text = toml(upstream, ALL).replace(upstream.origin, "http://127.0.0.1:9", 1)
    async with start(**options(text)) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(model="m", input="hi")
        assert "target: is b" in raw.headers["handrail-decision"]
    assert gate.asked == {"b": 1}


async def test_a_refused_target_is_followed_by_another_where_the_settings_say_so(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    gate.refuse("a", status=403)
    text = toml(upstream, ALL, more="[accounts]\nalso_after = [403]\n")
    async with start(**options(text)) as gateway, gateway.client() as client:
        for _ in range(3):
            await ask(client)
    assert gate.asked == {"a": 1, "b": 3}


@pytest.mark.parametrize("status", [400, 403, 404, 500, 502, 504])
async def test_any_other_answer_stands(
    start: Start, upstream: Scripted, gate: Gate, status: int
) -> None:
    gate.refuse("a", status=status)
    async with start(**options(toml(upstream, ALL))) as gateway, gateway.client() as client:
        with pytest.raises(openai.APIStatusError):
            await ask(client)
    assert gate.asked == {"a": 1}


async def test_a_target_at_its_limit_is_not_asked_before_its_time(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    gate.refuse("a", status=429, retry_after="60")
    async with start(**options(toml(upstream, ALL))) as gateway, gateway.client() as client:
        for _ in range(10):
            await ask(client)
    assert gate.asked == {"a": 1, "b": 10}


async def test_when_all_are_at_a_limit_the_soonest_reset_is_told(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    gate.refuse("a", status=429, retry_after="50")
    gate.refuse("b", status=429, retry_after="20")
    gate.refuse("c", status=503)
    async with start(**options(toml(upstream, ALL))) as gateway, gateway.client() as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(client)
    assert caught.value.response.headers["retry-after"] == "20"
    assert gate.asked == {"a": 1, "b": 1, "c": 1}


async def test_each_target_gets_the_request_in_its_own_form(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    gate.refuse("a", status=503)
    text = toml(upstream, ALL, b="transformers")
    async with start(**options(text)) as gateway, gateway.client() as client:
        answer = await ask(client, safety_identifier="someone", stream=False)
        assert answer.status == "completed"
    assert "safety_identifier" not in upstream.last
    assert gate.asked == {"a": 1, "b": 1}


async def test_a_caller_reaches_its_own_targets_alone(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    ann = '[callers.ann]\nkey_env = "OTHER_KEY"\ntargets = ["b"]\n'
    text = toml(upstream, 'model = "m"\ntargets = ["a", "b"]', 'targets = ["c"]', more=ann)
    async with start(**options(text)) as gateway, gateway.client(key=OTHER_KEY) as client:
        await ask(client)
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model="other", input="hi")
        gate.refuse("b", status=503)
        with pytest.raises(openai.InternalServerError):
            await ask(client)
    assert gate.asked == {"b": 2}


async def test_a_run_goes_to_another_target_and_says_so(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    gate.refuse("a", status=429, retry_after="60")
    text = toml(upstream, ALL)
    async with start(**options(text, background=True)) as gateway, gateway.client() as client:
        run = await ask(client, background=True)
        assert (await finished(client, run.id)).status == "completed"
        store: Any = gateway.gateway._store
        calls = await store.calls(run.id, caller="default")
    assert [call.cause for call in calls] == ["first", "other_target"]
    assert gate.asked == {"a": 1, "b": 1}


async def test_a_run_keeps_its_targets_over_a_change_of_the_routes(
    start: Start, upstream: Scripted, gate: Gate, tmp_path: Any
) -> None:
    gate.refuse("a", "b", status=429, retry_after="1")
    text = toml(upstream, 'targets = ["a", "b"]')
    async with start(**options(text, background=True)) as gateway, gateway.client() as client:
        run = await ask(client, background=True)
        await eventually(lambda: gate.asked.total() == 2)
        (tmp_path / "data.toml").write_text(toml(upstream, 'targets = ["c"]'))
        assert (await gateway.gateway.reload()).problem is None
        gate.answers.clear()
        assert (await finished(client, run.id)).status == "completed"
        assert gate.asked["c"] == 0
        await ask(client)
    assert gate.asked["c"] == 1


async def test_an_upstreams_own_runs_are_found_where_they_were_made(
    start: Start, upstream: Scripted, gate: Gate, elsewhere: Scripted
) -> None:
    gate.refuse("a", status=503)
    executor = '[background]\nexecutor = "upstream"\n'
    text = toml(upstream, ALL, more=executor, a="storing", b="storing")
    text = at(elsewhere, "b", text, upstream)
    async with start(**options(text, background=True)) as gateway, gateway.client() as client:
        run = await ask(client, background=True)
        gate.answers.clear()
        assert (await finished(client, run.id)).status == "completed"
        await client.responses.create(model="m", input="on", previous_response_id=run.id)
    assert gate.asked == {"a": 1}
    assert elsewhere.last["previous_response_id"] == run.id


async def test_encrypted_reasoning_goes_back_to_the_target_that_made_it(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    gate.refuse("a", status=429, retry_after="60")
    async with start(**options(toml(upstream, ALL))) as gateway, gateway.client() as client:
        output: Any = await reasoning(client)
        gate.answers.clear()
        gate.asked.clear()
        await client.responses.create(model="m", input=output)
        assert gate.asked == {"b": 1}
        gate.refuse("b", status=429, retry_after="30")
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(model="m", input=output)
        assert gate.asked == {"b": 2}
    # And after a restart.
    async with start(**options(toml(upstream, ALL))) as gateway, gateway.client() as client:
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(model="m", input=output)
    assert gate.asked == {"b": 3}


async def test_reasoning_of_a_target_that_the_route_does_not_lead_to_is_refused_by_name(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    text = toml(upstream, 'model = "m"\ntargets = ["a"]', 'targets = ["b"]')
    async with start(**options(text)) as gateway, gateway.client() as client:
        output: Any = await reasoning(client)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="other", input=output)
        assert caught.value.code == "encrypted_content_elsewhere"
        assert "'a'" in str(caught.value)
    assert gate.asked == {"a": 1}


async def test_reasoning_is_dropped_on_the_way_to_another_target_where_the_settings_say_so(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    text = toml(upstream, ALL, more='[accounts]\nwhen_maker_is_gone = "drop"\n')
    async with start(**options(text)) as gateway, gateway.client() as client:
        output: Any = await reasoning(client)
        gate.refuse("a", status=429, retry_after="60")
        answer = await client.responses.with_raw_response.create(model="m", input=output)
        assert "reasoning items left out" in answer.headers["handrail-decision"]
    assert [item["type"] for item in upstream.last["input"]] == ["message"]
    assert gate.asked == {"a": 2, "b": 1}


async def test_a_demanded_account_is_found_at_its_target(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    accounts = '[targets.b.accounts]\nsecond = "env:KEY_C"\n'
    async with (
        start(**options(toml(upstream, ALL) + accounts)) as gateway,
        gateway.client() as client,
    ):
        await ask(client, extra_headers={"handrail-account": "second"})
        with pytest.raises(openai.BadRequestError) as caught:
            await ask(client, extra_headers={"handrail-account": "nobody"})
        assert caught.value.param == "handrail-account"
    assert gate.asked == {"c": 1}


async def test_the_list_of_models_is_that_of_all_targets_that_routes_lead_to(
    start: Start, upstream: Scripted, elsewhere: Scripted
) -> None:
    upstream.server.listed = ["gpt-a", "shared", "lost"]
    elsewhere.server.listed = ["shared", "qwen"]
    routes = ('model = "gpt-*"\ntargets = ["a"]', 'model = "shared"\ntargets = ["b", "a"]')
    text = toml(upstream, *routes, 'model = "q*"\ntargets = ["b"]')
    text = at(elsewhere, "b", text, upstream)
    async with start(**options(text)) as gateway, gateway.client() as client:
        listed = [model.id async for model in client.models.list()]
        assert sorted(listed) == ["gpt-a", "qwen", "shared"]
        assert (await client.models.retrieve("qwen")).id == "qwen"
        assert (await client.models.retrieve("shared")).id == "shared"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("lost")
        elsewhere.server.gate = lambda _: web.Response(status=503)
        assert "gpt-a" in [model.id async for model in client.models.list()]


async def test_explain_and_the_command_line_know_the_targets(
    upstream: Scripted, tmp_path: Path
) -> None:
    file = tmp_path / "handrail.toml"
    file.write_text(toml(upstream, 'model = "x-*"\ntargets = ["b", "a"]', 'targets = ["c"]'))
    base = {**ENVIRONMENT, "PATH": os.environ["PATH"]}

    def run(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "handrail", *words, "--config", str(file)]
        return subprocess.run(
            command,
            input=given,
            env=base,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    body = '{"model": "x-1", "input": "hi"}'
    said = await asyncio.to_thread(run, "explain", "-", given=body)
    assert "The route leads to b; if it cannot be used: a." in said.stdout
    data = ("--data-dir", str(tmp_path / "data"))
    which = await asyncio.to_thread(run, "accounts", "add", *data, given="sk-kept-key\n")
    assert which.returncode == 2
    assert "--target: say which target the account is of: a, b, c." in which.stderr
    unknown = await asyncio.to_thread(run, "accounts", "add", "--target", "d", *data)
    assert "there is no target of that name" in unknown.stderr
    added = await asyncio.to_thread(
        run, "accounts", "add", "--target", "b", *data, given="sk-kept-key\n"
    )
    assert added.returncode == 0, added.stderr
    shown = await asyncio.to_thread(run, "accounts", "show", "account-1", *data)
    assert '"target": "b"' in shown.stdout
