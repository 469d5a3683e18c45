"""What is said of each change on the way from the caller's body to the upstream's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change: which field, what was done to it, and why. Holds no content of the request."""

    field: str
    action: str
    reason: str


_PLAIN: Final = re.compile(r"[^A-Za-z0-9_.\[\]-]")
_MAX_HEADER: Final = 1_000


def steps_header(steps: Sequence[Step]) -> str:
    """The steps for a reply header: visible ASCII, bounded; "" when there are none.

    Fields may have names that the caller made up, so nothing of them but plain letters is shown.
    """
    told = [f"{_PLAIN.sub('?', step.field[:64])}: {step.action}" for step in steps]
    text = ", ".join(told).encode("ascii", "replace").decode()
    text = "".join(char if char.isprintable() and char != ";" else "?" for char in text)
    return text if len(text) <= _MAX_HEADER else f"{text[:_MAX_HEADER]}..."
