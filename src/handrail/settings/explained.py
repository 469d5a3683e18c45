"""The settings as people are shown them: value and source of each, secrets masked."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from handrail.core.caller_policy import CallerPolicy
from handrail.core.redact import masked
from handrail.core.routes import EVERYTHING, Route
from handrail.settings.caller_options import CALLER_OPTIONS
from handrail.settings.load import DEFAULT_CALLER
from handrail.settings.model import Caller, Secret, Settings

# Options of a caller that are no field of its policy under the same name.
_KEYS = frozenset({"key_env", "key_sha256"})


def explained(settings: Settings) -> list[tuple[str, str, str]]:
    """Path, value as shown, and source of every setting and caller."""
    at = settings.sources
    rows = [
        (path, _command(value) if path.endswith("bearer_command") else _shown(value), at[path])
        for path, value in settings.values.items()
    ]
    file = str(settings.file) if settings.file else "default"
    tables: dict[str, msgspec.Struct] = {"defaults": settings.defaults}
    tables |= {f'models."{name}"': entry for name, entry in settings.models.items()}
    rows += [
        (f"{place}.{key}", msgspec.json.encode(value).decode(), file)
        for place, table in tables.items()
        for key, value in _said(table)
    ]
    if settings.routes != (Route(model=EVERYTHING, targets=(settings.target.label,)),):
        rows += [
            (f"routes[{number}]", f"{route.model}: {_shown(route.targets)}", file)
            for number, route in enumerate(settings.routes)
        ]
    for name, caller in settings.callers.items():
        missing = settings.sources.get(f"callers.{name}.key")
        key = "(not set)" if missing else key_of(name, caller)
        rows.append((f"callers.{name}.key", key, missing or file))
        rows += [
            (f"callers.{name}.{option.path}", _rule(caller.policy, option.path), file)
            for option in CALLER_OPTIONS
            if option.path not in _KEYS
        ]
    return rows


def key_of(name: str, caller: Caller) -> str:
    """What may be shown of the key that the settings give a caller."""
    if caller.digest is not None:
        return f"sha256 {masked(caller.digest.hex())}"
    return "generated" if name == DEFAULT_CALLER else "(none in the settings)"


def _rule(policy: CallerPolicy, option: str) -> str:
    if option == "retention":
        return f"{policy.retention_seconds}s"
    value = getattr(policy, option)
    if value is None:
        return "inherit"
    return value.value if isinstance(value, StrEnum) else _shown(value)


def _said(table: msgspec.Struct) -> list[tuple[str, object]]:
    """The keys of a table that say something."""
    said = ((field, getattr(table, field.name)) for field in msgspec.structs.fields(table))
    return [(field.name, value) for field, value in said if value not in (field.default, {})]


def _command(words: tuple[str, ...]) -> str:
    # Its program alone: people put secrets among the words of a command.
    more = len(words) - 1
    return f"{words[0]} and {more} more words" if more > 0 else _shown(words)


def _entry(value: Any) -> str:
    return " > ".join(value) if isinstance(value, tuple) else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, Secret):
        return masked(value.reveal())
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "(none)"
    if isinstance(value, Mapping):
        entries = (f"{name}: {_entry(entry)}" for name, entry in value.items())
        return "; ".join(entries) or "(none)"
    return "(not set)" if value is None else str(value)
