"""The targets of the settings, `[upstream]` or `[targets]`, and `[[routes]]` to them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from handrail.core.catalogue import Entries, Options
from handrail.core.profiles import PROFILES
from handrail.core.routes import EVERYTHING, Route
from handrail.errors import ConfigInvalid
from handrail.settings import readers
from handrail.settings.catalogue import catalogue_of
from handrail.settings.model import Target
from handrail.settings.options import API_KEY_VARIABLE, OPTIONS, WhenMakerIsGone
from handrail.settings.target import ONLY_TARGET, Manner, Said, read_target

TARGET_OPTIONS: Final = tuple(option for option in OPTIONS if option.path.startswith("upstream."))
"""What can be said of a target; `[upstream]` and each `[targets.NAME]` have the same keys."""

ROUTE_MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "model": "A glob (`*`, `?`, `[abc]`) for the models that requests name; by default all.",
        "targets": "Names of targets: the first is asked, the others take its place when it cannot "
        "be used.",
    }
)

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PREFIX: Final = "upstream."

Tree = dict[str, Any]


class Known(NamedTuple):
    """What the settings say of models."""

    models: Entries
    defaults: Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What has been read so far, and is completed here: by path, values, sources, what is missing.

    `missing` says of credentials why there is none.
    """

    values: dict[str, Any]
    sources: dict[str, str]
    missing: dict[str, str]
    known: Known


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """All targets by name, in the order of the settings, and the routes to them."""

    targets: Mapping[str, Target]
    routes: tuple[Route, ...]


def read_targets(tree: Tree, environment: Mapping[str, str], file: str, *, found: Found) -> Places:
    """The targets and routes, taken out of a settings file, its variables and flags.

    Completes `found`. Raises ConfigInvalid.
    """
    values, sources, known = found.values, found.sources, found.known
    tables = tree.pop("targets", None)
    if tables is None:
        places = [ONLY_TARGET]
    else:
        _refuse_upstream(environment, values=values, sources=sources)
        places = _read_tables(tables, file, values=values, sources=sources)
    drops = values["accounts.when_maker_is_gone"] == WhenMakerIsGone.DROP
    manner = Manner(
        drops_reasoning=drops,
        also_after=frozenset(values["accounts.also_after"]),
        only=len(places) == 1,
    )
    targets = {}
    for place in places:
        said = Said(place=place, values=values, sources=sources)
        profile = PROFILES[said["profile"]]
        target = read_target(
            said,
            environment,
            missing=found.missing,
            catalogue=catalogue_of(profile, own=known.models, defaults=known.defaults),
            manner=manner,
        )
        targets[target.label] = target
    _refuse_shared_names(targets)
    routes = _routes(tree.pop("routes", None), file, targets=targets)
    return Places(targets=MappingProxyType(targets), routes=routes)


def _refuse_upstream(
    environment: Mapping[str, str], *, values: dict[str, Any], sources: dict[str, str]
) -> None:
    """Raise ConfigInvalid if `upstream` is described beside the table; otherwise take it out."""
    why = "the settings have the table [targets]; say it there, as targets.NAME"
    for option in TARGET_OPTIONS:
        source = sources.pop(option.path)
        del values[option.path]
        if source != "default":
            raise ConfigInvalid(f"{source}: {option.path}: {why}.")
    if environment.get(API_KEY_VARIABLE, "").strip():
        raise ConfigInvalid(f"{API_KEY_VARIABLE}: {why}.api_key_env.")


def _read_tables(
    tables: Any, file: str, *, values: dict[str, Any], sources: dict[str, str]
) -> list[str]:
    if not isinstance(tables, dict) or not tables:
        raise ConfigInvalid(f"{file}: 'targets' must be a table of tables, at least one.")
    places = []
    for name, given in tables.items():
        if not isinstance(given, dict) or not _NAME.fullmatch(name):
            plain = name.encode("unicode_escape").decode()[:60]
            raise ConfigInvalid(
                f"{file}: targets.{plain} must be a table whose name is 1 to 64 letters, digits, "
                "'-' and '_'."
            )
        place, table = f"targets.{name}", dict(given)
        for option in TARGET_OPTIONS:
            key = option.path.removeprefix(_PREFIX)
            path = f"{place}.{key}"
            values[path], sources[path] = option.default, "default"
            if key in table:
                values[path] = option.read(table.pop(key), f"{file}: {path}")
                sources[path] = file
        if table:
            unknown = next(iter(table)).encode("unicode_escape").decode()[:60]
            raise ConfigInvalid(f"{file}: unknown setting '{place}.{unknown}'.")
        places.append(place)
    return places


def _refuse_shared_names(targets: Mapping[str, Target]) -> None:
    owners: dict[str, str] = {}
    for target in targets.values():
        for name in target.accounts:
            if name in owners:
                raise ConfigInvalid(
                    f"targets.{target.label}.accounts.{name}: targets.{owners[name]} has an "
                    "account of that name."
                )
            owners[name] = target.label


def _routes(tables: Any, file: str, *, targets: Mapping[str, Target]) -> tuple[Route, ...]:
    if tables is None:
        if len(targets) > 1:
            raise ConfigInvalid(
                f"{file}: several targets need [[routes]]: which models go to which of them."
            )
        return (Route(model=EVERYTHING, targets=tuple(targets)),)
    if not isinstance(tables, list) or not tables:
        raise ConfigInvalid(f"{file}: 'routes' must be a list of tables, at least one.")
    return tuple(
        _route(table, f"{file}: routes[{number}]", targets=targets)
        for number, table in enumerate(tables)
    )


def _route(table: Any, place: str, *, targets: Mapping[str, Target]) -> Route:
    if not isinstance(table, dict):
        raise ConfigInvalid(f"{place}: must be a table.")
    for name in table:
        if name not in ROUTE_MEANINGS:
            plain = name.encode("unicode_escape").decode()[:60]
            raise ConfigInvalid(f"{place}: unknown setting '{plain}'.")
    model = readers.text(table.get("model", EVERYTHING), f"{place}.model")
    names = readers.words(table.get("targets"), f"{place}.targets")
    if not names or len(set(names)) < len(names):
        raise ConfigInvalid(f"{place}.targets: must name one target or more, each once.")
    check_names(names, f"{place}.targets", targets)
    return Route(model=model, targets=names)


def check_names(names: tuple[str, ...], place: str, targets: Mapping[str, Target]) -> None:
    """Raise ConfigInvalid for a name that is no target's."""
    for name in names:
        if name not in targets:
            plain = name.encode("unicode_escape").decode()[:60]
            raise ConfigInvalid(
                f"{place}: there is no target '{plain}'; the settings have: {', '.join(targets)}."
            )
