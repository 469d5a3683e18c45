"""The ledger's file as the admin API asks it: bounded, and beside whoever writes it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from handrail.core.usage_query import read_query
from handrail.engine.usage_report import UsageReport
from handrail.errors import RequestRejected, StoreFailed
from handrail.store.ledger import SqliteLedger
from tests.unit.test_usage_command import row


@asynccontextmanager
async def report(path: Path, **options: Any) -> AsyncIterator[UsageReport]:
    made = UsageReport(path, **{"monotonic": lambda: 0.0, **options})
    try:
        yield made
    finally:
        made.close()


def query(by: str = "model") -> Any:
    return read_query(since="7d", until=None, by=by, now=datetime.now(UTC))


async def test_what_another_connection_has_written_is_summed_up(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.append([row(1), row(2, caller="bob"), row(3, ago=3 * 86_400)])
    async with report(tmp_path / "ledger.db") as usage:
        whole = json.loads(await usage.of(query(), zone=UTC))
        assert (whole["object"], whole["by"]) == ("usage", ["model"])
        assert [line["calls"] for line in whole["rows"]] == [3]
        days = json.loads(await usage.of(query("day,caller"), zone=UTC))
        assert sum(line["calls"] for line in days["rows"]) == 3
        assert len(days["rows"]) == 3
    ledger.close()


async def test_before_the_first_call_there_is_nothing(tmp_path: Path) -> None:
    async with report(tmp_path / "ledger.db") as usage:
        assert json.loads(await usage.of(query(), zone=UTC))["rows"] == []
    assert not (tmp_path / "ledger.db").exists()


async def test_more_rows_than_fit_are_refused(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.append([row(number, project=f"p{number}") for number in range(11)])
    async with report(tmp_path / "ledger.db", max_lines=10) as usage:
        assert json.loads(await usage.of(query(), zone=UTC))["total"]["calls"] == 11
        with pytest.raises(RequestRejected) as caught:
            await usage.of(query("project"), zone=UTC)
        assert caught.value.fault.param == "by"
    ledger.close()


async def test_a_question_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.append([row(number, model=f"m{number % 50}") for number in range(5_000)])
    times = iter(range(10_000))
    slow: Any = {"monotonic": lambda: float(next(times)), "max_seconds": 0.5}
    async with report(tmp_path / "ledger.db", **slow) as usage:
        with pytest.raises(StoreFailed) as caught:
            await usage.of(query("day"), zone=UTC)
    assert caught.value.fault.status == 503
    assert "within 0.5 seconds; ask for a shorter time" in caught.value.fault.message
    assert caught.value.detail is not None
    assert "interrupted" in caught.value.detail
    ledger.close()


async def test_a_file_that_is_no_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database" * 1_000)
    async with report(tmp_path / "ledger.db") as usage:
        with pytest.raises(StoreFailed) as caught:
            await usage.of(query(), zone=UTC)
    assert caught.value.fault.code == "ledger_unavailable"
    assert "cannot be read now" in caught.value.fault.message
