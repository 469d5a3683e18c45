"""The keys of the vaults: from their files, or from where the settings say."""

import secrets
from pathlib import Path
from typing import Final

from filelock import FileLock

from handrail.bootstrap.data_dir import DATABASE, STORE_KEY
from handrail.errors import ConfigInvalid
from handrail.settings.model import KeyPlace, Settings
from handrail.settings.secret_places import Unreadable, keep_in_keyring, read_place
from handrail.store.rotation import settle
from handrail.store.vault import KEY_BYTES, load_store_key

_MAKING: Final = "vault.lock"
_KEYRING: Final = "keyring:"


def store_key(settings: Settings) -> bytes:
    """The key of the run store, made at the first start. Only for who has the directory's lock.

    Raises ConfigInvalid.
    """
    database = settings.data_dir / DATABASE
    file = settings.data_dir / STORE_KEY
    place = settings.vault.store
    if place is not None:
        return key_at(place, file=file, needed_by=database if database.exists() else None)
    settle(file, database=database)
    return load_store_key(file, database=database)


def key_at(place: KeyPlace, *, file: Path, needed_by: Path | None) -> bytes:
    """The key that stands there; made at the first time where the place is a keyring.

    `file` is where it would stand without the setting, `needed_by` what exists already that only
    this key opens. Raises ConfigInvalid when there is none although it is needed, or is no key.
    """
    text = _read(place)
    if not text and place.place.startswith(_KEYRING) and needed_by is None:
        text = _made(place, beside=file)
    if not text:
        raise ConfigInvalid(f"{place.setting}: {place.place} holds no key.{_hint(file, needed_by)}")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigInvalid(
            f"{place.setting}: {place.place} must hold {2 * KEY_BYTES} hexadecimal digits."
        )
    return key


def _read(place: KeyPlace) -> str:
    if place.secret is not None:
        return place.secret.reveal()
    if not place.place.startswith(_KEYRING):
        return ""
    try:
        return read_place(place.place, {})
    except Unreadable as error:
        raise ConfigInvalid(f"{place.setting}: {place.place}: {error}.") from None


def _made(place: KeyPlace, *, beside: Path) -> str:
    # Command lines and a gateway may be first at once, and a keyring has no way to say so.
    with FileLock(beside.with_name(_MAKING), mode=0o600):
        found = _read(place)
        if found:
            return found
        text = secrets.token_hex(KEY_BYTES)
        try:
            keep_in_keyring(place.place, text)
        except Unreadable as error:
            raise ConfigInvalid(f"{place.setting}: {place.place}: {error}.") from None
        # What is read from now on is what counts, in case the keyring keeps something else.
        return _read(place)


def _hint(file: Path, needed_by: Path | None) -> str:
    if needed_by is None:
        return ""
    if file.exists():
        return f" {needed_by.name} is sealed under {file}: put that there, in hexadecimal."
    return f" {needed_by.name} exists: restore its key, or move it away to start empty."
