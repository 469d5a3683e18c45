"""Durations as people write them: "90s", "15m", "24h", "7d"."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# Bounded, because Python refuses to read an integer of thousands of digits.
_DURATION: Final = re.compile(r"([0-9]{1,12})([smhd])")
_UNITS: Final[Mapping[str, int]] = MappingProxyType({"s": 1, "m": 60, "h": 3_600, "d": 86_400})


def read_duration(text: str) -> int | None:
    """The seconds in a text such as "15m", None when it is no duration."""
    found = _DURATION.fullmatch(text)
    return int(found[1]) * _UNITS[found[2]] if found else None
