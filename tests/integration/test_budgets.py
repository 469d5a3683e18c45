"""Budgets over the real server: exact under concurrency, across a restart, at a window's edge."""

import asyncio
import io
import sqlite3
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import pytest
from openai import APIStatusError, AsyncOpenAI, RateLimitError

from handrail import telemetry
from tests.clocks import JumpingClock
from tests.conftest import BACKGROUND, CALLER_KEY, OTHER_KEY, Running, Scripted, Start, eventually

ZONE = "Pacific/Auckland"
FIFTY = f"""
[ledger]
time_zone = "{ZONE}"

[[budgets]]
name = "team"
window = "day"
max_requests = 50
"""


def budget(**keys: Any) -> str:
    """A settings file with one budget."""
    table = {"name": "team", "window": "day", **keys}
    rows = (f'{key} = "{v}"' if isinstance(v, str) else f"{key} = {v}" for key, v in table.items())
    return "[[budgets]]\n" + "\n".join(rows) + "\n"


async def status_of(client: AsyncOpenAI, **body: Any) -> int:
    """200, or the status of the refusal."""
    try:
        await client.responses.create(**{"model": "gpt-5.4", "input": "hi", **body})
    except APIStatusError as error:
        return error.status_code
    return 200


async def refused(client: AsyncOpenAI, **body: Any) -> RateLimitError:
    with pytest.raises(RateLimitError) as caught:
        await client.responses.create(**{"model": "gpt-5.4", "input": "hi", **body})
    return caught.value


def noon(zone: str) -> float:
    """The next noon in a zone: far from the edges of its days."""
    local = datetime.fromtimestamp(1_795_348_800, ZoneInfo(zone))
    return (local.replace(hour=12, minute=0, second=0) + timedelta(days=1)).timestamp()


async def test_two_hundred_requests_at_once_stop_at_fifty_also_after_a_restart_until_the_reset(
    start: Start, upstream: Scripted
) -> None:
    clock = JumpingClock()
    clock.wrong_by = noon(ZONE) - clock.now()
    async with start(toml=FIFTY, clock=clock) as gateway, gateway.client() as client:
        text = "[[before=0.1]]"
        answers = await asyncio.gather(*(status_of(client, input=text) for _ in range(200)))
        assert sorted(answers) == [200] * 50 + [429] * 150
        assert upstream.seen.finished == 50
        assert await status_of(client) == 429
    async with start(toml=FIFTY, clock=clock) as gateway, gateway.client() as client:
        error = await refused(client)
        body, headers = error.body, error.response.headers
        assert isinstance(body, dict)
        midnight = datetime.fromtimestamp(clock.now(), ZoneInfo(ZONE)).replace(
            hour=0, minute=0, second=0, microsecond=0
        ) + timedelta(days=1)
        assert body["code"] == "budget_exceeded"
        assert body["type"] == "rate_limit_error"
        assert body["resets_at"] == int(midnight.timestamp())
        assert "50 of 50 requests of this day are used" in body["message"]
        assert f"{midnight.isoformat()} ({ZONE})" in body["message"]
        left = midnight.timestamp() - clock.now()
        assert left <= int(headers["retry-after"]) <= left + 30
        assert headers["x-should-retry"] == "false"
        clock.wrong_by += midnight.timestamp() - clock.now() - 5.0
        assert await status_of(client) == 429
        clock.wrong_by += 10.0
        assert await status_of(client) == 200
    assert upstream.seen.finished == 51


