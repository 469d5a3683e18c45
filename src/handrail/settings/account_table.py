"""The table `accounts` of a target: where the key of each account stands, its tags and weight."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from handrail.core.select import MAX_WEIGHT
from handrail.errors import ConfigInvalid
from handrail.settings import readers
from handrail.settings.model import AccountEntry, Secret

_PLACE: Final = re.compile(r"(?:env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00]+)")
_MAX_SECRET: Final = 16 * 1024
_KEYS: Final = frozenset({"key", "tags", "weight"})


def account_table(value: Any, name: str) -> Mapping[str, AccountEntry]:
    """A table of names, with a place each, or a table with `key`, `tags` and `weight`.

    A place is `env:VARIABLE` or `file:PATH`; a key itself has no business in a settings file.
    Raises ConfigInvalid, and repeats no value: it may be a key.
    """
    if not isinstance(value, dict):
        raise ConfigInvalid(f"{name}: must be a table of names.")
    for key in value:
        if not readers.NAME.fullmatch(key):
            raise ConfigInvalid(f"{name}: a name is 1 to 64 letters, digits, '-', '_' and '.'.")
    return MappingProxyType({key: _entry(said, f"{name}.{key}") for key, said in value.items()})


def _entry(said: Any, name: str) -> AccountEntry:
    table = said if isinstance(said, dict) else {"key": said}
    if not table.keys() <= _KEYS:
        raise ConfigInvalid(f"{name}: has 'key', 'tags' and 'weight', and nothing else.")
    place = table.get("key")
    if not isinstance(place, str) or not _PLACE.fullmatch(place):
        raise ConfigInvalid(f"{name}: must be 'env:VARIABLE' or 'file:PATH'.")
    return AccountEntry(
        place=place,
        tags=readers.tags(table.get("tags", []), f"{name}.tags"),
        weight=_weight(table.get("weight"), f"{name}.weight"),
    )


def _weight(said: Any, name: str) -> float | None:
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said <= MAX_WEIGHT:
        raise ConfigInvalid(f"{name}: must be a number above 0 and up to {MAX_WEIGHT:g}.")
    return float(said)


def account_keys(
    entries: Mapping[str, AccountEntry],
    environment: Mapping[str, str],
    *,
    place: str,
    missing: dict[str, str],
) -> Mapping[str, Secret]:
    """The keys of the table at `place`, read anew with each load; `missing` gets what is not."""
    found = {}
    for name, entry in entries.items():
        kind, _, where = entry.place.partition(":")
        said, why = _read(kind, where, environment)
        key = said.strip()
        if not key or not (key.isascii() and key.isprintable() and " " not in key):
            path = f"{place}.{name}"
            missing[path] = f"{path}: {kind} {where}{why} holds no API key."
            continue
        found[name] = Secret(key)
    return MappingProxyType(found)


def _read(kind: str, where: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """What stands there, and if nothing can be read, why."""
    if kind == "env":
        return environment.get(where, ""), ""
    try:
        with Path(where).expanduser().open(encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_SECRET), ""
    except OSError as error:
        return "", f" ({error.strerror})"
