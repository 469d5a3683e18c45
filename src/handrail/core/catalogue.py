"""What is known about models, as data: names, efforts, abilities, and what the operator wants.

The entries come from one file (`settings/catalogue.toml`) and from the tables `[models."NAME"]` of
the settings file, which have the same schema. A model that is in neither is not known, and nothing
here has a say about it: its requests leave as they came.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from handrail.core.efforts import Effort, known
from handrail.core.profiles import Knowledge, Profile

Summary = Literal["auto", "concise", "detailed"]
Verbosity = Literal["low", "medium", "high"]
Retention = Literal["in_memory", "24h"]


class Capability(StrEnum):
    """What a model can do."""

    REASONING = "reasoning"
    TOOL_SEARCH = "tool_search"
    COMPUTER_USE = "computer_use"
    COMPACTION = "compaction"
    BACKGROUND = "background"


class Options(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What a request is to have where neither its body nor its providerOptions say; None: no say.

    As the fields `reasoning.effort`, `reasoning.summary`, `text.verbosity`,
    `prompt_cache_retention` and `include`.
    """

    effort: Effort | None = None
    summary: Summary | None = None
    verbosity: Verbosity | None = None
    prompt_cache_retention: Retention | None = None
    include: tuple[str, ...] | None = None


class Variant(Options, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The options of a model asked for as NAME-VARIANT. `disabled`: they do not apply."""

    disabled: bool = False


class Entry(Options, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One model, by its own name. None is "not said".

    `aliases` are further names, `upstream` what it is called at upstreams of a profile. `family`
    is whose prompt and limits it shares. `efforts`, `verbosities` and `retentions` are all that it
    takes, empty for anything. `default_effort` is what it runs at when nobody says; it is never
    written into a request. `disabled`: as if there were no such entry.
    """

    aliases: tuple[str, ...] = ()
    family: str | None = None
    default_effort: Effort | None = None
    efforts: tuple[Effort, ...] | None = None
    verbosities: tuple[Verbosity, ...] | None = None
    retentions: tuple[Retention, ...] | None = None
    capabilities: frozenset[Capability] | None = None
    upstream: dict[str, str] = msgspec.field(default_factory=dict)
    variants: dict[str, Variant] = msgspec.field(default_factory=dict)
    disabled: bool = False

    def __post_init__(self) -> None:
        efforts = self.efforts or ()
        if Effort.ULTRA in efforts and Effort.MAX not in efforts:
            raise ValueError("efforts: 'ultra' is sent as 'max', which must be there too")

    def can(self, capability: Capability) -> bool:
        """Whether the model is known to be able to do that."""
        return capability in (self.capabilities or ())


Entries = Mapping[str, Entry]
NO_OPTIONS: Final = Options()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known about the name in a request.

    `sends` is the name for the upstream. `effort` is what the name's ending says, unless the
    settings say something about that very ending. `options` are those that hold for this name.
    """

    sends: str
    entry: Entry
    options: Options
    effort: Effort | None = None


class AmbiguousAlias(Exception):
    """Two models claim one alias; the message names all three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What is known at one kind of upstream. Built by `catalogue_for`.

    `sends` has the names under which `entries` are known there, where they are others. `respells`:
    case, blanks and the prefix `openai/` make no other name.
    """

    entries: Entries = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    sends: Mapping[str, str] = field(default_factory=dict)
    defaults: Options = NO_OPTIONS
    respells: bool = False

    def find(self, name: str) -> Found | None:
        """What is known about the name; None for one that is unknown, and stays as it is.

        The whole name comes first, then the name before `-EFFORT` or `-VARIANT`.
        """
        place = self._place(name)
        if place is not None:
            return self._found(*place, ending="")
        base, _, ending = name.rpartition("-")
        ending = ending.strip().lower() if self.respells else ending
        place = self._place(base)
        if place is None or (ending == Effort.MAX and base.lower().endswith("codex")):
            return None  # codex-max is a model and no effort
        if known(ending) != ending and ending not in self.entries[place[0]].variants:
            return None
        return self._found(*place, ending=ending)

    def _place(self, name: str) -> tuple[str, str] | None:
        """The key of the entry that a name without ending belongs to, and the name to send."""
        key = self._key(name)
        if key is not None:
            return key, self.sends.get(key, key)
        # A snapshot is what its model is, under its own name.
        key = self._key(_SNAPSHOT.sub("", name))
        return None if key is None else (key, name)

    def _key(self, name: str) -> str | None:
        spellings = (name, _plain(name)) if self.respells else (name,)
        for spelling in spellings:
            if spelling in self.entries:
                return spelling
            if spelling in self.aliases:
                return self.aliases[spelling]
        return None

    def _found(self, key: str, sends: str, *, ending: str) -> Found:
        entry = self.entries[key]
        variant: Options = NO_OPTIONS
        if ending in entry.variants and not entry.variants[ending].disabled:
            variant = entry.variants[ending]
        return Found(
            sends=sends,
            entry=entry,
            options=self._options(entry, variant),
            effort=known(ending) if variant.effort is None else None,
        )

    def _options(self, entry: Entry, variant: Options) -> Options:
        sources = (variant, entry, self.defaults)
        found = {
            name: next((v for source in sources if (v := getattr(source, name)) is not None), None)
            for name in Options.__struct_fields__
        }
        if not entry.can(Capability.REASONING):
            # A default for all models must not ask one to reason that cannot.
            found["effort"] = variant.effort or entry.effort
            found["summary"] = variant.summary or entry.summary
        return Options(**found)


_SNAPSHOT: Final = re.compile(r"-20\d\d-[01]\d-[0-3]\d\Z")
_PREFIX: Final = "openai/"

NOTHING_KNOWN: Final = Catalogue()


def _plain(name: str) -> str:
    return name.strip().lower().removeprefix(_PREFIX)


def catalogue_for(
    profile: Profile, *, shipped: Callable[[], Entries], own: Entries, defaults: Options
) -> Catalogue:
    """What is known at upstreams of `profile`, from the shipped entries and the operator's `own`.

    How much of the shipped ones holds there is the profile's to say; what the operator says holds
    everywhere. Raises AmbiguousAlias.
    """
    base = _base(profile, shipped)
    entries, aliases = dict(base.entries), dict(base.aliases)
    sends: dict[str, str] = {}
    for name, entry in own.items():
        if entry.disabled:
            entries.pop(name, None)
            aliases = {alias: key for alias, key in aliases.items() if name not in (alias, key)}
            continue
        there = entry.upstream.get(profile.name)
        found = (base.find(there) if there else None) or base.find(name)
        entries[name] = entry if found is None else _over(found, entry)
        sends[name] = there or (name if found is None else found.sends)
        aliases.pop(name, None)
    for alias, name in _own_aliases(own):
        entries.pop(alias, None)
        aliases[alias] = name
    return Catalogue(
        entries=MappingProxyType(entries),
        aliases=MappingProxyType(aliases),
        sends=MappingProxyType(sends),
        defaults=defaults,
        respells=base.respells,
    )


def _base(profile: Profile, shipped: Callable[[], Entries]) -> Catalogue:
    if profile.knowledge is Knowledge.OWN:
        return NOTHING_KNOWN
    entries = {name: entry for name, entry in shipped().items() if not entry.disabled}
    if profile.knowledge is Knowledge.WHOLE:
        aliases = {alias: name for name, entry in entries.items() for alias in entry.aliases}
        there = {
            name: entry.upstream[profile.name]
            for name, entry in entries.items()
            if profile.name in entry.upstream
        }
        rest = {name: entry for name, entry in entries.items() if name not in there}
        return Catalogue(entries=rest, aliases=aliases | there, respells=True)
    # There each of the names is a model of its own, and it says itself what it takes.
    return Catalogue(
        entries={
            each: Entry(family=entry.family, capabilities=entry.capabilities)
            for name, entry in entries.items()
            for each in (name, *entry.aliases)
        }
    )


def _over(found: Found, entry: Entry) -> Entry:
    """The operator's entry, completed by what is known about the name."""
    said = {
        name: getattr(found.entry, name)
        for name in Entry.__struct_fields__
        if getattr(entry, name) is None
    }
    if entry.effort is None:
        said["effort"] = found.effort
    return msgspec.structs.replace(entry, **said)


def _own_aliases(own: Entries) -> Iterator[tuple[str, str]]:
    claimed: dict[str, str] = {}
    for name, entry in own.items():
        for alias in () if entry.disabled else entry.aliases:
            taken = alias in own and not own[alias].disabled
            other = alias if taken else claimed.get(alias, name)
            if other != name:
                raise AmbiguousAlias(f"'{alias}' cannot mean both '{other}' and '{name}'.")
            claimed[alias] = name
            yield alias, name
