"""Keeping account: rows in batches, a file that fails and comes back, old rows that go."""

import asyncio
import io
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from handrail import telemetry
from handrail.bootstrap.ids import new_row_id
from handrail.core.budgets import Budget, Charge, Totals, Window, Work
from handrail.core.prices import PriceTable
from handrail.core.retry import Cause
from handrail.core.usage import Usage
from handrail.engine import ledger
from handrail.engine.budgets import PASSING_SECONDS
from handrail.engine.ledger import LedgerKeeper
from handrail.engine.meter import Attribution, CallRecord, Outcome
from handrail.errors import BudgetExceeded, Code, ConfigInvalid, StoreFailed
from handrail.settings.accounting import Accounting, shipped
from handrail.store.ledger import LedgerRow, SqliteLedger, read_usage
from tests.clocks import HandClock
from tests.conftest import eventually

DAY = 86_400.0
WORK = Work(caller="ann", project=None, models=("gpt-5.4",))


class Failing(SqliteLedger):
    """A real file that fails as long as a test says, and counts its batches."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.fails = False
        self.batches: list[int] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def append(self, rows: Sequence[LedgerRow]) -> None:
        self._maybe_fail()
        self.batches.append(len(rows))
        super().append(rows)

    def spent(self, *, since: float) -> list[Charge]:
        self._maybe_fail()
        self.meanwhile()
        return super().spent(since=since)

    def _maybe_fail(self) -> None:
        if self.fails:
            raise StoreFailed(Code.LEDGER_UNAVAILABLE, "no", detail="SQLITE_IOERR")


class Quick(HandClock):
    """Time that passes when somebody waits for it."""

    async def sleep(self, seconds: float) -> None:
        self.passes(seconds)
        await asyncio.sleep(0)


def accounting(*budgets: Budget, days: int = 400) -> Accounting:
    return Accounting(
        prices=PriceTable(shipped=shipped()),
        budgets=budgets,
        zone=ZoneInfo("UTC"),
        retention_seconds=days * 86_400,
    )


def calls(limit: int, **keys: Any) -> Budget:
    return Budget(**{"name": "team", "window": Window.DAY, "max_requests": limit, **keys})


class Kept:
    """A keeper over a real file, and what a test changes about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Quick()
        self.clock.wall = 1_795_348_800.0
        self.store = Failing(path)
        self.accounting = accounting()
        self.keeper = LedgerKeeper(
            self.store, accounting=lambda: self.accounting, clock=self.clock, new_id=new_row_id
        )

    def sick(self) -> bool:
        return self.keeper.budgets.problem is not None

    def rows(self) -> list[Any]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute("select response_id from calls order by rowid").fetchall()
        finally:
            connection.close()

    def hears(self, count: int = 1, **keys: Any) -> None:
        for number in range(count):
            self.keeper.heard(self.record(**{"response_id": f"r{number}", **keys}))

    def record(self, *, response_id: str = "r", ago: float = 0.0, **keys: Any) -> CallRecord:
        ended = self.clock.now() - ago
        values = {
            "attribution": Attribution(caller="ann", mode="stateless", response_id=response_id),
            "target": "openai https://up.example/v1",
            "account": None,
            "model": "gpt-5.4",
            "sent_models": ("gpt-5.4",),
            "endpoint": "responses",
            "cause": Cause.FIRST,
            "status": 200,
            "outcome": Outcome.COMPLETED,
            "usage": Usage(input=7, output=9),
            "tier": None,
            "started_at": ended,
            "ended_at": ended,
            "seconds": 1.0,
        }
        return CallRecord(**{**values, **keys})


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    telemetry.configure("error")
    kept = Kept(tmp_path / "ledger.db")
    yield kept
    kept.store.fails = False
    await kept.keeper.close()


async def test_rows_are_written_together_and_the_rest_at_the_end(kept: Kept) -> None:
    kept.hears(ledger.BATCH + 5)
    assert await kept.keeper.flush()
    assert kept.store.batches == [ledger.BATCH, 5]
    kept.hears(2, response_id="late")
    await kept.keeper.close()
    assert len(kept.rows()) == ledger.BATCH + 7
    kept.keeper = LedgerKeeper(
        kept.store, accounting=lambda: kept.accounting, clock=kept.clock, new_id=new_row_id
    )


