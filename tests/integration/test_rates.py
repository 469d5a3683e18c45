"""Rate limits over real sockets: exact under concurrency, told in headers, kept over a reload."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, RateLimitError

from tests.clocks import JumpingClock
from tests.conftest import BACKGROUND, OTHER_KEY, Running, Scripted, Start, eventually
from tests.integration.test_budgets import refused, status_of

THIRD_KEY = "hr_test-third-key-5647382910"
CALLERS = '[callers.ann]\nkey_env = "ANN_KEY"\n[callers.bob]\nkey_env = "BOB_KEY"\n'
KEYS = {"ANN_KEY": OTHER_KEY, "BOB_KEY": THIRD_KEY}


class SteppingClock(JumpingClock):
    """The machine's clock, whose monotonic time a test may set forward."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def monotonic(self) -> float:
        """Further than the machine's own."""
        return super().monotonic() + self.ahead


def limit(**keys: Any) -> str:
    """A table of a settings file."""
    table = {"name": "team", "window": "minute", **keys}
    rows = (
        f"{key} = {v}" if isinstance(v, int) else f"{key} = {v!r}".replace("'", '"')
        for key, v in table.items()
    )
    return "[[limits]]\n" + "\n".join(rows) + "\n"


async def headers_of(client: AsyncOpenAI, **body: Any) -> Any:
    raw = await client.responses.with_raw_response.create(
        **{"model": "gpt-5.4", "input": "hi", **body}
    )
    return raw.headers


async def test_two_hundred_at_once_against_fifty_a_minute_are_fifty_also_in_the_next_minute(
    start: Start, upstream: Scripted
) -> None:
    clock = SteppingClock()
    async with start(toml=limit(max_requests=50), clock=clock) as gateway, gateway.client() as one:
        for round_ in (1, 2):
            answers = await asyncio.gather(*(status_of(one) for _ in range(200)))
            assert sorted(answers) == [200] * 50 + [429] * 150
            assert upstream.seen.finished == 50 * round_
            clock.ahead += 55.0
            # What came within the last minute counts, wherever a minute begins.
            assert await status_of(one) == 429
            clock.ahead += 5.0


async def test_a_refusal_names_the_limit_and_says_when_to_come_back(start: Start) -> None:
    async with start(toml=limit(max_requests=2)) as gateway, gateway.client() as client:
        assert [await status_of(client) for _ in range(2)] == [200, 200]
        error = await refused(client)
        body, headers = error.body, error.response.headers
        assert isinstance(body, dict)
        assert (body["code"], body["type"]) == ("rate_limit_exceeded", "rate_limit_error")
        assert "The limit 'team' is reached: 2 requests a minute." in body["message"]
        assert "try again in" in body["message"]
        assert 50 < int(headers["retry-after"]) <= 60
        seconds, millis = int(headers["retry-after"]), int(headers["retry-after-ms"])
        assert seconds * 1_000 - 1_000 < millis <= seconds * 1_000
        assert "x-should-retry" not in headers
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-ratelimit-reset-requests"].endswith("s")


async def test_the_sdk_waits_as_it_is_told_and_then_gets_its_answer(
    start: Start, upstream: Scripted
) -> None:
    toml = limit(window="second", max_requests=1)
    options: Any = {"max_retries": 2}
    async with start(toml=toml) as gateway, gateway.client(**options) as client:
        answers = [await status_of(client) for _ in range(3)]
        assert answers == [200] * 3
        began = [seen["headers"] for seen in upstream.seen.requests]
        assert len(began) == 3


@pytest.mark.parametrize(
    "body",
    [{}, {"stream": True}, {"store": True}, {"background": True}, {"input": "[[status=500]]"}],
    ids=["json", "stream", "kept", "background", "an error of the upstream"],
)
async def test_every_reply_to_a_create_tells_how_the_limits_stand_and_no_other_ones(
    start: Start, body: dict[str, Any]
) -> None:
    toml = limit(max_tokens=6_000) + '[callers.default]\nstore = "keep"\n'
    async with start(toml=toml, **BACKGROUND) as gateway, gateway.client() as client:
        try:
            headers = await headers_of(client, **body)
        except APIStatusError as error:
            headers = error.response.headers
        assert {name for name in headers if name.startswith("x-ratelimit")} == {
            f"x-ratelimit-{what}-tokens" for what in ("limit", "remaining", "reset")
        }
        assert headers["x-ratelimit-limit-tokens"] == "6000"
        assert headers["x-ratelimit-remaining-tokens"] == "6000"
        assert headers["x-ratelimit-reset-tokens"] == "0ms"


