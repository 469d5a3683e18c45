"""Which accounts a caller may use: those that have one of its tags, on whichever way it asks."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.conftest import BACKGROUND, OTHER_KEY, Scripted, Start
from tests.integration.test_lifecycle import finished

KEYS = {"eu": "sk-canary-eu", "us": "sk-canary-us", "plain": "sk-canary-plain"}
ACCOUNTS = """
[upstream.accounts]
eu = { key = "env:KEY_EU", tags = ["eu", "paid"], weight = 2 }
us = { key = "env:KEY_US", tags = ["us"] }
plain = "env:KEY_PLAIN"
[callers.default]
store = "keep"
[callers.other]
key_env = "OTHER"
store = "keep"
"""
ENVIRONMENT = {"OTHER": OTHER_KEY, **{f"KEY_{name.upper()}": key for name, key in KEYS.items()}}


def options(*tags: str, toml: str = ACCOUNTS) -> dict[str, Any]:
    """How a gateway is started whose second caller has these tags."""
    rule = f"account_tags = {list(tags)!r}\n"
    return {"toml": f"{toml}{rule}", "environment": ENVIRONMENT, **BACKGROUND}


class Gate:
    """How often each account was asked, and which ones are refused how."""

    def __init__(self, upstream: Scripted) -> None:
        self.asked: Counter[str] = Counter()
        self.refused: dict[str, tuple[int, Mapping[str, str]]] = {}
        upstream.server.gate = self._pass

    def _pass(self, request: web.Request) -> web.Response | None:
        shown = request.headers["authorization"].removeprefix("Bearer ")
        name = {key: name for name, key in KEYS.items()}.get(shown, "settings")
        self.asked[name] += 1
        if name not in self.refused:
            return None
        status, headers = self.refused[name]
        return web.json_response({"error": {"message": "no"}}, status=status, headers=headers)


@pytest.fixture
def gate(upstream: Scripted) -> Gate:
    return Gate(upstream)


async def ask(client: openai.AsyncOpenAI, **rest: Any) -> Any:
    return await client.responses.create(model="m", input="hi", **rest)


async def test_a_caller_uses_only_accounts_with_one_of_its_tags(start: Start, gate: Gate) -> None:
    async with (
        start(**options("paid", "nowhere")) as gateway,
        gateway.client(key=OTHER_KEY) as client,
    ):
        for _ in range(4):
            assert (await ask(client)).status == "completed"
        async for _ in await ask(client, stream=True):
            pass
        await ask(client, store=True)
        run = await ask(client, background=True)
        assert (await finished(client, run.id)).status == "completed"
        await client.models.list()
        await client.models.retrieve("scripted")
        assert gate.asked == {"eu": 9}
        async with gateway.client() as anybody:
            for _ in range(8):
                await ask(anybody)
    assert set(gate.asked) == {"eu", "us", "plain"}


async def test_the_decision_says_so(start: Start, gate: Gate) -> None:
    async with start(**options("eu")) as gateway, gateway.client(key=OTHER_KEY) as client:
        reply = await client.responses.with_raw_response.create(model="m", input="hi")
    assert "; accounts=tagged;" in reply.headers["handrail-decision"]
    assert gate.asked == {"eu": 1}


async def test_another_account_is_never_used_instead(start: Start, gate: Gate) -> None:
    gate.refused["eu"] = (429, {"retry-after": "90"})
    async with start(**options("eu")) as gateway, gateway.client(key=OTHER_KEY) as client:
        for _ in range(2):
            with pytest.raises(openai.RateLimitError) as caught:
                await ask(client)
            assert 80 <= float(caught.value.response.headers["retry-after"]) <= 91
        run = await ask(client, background=True)
        assert (await finished(client, run.id)).status == "failed"
    assert gate.asked == {"eu": 1}


@pytest.mark.parametrize("pin", ["us", "plain", "nobody"])
async def test_a_pin_is_the_same_error_for_an_account_of_others_and_for_none(
    start: Start, gate: Gate, pin: str
) -> None:
    async with start(**options("eu")) as gateway, gateway.client(key=OTHER_KEY) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await ask(client, extra_headers={"handrail-account": pin})
        assert caught.value.param == "handrail-account"
        assert "names no account that may be used here" in caught.value.message
        await ask(client, extra_headers={"handrail-account": "eu"})
    assert gate.asked == {"eu": 1}


@pytest.mark.parametrize("toml", [ACCOUNTS, '[callers.other]\nkey_env = "OTHER"\n'])
async def test_without_any_such_account_nobody_is_called(
    start: Start, gate: Gate, toml: str
) -> None:
    async with (
        start(**options("asia", toml=toml)) as gateway,
        gateway.client(key=OTHER_KEY, max_retries=3) as client,
    ):
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client)
        assert (caught.value.status_code, caught.value.code) == (503, "no_account_allowed")
        assert caught.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.InternalServerError):
            await client.models.list()
        run = await ask(client, background=True)
        ended = await finished(client, run.id)
        assert (ended.status, ended.error.type) == ("failed", "no_account_allowed")
    assert gate.asked == {}


async def test_what_only_an_account_of_others_can_read_is_not_sent_there(
    start: Start, gate: Gate
) -> None:
    async with (
        start(**options("eu")) as gateway,
        gateway.client() as anybody,
        gateway.client(key=OTHER_KEY) as client,
    ):
        made = await anybody.responses.create(
            model="m",
            input="[[reasoning]]",
            include=["reasoning.encrypted_content"],
            extra_headers={"handrail-account": "us"},
        )
        given: Any = [item.model_dump(exclude_none=True) for item in made.output]
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.create(model="m", input=given)
        assert caught.value.code == "no_account_allowed"
    assert gate.asked == {"us": 1}


async def test_a_run_keeps_the_tags_that_its_create_was_decided_with(
    start: Start, gate: Gate
) -> None:
    waiting = options("eu")
    waiting["toml"] += "max_running = 0\n"
    async with start(**waiting) as gateway, gateway.client(key=OTHER_KEY) as client:
        run = await ask(client, background=True)
    assert gate.asked == {}
    # Another rule, and the run is taken up by the next process.
    async with start(**options("us")) as gateway, gateway.client(key=OTHER_KEY) as client:
        assert (await finished(client, run.id)).status == "completed"
        assert gate.asked == {"eu": 1}
        await ask(client)
    assert gate.asked == {"eu": 1, "us": 1}
