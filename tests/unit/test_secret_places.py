"""A secret that a settings file names: read from variable, file and keyring, and shown nowhere."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest

from handrail.settings.secret_places import Unreadable, is_place, keep_in_keyring, read_place
from tests.keyring_file import FileKeyring
from tests.unit.reading import KEYS, Read, refusal

PLACE = "keyring:handrail/work"


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of the keyring that is in use."""
    before = keyring.get_keyring()
    file = tmp_path / "ring.json"
    monkeypatch.setenv("KEYRING_FILE", str(file))
    keyring.set_keyring(FileKeyring())
    yield file
    keyring.set_keyring(before)


def test_a_place_is_one_of_three_kinds() -> None:
    for place in ("env:A", "file:~/key", "file:/a b", "keyring:s/u", "keyring:a b/c/d@e.example"):
        assert is_place(place)
    for said in (
        "sk-1",
        "env:1",
        "env:",
        "file:",
        "keyring:s",
        "keyring:/u",
        "keyring:s/",
        5,
        None,
    ):
        assert not is_place(said)


def test_what_stands_there_is_read_without_blanks(tmp_path: Path, ring: Path) -> None:
    (tmp_path / "key").write_text("\n of-file \n")
    assert read_place("env:A", {"A": " of-env "}) == "of-env"
    assert read_place("env:B", {"A": " of-env "}) == ""
    assert read_place(f"file:{tmp_path}/key", {}) == "of-file"
    assert read_place(PLACE, {}) == ""
    keep_in_keyring(PLACE, " of-keyring ")
    assert read_place(PLACE, {}) == "of-keyring"
    assert json.loads(ring.read_text()) == {"handrail/work": " of-keyring "}


def test_what_cannot_be_read_says_why_and_nothing_else(tmp_path: Path, ring: Path) -> None:
    with pytest.raises(Unreadable, match=r"^No such file or directory$"):
        read_place(f"file:{tmp_path}/none", {})
    ring.write_text('"locked"')
    for work in (lambda: read_place(PLACE, {}), lambda: keep_in_keyring(PLACE, "sk-canary")):
        with pytest.raises(Unreadable) as caught:
            work()
        assert str(caught.value) == "the keyring cannot be used: KeyringLocked"


def test_a_key_of_an_account_may_stand_in_the_keyring(read: Read, ring: Path) -> None:
    toml = f'[upstream.accounts]\nwork = {{ key = "{PLACE}", tags = ["eu"] }}\n'
    words = "upstream.accounts.work: keyring handrail/work holds no API key."
    assert refusal(read, toml, env=KEYS) == words
    keep_in_keyring(PLACE, "sk-canary-of-the-keyring")
    settings = read(toml, env=KEYS)
    assert settings.target.accounts["work"].reveal() == "sk-canary-of-the-keyring"
    assert "sk-canary" not in repr(settings)
    ring.write_text('"locked"')
    assert "(the keyring cannot be used: KeyringLocked) holds no API key" in refusal(
        read, toml, env=KEYS
    )


def test_without_the_extra_it_is_said_what_to_install(tmp_path: Path) -> None:
    config = tmp_path / "handrail.toml"
    config.write_text(f'[upstream.accounts]\nwork = "{PLACE}"\n')
    arguments = ["handrail", "serve", "--config", str(config), "--data-dir", str(tmp_path / "data")]
    # What Python does where a module is not installed.
    without = f"import sys; sys.modules['keyring'] = None; sys.argv = {arguments!r}"
    done = subprocess.run(
        [sys.executable, "-c", f"{without}; from handrail.cli.main import main; main()"],
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "handrail: upstream.accounts.work: keyring handrail/work (it needs the extra: pip install "
        "'handrail[keyring]') holds no API key.\n"
    )
