"""Programs from npm, which `scripts/test` installs into `.cache`, a directory for each module."""

import os
from pathlib import Path

import pytest

from tests.acceptance.processes import ROOT


def modules(name: str) -> Path:
    """Where the packages of `tests/acceptance/NAME/package.json` are installed."""
    return ROOT / ".cache" / name / "node_modules"


def needs(program: Path, *, called: str) -> list[pytest.MarkDecorator]:
    """The marks of a module that is skipped without this program, unless the gate insists on it."""
    return [
        pytest.mark.npm,
        pytest.mark.skipif(
            not program.exists() and "HANDRAIL_REQUIRE_NPM" not in os.environ,
            reason=f"{called} is not installed; scripts/test installs it where npm is available",
        ),
    ]