async def test_streams_and_kept_responses_and_compactions_count_alike(
    start: Start, upstream: Scripted
) -> None:
    toml = budget(max_requests=4) + '[callers.default]\nstore = "keep"\n'
    async with start(toml=toml, **BACKGROUND) as gateway, gateway.client() as client:
        async for _ in await client.responses.create(model="m", input="hi", stream=True):
            pass
        kept = await client.responses.create(model="m", input="hi", store=True)
        compact = {"model": "m", "input": "hi"}
        await client.post("/responses/compact", body=compact, cast_to=object)
        run = await client.responses.create(model="m", input="hi", background=True)
        async for _ in await client.responses.retrieve(run.id, stream=True):
            pass
        before = len(upstream.seen.requests)
        for body in ({}, {"stream": True}, {"store": True}, {"background": True}):
            assert await status_of(client, **body) == 429
        with pytest.raises(RateLimitError):
            await client.post("/responses/compact", body=compact, cast_to=object)
        # Asking about what there is costs nothing, and what costs nothing is not refused.
        await client.responses.retrieve(kept.id)
        await client.post("/responses/input_tokens", body=compact, cast_to=object)
        assert len(upstream.seen.requests) == before + 1


async def test_what_is_refused_or_never_reached_is_not_charged(start: Start) -> None:
    async with start(toml=budget(max_requests=1)) as gateway, gateway.client() as client:
        for _ in range(3):
            assert await status_of(client, input="[[status=400]]") == 400
        assert await status_of(client, model=7) == 400
        assert await status_of(client) == 200
        assert await status_of(client) == 429


async def test_a_reservation_goes_back_when_its_request_was_never_charged(start: Start) -> None:
    async with start(toml=budget(max_requests=1)) as gateway, gateway.client() as client:
        slow = asyncio.create_task(status_of(client, input="[[before=0.3 status=400]]"))
        await eventually(lambda: True)
        await asyncio.sleep(0.1)
        error = await refused(client)
        assert isinstance(error.body, dict)
        assert "used or reserved by requests under way" in error.body["message"]
        assert error.response.headers["retry-after"] == "5"
        assert "x-should-retry" not in error.response.headers
        assert await slow == 400
        assert await status_of(client) == 200


async def test_tokens_and_money_count_as_the_terminal_event_says(start: Start) -> None:
    # One answer: 7 in, 2 of them cached, and 9 out, 3 of them of reasoning.
    price = """
[[prices]]
model = "gpt-5.4"
since = 2020-01-01
input = 100_000
cached_input = 50_000
output = 100_000
"""
    of_one = 5 * 0.1 + 2 * 0.05 + 9 * 0.1
    several: tuple[dict[str, Any], ...] = (
        {"max_tokens": 32, "reserve_tokens": 16},
        {"max_cost": 2 * of_one, "reserve_cost": of_one},
    )
    for limits in several:
        name = "tokens" if "max_tokens" in limits else "money"
        toml = budget(**limits) + price
        async with start(toml=toml, name=name) as gateway, gateway.client() as client:
            assert [await status_of(client) for _ in range(3)] == [200, 200, 429]
            assert await status_of(client, stream=True) == 429


async def test_a_call_whose_use_nobody_knows_is_charged_as_reserved(
    start: Start, upstream: Scripted
) -> None:
    toml = budget(max_tokens=100, reserve_tokens=50)
    async with start(toml=toml) as gateway, gateway.client() as client:
        for count in (1, 2):
            text = "[[words=500 delay=0.05]]"
            stream = await client.responses.create(model="m", input=text, stream=True)
            await anext(aiter(stream))
            await stream.close()
            await eventually(lambda: upstream.seen.left == count)  # noqa: B023 - at once
        assert await status_of(client) == 429


async def test_a_price_that_is_not_known_is_charged_as_reserved_too(start: Start) -> None:
    toml = budget(max_cost=0.1, reserve_cost=0.05)
    async with start(toml=toml) as gateway, gateway.client() as client:
        answers = [await status_of(client, model="nobody-knows-me") for _ in range(3)]
        assert answers == [200, 200, 429]


