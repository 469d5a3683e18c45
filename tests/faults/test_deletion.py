"""Row 24: what was deleted, or has expired, is in no file of the data directory any more."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, Child
from tests.contract.runs import Now, accept, ending, frames, started
from tests.faults.api import Api, until, upstream_calls


def sealed(database: Path, run_ids: Iterable[str]) -> list[bytes]:
    """Everything of some runs that stands in the database: sealed values and wrapped keys.

    Of each the middle, because SQLite may have cut a long value over pages.
    """
    connection = sqlite3.connect(database)
    try:
        found: list[bytes] = []
        for run_id in run_ids:
            query = "select wrapped_key, request, response from runs where id = ?"
            found += connection.execute(query, (run_id,)).fetchone()
            query = "select body from segments where run_id = ?"
            found += [row[0] for row in connection.execute(query, (run_id,))]
        return [bytes(value[12:60]) for value in found]
    finally:
        connection.close()


def left_of(directory: Path, values: list[bytes]) -> int:
    """How many of these values are in any file below a directory."""
    data = b"".join(file.read_bytes() for file in directory.rglob("*") if file.is_file())
    return sum(value in data for value in values)


def follow(gateway: Child, response_id: str, read: list[bytes]) -> None:
    request = Request(
        f"{gateway.url}/responses/{response_id}?stream=true",
        headers={"authorization": f"Bearer {CALLER_KEY}"},
    )
    with urlopen(request, timeout=60) as reply:
        for line in reply:
            read.append(line)  # noqa: PERF402 - others look at it meanwhile


def test_row_24_deleting_what_runs_ends_its_readers_and_leaves_nothing_of_it(
    upstream: Child, tmp_path: Path
) -> None:
    base = f"{upstream.url}/openai/v1"
    data = tmp_path / "data"
    with processes.gateway(tmp_path, upstream=base) as gateway:
        api = Api(gateway)
        stays = api.accepted("[[tag=stays]] canary-stays")
        api.ended(stays)
        running = [
            api.accepted(f"[[tag=r{n} words=2000 delay=0.005]] canary-goes") for n in range(6)
        ]
        read: list[list[bytes]] = [[] for _ in running]
        readers = [
            threading.Thread(target=follow, args=(gateway, run, lines))
            for run, lines in zip(running, read, strict=True)
        ]
        for reader in readers:
            reader.start()
        until(lambda: all(len(lines) > 50 for lines in read))
        values = sealed(data / "handrail.db", running)
        assert left_of(data, values) == len(values) > 20
        for run in running:
            assert api.call("DELETE", f"/responses/{run}")[1]["deleted"] is True
            assert api.call("GET", f"/responses/{run}")[0] == 404
            assert api.call("DELETE", f"/responses/{run}")[0] == 404
        for reader in readers:
            reader.join(60)
            assert not reader.is_alive()
        until(lambda: left_of(data, values) == 0)
        assert left_of(data, [b"canary-goes", b"canary-stays"]) == 0
        assert api.check(stays)["status"] == "completed"
        assert b"canary-goes" not in gateway.log.read_bytes()
    assert all(calls == 1 for calls in upstream_calls(upstream).values())


def test_row_24_a_kill_right_after_the_deletion_leaves_nothing_after_the_start(
    upstream: Child, tmp_path: Path
) -> None:
    base = f"{upstream.url}/openai/v1"
    data = tmp_path / "data"
    with processes.gateway(tmp_path, upstream=base) as gateway:
        api = Api(gateway)
        run = api.accepted("[[tag=gone]]")
        api.ended(run)
        values = sealed(data / "handrail.db", [run])
        assert api.call("DELETE", f"/responses/{run}")[0] == 200
        gateway.kill()
    with processes.gateway(tmp_path, upstream=base) as gateway:
        assert Api(gateway).call("GET", f"/responses/{run}")[0] == 404
        assert left_of(data, values) == 0


@pytest.fixture
def now() -> Now:
    return Now()


async def scrubbed(directory: Path, values: list[bytes]) -> None:
    async with asyncio.timeout(60):
        while left_of(directory, values):
            await asyncio.sleep(0.02)


async def test_row_24_what_has_expired_leaves_nothing_while_others_go_on_writing(
    tmp_path: Path, now: Now
) -> None:
    store = SqliteStore(tmp_path / "handrail.db", vault=Vault(bytes(32)), now=now)
    store.open()
    ids = [f"r{number}" for number in range(20)]
    for run_id in ids:
        run = await started(store, run_id)
        await store.append(run.id, run.fence, frames(3, 50, "x" * 300))
        await store.finish(run.id, run.fence, ending(53, kept_seconds=10))
    busy = await started(store, "busy")
    written = 0

    async def write_on() -> None:
        nonlocal written
        while True:
            await store.append(busy.id, busy.fence, frames(3 + written))
            written += 1

    writing = asyncio.create_task(write_on())
    values = sealed(tmp_path / "handrail.db", ids)
    now.seconds += 11
    assert await store.sweep(limit=100) == 20
    await scrubbed(tmp_path, values)
    writing.cancel()
    assert written > 0
    await store.close()


async def test_row_24_a_reader_in_the_log_delays_it_only_as_long_as_it_reads(
    tmp_path: Path, now: Now
) -> None:
    store = SqliteStore(tmp_path / "handrail.db", vault=Vault(bytes(32)), now=now)
    store.open()
    await accept(store, "r1")
    values = sealed(tmp_path / "handrail.db", ["r1"])
    reader = sqlite3.connect(tmp_path / "handrail.db", isolation_level=None)
    reader.execute("begin")
    reader.execute("select count(*) from runs").fetchone()
    assert await store.delete("r1", caller="ann")
    await accept(store, "r2")  # writing goes on meanwhile
    assert left_of(tmp_path, values) > 0
    reader.close()
    await scrubbed(tmp_path, values)
    await store.close()
