"""From the settings of the reference implementation to ours: what is taken, changed, left out.

Pure: the file's JSON and the environment come in, records and the text of a settings file go out.
As there, a variable is stronger than the file, and a value that cannot be read is left out; here
each is told.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from handrail.core.catalogue import Options
from handrail.errors import ConfigInvalid
from handrail.settings.reference import (
    BEGINNINGS,
    FIELDS,
    MODEL_OPTIONS,
    VARIABLES,
    Field,
    Unreadable,
)

Json = dict[str, Any]


class Verdict(StrEnum):
    """What becomes of a value."""

    TAKEN = "taken"
    CHANGED = "changed"
    NOT_APPLICABLE = "not applicable"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """One value of the reference's settings: where it was, and what becomes of it.

    `path` and `written` are the place and the value in our file; () and None where there is none.
    """

    name: str
    source: str
    value: Any
    verdict: Verdict
    reason: str = ""
    path: tuple[str, ...] = ()
    written: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A value that could be read, and where it was."""

    value: Any
    source: str


_FILE: Final = "file"


def imported(file: Mapping[str, Any], environment: Mapping[str, str]) -> list[Imported]:
    """What becomes of each value that is set, in the order of the file, then the environment.

    `file` is a settings.json (with `pluginConfig`), an older config.json, or a host's file whose
    `provider.openai` has options and models. Raises ConfigInvalid for a file of another kind.
    """
    fields = _fields(file)
    names = [name for name in fields if name in FIELDS]
    names += [
        field.name
        for field in FIELDS.values()
        if field.name not in fields and environment.get(field.variable or "", "").strip()
    ]
    found: list[Imported] = []
    for name in names:
        given, problems = given_value(FIELDS[name], fields, environment)
        found += problems
        if given is not None:
            found.append(_outcome(FIELDS[name], given, fields=fields, environment=environment))
    found += _unknown(fields, environment)
    found += _beside(file, fields)
    found += _models(file)
    return found


def given_value(
    field: Field, fields: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Given | None, list[Imported]]:
    """The value that holds for a field, None when there is none, and what could not be read."""
    problems: list[Imported] = []
    text = environment.get(field.variable or "", "").strip()
    places: list[tuple[str, Any]] = [(f"environment {field.variable}", text)] if text else []
    if field.name in fields:
        places.append((_FILE, fields[field.name]))
    for source, value in places:
        try:
            return Given(value=field.read(value), source=source), problems
        except Unreadable as error:
            problems.append(
                Imported(
                    name=field.name,
                    source=source,
                    value=value,
                    verdict=Verdict.INVALID,
                    reason=str(error),
                )
            )
    return None, problems


def toml(found: list[Imported]) -> str:
    """Our settings file for what was taken. Its upstream is the Codex backend, as it was."""
    tree: Json = {"upstream": {"profile": "codex"}}
    for entry in found:
        if not entry.path:
            continue
        table = tree
        for part in entry.path[:-1]:
            table = table.setdefault(part, {})
        table[entry.path[-1]] = entry.written
    return "\n".join(("# Imported from settings of codex-multi-auth.", *_lines((), tree), ""))


def _fields(file: Mapping[str, Any]) -> Mapping[str, Any]:
    if "accounts" in file:
        raise ConfigInvalid("the file holds accounts: they cannot be imported yet.")
    fields = file.get("pluginConfig", {} if "provider" in file else file)
    if not isinstance(fields, Mapping):
        raise ConfigInvalid("pluginConfig: must be an object.")
    return fields


# --- fields ---------------------------------------------------------------------------------------


def _outcome(
    field: Field, given: Given, *, fields: Mapping[str, Any], environment: Mapping[str, str]
) -> Imported:
    def other(name: str) -> Any:
        found, _ = given_value(FIELDS[name], fields, environment)
        return None if found is None else found.value

    written, change = field.convert(given.value)
    reason = field.reason
    if field.name == "fastSession":
        written = (other("fastSessionStrategy") or "hybrid") if given.value else "off"
        change = "input alone is trimmed; fast_session has more to allow" if given.value else ""
    elif field.name.startswith("fastSession") and not other("fastSession"):
        reason = "fastSession is off"
    elif field.name == "unsupportedCodexFallbackChain" and not _falls_back(other):
        reason = "the policy is strict, and a chain that is named would be used here"
    if reason:
        return _of(field, given, Verdict.NOT_APPLICABLE, reason=reason)
    verdict = Verdict.CHANGED if change else Verdict.TAKEN
    path = tuple((field.setting or "").split("."))
    return _of(field, given, verdict, reason=change, path=path, written=written)


def _falls_back(other: Any) -> bool:
    policy = other("unsupportedCodexPolicy")
    return policy == "fallback" or (
        policy is None and bool(other("fallbackOnUnsupportedCodexModel"))
    )


