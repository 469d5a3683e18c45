"""What is particular to the embedded store: its file, its keys, its refusals."""

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from handrail.errors import Code, ConfigInvalid, StoreFailed
from handrail.store.base import Repeat
from handrail.store.migrate import migrations
from handrail.store.reserve import Reserve
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from handrail.store.writer import Writer
from tests.contract.runs import CANARY, Now, accept, ending, frames, limits, started
from tests.unit.test_journal import new_run

KEY = bytes(range(32))


async def opened(path: Path, key: bytes = KEY) -> SqliteStore:
    store = SqliteStore(path, vault=Vault(key), now=Now())
    store.open()
    return store


async def test_no_copy_of_the_files_shows_what_callers_wrote_or_got(tmp_path: Path) -> None:
    store = await opened(tmp_path / "runs.db")
    run = await started(store, "r1")
    await store.append(run.id, run.fence, frames(3, 5, CANARY.decode()))
    await store.finish(run.id, run.fence, ending(8))
    await store.close()
    files = list(tmp_path.iterdir())
    assert len(files) >= 1
    assert not any(CANARY in file.read_bytes() for file in files)


async def test_a_deleted_runs_sealed_bytes_and_key_are_gone_from_the_file(tmp_path: Path) -> None:
    store = await opened(tmp_path / "runs.db")
    run = await started(store, "r1")
    await store.finish(run.id, run.fence, ending(3))
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        sealed = [
            bytes(value)
            for row in connection.execute("select wrapped_key, request, response from runs")
            for value in row
        ]
    connection.close()
    await store.delete("r1", caller="ann")
    await store.close()  # the last connection to close folds the log into the file
    left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not any(value in left for value in sealed)


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await (await opened(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"pragma user_version = {len(migrations()) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigInvalid, match="written by a newer Handrail"):
        await opened(path)
    assert path.read_bytes() == before


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table theirs (x)")
    connection.close()
    with pytest.raises(ConfigInvalid, match="not one of Handrail's"):
        await opened(path)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(ConfigInvalid, match="cannot be opened as a run store"):
        await opened(path)


async def test_another_store_key_is_refused(tmp_path: Path) -> None:
    await (await opened(tmp_path / "runs.db")).close()
    with pytest.raises(ConfigInvalid, match="another store key"):
        await opened(tmp_path / "runs.db", bytes(32))


async def test_damaged_content_is_an_error_and_never_wrong_bytes(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await opened(path)
    await accept(store, "r1")
    with sqlite3.connect(path) as connection:
        connection.execute("update runs set response = zeroblob(64)")
        connection.execute("update segments set body = zeroblob(64)")
    connection.close()
    with pytest.raises(StoreFailed, match="damaged"):
        await store.get("r1", caller="ann")
    with pytest.raises(StoreFailed, match="damaged"):
        await store.read("r1", after=-1, caller="ann")
    await store.close()


async def test_a_damaged_run_is_outlined_as_such_and_hides_no_other(tmp_path: Path) -> None:
    store = await opened(tmp_path / "runs.db")
    for name in ("r1", "r2", "r3"):
        await accept(store, name)
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        connection.execute("update runs set state = 'broken' where id = 'r2'")
        connection.execute("update runs set request = zeroblob(9) where id = 'r3'")
    connection.close()
    found = await store.outlines(after=None, limit=9)
    assert found is not None
    assert [(run.id, run.state) for run in found] == [
        ("r3", "queued"),
        ("r2", None),
        ("r1", "queued"),
    ]
    await store.close()


async def test_sealed_content_cannot_be_moved_to_another_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await opened(path)
    await accept(store, "r1")
    await accept(store, "r2")
    with sqlite3.connect(path) as connection:
        connection.execute(
            "update runs set response = (select response from runs where id = 'r1'),"
            " wrapped_key = (select wrapped_key from runs where id = 'r1') where id = 'r2'"
        )
    connection.close()
    await store.close()
    again = await opened(path)
    with pytest.raises(StoreFailed, match="damaged"):
        await again.get("r2", caller="ann")
    await again.close()


async def test_an_idempotency_key_stays_known_while_its_run_is_kept_and_is_dropped_after_it(
    tmp_path: Path,
) -> None:
    now = Now()
    store = SqliteStore(tmp_path / "runs.db", vault=Vault(KEY), now=now)
    store.open()
    begun = now.seconds
    repeat = Repeat(key="k", digest=b"d", kept_seconds=60)
    run = replace(new_run("r1"), repeat=repeat)

    def keys() -> int:
        with sqlite3.connect(tmp_path / "runs.db") as connection:
            count = connection.execute("select count(*) from idempotency").fetchone()[0]
        connection.close()
        return int(count)

    await store.accept(run, limits=limits())
    now.seconds = begun + 100
    await store.sweep(limit=10)
    assert keys() == 1  # it has not even begun
    claimed = await store.claim(owner="me", limits=limits())
    assert claimed is not None
    await store.begin(claimed.id, claimed.fence, now=1.0, segment=frames(2))
    await store.finish("r1", claimed.fence, ending(3, kept_seconds=8_900))
    for seconds in (200, 4_000, 8_000):
        now.seconds = begun + seconds
        await store.sweep(limit=10)
        assert await store.accept(replace(run, id="again"), limits=limits()) == "r1"
    now.seconds = begun + 9_001
    await store.sweep(limit=10)  # the run
    await store.sweep(limit=10)  # and its key
    assert keys() == 0
    await store.close()


def writer_on(path: Path) -> Writer:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("create table if not exists t (x integer check (x < 100))")
        return connection

    writer = Writer(connect, reserve=Reserve(path.with_name("reserve"), 65_536))
    writer.start()
    return writer


async def test_one_failing_write_takes_no_other_with_it(tmp_path: Path) -> None:
    writer = writer_on(tmp_path / "w.db")

    def insert(value: int) -> "asyncio.Future[object]":
        work = writer.run(lambda c: c.execute("insert into t values (?)", (value,)).rowcount)
        return asyncio.ensure_future(work)

    def broken(_: sqlite3.Connection) -> None:
        raise ValueError("a defect")

    outcomes = await asyncio.gather(
        insert(1), insert(500), writer.run(broken), insert(2), return_exceptions=True
    )
    assert outcomes[0] == outcomes[3] == 1
    assert isinstance(outcomes[1], StoreFailed)
    assert isinstance(outcomes[2], ValueError)
    rows = await writer.run(lambda c: c.execute("select x from t order by x").fetchall())
    assert rows == [(1,), (2,)]
    writer.close()


async def test_a_vital_write_uses_up_the_reserve_and_an_ordinary_one_does_not(
    tmp_path: Path,
) -> None:
    writer = writer_on(tmp_path / "w.db")
    reserve = tmp_path / "reserve"
    assert reserve.stat().st_size == 65_536

    def full(connection: sqlite3.Connection) -> int:
        # The engine's own "database or disk is full", as long as the reserve is there.
        if reserve.exists():
            connection.execute("pragma max_page_count = 2")
        else:
            connection.execute("pragma max_page_count = 1000")
        connection.execute("create table big (x)")
        return connection.execute("insert into big values (zeroblob(100000))").rowcount

    with pytest.raises(StoreFailed) as error:
        await writer.run(full)
    assert error.value.fault.code == Code.STORAGE_FULL
    assert reserve.exists()
    assert await writer.run(full, vital=True) == 1
    assert not reserve.exists()
    writer.close()
