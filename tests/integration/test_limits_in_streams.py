"""Limits that an upstream tells of inside a stream: the account rests, nothing is asked twice."""

import json
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.conftest import BACKGROUND, Scripted, Start
from tests.integration.test_accounts import ENVIRONMENT, THREE, Gate, ask
from tests.integration.test_lifecycle import finished

LIMIT = {"code": "rate_limit_exceeded", "message": "Rate limit reached. Please try again in 90s."}
SPENT = {"type": "usage_limit_reached", "message": "spent", "resets_in_seconds": 900}
FAILED = {
    "type": "response.failed",
    "response": {"id": "r", "status": "failed", "error": LIMIT, "output": [], "model": "m"},
}


@pytest.fixture
def gate(upstream: Scripted) -> Gate:
    return Gate(upstream)


def limited(gate: Gate, name: str, *events: dict[str, Any]) -> None:
    """Have every response of that account begin, and end so."""
    begun = {"type": "response.created", "response": {"id": "r", "status": "in_progress"}}
    numbered = [{**event, "sequence_number": n} for n, event in enumerate((begun, *events))]
    frames = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in numbered)
    gate.answers[name] = lambda: web.Response(
        text=frames, headers={"content-type": "text/event-stream"}
    )


@pytest.mark.parametrize(
    ("event", "wait"), [(FAILED, 90), ({"type": "error", "error": SPENT}, 900)]
)
async def test_the_account_rests_as_long_as_the_event_says(
    start: Start, gate: Gate, event: dict[str, Any], wait: int
) -> None:
    limited(gate, "a", event)
    async with (
        start(manners="codex", toml=THREE, environment=ENVIRONMENT) as gateway,
        gateway.client() as client,
    ):
        stream = await ask(client, stream=True)
        try:
            types = [each.type async for each in stream]
        except openai.APIError:  # what the SDK makes of an `error` event
            types = ["error"]
        assert types[-1] in ("response.failed", "error")
        assert gate.asked == {"a": 1}
        for _ in range(4):
            await ask(client)
        assert gate.asked["a"] == 1
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(client, extra_headers={"handrail-account": "a"})
        told = float(caught.value.response.headers["retry-after"])
        assert wait - 20 < told <= wait
    assert gate.asked.total() == 5


async def test_a_caller_who_waits_for_json_hears_of_the_limit_and_is_not_asked_for_twice(
    start: Start, gate: Gate
) -> None:
    for name in ("a", "b", "c"):
        limited(gate, name, FAILED)
    async with (
        start(manners="codex", toml=THREE, environment=ENVIRONMENT) as gateway,
        gateway.client() as client,
    ):
        for _ in range(3):
            with pytest.raises(openai.RateLimitError):
                await ask(client)
        assert gate.asked == {"a": 1, "b": 1, "c": 1}
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(client)
        assert caught.value.code == "accounts_exhausted"
    assert gate.asked.total() == 3


async def test_a_background_response_that_ends_so_is_failed_once(start: Start, gate: Gate) -> None:
    limited(gate, "a", FAILED)
    async with (
        start(toml=THREE, environment=ENVIRONMENT, **BACKGROUND) as gateway,
        gateway.client() as client,
    ):
        run = await ask(client, background=True)
        done = await finished(client, run.id)
        assert (done.status, done.error.code) == ("failed", "rate_limit_exceeded")
        assert gate.asked == {"a": 1}
        for _ in range(3):
            await ask(client)
    assert gate.asked["a"] == 1