async def test_without_a_limit_for_it_a_reply_has_the_upstream_s_own(start: Start) -> None:
    toml = limit(max_requests=5, model="o3")
    async with start(toml=toml) as gateway, gateway.client() as client:
        headers = await headers_of(client)
        assert headers["x-ratelimit-remaining-requests"] == "99"
        assert (await headers_of(client, model="o3"))["x-ratelimit-remaining-requests"] == "4"


async def test_creates_and_compactions_count_and_what_costs_nothing_does_not(
    start: Start, upstream: Scripted
) -> None:
    toml = limit(max_requests=4) + '[callers.default]\nstore = "keep"\n'
    async with start(toml=toml, **BACKGROUND) as gateway, gateway.client() as client:
        body: Any = {"model": "m", "input": "hi"}
        kept = await client.responses.create(**body, store=True)
        await client.post("/responses/compact", body=body, cast_to=object)
        run = await client.responses.create(**body, background=True)
        async for _ in await client.responses.create(**body, stream=True):
            pass
        for _ in range(5):
            await client.responses.retrieve(kept.id)
            await client.responses.input_items.list(kept.id)
            await client.models.list()
            await client.post("/responses/input_tokens", body=body, cast_to=object)
        async for _ in await client.responses.retrieve(run.id, stream=True):
            pass
        before = len(upstream.seen.requests)
        for other in ({}, {"stream": True}, {"store": True}, {"background": True}):
            assert await status_of(client, **other) == 429
        with pytest.raises(RateLimitError):
            await client.post("/responses/compact", body=body, cast_to=object)
        assert len(upstream.seen.requests) == before
        await client.responses.delete(run.id)


async def test_a_request_that_is_refused_for_another_reason_first_is_not_counted(
    start: Start,
) -> None:
    async with start(toml=limit(max_requests=1)) as gateway, gateway.client() as client:
        assert await status_of(client, model=7) == 400
        assert await status_of(client, background=True) == 400
        assert await status_of(client) == 200
        assert await status_of(client) == 429


async def test_what_one_limit_refuses_no_other_counts(start: Start) -> None:
    budget = '[[budgets]]\nname = "day"\nwindow = "day"\nmax_requests = 3\n'
    clock = SteppingClock()
    toml = (
        limit(max_requests=1, window="second")
        + limit(name="wide", max_requests=4)
        + budget
        + "[callers.default]\nmax_foreground = 1\n"
    )
    async with start(toml=toml, clock=clock) as gateway, gateway.client() as client:
        assert await status_of(client) == 200
        for _ in range(20):
            assert (await refused(client)).response.headers["x-ratelimit-limit-requests"] == "1"
        for _ in range(2):
            clock.ahead += 1.0
            assert await status_of(client) == 200
        clock.ahead += 1.0
        error = await refused(client)
        assert isinstance(error.body, dict)
        assert error.body["code"] == "budget_exceeded"


async def as_caller(gateway: Running, key: str | None, **how: Any) -> int:
    project = how.pop("project", None)
    headers = {} if project is None else {"handrail-project": project}
    async with gateway.client(key=key) as client:
        return await status_of(client, extra_headers=headers, **how)


