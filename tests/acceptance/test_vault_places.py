"""A gateway and its command lines whose vault keys stand in a keyring: no key file anywhere."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, HANDRAIL, ROOT, Child
from tests.keyring_file import NAME

CONFIG = """
[vault]
store_key = "keyring:handrail/store"
accounts_key = "keyring:handrail/accounts"
[upstream.accounts]
work = "keyring:handrail/work"
"""


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Child]:
    with processes.scripted_upstream(tmp_path) as child:
        yield child


def environment(directory: Path) -> dict[str, str]:
    """What chooses the keyring, the way its users do."""
    return {
        "KEYRING_FILE": str(directory / "ring.json"),
        "PYTHON_KEYRING_BACKEND": NAME,
        "PYTHONPATH": str(ROOT),
        "HANDRAIL_UPSTREAM_API_KEY": "",
    }


def run(directory: Path, *arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    """A command on the same data directory."""
    place = ["--data-dir", str(directory / "data"), "--config", str(directory / "handrail.toml")]
    return subprocess.run(
        [*HANDRAIL, *arguments, *place],
        env={"PATH": os.environ["PATH"], "HOME": str(directory), **environment(directory)},
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def started(directory: Path, upstream: Child) -> Child:
    """The gateway."""
    return processes.gateway(
        directory,
        *("--port", "0", "--background", "--config", str(directory / "handrail.toml")),
        upstream=f"{upstream.url}/openai/v1",
        environment=environment(directory),
    )


def test_what_is_kept_is_read_again_with_keys_that_only_the_keyring_has(
    tmp_path: Path, upstream: Child
) -> None:
    (tmp_path / "handrail.toml").write_text(CONFIG)
    ring, data = tmp_path / "ring.json", tmp_path / "data"
    ring.write_text(json.dumps({"handrail/work": "sk-canary-work-0123456789"}))
    assert run(tmp_path, "accounts", "add", "--name", "spare", given="sk-canary-spare").stderr == ""
    with (
        started(tmp_path, upstream) as gateway,
        OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0) as client,
    ):
        made = client.responses.create(model="m", input="[[words=3]]", background=True)
        gateway.stop()
    secrets = json.loads(ring.read_text())
    assert sorted(secrets) == ["handrail/accounts", "handrail/store", "handrail/work"]
    assert not [file for file in ("store.key", "accounts.key") if (data / file).exists()]
    with (
        started(tmp_path, upstream) as gateway,
        OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0) as client,
    ):
        assert client.responses.retrieve(made.id).status == "completed"
        for name in ("work", "spare"):
            headers = {"handrail-account": name}
            assert client.responses.create(model="m", input="hi", extra_headers=headers).output
        gateway.stop()
    done = run(tmp_path, "db", "check")
    assert (done.returncode, "nothing is wrong" in done.stdout) == (0, True)
    assert (
        "keyring:handrail/store elsewhere"
        in run(tmp_path, "db", "backup", str(tmp_path / "copy.db")).stdout
    )
    assert "vault.store_key: the store key stands in" in run(tmp_path, "db", "rotate-key").stderr
    # Without its key nothing is made in its place.
    del secrets["handrail/store"]
    ring.write_text(json.dumps(secrets))
    done = run(tmp_path, "serve", "--port", "0")
    assert done.returncode == 2
    assert "vault.store_key: keyring:handrail/store holds no key. handrail.db exists" in done.stderr
    assert json.loads(ring.read_text()) == secrets