async def test_a_file_that_fails_loses_nothing_and_is_written_when_it_works_again(
    kept: Kept,
) -> None:
    kept.store.fails = True
    kept.hears(3)
    assert not await kept.keeper.flush()
    assert not await kept.keeper.flush()
    assert kept.sick()
    kept.hears(1, response_id="later")
    kept.store.fails = False
    assert await kept.keeper.flush()
    assert not kept.sick()
    assert [row[0] for row in kept.rows()] == ["r0", "r1", "r2", "later"]


async def test_too_many_waiting_rows_give_way_and_are_counted(kept: Kept) -> None:
    kept.hears(ledger.MAX_WAITING + 2)
    assert kept.keeper.lost == 2
    kept.hears(1, response_id="newest")
    assert await kept.keeper.flush()
    written = kept.rows()
    assert (written[0][0], written[-1][0]) == ("r3", "newest")
    assert len(written) == ledger.MAX_WAITING


async def test_a_row_that_cannot_be_written_takes_no_other_with_it(kept: Kept) -> None:
    kept.hears(2)
    kept.hears(1, response_id="bad", model="\ud800")
    kept.hears(1, response_id="huge", usage=Usage(input=2**70, output=1))
    kept.hears(1, response_id="after")
    assert await kept.keeper.flush()
    assert [row[0] for row in kept.rows()] == ["r0", "r1", "after"]
    assert kept.keeper.lost == 2
    assert not kept.sick()


async def test_a_row_that_is_written_twice_is_one(kept: Kept) -> None:
    kept.hears(2)
    await kept.keeper.flush()
    (charge,) = kept.store.spent(since=0)
    first = LedgerRow(**{**row_of(kept), "id": "same"})
    kept.store.append([first])
    kept.store.append([first])
    (after,) = kept.store.spent(since=0)
    assert after.known.requests == charge.known.requests + 1


def row_of(kept: Kept) -> dict[str, Any]:
    connection = sqlite3.connect(kept.path)
    connection.row_factory = sqlite3.Row
    try:
        row = dict(connection.execute("select * from calls").fetchone())
    finally:
        connection.close()
    return {**row, "counts": bool(row["counts"])}


async def test_what_counts_is_summed_up_with_what_is_not_known_apart(kept: Kept) -> None:
    kept.hears(2)
    kept.hears(1, usage=None, outcome=Outcome.LEFT)
    kept.hears(1, usage=None, outcome=Outcome.REFUSED, status=429)
    kept.hears(1, usage=None, outcome=Outcome.UNREACHED, status=None)
    kept.hears(1, usage=None, endpoint="input_tokens")
    kept.hears(1, ago=2 * DAY)
    kept.hears(1, model="nobody", sent_models=("nobody",))
    await kept.keeper.flush()
    by_model = {
        charge.work.models: charge for charge in kept.store.spent(since=kept.clock.now() - DAY)
    }
    cost = 7 * 2_500 + 9 * 15_000
    assert by_model == {
        ("gpt-5.4", "gpt-5.4"): Charge(
            work=Work(caller="ann", project=None, models=("gpt-5.4", "gpt-5.4")),
            known=Totals(cost=2 * cost, tokens=32, requests=3),
            unpriced=1,
            uncounted=1,
        ),
        ("nobody", "nobody"): Charge(
            work=Work(caller="ann", project=None, models=("nobody", "nobody")),
            known=Totals(cost=0, tokens=16, requests=1),
            unpriced=1,
        ),
    }


