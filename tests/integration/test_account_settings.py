"""What settings say about accounts, and what the operator hears of it."""

import io
import json
from typing import Any

import openai
import pytest

from handrail import telemetry
from tests.conftest import Scripted, Start, eventually
from tests.integration.admin import Admin
from tests.integration.test_accounts import ENVIRONMENT, THREE, Gate, ask


def lines_of(logged: io.StringIO, event: str) -> list[dict[str, Any]]:
    return [
        line
        for text in logged.getvalue().splitlines()
        if (line := json.loads(text))["event"] == event
    ]


async def test_a_credential_that_no_call_is_made_with_is_named_at_the_start_and_at_a_reload(
    start: Start,
) -> None:
    logged = io.StringIO()
    telemetry.configure("warning", stream=logged)
    async with start(toml=THREE, environment=ENVIRONMENT) as gateway:
        (line,) = lines_of(logged, "credential_not_used")
        assert line["settings"] == ["upstream.api_key (HANDRAIL_UPSTREAM_API_KEY)"]
        assert line["accounts"] == ["a", "b", "c"]
        await gateway.gateway.reload()
        assert len(lines_of(logged, "credential_not_used")) == 2


async def test_a_credential_that_is_used_is_not_named(start: Start) -> None:
    logged = io.StringIO()
    telemetry.configure("warning", stream=logged)
    async with start():
        assert lines_of(logged, "credential_not_used") == []


async def test_from_which_percent_on_others_serve_is_the_operators_to_say(
    start: Start, upstream: Scripted
) -> None:
    """The scripted upstream tells each account that 42.5 % of a window are used."""
    gate = Gate(upstream)
    toml = THREE + "[accounts]\nnearly_used_up = 42\n"
    async with start(toml=toml, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        pool: Any = gateway.gateway._parts.accounts
        weigh = gateway.gateway._accounts
        weigh.set_weight(weigh.listed(now=0.0)[0].id, 10.0)  # it would be chosen three times
        await eventually(lambda: pool.known()[0].weight == 10.0)
        for _ in range(3):
            await ask(client)
    assert gate.asked == {"a": 1, "b": 1, "c": 1}


async def test_an_account_that_is_resumed_serves_again_at_once_in_the_running_gateway(
    start: Start, upstream: Scripted
) -> None:
    gate = Gate(upstream)
    gate.refuse("a", status=429, retry_after="600")
    async with start(toml=THREE, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        for _ in range(3):
            await ask(client)
        assert gate.asked["a"] == 1
        gate.answers.clear()
        pool: Any = gateway.gateway._parts.accounts
        await Admin(gateway).done("POST", "/admin/accounts/a/resume")
        await eventually(lambda: not pool._live[pool.known()[0].id].cooldowns)
        for _ in range(6):
            await ask(client)
    assert gate.asked["a"] > 1


async def test_a_503_of_all_accounts_says_how_long_to_wait(
    start: Start, upstream: Scripted
) -> None:
    gate = Gate(upstream)
    gate.refuse("a", "b", "c", status=503)
    async with start(toml=THREE, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client)
    assert caught.value.status_code == 503
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 4
    assert gate.asked == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("status", [402, 403])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_account_is_followed_by_another_where_the_settings_say_so(
    start: Start, upstream: Scripted, *, status: int, stream: bool
) -> None:
    gate = Gate(upstream)
    gate.refuse("a", "b", status=status)
    toml = THREE + f"[accounts]\nalso_after = [{status}]\n"
    async with start(toml=toml, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        answer = await ask(client, stream=stream)
        if stream:
            assert [event.type async for event in answer][-1] == "response.completed"
        else:
            assert answer.status == "completed"
    assert gate.asked == {"a": 1, "b": 1, "c": 1}
