"""Rows 7 to 10: a disk that is full, read-only, failing, or locked by somebody else."""

import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, UPSTREAM_KEY, Child
from tests.faults.api import Api, is_whole, logged, until, upstream_calls
from tests.faults.conftest import EIO, ENOSPC, EROFS, Disk

SLOW = "[[tag={} words=2000 delay=0.002 size=60]]"
SHORT = "[[tag={} words=150 delay=0.002 size=60]]"


def base(upstream: Child) -> str:
    return f"{upstream.url}/openai/v1"


# --- row 9: fsync fails, and the rest of the I/O errors -------------------------------------------


@pytest.mark.parametrize(("call", "number"), [("fsync", EIO), ("write", EIO), ("write", EROFS)])
def test_row_9_a_store_whose_disk_has_failed_is_written_no_more_until_a_restart(
    disk: Disk, upstream: Child, tmp_path: Path, call: str, number: int
) -> None:
    with processes.gateway(
        tmp_path, upstream=base(upstream), environment=disk.environment
    ) as gateway:
        api = Api(gateway)
        kept = api.accepted("[[tag=before]]")
        assert api.ended(kept)["status"] == "completed"
        running = api.accepted(SLOW.format("running"))
        until(lambda: api.get(running)["status"] == "in_progress")
        disk.fail(call, number)
        status, body, headers = api.create("[[tag=refused]]")
        assert (status, body["error"]["code"]) == (503, "store_unavailable")
        assert "Retry-After" in headers or "retry-after" in headers
        until(lambda: api.ready()["store"] == "broken")
        disk.heal()  # the next flush would say "fine"; it must not be asked
        status, body, _ = api.create("[[tag=refused]]")
        assert (status, body["error"]["code"]) == (503, "store_unavailable")
        assert api.ready() == {
            "status": "ready",
            "store": "broken",
            "keys": "current",
            "settings": "current",
        }
        assert api.check(kept)["status"] == "completed"
        assert api.get(running)["status"] == "in_progress"  # no end is told that is not kept
        assert api.create("hi", background=False)[1]["status"] == "completed"
        assert gateway.stop() == 0
        broken = [line for line in logged(gateway) if line["event"] == "store_broken"]
        assert len(broken) == 1
        assert broken[0]["why"].startswith("SQLITE_IOERR_")
    assert is_whole(tmp_path / "data")
    with processes.gateway(tmp_path, upstream=base(upstream)) as gateway:
        api = Api(gateway)
        assert api.ready()["store"] == "ok"
        assert api.check(kept)["status"] == "completed"
        assert api.check(running)["error"]["type"] == "worker_lost"
        assert api.ended(api.accepted("[[tag=after]]"))["status"] == "completed"
    calls = upstream_calls(upstream)
    assert {calls["before"], calls["running"], calls["after"]} == {1}


@pytest.mark.parametrize("skip", [0, 1, 2, 3, 5, 8])
def test_row_9_no_flush_that_fails_makes_a_wrong_end_or_loses_what_was_answered(
    disk: Disk, upstream: Child, tmp_path: Path, skip: int
) -> None:
    with processes.gateway(
        tmp_path, upstream=base(upstream), environment=disk.environment
    ) as gateway:
        api = Api(gateway)
        accepted = [api.accepted(SHORT.format(f"r{number}")) for number in range(4)]
        disk.fail("fsync", EIO, skip=skip)
        for number in range(4, 12):
            status, body, _ = api.create(SHORT.format(f"r{number}"))
            assert status in (200, 503), body
            accepted += [body["id"]] if status == 200 else []
        until(lambda: api.ready()["store"] == "broken")
        gateway.kill()
    with processes.gateway(tmp_path, upstream=base(upstream)) as gateway:
        api = Api(gateway)
        for response_id in accepted:
            body = api.check(response_id)
            assert body["status"] in ("completed", "failed")
    assert max(upstream_calls(upstream).values()) == 1


# --- row 8: read-only -----------------------------------------------------------------------------


@contextmanager
def file_system(place: Path, *, size: str = "64m") -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_row_8_a_start_on_a_read_only_disk_is_refused_in_one_line(
    upstream: Child, tmp_path: Path
) -> None:
    with file_system(tmp_path / "data") as place:
        with processes.gateway(tmp_path, upstream=base(upstream)) as gateway:
            kept = Api(gateway).accepted("hi")
            Api(gateway).ended(kept)
            gateway.stop()
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        done = subprocess.run(
            [*processes.HANDRAIL, "serve", "--data-dir", str(place), "--port", "0"],
            env={
                "PATH": os.environ["PATH"],
                "HANDRAIL_CALLER_KEY": CALLER_KEY,
                "HANDRAIL_UPSTREAM_API_KEY": UPSTREAM_KEY,
            },
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"handrail: {place}")
        assert "Read-only file system" in done.stderr
        assert done.stderr.count("\n") == 1
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        with processes.gateway(tmp_path, upstream=base(upstream)) as gateway:
            assert Api(gateway).check(kept)["status"] == "completed"


