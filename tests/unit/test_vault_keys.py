"""Keys of the vaults that stand in a variable or a keyring instead of a file."""

import json
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest

from handrail.bootstrap.vault_keys import key_at
from handrail.errors import ConfigInvalid
from handrail.settings.model import KeyPlace, Secret
from tests.keyring_file import FileKeyring
from tests.unit.reading import FILE, KEYS, Read, refusal

PLACE = KeyPlace(setting="vault.store_key", place="keyring:handrail/store")
KEY = bytes(range(32))


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of the keyring that is in use."""
    before = keyring.get_keyring()
    monkeypatch.setenv("KEYRING_FILE", str(tmp_path / "ring.json"))
    keyring.set_keyring(FileKeyring())
    yield tmp_path / "ring.json"
    keyring.set_keyring(before)


def refused(place: KeyPlace, directory: Path, *, needed: bool = False) -> str:
    """The one line that says why there is no key."""
    needed_by = directory / "handrail.db" if needed else None
    with pytest.raises(ConfigInvalid) as caught:
        key_at(place, file=directory / "store.key", needed_by=needed_by)
    return str(caught.value)


def of_variable(text: str) -> KeyPlace:
    secret = Secret(text) if text else None
    return KeyPlace(setting="vault.store_key", place="env:STORE", secret=secret)


def test_a_variable_holds_the_key_in_hexadecimal(tmp_path: Path) -> None:
    for text in (KEY.hex(), KEY.hex().upper()):
        assert key_at(of_variable(text), file=tmp_path / "store.key", needed_by=None) == KEY
    for wrong in (KEY.hex()[:-2], KEY.hex() + "00", "canary", "ä" * 64):
        said = refused(of_variable(wrong), tmp_path)
        assert said == "vault.store_key: env:STORE must hold 64 hexadecimal digits."


def test_a_variable_that_is_empty_is_never_filled(tmp_path: Path) -> None:
    words = "vault.store_key: env:STORE holds no key."
    assert refused(of_variable(""), tmp_path) == words
    said = refused(of_variable(""), tmp_path, needed=True)
    assert said == f"{words} handrail.db exists: restore its key, or move it away to start empty."
    (tmp_path / "store.key").write_bytes(KEY)
    said = refused(of_variable(""), tmp_path, needed=True)
    assert said.startswith(f"{words} handrail.db is sealed under {tmp_path}/store.key: put that")


def test_a_keyring_gets_a_key_once_and_keeps_it(tmp_path: Path, ring: Path) -> None:
    first = key_at(PLACE, file=tmp_path / "store.key", needed_by=None)
    assert json.loads(ring.read_text()) == {"handrail/store": first.hex()}
    for needed_by in (None, tmp_path / "handrail.db"):
        assert key_at(PLACE, file=tmp_path / "store.key", needed_by=needed_by) == first
    assert not (tmp_path / "store.key").exists()


def test_a_keyring_without_the_key_of_what_is_there_gets_no_other(
    tmp_path: Path, ring: Path
) -> None:
    said = refused(PLACE, tmp_path, needed=True)
    assert said.startswith("vault.store_key: keyring:handrail/store holds no key. handrail.db")
    assert not ring.exists()


def test_a_keyring_that_is_locked_stops_the_start(tmp_path: Path, ring: Path) -> None:
    ring.write_text('"locked"')
    assert refused(PLACE, tmp_path) == (
        "vault.store_key: keyring:handrail/store: the keyring cannot be used: KeyringLocked."
    )


def test_the_settings_name_the_places_and_show_no_key(read: Read) -> None:
    toml = '[vault]\nstore_key = "env:STORE"\naccounts_key = "keyring:handrail/accounts"\n'
    settings = read(toml, env={**KEYS, "STORE": f" {KEY.hex()} "})
    store, accounts = settings.vault.store, settings.vault.accounts
    assert store is not None
    assert store.secret is not None
    assert (store.place, store.secret.reveal()) == ("env:STORE", KEY.hex())
    assert accounts == KeyPlace(
        setting="vault.accounts_key", place="keyring:handrail/accounts", secret=None
    )
    assert KEY.hex() not in repr(settings)
    empty = read("").vault
    assert (empty.store, empty.accounts) == (None, None)


@pytest.mark.parametrize("said", ['"sk-canary"', '"file:/k"', "5", '"env:"'])
def test_a_place_that_is_none_stops_the_start(read: Read, said: str) -> None:
    text = refusal(read, f"[vault]\nstore_key = {said}\n", env=KEYS)
    assert text.startswith(f"{FILE}: vault.store_key: must be 'env:VARIABLE' or 'keyring:")
    assert "canary" not in text
