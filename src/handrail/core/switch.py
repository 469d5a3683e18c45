"""Guardrail G1: whether background mode is switched on, who said so, and whether that is a lock."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from handrail.errors import ConfigInvalid

SWITCH_VARIABLES: Final = ("HANDRAIL_BACKGROUND_RESPONSES", "CODEX_AUTH_BACKGROUND_RESPONSES")
"""The environment's names of the switch, strongest first; the second is the reference's."""

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Whether background mode is on, who said so, and whether a caller's policy may lift it."""

    enabled: bool
    source: str
    locked: bool


def parse_boolean(text: str, *, name: str) -> bool | None:
    """1/true/yes/on or 0/false/no/off, any case, trimmed; None when empty.

    Raises ConfigInvalid, naming the variable, for any other text: a switch that cannot be read
    must stop the start, not fall back to something.
    """
    word = text.strip().lower()
    if not word:
        return None
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ConfigInvalid(
        f"{name}: is not a boolean; use 1, true, yes or on, or 0, false, no or off."
    )


def resolve_switch(
    *, flag: bool | None, environment: Mapping[str, str], file: bool | None
) -> Switch:
    """G1: flag, then environment, then file, then off.

    An explicit off by flag or environment is a lock. Raises ConfigInvalid for a value that is no
    boolean and for two variables that contradict each other.
    """
    values = {
        name: parse_boolean(environment.get(name, ""), name=name) for name in SWITCH_VARIABLES
    }
    said = {name: value for name, value in values.items() if value is not None}
    if len(set(said.values())) > 1:
        raise ConfigInvalid(f"{' and '.join(said)} contradict each other; unset one of them.")
    if flag is not None:
        source = "flag --background" if flag else "flag --no-background"
        return Switch(enabled=flag, source=source, locked=not flag)
    for name, value in said.items():
        return Switch(enabled=value, source=f"environment {name}", locked=not value)
    if file is not None:
        return Switch(enabled=file, source="file [background] enabled", locked=False)
    return Switch(enabled=False, source="default", locked=False)