@pytest.mark.parametrize(
    ("scope", "inside", "outside"),
    [
        ({"caller": "ann"}, {"key": OTHER_KEY}, {}),
        ({"project": "site"}, {"project": "site"}, {"project": "other"}),
        ({"project": "site"}, {"project": "site"}, {}),
        ({"model": "GPT-5*"}, {"model": "gpt-5.4"}, {"model": "o3"}),
    ],
)
async def test_a_budget_is_for_those_that_it_names(
    start: Start,
    upstream: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    scope: dict[str, Any],
    inside: dict[str, Any],
    outside: dict[str, Any],
) -> None:
    toml = budget(max_requests=1, **scope) + '[callers.ann]\nkey_env = "ANN_KEY"\n'
    environment = {"ANN_KEY": OTHER_KEY}

    async def ask(gateway: Running, key: str | None = None, **how: Any) -> int:
        project = how.pop("project", None)
        headers = {} if project is None else {"handrail-project": project}
        async with gateway.client(key=key) as client:
            return await status_of(client, extra_headers=headers, **how)

    async with start(toml=toml, environment=environment) as gateway:
        assert [await ask(gateway, **inside) for _ in range(2)] == [200, 429]
        assert [await ask(gateway, **outside) for _ in range(3)] == [200] * 3
    # The row in the ledger says whose it was.
    async with start(toml=toml, environment=environment) as gateway:
        assert await ask(gateway, **inside) == 429
        assert await ask(gateway, **outside) == 200
    assert all("handrail-project" not in seen["headers"] for seen in upstream.seen.requests)


async def test_another_spelling_of_a_model_does_not_escape_its_budget(start: Start) -> None:
    toml = budget(max_requests=1, model="gpt-5.5")
    options: Any = {"toml": toml, "manners": "codex"}
    async with start(**options) as gateway, gateway.client() as client:
        names = ("gpt-5", "GPT-5.5", "gpt-5.5-high", "openai/gpt-5.5")
        answers = [await status_of(client, model=name, stream=False) for name in names]
        assert answers == [200, 429, 429, 429]


@pytest.mark.parametrize("label", ["two words", "x" * 65, "ü", "a/b"])
async def test_a_project_that_is_no_label_is_refused(start: Start, label: str) -> None:
    headers = {"handrail-project": label, "x-api-key": CALLER_KEY}
    async with start() as gateway, aiohttp.ClientSession() as session:
        url, body = f"{gateway.url}/responses", {"model": "m", "input": "hi"}
        async with session.post(url, json=body, headers=headers) as reply:
            assert reply.status == 400
            assert (await reply.json())["error"]["param"] == "handrail-project"