async def test_one_rule_holds_for_every_caller_separately(start: Start) -> None:
    toml = limit(max_requests=2, each=["caller"]) + CALLERS
    async with start(toml=toml, environment=KEYS) as gateway:
        for key in (None, OTHER_KEY, THIRD_KEY):
            assert [await as_caller(gateway, key) for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(
    ("scope", "inside", "outside"),
    [
        ({"caller": "ann"}, {"key": OTHER_KEY}, {"key": None}),
        ({"project": "site"}, {"project": "site"}, {"project": "other"}),
        ({"project": "site"}, {"project": "site"}, {}),
        ({"model": "GPT-5*"}, {"model": "gpt-5.4"}, {"model": "o3"}),
        ({"each": ["model"]}, {"model": "gpt-5.4"}, {"model": "o3"}),
        ({"each": ["caller", "project"]}, {"project": "a"}, {"project": "b"}),
    ],
)
async def test_a_limit_is_for_those_that_it_names(
    start: Start, scope: dict[str, Any], inside: dict[str, Any], outside: dict[str, Any]
) -> None:
    toml = limit(max_requests=1, **scope) + CALLERS

    async def ask(gateway: Running, key: str | None = None, **how: Any) -> int:
        return await as_caller(gateway, key, **how)

    async with start(toml=toml, environment=KEYS) as gateway:
        assert [await ask(gateway, **inside) for _ in range(2)] == [200, 429]
        assert await ask(gateway, **outside) == 200


async def test_another_spelling_of_a_model_does_not_escape_its_limit(start: Start) -> None:
    options: Any = {"toml": limit(max_requests=1, each=["model"]), "manners": "codex"}
    async with start(**options) as gateway, gateway.client() as client:
        names = ("gpt-5", "GPT-5.5", "gpt-5.5-high", "openai/gpt-5.5")
        answers = [await status_of(client, model=name, stream=False) for name in names]
        assert answers == [200, 429, 429, 429]


async def test_tokens_are_counted_at_the_end_of_a_call_and_waited_for(start: Start) -> None:
    # One answer is 7 in and 9 out.
    clock = SteppingClock()
    options: Any = {"toml": limit(max_tokens=24), "clock": clock}
    async with start(**options) as gateway, gateway.client() as client:
        assert [await status_of(client) for _ in range(2)] == [200, 200]
        error = await refused(client, stream=True)
        assert isinstance(error.body, dict)
        assert "24 tokens a minute" in error.body["message"]
        # 32 were used of 24, and one has to be there: 9 of 24 are refilled in 22.5 s.
        assert 20 < int(error.response.headers["retry-after"]) <= 23
        assert error.response.headers["x-ratelimit-remaining-tokens"] == "0"
        clock.ahead += 22.5
        headers = await headers_of(client)
        assert headers["x-ratelimit-remaining-tokens"] == "1"


async def test_a_stream_that_is_left_early_is_not_free(start: Start, upstream: Scripted) -> None:
    async with start(toml=limit(max_tokens=100)) as gateway, gateway.client() as client:
        text = "[[words=500 delay=0.05]]"
        stream = await client.responses.create(model="m", input=text, stream=True)
        await anext(aiter(stream))
        await stream.close()
        await eventually(lambda: upstream.seen.left == 1)
        assert await status_of(client) == 429


async def test_tokens_count_also_while_the_ledger_is_sick(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "ledger.db").write_bytes(b"no database" * 1_000)
    async with start(toml=limit(max_tokens=16)) as gateway, gateway.client() as client:
        assert [await status_of(client) for _ in range(2)] == [200, 429]


async def test_a_waiting_run_was_let_in_once_and_its_own_calls_are_not_refused(
    start: Start, upstream: Scripted
) -> None:
    toml = limit(max_requests=3) + "[background]\nmax_running = 1\n"
    async with start(toml=toml, **BACKGROUND) as gateway, gateway.client() as client:
        texts = ("[[status=503 times=2 retry_after=0 tag=busy]]", "hi", "hi")
        runs = [
            await client.responses.create(model="m", input=text, background=True) for text in texts
        ]
        assert await status_of(client) == 429
        for run in runs:
            async for _ in await client.responses.retrieve(run.id, stream=True):
                pass
            assert (await client.responses.retrieve(run.id)).status == "completed"
        assert len(upstream.seen.requests) == 5


async def test_a_reload_keeps_what_was_counted_where_the_rule_is_the_same(
    start: Start, tmp_path: Path
) -> None:
    async with start(toml=limit(max_requests=2)) as gateway, gateway.client() as client:
        assert [await status_of(client) for _ in range(3)] == [200, 200, 429]
        (tmp_path / "data.toml").write_text(
            limit(max_requests=2) + limit(name="other", max_requests=9)
        )
        await gateway.gateway.reload()
        assert await status_of(client) == 429
        (tmp_path / "data.toml").write_text(limit(max_requests=3))
        await gateway.gateway.reload()
        assert [await status_of(client) for _ in range(4)] == [200, 200, 200, 429]
        (tmp_path / "data.toml").write_text("")
        await gateway.gateway.reload()
        assert await status_of(client) == 200


async def test_every_start_begins_with_nothing_used(start: Start) -> None:
    for _ in range(2):
        async with start(toml=limit(max_requests=1)) as gateway, gateway.client() as client:
            assert [await status_of(client) for _ in range(2)] == [200, 429]
