"""Row 6: a power cut loses nothing that was answered.

What this does not show: a disk that lies about its flushes, and a file system that loses the names
of files.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.processes import ROOT
from tests.faults.conftest import Disk


def run(module: str, *arguments: object, environment: dict[str, str] | None = None) -> str:
    """One of the programs beside this file; what it printed."""
    return subprocess.run(
        [sys.executable, "-m", f"tests.faults.{module}", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        check=True,
        timeout=300,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


@pytest.mark.parametrize("seed", [6])
def test_row_6_nothing_that_was_answered_is_lost_to_a_power_cut(
    disk: Disk, tmp_path: Path, scratch: Path, seed: int
) -> None:
    work, trace = tmp_path / "work", tmp_path / "trace"
    work.mkdir()
    run("power", work, seed, environment={**disk.environment, "FAULTS_TRACE": str(trace)})
    report = json.loads(run("cuts", trace, scratch, seed, 100))
    assert report["wrong"] == []
    assert (report["cuts"], report["accepted"], report["deleted"]) == (100, 96, 32)
    assert report["flushes of the database"] > 3
