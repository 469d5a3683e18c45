"""`handrail usage`: what is asked, over a real ledger, in its three shapes."""

import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from handrail.cli.usage import usage
from handrail.errors import ConfigInvalid
from handrail.store.ledger import LedgerRow, SqliteLedger

Run = Callable[..., Result]
DAY = 86_400.0


def row(number: int, **keys: Any) -> LedgerRow:
    now = time.time()
    ended = now - keys.pop("ago", 60.0)
    values = {
        "id": f"c{number}",
        "started_at": ended - 1,
        "ended_at": ended,
        "seconds": 1.0,
        "caller": "ann",
        "project": None,
        "target": "openai https://up.example/v1",
        "account": None,
        "model": "gpt-5.4",
        "sent_model": "gpt-5.4",
        "mode": "stateless",
        "endpoint": "responses",
        "response_id": f"r{number}",
        "cause": "first",
        "status": 200,
        "outcome": "completed",
        "input": 1_000,
        "cached": 400,
        "output": 100,
        "reasoning": 50,
        "tier": None,
        "cost": 3_100_000,
        "counts": True,
    }
    return LedgerRow(**{**values, **keys})


UNKNOWN: Any = {"input": None, "cached": None, "output": None, "reasoning": None}
ROWS = (
    row(1),
    row(2, caller="bob", project="site", cost=9_300_000, output=300),
    row(3, model="=cmd()\x1b[2J", cost=None, outcome="lost", **UNKNOWN),
    row(4, ago=40 * DAY, cost=10**9),
    row(5, outcome="refused", status=429, cost=0, counts=False, **UNKNOWN),
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()

    def running(*arguments: str, rows: tuple[LedgerRow, ...] = ROWS, toml: str = "") -> Result:
        (tmp_path / "handrail.toml").write_text(toml)
        kept = SqliteLedger(data / "ledger.db")
        kept.append(rows)
        # Not closed: a gateway has it open all the time.
        done = CliRunner().invoke(usage, ["--data-dir", str(data), *arguments])
        kept.close()
        return done

    return running


def test_a_table_says_what_was_used_by_whom_the_dearest_first(run: Run) -> None:
    done = run("--by", "caller,model")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].endswith("(UTC)")
    heads = ["caller", "model", "calls", "failed", "input", "cached", "output", "reasoning", "USD"]
    assert lines[2].split() == heads
    first, second = lines[3].split(), lines[4].split()
    assert " ".join(first[:9]) == "bob gpt-5.4 1 0 1,000 400 300 50 0.0093"
    assert " ".join(second[:9]) == "ann gpt-5.4 2 1 1,000 400 100 50 0.0031"
    assert (first[9], second[9]) == ("█" * 24, "█" * 8)
    assert " ".join(lines[6].split()) == "total 4 2 2,000 800 400 100 0.0124 + ?"
    assert lines[-1] == "1 call has no known price or use: not in the sums of USD (?)."


def test_an_unknown_price_is_a_question_mark_and_a_name_cannot_play_with_the_terminal(
    run: Run,
) -> None:
    output = run().output
    (line,) = [line for line in output.splitlines() if "cmd" in line]
    assert line.split()[-1] == "?"
    assert "\x1b" not in output
    assert "\\x1b[2J" in line


def test_json_has_the_figures_and_null_for_what_nobody_knows(run: Run) -> None:
    body = json.loads(run("--json", "--by", "model,project").output)
    assert (body["version"], body["by"]) == (1, ["model", "project"])
    found = {(line["model"], line["project"]): line for line in body["rows"]}
    assert found["gpt-5.4", "site"] == {
        "model": "gpt-5.4",
        "project": "site",
        "calls": 1,
        "failed": 0,
        "input_tokens": 1_000,
        "cached_tokens": 400,
        "output_tokens": 300,
        "reasoning_tokens": 50,
        "cost_usd": 0.0093,
        "unpriced_calls": 0,
    }
    unknown = found["=cmd()\x1b[2J", "-"]
    assert (unknown["cost_usd"], unknown["unpriced_calls"]) == (None, 1)
    assert (body["total"]["calls"], body["total"]["cost_usd"]) == (4, 0.0124)


def test_csv_has_a_line_of_heads_and_no_formula(run: Run) -> None:
    formula = row(3, model="=cmd()", cost=None, **UNKNOWN)
    done = run("--csv", rows=(*ROWS[:2], formula))
    lines = list(csv.DictReader(io.StringIO(done.output)))
    assert [line["model"] for line in lines] == ["gpt-5.4", "'=cmd()"]
    assert [line["cost_usd"] for line in lines] == ["0.0124", ""]


def test_since_and_until_take_days_and_durations(run: Run) -> None:
    def calls(*arguments: str) -> int:
        found: int = json.loads(run("--json", *arguments).output)["total"]["calls"]
        return found

    assert calls("--since", "50d") == 5
    assert calls("--since", "2020-01-01") == 5
    assert calls("--since", "50d", "--until", "30d") == 1
    assert calls("--since", "2020-01-01", "--until", "2020-02-01") == 0
    assert "No upstream calls." in run("--until", "2020-01-02", "--since", "2020-01-01").output


def test_days_are_those_of_the_settings_zone(run: Run) -> None:
    noon = row(9, ago=time.time() - 1_795_348_800.0)  # 2026-11-22, 12:00 UTC
    for zone, day in (("UTC", "2026-11-22"), ("Pacific/Auckland", "2026-11-23")):
        toml = f'[ledger]\ntime_zone = "{zone}"\n'
        asked = ("--since", "2026-11-20", "--until", "2026-11-30", "--by", "day", "--json")
        body = json.loads(run(*asked, rows=(noon,), toml=toml).output)
        days = [line["day"] for line in body["rows"] if line["calls"] and line["cost_usd"]]
        assert day in days


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--by", "prompt"), "--by must be some of caller, model, account, project, day"),
        (("--by", "model,model"), "each once"),
        (("--by", ","), "--by must be"),
        (("--since", "yesterday"), "--since must be a day such as"),
        (("--until", "2026-13-01"), "--until must be a day such as"),
        (("--since", "999999999999d"), "--since must be a day such as"),
        (("--json", "--csv"), "not both"),
    ],
)
def test_what_cannot_be_meant_is_refused(run: Run, arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert words in done.output


def test_without_a_ledger_it_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(usage, ["--data-dir", str(tmp_path)])
    assert isinstance(done.exception, ConfigInvalid)
    assert "there is no usage ledger (ledger.db)" in str(done.exception)
