"""`handrail usage` beside a real gateway, after SIGTERM and after kill -9."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, Child

HANDRAIL = str(Path(sys.executable).with_name("handrail"))
PROJECT = {"handrail-project": "site"}


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Child]:
    with processes.scripted_upstream(tmp_path) as child:
        yield child


def usage(directory: Path) -> dict[str, Any]:
    done = subprocess.run(
        [
            HANDRAIL,
            "usage",
            "--json",
            "--by",
            "caller,project,model",
            "--data-dir",
            directory / "data",
        ],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def wait_for(calls: int, directory: Path) -> None:
    """Until the rows are written, which is soon after the answers; or the file is there at all."""
    deadline = time.monotonic() + 15
    while True:
        try:
            if usage(directory)["total"]["calls"] == calls:
                return
        except subprocess.CalledProcessError:
            pass
        assert time.monotonic() < deadline


def ask(gateway: Child, count: int) -> None:
    with OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0) as client:
        for number in range(count):
            stream = client.responses.create(
                model="gpt-5.4", input=f"hi {number}", stream=True, extra_headers=PROJECT
            )
            assert [event.type for event in stream][-1] == "response.completed"


def test_what_was_used_is_told_beside_a_gateway_and_survives_its_end(
    upstream: Child, tmp_path: Path
) -> None:
    server = f"{upstream.url}/openai/v1"
    with processes.gateway(tmp_path, upstream=server) as gateway:
        ask(gateway, 3)
        wait_for(3, tmp_path)
        (row,) = usage(tmp_path)["rows"]
        assert (row["caller"], row["project"], row["model"]) == ("default", "site", "gpt-5.4")
        assert (row["input_tokens"], row["output_tokens"]) == (21, 27)
        assert row["cost_usd"] == pytest.approx(3 * (5 * 2.5 + 2 * 0.25 + 9 * 15) / 1e6)
        ask(gateway, 2)
        assert gateway.stop() == 0
    assert usage(tmp_path)["total"]["calls"] == 5
    with processes.gateway(tmp_path, upstream=server) as gateway:
        ask(gateway, 1)
        wait_for(6, tmp_path)
        gateway.kill()
    assert usage(tmp_path)["total"]["calls"] == 6
