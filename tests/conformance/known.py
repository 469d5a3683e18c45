"""What our catalogue knows where options of the reference have been imported."""

import msgspec

from handrail.core.catalogue import Catalogue, Entry, Options
from handrail.core.profiles import CODEX, Profile
from handrail.settings.catalogue import catalogue_of
from handrail.settings.importing import model, options
from tests.conformance.recorded import Json


def catalogue(config: Json | None = None, *, profile: Profile = CODEX) -> Catalogue:
    """What is known where these options of the reference have been imported."""
    config = config or {}
    found = [*options(config.get("global", {}), "", ("defaults",))]
    for name, entry in config.get("models", {}).items():
        found += model(name, entry, "")
    tree: Json = {"defaults": {}, "models": {name: {} for name in config.get("models", {})}}
    for entry in found:
        table = tree
        for part in entry.path[:-1]:
            table = table.setdefault(part, {})
        if entry.path:
            table[entry.path[-1]] = entry.written
    own = msgspec.convert(tree["models"], dict[str, Entry])
    return catalogue_of(profile, own=own, defaults=msgspec.convert(tree["defaults"], Options))