def _of(field: Field, given: Given, verdict: Verdict, **rest: Any) -> Imported:
    return Imported(
        name=field.name, source=given.source, value=given.value, verdict=verdict, **rest
    )


def _unknown(fields: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Imported]:
    for name, value in fields.items():
        if name not in FIELDS:
            yield _left_out(name, _FILE, value, reason="no field of codex-multi-auth 2.8.7")
    read = {field.variable for field in FIELDS.values()}
    for variable, text in sorted(environment.items()):
        known = variable in VARIABLES or variable.startswith(BEGINNINGS)
        if known and variable not in read and text.strip():
            reason = VARIABLES.get(variable, "no variable of codex-multi-auth 2.8.7")
            yield _left_out(variable, f"environment {variable}", text, reason=reason)


def _beside(file: Mapping[str, Any], fields: Mapping[str, Any]) -> Iterator[Imported]:
    if fields is not file:
        for name, value in file.items():
            if name not in ("pluginConfig", "provider"):
                yield _left_out(name, _FILE, value, reason="no part of pluginConfig")


def _left_out(name: str, source: str, value: Any, *, reason: str) -> Imported:
    return Imported(
        name=name, source=source, value=value, verdict=Verdict.NOT_APPLICABLE, reason=reason
    )


# --- options of models ----------------------------------------------------------------------------


def _models(file: Mapping[str, Any]) -> Iterator[Imported]:
    provider = file.get("provider", {})
    host = provider.get("openai", {}) if isinstance(provider, Mapping) else {}
    if not isinstance(host, Mapping):
        raise ConfigInvalid("provider.openai: must be an object.")
    yield from options(host.get("options", {}), "provider.openai.options", ("defaults",))
    models = host.get("models", {})
    if not isinstance(models, Mapping):
        raise ConfigInvalid("provider.openai.models: must be an object.")
    for name, entry in models.items():
        yield from model(name, entry, f"provider.openai.models.{name}")


def model(name: str, entry: Any, place: str) -> Iterator[Imported]:
    """What becomes of one model's options and variants."""
    if not isinstance(entry, Mapping) or not name.strip() or not name.isprintable():
        yield _invalid(place, entry, "must be a named object")
        return
    path = ("models", name)
    yield from options(entry.get("options", {}), f"{place}.options", path)
    variants = entry.get("variants", {})
    for ending, said in (variants if isinstance(variants, Mapping) else {}).items():
        where = f"{place}.variants.{ending}"
        if not _ENDING.fullmatch(ending):
            reason = "an ending has 1 to 32 small letters, digits and '_'"
            yield _left_out(where, _FILE, said, reason=reason)
            continue
        yield from options(said, where, (*path, "variants", ending))


def options(said: Any, place: str, path: tuple[str, ...]) -> Iterator[Imported]:
    """What becomes of a table of options, whose values go below `path`."""
    for name, value in (said if isinstance(said, Mapping) else {}).items():
        where = f"{place}.{name}"
        if name == "disabled" and "variants" in path and isinstance(value, bool):
            yield _option(where, value, path=(*path, name), written=value)
            continue
        if name not in MODEL_OPTIONS:
            yield _left_out(where, _FILE, value, reason="no option of a request")
            continue
        key = MODEL_OPTIONS[name]
        written = _SPELLED.get(value, value) if isinstance(value, str) else value
        try:
            msgspec.convert({key: written}, Options)
        except msgspec.ValidationError as error:
            yield _invalid(where, value, str(error).partition(" - at ")[0])
            continue
        if not all(map(str.isprintable, [written] if isinstance(written, str) else written or ())):
            yield _invalid(where, value, "must be printable")
        elif written is not None:
            yield _option(where, value, path=(*path, key), written=written)


def _invalid(name: str, value: Any, reason: str) -> Imported:
    return Imported(name=name, source=_FILE, value=value, verdict=Verdict.INVALID, reason=reason)


_SPELLED: Final = {"in-memory": "in_memory"}
_ENDING: Final = re.compile(r"[a-z0-9_]{1,32}")


def _option(name: str, value: Any, *, path: tuple[str, ...], written: Any) -> Imported:
    return Imported(
        name=name, source=_FILE, value=value, verdict=Verdict.TAKEN, path=path, written=written
    )


# --- writing --------------------------------------------------------------------------------------

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def _lines(path: tuple[str, ...], table: Json) -> Iterator[str]:
    plain = {name: value for name, value in table.items() if not isinstance(value, Mapping)}
    if plain and path:
        yield ""
        yield f"[{'.'.join(map(_key, path))}]"
    for name, value in plain.items():
        yield f"{_key(name)} = {_value(value)}"
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _lines((*path, name), dict(value))


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    # A basic string of TOML is one of JSON, but for DEL and for escaped halves of a character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
