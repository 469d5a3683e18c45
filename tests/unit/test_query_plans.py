"""No query that serves a caller, a claim or a sweep may look at all that is kept.

With a million kept runs each must cost what it costs with a thousand.
"""

import re

import pytest

from handrail.store.opening import connect_to_write
from handrail.store.rows import SQL
from handrail.store.vault import Vault

# What is to look at everything: `handrail db check`.
WHOLE = frozenset({"recount", "all_runs"})
# Indexes that hold only what waits or runs, which is bounded by the queue's limits.
BOUNDED = ("runs_waiting", "runs_owned")
KEPT = ("runs", "segments", "items", "idempotency", "remotes")


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    path = tmp_path_factory.mktemp("plans") / "runs.db"
    connection = connect_to_write(path, vault=Vault(bytes(32)))
    found = {}
    for name, statement in SQL.items():
        values = dict.fromkeys(re.findall(r":(\w+)", statement), 1)
        rows = connection.execute(f"explain query plan {statement}", values)
        found[name] = [row["detail"] for row in rows]
    connection.close()
    return found


def whole_scans(plan: list[str]) -> list[str]:
    """The steps that walk through a whole table of what is kept."""
    scans = [re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step) for step in plan]
    return [
        scan[0] for scan in scans if scan is not None and scan[1] in KEPT and scan[2] not in BOUNDED
    ]


@pytest.mark.parametrize("name", sorted(set(SQL) - WHOLE))
def test_a_query_finds_its_rows_by_an_index(plans: dict[str, list[str]], name: str) -> None:
    assert whole_scans(plans[name]) == []


def test_this_test_sees_a_scan_where_there_is_one(plans: dict[str, list[str]]) -> None:
    assert all(whole_scans(plans[name]) for name in WHOLE)
