"""Which other routes of an upstream may be passed through: an allow-list of paths, and its limits.

What is passed through is not looked into, so no rule of the Responses API may lie behind it: no
path with a segment `responses` or `models` is ever passed through, whatever the list says.
"""

import re
from collections.abc import Sequence
from typing import Final

METHODS: Final = ("DELETE", "GET", "POST")
BELOW: Final = "/*"

_SEGMENT: Final = r"[A-Za-z0-9._~:@+\-]{1,128}"
_PATH: Final = re.compile(rf"(?:/{_SEGMENT}){{1,8}}")
_KEPT: Final = frozenset({"responses", "models"})


def passable(path: str) -> bool:
    """Whether a path below the base URL is one that may ever be passed through.

    Plain segments only: what a server might read as another path is none.
    """
    segments = path.split("/")[1:]
    return bool(_PATH.fullmatch(path)) and not any(
        set(segment) == {"."} or segment.lower().rstrip(".") in _KEPT for segment in segments
    )


def is_entry(text: str) -> bool:
    """Whether a text may stand in the list: a path, or one with `/*` for all that is below it."""
    return text == BELOW or passable(text.removesuffix(BELOW))


def listed(path: str, entries: Sequence[str]) -> bool:
    """Whether a path may be passed through by this list."""
    return passable(path) and any(
        path == entry or (entry.endswith(BELOW) and path.startswith(entry[:-1]))
        for entry in entries
    )
