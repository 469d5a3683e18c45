"""Named SQL: every statement stands in `sql/*.sql` under a name and a line that says what for."""

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

_HEAD: Final = re.compile(r"^-- name: (\w+)\n-- .+\n", re.MULTILINE)


def parse(text: str) -> Mapping[str, str]:
    """The statements of a query file by name. Raises ValueError for a name that stands twice."""
    parts = _HEAD.split(text)
    names, bodies = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        raise ValueError("a query name stands twice")
    return MappingProxyType(
        {name: body.strip().rstrip(";") for name, body in zip(names, bodies, strict=True)}
    )


def load(name: str) -> str:
    """The text of `sql/<name>`."""
    return files("handrail.store").joinpath("sql", name).read_text(encoding="utf-8")