async def test_the_loop_writes_prunes_and_comes_back_from_a_failure(kept: Kept) -> None:
    kept.accounting = accounting(days=10)
    kept.hears(3, ago=11 * DAY)
    kept.hears(1, response_id="young")
    kept.store.fails = True
    loop = asyncio.create_task(kept.keeper.loop())
    await eventually(kept.sick)
    kept.store.fails = False
    await eventually(lambda: kept.path.exists() and not kept.sick())
    await eventually(lambda: [row[0] for row in kept.rows()] == ["young"])
    kept.hears(1, response_id="next")
    await eventually(lambda: len(kept.rows()) == 2)
    loop.cancel()
    await asyncio.wait([loop])


async def test_a_budget_learns_its_past_also_of_rows_that_are_not_written_yet(kept: Kept) -> None:
    kept.hears(2)
    await kept.keeper.flush()
    kept.hears(1, response_id="waits")
    kept.hears(1, response_id="of yesterday", ago=DAY)
    # One more ends while the file is being read.
    kept.store.meanwhile = lambda: kept.hears(1, response_id="meanwhile")
    await kept.keeper.use(accounting(calls(5)))
    kept.keeper.budgets.admit("one", WORK)
    with pytest.raises(BudgetExceeded) as caught:
        kept.keeper.budgets.admit("two", WORK)
    assert "5 of 5 requests" in caught.value.fault.message


async def test_until_its_past_is_known_a_budget_lets_nothing_through(kept: Kept) -> None:
    kept.hears(3)
    await kept.keeper.flush()
    kept.store.fails = True
    await kept.keeper.use(accounting(calls(4)))
    with pytest.raises(StoreFailed) as caught:
        kept.keeper.budgets.admit("one", WORK)
    assert caught.value.fault.code == Code.LEDGER_UNAVAILABLE
    other = Work(caller="ann", project=None, models=("m",))
    await kept.keeper.use(accounting(calls(4, model="gpt-*")))
    kept.keeper.budgets.admit("other", other)
    kept.store.fails = False
    loop = asyncio.create_task(kept.keeper.loop())
    await eventually(lambda: all(sums.sound for sums in kept.keeper.budgets.in_force))
    await eventually(lambda: not kept.sick())
    kept.keeper.budgets.admit("one", WORK)
    with pytest.raises(BudgetExceeded):
        kept.keeper.budgets.admit("two", WORK)
    loop.cancel()
    await asyncio.wait([loop])


async def test_a_budget_that_stays_keeps_its_sums_over_a_reload(kept: Kept) -> None:
    await kept.keeper.use(accounting(calls(2)))
    kept.keeper.budgets.admit("one", WORK)
    kept.store.fails = True  # so nothing can be read anew
    await kept.keeper.use(accounting(calls(2)))
    kept.keeper.budgets.admit("two", WORK)
    with pytest.raises(BudgetExceeded):
        kept.keeper.budgets.admit("three", WORK)
    kept.keeper.budgets.release("one")
    kept.keeper.budgets.release("one")
    kept.keeper.budgets.admit("three", WORK)


async def test_an_accounts_budget_says_when_to_come_back(kept: Kept) -> None:
    budgets, now = kept.keeper.budgets, kept.clock.now()

    def wait(running: int) -> float:
        (found,) = budgets.of_account("work", model="gpt-5.4", running=running)
        assert not found.guessed  # or the last account would be used all the same
        assert found.until is not None
        return found.until - now

    kept.store.fails = True
    await kept.keeper.use(accounting(calls(1, account="work", window=Window.MONTH)))
    assert wait(0) == PASSING_SECONDS  # of a month nobody knows anything yet
    kept.store.fails = False
    await kept.keeper.flush()
    await kept.keeper.use(accounting(calls(1, account="work", window=Window.MONTH)))
    assert wait(1) == PASSING_SECONDS
    kept.hears(1, account="work")
    (sums,) = budgets.in_force
    assert wait(0) == sums.window.end - now > DAY


async def past_is_known(kept: Kept) -> None:
    """What the keeper's loop does until every budget is known again."""
    loop = asyncio.create_task(kept.keeper.loop())
    await eventually(lambda: all(sums.sound for sums in kept.keeper.budgets.in_force))
    loop.cancel()
    await asyncio.wait([loop])


