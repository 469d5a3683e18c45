"""`handrail db` beside a real gateway, and after it."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, Child

HANDRAIL = str(Path(sys.executable).with_name("handrail"))
CANARY = "prompt-canary-of-a-kept-response"


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Child]:
    with processes.scripted_upstream(tmp_path) as child:
        yield child


def db(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [HANDRAIL, "db", *arguments, "--data-dir", str(directory / "data")],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def fill(gateway: Child, count: int) -> list[str]:
    with OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0) as client:
        streams = [
            client.responses.create(
                model="m", input=f"{CANARY} {number}", background=True, stream=True
            )
            for number in range(count)
        ]
        ids = []
        for stream in streams:
            *_, last = stream
            assert last.type == "response.completed"
            ids.append(last.response.id)
        return ids


def test_the_store_is_looked_after_beside_and_after_a_gateway(
    upstream: Child, tmp_path: Path
) -> None:
    server = f"{upstream.url}/openai/v1"
    said = []
    with processes.gateway(tmp_path, upstream=server) as gateway:
        ids = fill(gateway, 4)
        done = db(tmp_path, "check")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "4 runs looked at; nothing is wrong\n"
        copied = db(tmp_path, "backup", "copy.db")
        said += [done, copied]
        assert copied.returncode == 0
        assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
        for command in ("vacuum", "rotate-key"):
            refused = db(tmp_path, command)
            said.append(refused)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert "a gateway is running on this store (it holds gateway.lock)" in refused.stderr
            assert refused.stderr.count("\n") == 1
        assert gateway.stop() == 0
    old = (tmp_path / "data" / "store.key").read_bytes()
    rotated, vacuumed, checked = (
        db(tmp_path, *words) for words in (["rotate-key"], ["vacuum"], ["check", "--quick"])
    )
    said += [rotated, vacuumed, checked]
    assert [done.returncode for done in (rotated, vacuumed, checked)] == [0, 0, 0]
    new = (tmp_path / "data" / "store.key").read_bytes()
    assert old != new
    with (
        processes.gateway(tmp_path, upstream=server) as gateway,
        OpenAI(base_url=gateway.url, api_key=CALLER_KEY) as client,
    ):
        for response_id in ids:
            assert client.responses.retrieve(response_id).status == "completed"
    printed = "".join(done.stdout + done.stderr for done in said)
    for secret in (CANARY, CALLER_KEY, old.hex(), new.hex()):
        assert secret not in printed
    assert "not in it: keep a copy of" in copied.stdout


def test_a_damaged_store_is_named_by_run_and_a_missing_one_in_a_line(
    upstream: Child, tmp_path: Path
) -> None:
    import sqlite3

    nothing = db(tmp_path, "check")
    assert nothing.returncode == 2
    assert "there is no run store" in nothing.stderr
    with processes.gateway(tmp_path, upstream=f"{upstream.url}/openai/v1") as gateway:
        [response_id] = fill(gateway, 1)
        gateway.stop()
    database = tmp_path / "data" / "handrail.db"
    with sqlite3.connect(database) as connection:
        connection.execute("update runs set response = zeroblob(60)")
    connection.close()
    done = db(tmp_path, "check")
    assert done.returncode == 1
    assert f"run {response_id}: its response is damaged" in done.stdout
    with processes.gateway(tmp_path, upstream=f"{upstream.url}/openai/v1") as gateway:
        with OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0) as client:
            with pytest.raises(Exception, match="damaged") as error:
                client.responses.retrieve(response_id)
            assert error.value.status_code == 503  # type: ignore[attr-defined]
            assert client.responses.create(model="m", input="hi").status == "completed"
        gateway.stop()
        log = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    assert [line["why"] for line in log if line["event"] == "request_failed"] == [
        f"{response_id}/response"
    ]
