"""The queue in the embedded store: what an older file holds, what a million runs cost."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from handrail.errors import StoreFailed
from handrail.store.migrate import APPLICATION_ID, migrations
from handrail.store.queries import load
from handrail.store.rows import SQL
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.contract.runs import Now, accept, limits

QUEUES = next(n for n, name in enumerate(migrations()) if name.endswith("_queues.sql"))

ROW = """
insert into runs (id, caller, state, created_at, target, plan, wrapped_key, request, response,
    last_seq, owner, finished_at)
values (:id, :caller, :state, 1, 't', x'', x'', x'', x'', 1, :owner, :finished_at)
"""


def older(path: Path, rows: list[dict[str, Any]]) -> None:
    """A store of the version before queues were counted."""
    connection = sqlite3.connect(path)
    for name in migrations()[:QUEUES]:
        connection.executescript(load(name))
    connection.execute(f"pragma application_id = {APPLICATION_ID}")
    connection.execute(f"pragma user_version = {QUEUES}")
    connection.executemany(ROW, rows)
    connection.commit()
    connection.close()


def row(run_id: str, caller: str, *, owner: str | None = None, ended: bool = False) -> Any:
    state = "failed" if ended else "queued"
    finished_at = 2.0 if ended else None
    return {"id": run_id, "caller": caller, "state": state, "owner": owner} | {
        "finished_at": finished_at
    }


async def test_a_store_from_before_is_counted_when_it_is_upgraded(tmp_path: Path) -> None:
    rows = [row(f"w{n}", "ann") for n in range(5)]
    rows += [row(f"o{n}", "bob", owner="dead") for n in range(3)]
    rows += [row(f"e{n}", "cyd", ended=True) for n in range(2)]
    older(tmp_path / "runs.db", rows)
    store = SqliteStore(tmp_path / "runs.db", vault=Vault(bytes(32)), now=Now())
    store.open()
    assert await store.counts() == {"waiting": 5, "running": 3}
    await accept(store, "new", caller="cyd")
    assert await store.counts() == {"waiting": 6, "running": 3}
    await store.requeue("o1")
    assert await store.counts() == {"waiting": 7, "running": 2}
    await store.close()


@pytest.mark.parametrize("query", ["queues", "count_waiting", "counts", "claim"])
async def test_no_query_of_the_queue_looks_at_every_run(tmp_path: Path, query: str) -> None:
    store = SqliteStore(tmp_path / "runs.db", vault=Vault(bytes(32)), now=Now())
    store.open()
    await accept(store, "r1")
    values = {"caller": "ann", "place": 1, "owner": "me"}
    plan = await store._read(
        lambda c: [row["detail"] for row in c.execute(f"explain query plan {SQL[query]}", values)]
    )
    assert not [step for step in plan if "SCAN runs" in step], plan
    if query == "queues":
        [search] = [step for step in plan if "runs" in step]
        assert "USING INDEX runs_waiting" in search.replace("COVERING ", "")
        assert not [step for step in plan if "TEMP B-TREE" in step]
    await store.claim(owner="me", limits=limits())
    await store.close()


async def test_a_damaged_run_is_set_aside_and_holds_up_nobody(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db", vault=Vault(bytes(32)), now=Now())
    store.open()
    for run_id in ("damaged", "sound"):
        await accept(store, run_id)
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        connection.execute("update runs set request = zeroblob(40) where id = 'damaged'")
    connection.close()
    claimed = await store.claim(owner="me", limits=limits(running=1))
    assert claimed is not None
    assert claimed.id == "sound"
    assert await store.counts() == {"waiting": 0, "running": 1}
    assert await store.claim(owner="me", limits=limits()) is None
    with pytest.raises(StoreFailed):
        await store.get("damaged", caller="ann")
    assert await store.delete("damaged", caller="ann")
    await store.close()