async def test_a_clock_that_is_set_back_forgives_nothing(kept: Kept) -> None:
    await kept.keeper.use(accounting(calls(1)))
    kept.hears(1)
    with pytest.raises(BudgetExceeded):
        kept.keeper.budgets.admit("one", WORK)
    kept.clock.wall -= 3 * DAY
    with pytest.raises(StoreFailed):  # never a yes before it has been summed up again
        kept.keeper.budgets.admit("one", WORK)
    await past_is_known(kept)
    with pytest.raises(BudgetExceeded):
        kept.keeper.budgets.admit("one", WORK)
    kept.clock.wall += 4 * DAY
    kept.keeper.budgets.admit("one", WORK)


async def test_a_clock_that_is_corrected_over_the_edge_of_a_window_keeps_the_window(
    kept: Kept,
) -> None:
    kept.clock.wall = kept.clock.wall // DAY * DAY + 1.0
    await kept.keeper.use(accounting(calls(1)))
    kept.hears(1)
    kept.clock.wall -= 30.0
    with pytest.raises(BudgetExceeded):
        kept.keeper.budgets.admit("one", WORK)


async def test_a_clock_that_was_far_ahead_closes_no_budget_for_as_long(kept: Kept) -> None:
    kept.hears(1)
    await kept.keeper.flush()
    loop = asyncio.create_task(kept.keeper.loop())
    kept.clock.wall += 365 * DAY
    await kept.keeper.use(accounting(calls(3)))
    kept.hears(1, response_id="ahead")
    await eventually(lambda: len(kept.rows()) == 2)
    kept.clock.wall -= 365 * DAY
    kept.keeper.budgets.shown()  # whoever looks first
    await eventually(lambda: all(sums.sound for sums in kept.keeper.budgets.in_force))
    (sums,) = kept.keeper.budgets.in_force
    assert sums.window.start <= kept.clock.now() < sums.window.end
    assert sums.used.requests == 2  # also the call of before, in this very window
    kept.keeper.budgets.admit("one", WORK)
    with pytest.raises(BudgetExceeded) as caught:
        kept.keeper.budgets.admit("two", WORK)
    assert (caught.value.fault.retry_after or DAY) < DAY
    loop.cancel()
    await asyncio.wait([loop])


async def test_a_warning_is_logged_once_a_window(tmp_path: Path) -> None:
    log = io.StringIO()
    telemetry.configure("warning", stream=log)
    kept = Kept(tmp_path / "ledger.db")
    await kept.keeper.use(accounting(calls(10, warn_at=0.5)))
    for number in range(8):
        kept.keeper.budgets.admit(f"w{number}", WORK)
    kept.clock.wall += DAY
    kept.keeper.budgets.admit("next day", WORK)
    await kept.keeper.close()
    said = [line for line in log.getvalue().splitlines() if "budget_nearly_used" in line]
    assert len(said) == 2
    assert '"taken": "4 of 10 requests"' in said[0]


async def test_of_several_budgets_the_one_that_lasts_longest_says_when_to_come_back(
    kept: Kept,
) -> None:
    month = calls(1, name="month", window=Window.MONTH)
    await kept.keeper.use(accounting(calls(1, name="hour", window=Window.HOUR), month))
    kept.hears(1)
    with pytest.raises(BudgetExceeded) as caught:
        kept.keeper.budgets.admit("one", WORK)
    assert "'month'" in caught.value.fault.message
    assert caught.value.fault.extra == {"resets_at": 1_796_083_200}  # 2026-12-01


@pytest.mark.parametrize("content", [b"no database" * 500, b""])
def test_a_file_that_is_no_ledger_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(ConfigInvalid) as caught:
        list(read_usage(path, since=0, until=1))
    assert str(caught.value).startswith(f"{path}: cannot be read as a usage ledger")


def test_another_programs_file_and_that_of_the_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path)
    connection.execute("pragma application_id = 1213353009")
    connection.execute("create table t (a)")
    connection.close()
    with pytest.raises(StoreFailed) as caught:
        SqliteLedger(path).append([])
    assert "not one of Handrail's" in (caught.value.detail or "")
