"""What is spent, over the admin API: usage, budgets, rate limits, requests under way."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import OTHER_KEY, Scripted, Start, eventually
from tests.integration.admin import Admin
from tests.integration.test_budgets import status_of
from tests.integration.test_rates import limit

BUDGET = '[[budgets]]\nname = "team"\nwindow = "day"\nmax_requests = 10\n'
CALLERS: Any = {"environment": {"ANN_KEY": OTHER_KEY}}
ANN = '[callers.ann]\nkey_env = "ANN_KEY"\nmax_foreground = 3\n'


async def used(admin: Admin, *, calls: int, query: str = "") -> dict[str, Any]:
    """The usage, once so many calls are in it."""
    async with asyncio.timeout(5):
        while True:
            reply = await admin.ask("GET", f"/admin/usage{query}")
            # The first call ever makes the file; in that moment it cannot be read.
            found: dict[str, Any] = json.loads(reply.body)
            if reply.status == 200 and found["total"]["calls"] == calls:
                return found
            await asyncio.sleep(0.02)


async def test_usage_is_what_the_calls_have_used(start: Start) -> None:
    async with start(toml=ANN, **CALLERS) as gateway:
        admin = Admin(gateway)
        assert (await admin.done("GET", "/admin/usage"))["rows"] == []
        async with gateway.client() as client, gateway.client(key=OTHER_KEY) as ann:
            assert [await status_of(who) for who in (client, client, ann)] == [200] * 3
            assert await status_of(client, input="[[status=400]]") == 400
        found = await used(admin, calls=4, query="?by=caller,model&since=1d")
        assert (found["object"], found["by"]) == ("usage", ["caller", "model"])
        assert [(line["caller"], line["calls"], line["failed"]) for line in found["rows"]] == [
            ("default", 3, 1),
            ("ann", 1, 0),
        ]
        assert found["rows"][0]["input_tokens"] == 14
        assert found["total"]["output_tokens"] == 27
        days = await admin.done("GET", "/admin/usage?by=day&since=2020-01-01&until=2020-02-01")
        assert days["total"]["calls"] == 0


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("since=yesterday", "since"),
        ("until=2026-13-01", "until"),
        ("by=prompt", "by"),
        ("by=model&by=caller", "by"),
        ("limit=5", "limit"),
        (f"since={quote('7d; drop table calls')}", "since"),
    ],
)
async def test_a_question_that_cannot_be_meant_is_a_400_that_names_it(
    start: Start, query: str, param: str
) -> None:
    async with start() as gateway:
        reply = await Admin(gateway).ask("GET", f"/admin/usage?{query}")
        assert (reply.status, reply.error["param"]) == (400, param)


async def test_a_ledger_that_cannot_be_read_is_a_503_and_the_rest_goes_on(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "ledger.db").write_bytes(b"no database" * 1_000)
    async with start(toml=BUDGET) as gateway:
        admin = Admin(gateway)
        reply = await admin.ask("GET", "/admin/usage")
        assert (reply.status, reply.error["code"]) == (503, "ledger_unavailable")
        assert "retry-after" in reply.headers
        (budget,) = (await admin.done("GET", "/admin/budgets"))["data"]
        assert (budget["state"], budget["used"]) == ("unknown", None)


async def test_budgets_show_what_is_used_reserved_and_left(
    start: Start, upstream: Scripted
) -> None:
    async with start(toml=BUDGET) as gateway, gateway.client() as client:
        admin = Admin(gateway)
        assert [await status_of(client) for _ in range(7)] == [200] * 7
        slow = asyncio.create_task(status_of(client, input="[[before=0.5]]"))
        await eventually(lambda: upstream.seen.calls == 8)
        (budget,) = (await admin.done("GET", "/admin/budgets"))["data"]
        assert (budget["name"], budget["window"], budget["max_requests"]) == ("team", "day", 10)
        assert (budget["used"]["requests"], budget["reserved"]["requests"]) == (7, 1)
        assert (budget["state"], budget["taken"]) == ("warn", "8 of 10 requests")
        assert budget["resets_at"] - budget["began_at"] == 86_400
        assert await slow == 200
        assert [await status_of(client) for _ in range(3)] == [200, 200, 429]
        (budget,) = (await admin.done("GET", "/admin/budgets"))["data"]
        assert (budget["state"], budget["used"]["requests"]) == ("stop", 10)


async def test_limits_show_what_is_left_of_each_and_what_is_under_way(
    start: Start, upstream: Scripted
) -> None:
    toml = (
        limit(max_requests=2, max_tokens=1_000, each=["caller"])
        + limit(name="o3", max_requests=5, model="o3")
        + ANN
    )
    async with start(toml=toml, **CALLERS) as gateway:
        admin = Admin(gateway)
        async with gateway.client() as client, gateway.client(key=OTHER_KEY) as ann:
            assert [await status_of(client) for _ in range(3)] == [200, 200, 429]
            slow = asyncio.create_task(status_of(ann, input="[[before=0.5]]"))
            await eventually(lambda: upstream.seen.calls == 3)
            found = await admin.done("GET", "/admin/limits")
            assert await slow == 200
        team, other = found["data"]
        assert (team["name"], team["each"], team["max_requests"]) == ("team", ["caller"], 2)
        assert (team["refused"], team["in_use"]) == (1, 2)
        # 7 in and 9 out of each answer; refilled a little since.
        first, second = team["used"]
        assert (first["caller"], first["requests_left"]) == ("default", 0)
        assert 968 <= first["tokens_left"] < 1_000
        assert 0 < first["requests_reset_seconds"] <= 60
        assert (second["caller"], second["requests_left"], second["tokens_left"]) == (
            *("ann", 1),
            1_000,
        )
        assert (other["used"], other["refused"]) == ([], 0)
        assert found["foreground"] == [
            {"caller": "ann", "max_foreground": 3, "under_way": 1},
            {"caller": "default", "max_foreground": 0, "under_way": 0},
        ]


async def test_without_any_there_are_none(start: Start) -> None:
    async with start() as gateway:
        admin = Admin(gateway)
        assert (await admin.done("GET", "/admin/budgets"))["data"] == []
        assert (await admin.done("GET", "/admin/limits"))["data"] == []
