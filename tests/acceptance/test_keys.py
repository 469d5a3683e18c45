"""`handrail keys` beside a gateway that is its own process: made, listed, rotated, revoked."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, UPSTREAM_KEY, Child, monotonic

HANDRAIL = str(Path(sys.executable).with_name("handrail"))
TOML = "[background]\nenabled = true\n[callers.default]\n[callers.ann]\n[callers.bob]\n"
Done = subprocess.CompletedProcess[str]


class World:
    """A gateway with a settings file, and commands on its data directory."""

    def __init__(self, directory: Path, gateway: Child) -> None:
        self._directory = directory
        self.gateway = gateway
        self.said: list[str] = []
        self.secrets: list[str] = []

    def keys(self, *arguments: str, status: int = 0) -> Done:
        """`handrail keys` with these arguments."""
        done = subprocess.run(
            [HANDRAIL, "keys", *arguments, *flags(self._directory)],
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == status, done.stderr
        self.said.append(done.stderr)
        return done

    def made(self, *arguments: str) -> tuple[str, str]:
        """A new key's id, and the key, which is all that stands on stdout."""
        done = self.keys(*arguments)
        assert re.fullmatch(r"hr_[A-Za-z0-9_\-]{43}\n", done.stdout)
        found = re.match(r"(key_[0-9a-f]{16}) of the caller ", done.stderr)
        assert found is not None
        self.secrets.append(done.stdout.strip())
        return found[1], done.stdout.strip()

    def listed(self) -> list[dict[str, Any]]:
        """What `list --json` prints."""
        done = self.keys("list", "--json")
        self.said.append(done.stdout)
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def client(self, key: str) -> OpenAI:
        """The SDK with this key."""
        return OpenAI(base_url=self.gateway.url, api_key=key, max_retries=0)

    def until(self, key: str, *, opens: bool) -> float:
        """Wait until the gateway knows what has become of a key; for how many seconds."""
        began = monotonic()
        with self.client(key) as client:
            while True:
                try:
                    client.models.list()
                    known = opens
                except openai.AuthenticationError:
                    known = not opens
                if known:
                    return monotonic() - began
                assert monotonic() - began < 20


def flags(directory: Path) -> list[str]:
    return ["--data-dir", str(directory / "data"), "--config", str(directory / "handrail.toml")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "handrail.toml").write_text(TOML)
    with (
        processes.scripted_upstream(tmp_path) as upstream,
        processes.gateway(
            tmp_path,
            *("--port", "0", "--log-level", "debug", "--config", str(tmp_path / "handrail.toml")),
            upstream=f"{upstream.url}/openai/v1",
        ) as gateway,
    ):
        yield World(tmp_path, gateway)


def test_a_keys_whole_life_beside_a_running_gateway(world: World, tmp_path: Path) -> None:
    first, key = world.made("create", "ann", "--label", "laptop", "--expires", "30d")
    world.until(key, opens=True)
    with world.client(key) as client:
        run = client.responses.create(model="m", input="hi", background=True)
    second, successor = world.made("rotate", first, "--overlap", "1h")
    world.until(successor, opens=True)
    for each in (key, successor):
        with world.client(each) as client:
            assert client.responses.retrieve(run.id).id == run.id
    world.keys("revoke", first)
    world.until(key, opens=False)
    again = world.keys("revoke", first)
    assert again.stdout.startswith(f"{first} of the caller ann is revoked since 20")
    old, new = world.listed()
    assert (old["id"], old["state"], old["label"]) == (first, "revoked", "laptop")
    assert (new["id"], new["state"], new["label"]) == (second, "active", "laptop")
    assert world.gateway.stop() == 0
    assert all(row["last_used_at"] is not None for row in world.listed())
    mode = (tmp_path / "data" / "accounts.db").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_no_key_stands_in_any_log_listing_error_or_file(world: World, tmp_path: Path) -> None:
    admin = (tmp_path / "data" / "admin.key").read_text().strip()
    key_id, key = world.made("create", "ann")
    world.until(key, opens=True)
    _, other = world.made("rotate", key_id, "--overlap", "0s")
    world.until(key, opens=False)
    for wrong in (key, admin, f"{other}x", other.upper()):
        with world.client(wrong) as client, pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        world.said.append(str(refused.value) + repr(refused.value.body))
    world.said += [done.stdout + done.stderr for done in (world.keys("list"),)]
    for arguments in (["create", key], ["rotate", other], ["revoke", key]):
        assert "'[redacted]'" in world.keys(*arguments, status=2).stderr
    world.gateway.stop()
    log = world.gateway.log.read_text()
    assert key_id in log
    said = "".join(world.said) + log
    for secret in (*world.secrets, admin, CALLER_KEY, UPSTREAM_KEY):
        assert secret not in said
        for path in (tmp_path / "data").iterdir():
            held = secret.encode() in path.read_bytes()
            assert held is (path.name == "admin.key" and secret == admin), path.name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "eve"], "There is no caller 'eve' in the settings, which have ann, bob, def"),
        (["create", "ann", "--expires", "soon"], "'--expires' must be a duration such as 24h"),
        (["create", "ann", "--expires", "0s"], "'--expires' must be a duration such as 24h"),
        (["create", "ann", "--label", "a\nb"], "'label' must be one line of at most 80"),
        (["rotate", "key_1"], "There is no key 'key_1'."),
        (["rotate", "key_1", "--overlap", "31d"], "'--overlap' must be a duration such as 24h"),
        (["revoke", "key_1"], "There is no key 'key_1'."),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "handrail.toml").write_text(TOML)
    done = subprocess.run(
        [HANDRAIL, "keys", *arguments, *flags(tmp_path)],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"handrail: {words}")
    assert done.stderr.count("\n") == 1


def test_keys_can_be_made_before_the_first_start_and_a_lost_caller_is_shown(
    tmp_path: Path,
) -> None:
    file = tmp_path / "handrail.toml"

    def keys(*arguments: str) -> Done:
        return subprocess.run(
            [HANDRAIL, "keys", *arguments, *flags(tmp_path)],
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )

    file.write_text(TOML)
    assert keys("list").stdout == "There is no key but those of the settings.\n"
    keys("create", "bob", "--label", "build server")
    file.write_text(TOML.replace("[callers.bob]\n", ""))
    head, row = keys("list").stdout.splitlines()
    assert head.split() == ["ID", "CALLER", "STATE", "CREATED", "ENDS", "USED", "LABEL"]
    assert row.split()[1:3] == ["bob", "caller_gone"]
    assert row.endswith("-     -     build server")