# --- row 7: full ----------------------------------------------------------------------------------


def test_row_7_a_full_disk_under_load_loses_nothing_and_passes_without_a_restart(
    upstream: Child, tmp_path: Path
) -> None:
    with file_system(tmp_path / "data", size="16m") as place:
        with processes.gateway(
            tmp_path, "--port", "0", "--background", upstream=base(upstream)
        ) as gateway:
            api = Api(gateway)
            accepted = [api.accepted(SLOW.format(f"r{number}")) for number in range(8)]
            until(lambda: api.get(accepted[0])["status"] == "in_progress")
            filler = place / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
            refused = 0
            for number in range(8, 40):
                status, body, _ = api.create(SHORT.format(f"r{number}") + "x" * 20_000)
                assert status in (200, 503), body
                refused += status == 503
                accepted += [body["id"]] if status == 200 else []
            assert refused > 0
            assert api.get(accepted[0])["id"] == accepted[0]
            assert api.create("hi", background=False)[1]["status"] == "completed"
            filler.unlink()
            until(lambda: api.create("[[tag=again]]")[0] == 200)
            until((place / "handrail.db.reserve").exists)
            states = {api.check(response_id)["status"] for response_id in accepted}
            assert states <= {"completed", "failed"}
            causes = {(api.get(i)["error"] or {}).get("type") for i in accepted}
            assert causes <= {None, "storage_full"}
            assert gateway.stop() == 0
        assert is_whole(place)
    assert max(calls for tag, calls in upstream_calls(upstream).items() if tag != "again") == 1


def last_number(data: Path) -> int:
    """The number of the last durable event of the latest run."""
    connection = sqlite3.connect(data / "handrail.db")
    try:
        return int(connection.execute("select last_seq from runs order by ord desc").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("manner", "noticed"), [("words=2000 delay=0.002", True), ("stall=2", False)]
)
def test_row_7_a_stop_ends_also_while_no_end_can_be_written(
    disk: Disk, upstream: Child, tmp_path: Path, manner: str, noticed: bool
) -> None:
    config = tmp_path / "handrail.toml"
    config.write_text('background.enabled = true\nserver.drain = "1s"\n')
    arguments = ("--port", "0", "--config", str(config))
    with processes.gateway(
        tmp_path, *arguments, upstream=base(upstream), environment=disk.environment
    ) as gateway:
        api = Api(gateway)
        running = api.accepted(f"[[tag=running {manner}]]")
        until(lambda: last_number(tmp_path / "data") >= 6)  # all that a stalled one will say
        disk.fail("write", ENOSPC)
        if noticed:
            until(lambda: any(line["event"] == "run_end_not_kept" for line in logged(gateway)))
        assert gateway.stop(seconds=60) == 0
    with processes.gateway(tmp_path, upstream=base(upstream)) as gateway:
        assert Api(gateway).check(running)["error"]["type"] == "worker_lost"
    assert upstream_calls(upstream)["running"] == 1


# --- row 10: locked -------------------------------------------------------------------------------


def test_row_10_a_locked_store_waits_with_a_bound_and_loses_nothing(
    upstream: Child, tmp_path: Path
) -> None:
    with processes.gateway(tmp_path, upstream=base(upstream)) as gateway:
        api = Api(gateway)
        running = api.accepted(SLOW.format("running"))
        until(lambda: api.get(running)["status"] == "in_progress")
        locker = sqlite3.connect(
            tmp_path / "data" / "handrail.db", isolation_level=None, check_same_thread=False
        )
        locker.execute("begin exclusive")
        answers: list[tuple[int, object]] = []

        def create(number: int) -> None:
            status, body, headers = api.create(f"[[tag=r{number}]]")
            answers.append((status, body["id"] if status == 200 else headers["retry-after"]))

        threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        assert api.get(running)["status"] == "in_progress"  # reading goes on
        assert api.create("hi", background=False)[1]["status"] == "completed"
        for thread in threads:
            thread.join(60)
        assert {status for status, _ in answers} == {503}
        assert api.ready()["store"] == "ok"
        locker.execute("rollback")
        locker.close()
        after = api.accepted("[[tag=after]]")
        assert api.check(after)["status"] == "completed"
        assert api.check(running)["status"] in ("completed", "failed")
    calls = upstream_calls(upstream)
    assert (calls["running"], calls["after"], len(calls)) == (1, 1, 3)
