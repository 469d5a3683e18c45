"""Durations as people write them."""

import pytest

from handrail.core.durations import read_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("0s", 0)]
)
def test_a_number_and_a_unit_are_seconds(text: str, seconds: int) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "s", "1.5h", "-1s", "1 h", "1w", "1H", "9" * 13 + "s", "1s\n", "\u0661s"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    assert read_duration(text) is None
