"""`handrail budgets`: over a real ledger, as a table and as JSON."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from handrail.cli.budgets import budgets
from handrail.errors import ConfigInvalid
from handrail.store.ledger import LedgerRow, SqliteLedger
from tests.unit.test_usage_command import row

Run = Callable[..., Result]
TOML = """
[callers.ann]

[[budgets]]
name = "all"
window = "month"
max_cost = 10
max_tokens = 50_000

[[budgets]]
name = "ann's"
window = "day"
caller = "ann"
model = "gpt-5*"
max_requests = 1
""".replace("ann's", "of ann")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()

    def running(*arguments: str, toml: str = TOML, rows: tuple[LedgerRow, ...] = ()) -> Result:
        (tmp_path / "handrail.toml").write_text(toml)
        kept = SqliteLedger(data / "ledger.db")
        if rows:
            kept.append(rows)
        # Not closed: a gateway has it open all the time.
        done = CliRunner().invoke(budgets, ["--data-dir", str(data), *arguments])
        kept.close()
        return done

    return running


def test_a_table_says_what_is_used_of_which_limit_and_when_it_is_reset(run: Run) -> None:
    done = run(rows=(row(1, ago=0.0), row(2, ago=0.0, caller="bob", cost=1_000_000_000)))
    assert done.exit_code == 0, done.output
    heads, whole, ann = done.output.splitlines()
    assert heads.split() == [
        *("budget", "of", "window", "USD", "tokens", "requests", "state", "resets")
    ]
    assert " ".join(whole.split()).startswith("all all month 1.00 of 10.00 2,200 of 50,000 2 allow")
    assert "caller ann, model gpt-5*" in ann
    assert " ".join(ann.split()[6:]).startswith("day 0.00 1,100 1 of 1 stop")


def test_json_has_the_same_as_the_admin_api_but_for_what_only_a_gateway_knows(run: Run) -> None:
    body = json.loads(run("--json", rows=(row(1, ago=0.0),)).output)
    assert body["version"] == 1
    first, second = body["budgets"]
    assert (first["name"], first["max_cost_usd"], first["reserved"]) == ("all", 10, None)
    assert first["used"] == {"cost_usd": 0.0031, "tokens": 1_100, "requests": 1}
    assert (second["state"], second["taken"]) == ("stop", "1 of 1 requests")
    assert second["began_at"] <= time.time() < second["resets_at"]


def test_without_a_call_nothing_is_used_and_no_file_is_made(run: Run, tmp_path: Path) -> None:
    body = json.loads(run("--json").output)
    assert [budget["used"]["requests"] for budget in body["budgets"]] == [0, 0]
    assert not (tmp_path / "data" / "ledger.db").exists()


def test_without_budgets_it_says_so(run: Run) -> None:
    assert run(toml="").output == "No budgets.\n"


def test_a_file_that_is_no_ledger_is_told_and_not_taken_for_an_empty_one(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "data" / "ledger.db").write_bytes(b"no database" * 1_000)
    done = run()
    assert isinstance(done.exception, ConfigInvalid)
    assert "cannot be read as a usage ledger" in str(done.exception)
