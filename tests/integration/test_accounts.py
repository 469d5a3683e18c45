"""Several accounts behind one gateway: who is asked, who is asked next, and what callers hear."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.conftest import BACKGROUND, Scripted, Start, eventually
from tests.integration.admin import Admin
from tests.integration.test_lifecycle import finished

KEYS = {"a": "sk-canary-a", "b": "sk-canary-b", "c": "sk-canary-c"}
THREE = '[upstream.accounts]\na = "env:KEY_A"\nb = "env:KEY_B"\nc = "env:KEY_C"\n'
ENVIRONMENT = {f"KEY_{name.upper()}": key for name, key in KEYS.items()}
OPTIONS: dict[str, Any] = {"toml": THREE, "environment": ENVIRONMENT}

Answer = Callable[[], web.Response | None]


class Gate:
    """What each account is answered, and how often each was asked."""

    def __init__(self, upstream: Scripted) -> None:
        self.asked: Counter[str] = Counter()
        self.answers: dict[str, Answer] = {}
        upstream.server.gate = self._pass

    def _pass(self, request: web.Request) -> web.Response | None:
        shown = request.headers["authorization"].removeprefix("Bearer ")
        name = next(name for name, key in KEYS.items() if key == shown)
        self.asked[name] += 1
        answer = self.answers.get(name)
        return answer() if answer else None

    def refuse(self, *names: str, status: int, error: Any = None, **headers: str) -> None:
        """Have these accounts refused from now on."""

        def answer() -> web.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            body = {"error": error or {"message": "no", "type": "t", "code": "c", "param": None}}
            return web.json_response(body, status=status, headers=named)

        for name in names:
            self.answers[name] = answer


@pytest.fixture
def gate(upstream: Scripted) -> Gate:
    return Gate(upstream)


async def ask(client: openai.AsyncOpenAI, **rest: Any) -> Any:
    return await client.responses.create(model="m", input="hi", **rest)


async def test_steady_traffic_is_spread_evenly(start: Start, gate: Gate) -> None:
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        for _ in range(12):
            await ask(client)
    assert gate.asked == {"a": 4, "b": 4, "c": 4}


@pytest.mark.parametrize(
    ("strategy", "asked"),
    [
        ("hybrid", {"a": 2, "b": 2, "c": 2}),
        ("round_robin", {"a": 2, "b": 2, "c": 2}),
        ("least_used", {"a": 2, "b": 2, "c": 2}),
        ("drain_first", {"a": 6}),
    ],
)
async def test_the_strategy_of_the_settings_decides(
    start: Start, gate: Gate, strategy: str, asked: dict[str, int]
) -> None:
    toml = THREE + f'[accounts]\nstrategy = "{strategy}"\n'
    async with start(toml=toml, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        for _ in range(6):
            await ask(client)
    assert gate.asked == asked


async def test_a_burst_with_a_single_account_is_the_upstreams_to_refuse(
    start: Start, gate: Gate
) -> None:
    toml = '[upstream.accounts]\na = "env:KEY_A"\n'
    async with start(toml=toml, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        for _ in range(6):
            answers = await asyncio.gather(*(ask(client) for _ in range(10)))
            assert all(answer.status == "completed" for answer in answers)
    assert gate.asked == {"a": 60}


@pytest.mark.parametrize("status", [401, 429, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_that_proves_that_nothing_ran_is_followed_by_another_account(
    start: Start, gate: Gate, *, status: int, stream: bool
) -> None:
    gate.refuse("a", "b", status=status)
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        answer = await ask(client, stream=stream)
        if stream:
            assert [event.type async for event in answer][-1] == "response.completed"
        else:
            assert answer.status == "completed"
    assert gate.asked == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("status", [400, 403, 404, 500, 502, 504])
async def test_any_other_answer_stands(start: Start, gate: Gate, status: int) -> None:
    gate.refuse("a", "b", "c", status=status)
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        with pytest.raises(openai.APIStatusError):
            await ask(client)
    assert gate.asked.total() == 1


async def test_a_cooling_account_is_not_asked_before_its_time(start: Start, gate: Gate) -> None:
    gate.refuse("a", status=429, retry_after="60")
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        for _ in range(20):
            await ask(client)
    assert gate.asked["a"] == 1
    assert abs(gate.asked["b"] - gate.asked["c"]) <= 1


async def test_a_limit_of_one_model_leaves_the_others_alone(start: Start, gate: Gate) -> None:
    error = {"message": "slow", "type": "requests", "code": "rate_limit_exceeded", "param": None}
    gate.refuse("a", "b", "c", status=429, error=error, retry_after="60")
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        with pytest.raises(openai.RateLimitError):
            await ask(client)
        gate.answers.clear()
        with pytest.raises(openai.RateLimitError):
            await ask(client)
        other = await client.responses.create(model="other", input="hi")
    assert other.status == "completed"
    assert gate.asked.total() == 4


async def test_when_all_are_at_their_limits_the_caller_hears_when_the_first_is_free_again(
    start: Start, gate: Gate
) -> None:
    for name, seconds in {"a": 600, "b": 90, "c": 3_600}.items():
        error = {
            "message": "The usage limit has been reached",
            "type": "usage_limit_reached",
            "resets_at": int(time.time()) + seconds,
        }
        gate.refuse(name, status=429, error=error)
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        for _ in range(3):
            with pytest.raises(openai.RateLimitError) as caught:
                await ask(client)
            said: Any = caught.value.body
            assert (said["type"], said["code"]) == ("usage_limit_reached", "accounts_exhausted")
            assert 85 <= said["resets_at"] - time.time() <= 91
            assert 85 <= float(caught.value.response.headers["retry-after"]) <= 91
    assert gate.asked == {"a": 1, "b": 1, "c": 1}


async def test_a_limit_outlives_a_restart(start: Start, gate: Gate) -> None:
    gate.refuse("a", status=429, retry_after="600")
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        for _ in range(3):
            await ask(client)
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        for _ in range(3):
            await ask(client)
    assert gate.asked["a"] == 1


async def test_the_last_account_is_never_refused_by_a_guess(start: Start, gate: Gate) -> None:
    toml = '[upstream.accounts]\na = "env:KEY_A"\n'
    async with start(toml=toml, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        gate.refuse("a", status=503)
        for _ in range(5):
            with pytest.raises(openai.InternalServerError):
                await ask(client)
        gate.answers.clear()
        assert (await ask(client)).status == "completed"
    assert gate.asked["a"] == 6


async def test_after_a_withdrawn_credential_no_other_account_is_tried(
    start: Start, gate: Gate
) -> None:
    error = {"message": "Your authentication token has been invalidated", "type": "t"}
    gate.refuse("a", status=401, error=error)
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client)
        assert caught.value.code == "upstream_credentials_rejected"
        assert gate.asked == {"a": 1}
        assert (await ask(client)).status == "completed"
    assert gate.asked["a"] == 1


async def test_a_demanded_account_is_used_or_the_request_fails(start: Start, gate: Gate) -> None:
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        for _ in range(3):
            await ask(client, extra_headers={"handrail-account": "b"})
        assert gate.asked == {"b": 3}
        gate.refuse("b", status=429, retry_after="60")
        with pytest.raises(openai.RateLimitError):
            await ask(client, extra_headers={"handrail-account": "b"})
        for name in ("nobody", "a b", "x" * 65):
            with pytest.raises(openai.BadRequestError) as caught:
                await ask(client, extra_headers={"handrail-account": name})
            assert caught.value.param == "handrail-account"
    assert gate.asked == {"b": 4}


async def test_a_background_run_goes_to_another_account_and_says_so(
    start: Start, gate: Gate
) -> None:
    gate.refuse("a", "b", status=429, retry_after="60")
    async with start(**OPTIONS, **BACKGROUND) as gateway, gateway.client() as client:
        run = await ask(client, background=True)
        assert (await finished(client, run.id)).status == "completed"
        store: Any = gateway.gateway._store
        calls = await store.calls(run.id, caller="default")
    assert [call.cause for call in calls] == ["first", "other_account", "other_account"]
    assert gate.asked == {"a": 1, "b": 1, "c": 1}


async def test_a_background_run_waits_until_an_account_is_free_again(
    start: Start, gate: Gate
) -> None:
    gate.refuse("a", "b", "c", status=429, retry_after="1")
    async with start(**OPTIONS, **BACKGROUND) as gateway, gateway.client() as client:
        run = await ask(client, background=True)
        await eventually(lambda: gate.asked.total() == 3)
        gate.answers.clear()
        assert (await finished(client, run.id)).status == "completed"
    assert gate.asked.total() == 4


async def test_a_response_that_the_upstream_keeps_is_found_with_the_account_that_made_it(
    start: Start, gate: Gate, upstream: Scripted
) -> None:
    toml = (
        '[background]\nenabled = true\nexecutor = "upstream"\n[upstream]\nruns_background = true\n'
    )
    async with (
        start(manners="storing", environment=ENVIRONMENT, toml=toml + THREE) as gateway,
        gateway.client() as client,
    ):
        made = {}
        for _ in range(3):
            before = Counter(gate.asked)
            run = await ask(client, background=True)
            made[run.id] = next(iter((gate.asked - before).elements()))
        assert sorted(made.values()) == ["a", "b", "c"]
        for run_id, name in made.items():
            await client.responses.retrieve(run_id)
            shown = upstream.server.storing.asked[-1]
            assert shown == f"Bearer {KEYS[name]}"


async def test_no_account_is_asked_twice_at_once_for_one_request_and_errors_stay_inside(
    start: Start, gate: Gate
) -> None:
    """10,000 requests over 4 accounts are in `bench`; this is the same with fewer."""
    flaky: Counter[str] = Counter()

    def sometimes(name: str) -> Answer:
        def answer() -> web.Response | None:
            flaky[name] += 1
            if flaky[name] % 5:
                return None
            status = 429 if flaky[name] % 2 else 503
            return web.json_response({"error": {"message": "no"}}, status=status)

        return answer

    for name in ("a", "b"):
        gate.answers[name] = sometimes(name)
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        for _ in range(10):
            answers = await asyncio.gather(*(ask(client) for _ in range(20)))
            assert all(answer.status == "completed" for answer in answers)


async def test_no_name_or_key_of_an_account_reaches_a_caller(start: Start, gate: Gate) -> None:
    error = {"message": "Incorrect API key provided: sk-canary-a for org-canary", "type": "t"}
    gate.refuse("a", "b", "c", status=429, error=error, chatgpt_account_id="org-canary")
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(client)
        answer = caught.value.response
        assert "sk-canary" not in answer.text + str(answer.headers)


REASONS: dict[str, Any] = {
    "include": ["reasoning.encrypted_content"],
    "extra_body": {"store": False},
}


async def reasoning(client: openai.AsyncOpenAI, **rest: Any) -> list[dict[str, Any]]:
    """The output of a response with encrypted reasoning, to be sent back."""
    answer = await client.responses.create(model="m", input="[[reasoning]]", **REASONS, **rest)
    return [item.model_dump(exclude_none=True) for item in answer.output]


async def test_encrypted_reasoning_goes_back_to_the_account_that_made_it(
    start: Start, gate: Gate
) -> None:
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        made = {}
        for _ in range(3):
            before = Counter(gate.asked)
            output: Any = await reasoning(client)
            made[next(iter((gate.asked - before).elements()))] = output
        assert sorted(made) == ["a", "b", "c"]
        for name in ("c", "a", "b", "a"):
            before = Counter(gate.asked)
            await client.responses.create(model="m", input=made[name])
            assert gate.asked - before == {name: 1}
    # And after a restart.
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        for name in ("b", "b", "c"):
            before = Counter(gate.asked)
            await client.responses.create(model="m", input=made[name], stream=False)
            assert gate.asked - before == {name: 1}


async def test_encrypted_reasoning_is_never_sent_with_another_account(
    start: Start, gate: Gate
) -> None:
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        output: Any = await reasoning(client)
        (maker,) = gate.asked
        gate.refuse(maker, status=429, retry_after="60")
        for _ in range(2):
            with pytest.raises(openai.RateLimitError) as caught:
                await client.responses.create(model="m", input=output)
            assert 50 <= float(caught.value.response.headers["retry-after"]) <= 61
    assert gate.asked == {maker: 2}


async def test_encrypted_reasoning_is_dropped_where_the_settings_say_so(
    start: Start, gate: Gate, upstream: Scripted
) -> None:
    toml = THREE + '[accounts]\nwhen_maker_is_gone = "drop"\n'
    async with start(toml=toml, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        output: Any = await reasoning(client)
        (maker,) = gate.asked
        gate.refuse(maker, status=429, retry_after="60")
        answer = await client.responses.with_raw_response.create(model="m", input=output)
        assert "reasoning items left out" in answer.headers["handrail-decision"]
    assert [item["type"] for item in upstream.last["input"]] == ["message"]
    assert gate.asked[maker] == 2


async def test_a_conversation_stays_with_its_account(start: Start, gate: Gate) -> None:
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        for name in ("one", "two", "three"):
            before = Counter(gate.asked)
            for _ in range(4):
                await ask(client, prompt_cache_key=name)
            assert sorted((gate.asked - before).values()) == [4]
    assert gate.asked == {"a": 4, "b": 4, "c": 4}


async def test_an_account_whose_budget_is_reached_leaves_the_calls_to_the_others(
    start: Start, gate: Gate
) -> None:
    budget = '[[budgets]]\nname = "small"\naccount = "b"\nwindow = "day"\nmax_requests = 2\n'
    async with (
        start(toml=THREE + budget, environment=ENVIRONMENT) as gateway,
        gateway.client() as client,
    ):
        for _ in range(12):
            await ask(client)
        assert gate.asked == {"a": 5, "b": 2, "c": 5}
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(client, extra_headers={"handrail-account": "b"})
        assert caught.value.code == "accounts_exhausted"
    # And after a restart, from the ledger.
    async with (
        start(toml=THREE + budget, environment=ENVIRONMENT) as gateway,
        gateway.client() as client,
    ):
        for _ in range(4):
            await ask(client)
        assert gate.asked["b"] == 2


async def test_the_operator_sees_and_pauses_accounts_by_the_admin_api(
    start: Start, gate: Gate
) -> None:
    async with start(**OPTIONS) as gateway, gateway.client() as client:
        admin = Admin(gateway)
        await ask(client)
        listed = await admin.ask("GET", "/admin/accounts")
        accounts = json.loads(listed.body)["data"]
        assert [each["name"] for each in accounts] == ["a", "b", "c"]
        assert "sk-canary" not in listed.body.decode()
        for name in ("a", "b"):
            paused = await admin.ask("POST", f"/admin/accounts/{name}/pause")
            assert json.loads(paused.body)["state"] == "paused"
        before = Counter(gate.asked)  # in force with the reply
        for _ in range(3):
            await ask(client)
        assert gate.asked - before == {"c": 3}
        assert (await admin.ask("POST", "/admin/accounts/nobody/pause")).status == 404
        assert (await admin.ask("POST", "/admin/accounts/a/explode")).status == 404