async def test_a_waiting_run_keeps_its_reservation_over_a_restart_and_its_project(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    toml = budget(max_requests=2, project="site") + "[background]\nmax_running = 1\n"
    labelled: Any = {"extra_headers": {"handrail-project": "site"}}
    options: Any = {"toml": toml, **BACKGROUND}
    async with start(**options) as gateway, gateway.client() as client:
        busy = "[[words=500 delay=0.05]]"
        first = await client.responses.create(model="m", input=busy, background=True)
        await eventually(lambda: upstream.seen.open == 1)
        waits = [
            await client.responses.create(model="m", input="hi", background=True, **labelled)
            for _ in range(2)
        ]
        assert await status_of(client, background=True, **labelled) == 429
        await client.responses.cancel(waits[1].id)
        waits[1] = await client.responses.create(model="m", input="hi", background=True, **labelled)
        assert await status_of(client, **labelled) == 429
        del first
    async with start(**options) as gateway, gateway.client() as client:
        assert await status_of(client, **labelled) == 429
        for run in waits:
            async for _ in await client.responses.retrieve(run.id, stream=True):
                pass
        assert await status_of(client, **labelled) == 429
    rows = ledger(tmp_path)
    assert [row["project"] for row in rows if row["mode"] == "background"].count("site") == 2


async def test_the_same_create_again_takes_no_second_place(start: Start) -> None:
    options: Any = {"toml": budget(max_requests=2), **BACKGROUND}
    async with start(**options) as gateway, gateway.client() as client:
        same: Any = {"background": True, "extra_headers": {"idempotency-key": "k-1"}}
        assert [await status_of(client, **same) for _ in range(2)] == [200, 200]
        assert await status_of(client) == 200
        assert await status_of(client) == 429


async def test_a_new_budget_knows_what_was_used_before_it_came(
    start: Start, tmp_path: Path
) -> None:
    async with start(toml="", **BACKGROUND) as gateway, gateway.client() as client:
        busy = "[[words=500 delay=0.05]]"
        assert [await status_of(client) for _ in range(3)] == [200] * 3
        run = await client.responses.create(model="m", input=busy, background=True)
        (tmp_path / "data.toml").write_text(budget(max_requests=4))
        await gateway.gateway.reload()
        assert await status_of(client) == 429
        (tmp_path / "data.toml").write_text(budget(max_requests=5))
        await gateway.gateway.reload()
        assert [await status_of(client) for _ in range(2)] == [200, 429]
        await client.responses.cancel(run.id)


def ledger(tmp_path: Path) -> list[sqlite3.Row]:
    """All rows of the ledger, in the order in which the calls ended."""
    connection = sqlite3.connect(tmp_path / "data" / "ledger.db")
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute("select * from calls order by ended_at").fetchall()
    finally:
        connection.close()


CANARY = "canary-5f3e9"


async def test_a_row_says_what_was_used_and_nothing_of_what_was_said(
    start: Start, tmp_path: Path
) -> None:
    async with start() as gateway, gateway.client() as client:
        await client.responses.create(
            model="gpt-5.4", input=f"{CANARY} hi", instructions=CANARY, metadata={"a": CANARY}
        )
        await status_of(client, input=f"{CANARY} [[status=500]]")
    first, second = ledger(tmp_path)
    told = ("caller", "model", "outcome", "input", "cached", "output", "reasoning", "cost")
    assert [first[name] for name in told] == [
        *("default", "gpt-5.4", "completed", 7, 2, 9, 3),
        5 * 2_500 + 2 * 250 + 9 * 15_000,
    ]
    assert (second["outcome"], second["status"], second["input"]) == ("refused", 500, None)
    data = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("ledger.db*"))
    assert b"gpt-5.4" in data
    for secret in (CANARY.encode(), gateway.key.encode(), b"sk-upstream"):
        assert secret not in data
    assert (tmp_path / "data" / "ledger.db").stat().st_mode & 0o077 == 0


@asynccontextmanager
async def broken(start: Start, tmp_path: Path, toml: str) -> Any:
    """A gateway whose ledger is no ledger."""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "ledger.db").write_bytes(b"no database" * 1_000)
    async with start(toml=toml) as gateway, gateway.client() as client:
        yield client


async def test_a_sick_ledger_stops_nobody(start: Start, tmp_path: Path) -> None:
    async with broken(start, tmp_path, "") as client:
        assert [await status_of(client) for _ in range(3)] == [200] * 3


async def test_a_sick_ledger_stops_what_a_budget_would_have_to_allow_and_nothing_else(
    start: Start, tmp_path: Path
) -> None:
    log = io.StringIO()
    telemetry.configure("error", stream=log)
    toml = budget(max_requests=5, model="gpt-5.4")
    async with broken(start, tmp_path, toml) as client:
        with pytest.raises(APIStatusError) as caught:
            await client.responses.create(model="gpt-5.4", input="hi")
        assert await status_of(client, model="o3") == 200
        assert caught.value.status_code == 503
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["code"] == "ledger_unavailable"
        assert "retry-after" in caught.value.response.headers
        # Put right under the running gateway, it works again by itself.
        (tmp_path / "data" / "ledger.db").unlink()
        answers: list[int] = []

        async def works() -> bool:
            answers.append(await status_of(client))
            return answers[-1] == 200

        async with asyncio.timeout(10):
            while not await works():
                await asyncio.sleep(0.1)
        assert set(answers) == {503, 200}
    assert [row["model"] for row in ledger(tmp_path)] == ["o3", "gpt-5.4"]
    assert '"event": "ledger_unavailable"' in log.getvalue()
