"""Where the keys of the vaults stand, if not in files of the data directory."""

from collections.abc import Mapping
from typing import Any

from handrail.errors import ConfigInvalid
from handrail.settings.model import KeyPlace, Secret, VaultPlaces
from handrail.settings.secret_places import is_place


def key_place(value: Any, name: str) -> str:
    """`env:VARIABLE` or `keyring:SERVICE/USER`. Raises ConfigInvalid, which repeats no value."""
    if not is_place(value) or str(value).startswith("file:"):
        raise ConfigInvalid(
            f"{name}: must be 'env:VARIABLE' or 'keyring:SERVICE/USER'; without it the key stands "
            "in a file of the data directory."
        )
    return str(value)


def read_vault(values: Mapping[str, Any], environment: Mapping[str, str]) -> VaultPlaces:
    """The places that the settings name; a variable is read now, a keyring when it is needed."""

    def read(setting: str) -> KeyPlace | None:
        place = values[setting]
        if place is None:
            return None
        kind, _, where = place.partition(":")
        said = environment.get(where, "").strip() if kind == "env" else ""
        return KeyPlace(setting=setting, place=place, secret=Secret(said) if said else None)

    return VaultPlaces(store=read("vault.store_key"), accounts=read("vault.accounts_key"))
