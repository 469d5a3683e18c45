"""Reads what is known about models: the shipped file, and the settings' own tables."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from handrail.core.catalogue import (
    NO_OPTIONS,
    AmbiguousAlias,
    Catalogue,
    Entries,
    Entry,
    Options,
    catalogue_for,
)
from handrail.core.profiles import PROFILES, Profile
from handrail.errors import ConfigInvalid

SHIPPED_FILE: Final = Path(__file__).with_name("catalogue.toml")

# What each key means, in the order of docs/reference/settings.md.
MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "aliases": "Further names for it, in requests.",
        "upstream": "What it is called at upstreams of a profile, such as "
        '`{ azure = "my-deployment" }`.',
        "family": "Whose prompt and limits it shares; told, and never sent.",
        "capabilities": "What it can do, of reasoning, tool_search, computer_use, compaction and "
        "background.",
        "efforts": "The values of reasoning.effort that it takes. Another one becomes the next "
        "best; an empty list: any goes as it is.",
        "default_effort": "What it runs at when nobody says; told, and never sent.",
        "verbosities": "The values of text.verbosity that it takes, likewise.",
        "retentions": "The values of prompt_cache_retention that it takes. Another one is left "
        "out.",
        "effort": "reasoning.effort of requests that do not say.",
        "summary": "reasoning.summary of requests that do not say.",
        "verbosity": "text.verbosity of requests that do not say.",
        "prompt_cache_retention": "The same for prompt_cache_retention.",
        "include": "include of requests that do not say, as a list.",
        "variants": "A table of options for each name NAME-VARIANT.",
        "disabled": "As if there were no such table.",
    }
)

_ENDING: Final = re.compile(r"[a-z0-9_]{1,32}")
_WHERE: Final = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)

T = TypeVar("T")


@cache
def shipped() -> Entries:
    """The entries that come with Handrail; read when first asked for."""
    tables = tomllib.loads(SHIPPED_FILE.read_text(encoding="utf-8"))
    return read_models(tables["models"], SHIPPED_FILE.name)


def read_tables(tree: dict[str, Any], file: str) -> tuple[Entries, Options]:
    """The operator's entries and defaults, taken out of a settings file. Raises ConfigInvalid."""
    models = read_models(tree.pop("models", {}), file)
    return models, read_defaults(tree.pop("defaults", {}), f"{file}: defaults")


def read_models(tables: Any, file: str) -> Entries:
    """The entries of a table `models`. Raises ConfigInvalid that names the file and the key."""
    if not isinstance(tables, Mapping):
        raise ConfigInvalid(f"{file}: 'models' must be a table of tables.")
    found = {}
    for name, table in tables.items():
        place = f'{file}: models."{_plain(name)}"'
        if not isinstance(name, str) or not name.strip():
            raise ConfigInvalid(f"{place}: a model needs a name.")
        entry = _read(table, Entry, place)
        for profile in entry.upstream:
            if profile not in PROFILES:
                raise ConfigInvalid(
                    f"{place}.upstream: {_plain(profile)!r} is none of {', '.join(PROFILES)}."
                )
        for ending in entry.variants:
            if not _ENDING.fullmatch(ending):
                raise ConfigInvalid(
                    f"{place}.variants: {_plain(ending)!r} must be 1 to 32 small letters, digits "
                    "and '_'."
                )
        found[name] = entry
    return MappingProxyType(found)


def read_defaults(table: Any, place: str) -> Options:
    """The options of a table `defaults`. Raises ConfigInvalid that names the place and the key."""
    return _read(table, Options, place)


def catalogue_of(profile: Profile, *, own: Entries, defaults: Options) -> Catalogue:
    """What is known at upstreams of `profile`. Raises ConfigInvalid for an ambiguous alias."""
    if not own and defaults == NO_OPTIONS:
        return _shipped_for(profile.name)
    try:
        return catalogue_for(profile, shipped=shipped, own=own, defaults=defaults)
    except AmbiguousAlias as error:
        raise ConfigInvalid(f"models: {error}") from None


@cache
def _shipped_for(profile: str) -> Catalogue:
    return catalogue_for(PROFILES[profile], shipped=shipped, own={}, defaults=NO_OPTIONS)


def _read(table: Any, kind: type[T], place: str) -> T:
    if isinstance(table, kind):
        return table
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        found = _WHERE.fullmatch(str(error))
        words, path = (str(error), "") if found is None else found.groups()
        raise ConfigInvalid(f"{place}{path}: {_plain(words)}.") from None


def _plain(text: object) -> str:
    # A quoted key of TOML may hold anything; a message is one line.
    return str(text).encode("unicode_escape").decode()[:200]
