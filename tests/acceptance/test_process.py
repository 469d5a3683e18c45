"""The command itself: what it says, what it refuses, how it stops and comes back."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from openai import OpenAI

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, UPSTREAM_KEY, Child, monotonic

HANDRAIL = str(Path(sys.executable).with_name("handrail"))


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Child]:
    with processes.scripted_upstream(tmp_path) as child:
        yield child


def command(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """One run of the command that ends by itself."""
    return subprocess.run(
        [HANDRAIL, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


WRONG: list[tuple[list[str], dict[str, str], str]] = [
    (["--port", "x"], {}, "--port"),
    (["--port", "70000"], {}, "--port"),
    ([], {"HANDRAIL_PORT": "eighty"}, "HANDRAIL_PORT"),
    ([], {"HANDRAIL_BACKGROUND_RESPONSES": "maybe"}, "HANDRAIL_BACKGROUND_RESPONSES"),
    ([], {"CODEX_AUTH_BACKGROUND_RESPONSES": "2"}, "CODEX_AUTH_BACKGROUND_RESPONSES"),
    (
        [],
        {"HANDRAIL_BACKGROUND_RESPONSES": "1", "CODEX_AUTH_BACKGROUND_RESPONSES": "0"},
        "contradict",
    ),
    (["--profile", "anthropic"], {}, "--profile"),
    (["--upstream", "ftp://x"], {}, "--upstream"),
    (["--upstream", "http://u:p@x/v1"], {}, "--upstream"),
    ([], {"HANDRAIL_CALLER_KEY": "changeme"}, "HANDRAIL_CALLER_KEY"),
    ([], {"ALL_PROXY": "socks5://127.0.0.1:1080"}, "ALL_PROXY"),
    (["--config", "/nonexistent.toml"], {}, "/nonexistent.toml"),
    (["--host", "203.0.113.1"], {}, "203.0.113.1"),
]


@pytest.mark.parametrize(("arguments", "environment", "named"), WRONG)
def test_a_bad_value_stops_the_start_with_one_line_that_names_it(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], named: str
) -> None:
    environment = {"OPENAI_API_KEY": UPSTREAM_KEY, **environment}
    done = command("serve", "--data-dir", str(tmp_path / "data"), *arguments, **environment)
    assert done.returncode == 2
    assert done.stderr.startswith("handrail: ")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
    assert UPSTREAM_KEY not in done.stderr


def test_a_missing_credential_and_a_broken_file_are_one_line_too(tmp_path: Path) -> None:
    done = command("serve", "--data-dir", str(tmp_path / "data"))
    assert (done.returncode, "OPENAI_API_KEY" in done.stderr) == (2, True)
    file = tmp_path / "handrail.toml"
    for text in (
        "[server\n",
        "[server]\nprot = 1\n",
        "\0",
        "[callers.x]\nkey = 1\n",
        "a = 1\n" * 9,
    ):
        file.write_text(text)
        done = command("serve", "--config", str(file), OPENAI_API_KEY=UPSTREAM_KEY)
        assert done.returncode == 2
        assert str(file) in done.stderr
        assert done.stderr.count("\n") == 1


def test_config_explain_says_where_each_value_comes_from_and_shows_no_secret(
    tmp_path: Path,
) -> None:
    file = tmp_path / "handrail.toml"
    file.write_text('[server]\nport = 1234\n[callers.team]\nkey_env = "TEAM_KEY"\n')
    secrets = {"OPENAI_API_KEY": UPSTREAM_KEY, "TEAM_KEY": CALLER_KEY}
    environment = {"HANDRAIL_HOST": "::1", **secrets}
    arguments = ["config", "explain", "--config", str(file), "--background"]
    table = command(*arguments, **environment)
    body = json.loads(command(*arguments, "--json", **environment).stdout)
    assert body["server.port"] == {"value": "1234", "source": str(file)}
    assert body["server.host"] == {"value": "::1", "source": "environment HANDRAIL_HOST"}
    assert body["background.enabled"] == {"value": "True", "source": "flag --background"}
    assert body["upstream.url"]["source"] == "profile openai"
    assert body["upstream.api_key"]["source"] == "OPENAI_API_KEY"
    assert "callers.team.background" in body
    for secret in secrets.values():
        assert secret not in table.stdout + json.dumps(body)
    assert "server.port" in table.stdout


def test_config_explain_shows_a_missing_key_where_serve_stops(tmp_path: Path) -> None:
    file = tmp_path / "handrail.toml"
    file.write_text('[callers.team]\nkey_env = "TEAM_KEY"\n')
    done = command("config", "explain", "--config", str(file), "--json")
    body = json.loads(done.stdout)
    assert done.returncode == 0
    for setting, variable in (
        ("upstream.api_key", "OPENAI_API_KEY"),
        ("callers.team.key", "TEAM_KEY"),
    ):
        assert body[setting]["value"] == "(not set)"
        assert variable in body[setting]["source"]
    served = command("serve", "--config", str(file), "--data-dir", str(tmp_path / "data"))
    assert served.returncode == 2
    assert "TEAM_KEY" in served.stderr


def test_explain_shows_a_decision_without_a_credential_and_refuses_with_status_1(
    tmp_path: Path,
) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"model":"m","input":"hi","store":true}')
    done = command("explain", str(body))
    assert (done.returncode, done.stderr) == (0, "")
    assert "store=true was lowered" in done.stdout
    body.write_text('{"model":"m","input":"hi","background":true}')
    done = command("explain", str(body))
    assert (done.returncode, done.stderr) == (1, "")
    assert "background_not_enabled" in done.stdout
    assert command("explain", str(tmp_path / "none.json")).returncode == 2
    wrong = command("explain", str(body), "--caller", "nobody")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1


def test_the_first_start_makes_private_keys_and_says_where(upstream: Child, tmp_path: Path) -> None:
    environment = {"HANDRAIL_CALLER_KEY": ""}
    server = f"{upstream.url}/openai/v1"
    with processes.gateway(tmp_path, upstream=server, environment=environment) as gateway:
        key_file = tmp_path / "data" / "caller.key"
        for file in (key_file, tmp_path / "data" / "store.key", tmp_path / "data" / "handrail.db"):
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
        key = key_file.read_text().strip()
        with OpenAI(base_url=gateway.url, api_key=key, max_retries=0) as client:
            assert client.responses.create(model="m", input="hi").status == "completed"
    with processes.gateway(tmp_path, upstream=server, environment=environment):
        assert key_file.read_text().strip() == key


def test_sigterm_ends_with_status_0_and_a_second_one_ends_at_once(
    upstream: Child, tmp_path: Path
) -> None:
    server = f"{upstream.url}/openai/v1"
    with processes.gateway(tmp_path, upstream=server) as gateway:
        began = monotonic()
        assert gateway.stop() == 0
        assert monotonic() - began < 3
    with processes.gateway(tmp_path, upstream=server) as gateway:
        client = OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0)
        stream = client.responses.create(model="m", input="[[stall=1]]", stream=True)
        next(iter(stream))
        gateway.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for the stream, up to 20 s
            gateway.process.wait(0.5)
        began = monotonic()
        assert gateway.stop() == 0
        assert monotonic() - began < 1
        stream.close()
        client.close()


def test_readiness_tells_the_state_without_a_key(upstream: Child, tmp_path: Path) -> None:
    with processes.gateway(tmp_path, upstream=f"{upstream.url}/openai/v1") as gateway:
        origin = gateway.url.removesuffix("/v1")
        with urlopen(f"{origin}/readyz") as reply:
            state: Any = json.load(reply)
        assert (state["status"], state["store"], state["settings"]) == ("ready", "ok", "current")
        with urlopen(Request(f"{origin}/healthz")) as reply:
            assert json.load(reply) == {"status": "ok"}


def test_a_kept_stream_that_was_cut_by_kill_9_is_there_with_what_was_shown(
    upstream: Child, tmp_path: Path
) -> None:
    file = tmp_path / "handrail.toml"
    file.write_text('[callers.default]\nstore = "keep_all"\n')
    server, arguments = f"{upstream.url}/openai/v1", ("--port", "0", "--config", str(file))
    seen: list[Any] = []
    with (
        processes.gateway(tmp_path, *arguments, upstream=server) as gateway,
        OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0) as client,
    ):
        stream = client.responses.create(model="m", input="[[words=900 delay=0.01]]", stream=True)
        seen = [next(stream) for _ in range(20)]
        gateway.kill()
        stream.close()
    with (
        processes.gateway(tmp_path, *arguments, upstream=server) as gateway,
        OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0) as client,
    ):
        response_id = seen[0].response.id
        again: list[Any] = list(client.responses.retrieve(response_id, stream=True))
        assert again[: len(seen)] == seen
        assert [event.sequence_number for event in again] == list(range(len(again)))
        ended = client.responses.retrieve(response_id).to_dict()
        error: Any = ended["error"]
        assert (ended["status"], error["type"]) == ("failed", "worker_lost")


def test_the_version_and_help_are_there() -> None:
    assert re.match(r"handrail, version \d+\.\d+\.\d+", command("--version").stdout)
    assert "SIGHUP" in command("serve", "--help").stdout
    assert command("serve", "--no-such-flag").returncode == 2


def test_a_key_in_the_place_of_a_name_is_not_repeated() -> None:
    for arguments in (["accounts", "add", UPSTREAM_KEY], ["serve", f"--{UPSTREAM_KEY}"]):
        done = command(*arguments)
        assert done.returncode == 2
        assert done.stderr
        assert UPSTREAM_KEY not in done.stderr
