"""How hard a model is to think, and what stands in for an effort that it does not take."""

from collections.abc import Container, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Effort(StrEnum):
    """Every `reasoning.effort` there is, from the least to the most."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"
    ULTRA = "ultra"


_N, _MIN, _L, _MED, _H, _X, _MAX, _U = Effort

# For each effort, what is tried in its place, in this order. From the reference implementation,
# whose users know them.
LADDERS: Final[Mapping[Effort, tuple[Effort, ...]]] = MappingProxyType(
    {
        _N: (_L, _MIN, _MED, _H, _X),
        _MIN: (_L, _N, _MED, _H, _X),
        _L: (_MIN, _N, _MED, _H, _X),
        _MED: (_L, _H, _MIN, _N, _X),
        _H: (_MED, _X, _L, _MIN, _N),
        _X: (_H, _MED, _L, _MIN, _N),
        _MAX: (_X, _H, _MED, _L, _MIN, _N),
        _U: (_MAX, _X, _H, _MED, _L, _MIN, _N),
    }
)

ON_THE_WIRE: Final[Mapping[Effort, Effort]] = MappingProxyType({_U: _MAX})
"""Efforts that are chosen by one name and sent by another: the API has no `ultra`."""


def known(word: str) -> Effort | None:
    """The effort that a word means, in any case and trimmed; None for a word that means none."""
    try:
        return Effort(word.strip().lower())
    except ValueError:
        return None


def coerced(effort: Effort, accepted: Container[Effort]) -> Effort:
    """`effort` if it is accepted, else the first of its ladder that is, else itself."""
    if effort in accepted:
        return effort
    return next((step for step in LADDERS[effort] if step in accepted), effort)
