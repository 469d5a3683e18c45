"""What unit tests share: settings read in an empty directory, and steady generated tests."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import hypothesis
import pytest

from handrail.settings.load import load
from handrail.settings.model import Settings
from tests.unit.reading import FILE, KEYS, Read

# Every time the same examples, however slow the machine is.
hypothesis.settings.register_profile(
    "unit",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("unit")


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)

    def reading(
        toml: str | None = None,
        *,
        flags: Mapping[str, Any] = MappingProxyType({}),
        env: Mapping[str, str] = KEYS,
        credentials: bool = True,
    ) -> Settings:
        if toml is not None:
            Path(FILE).write_text(toml)
        return load(flags, env, default_data_dir=tmp_path / "data", credentials=credentials)

    return reading
