"""The real Codex CLI through the real gateway, against the scripted model server."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from openai import OpenAI

from handrail.settings.catalogue import shipped
from tests.acceptance import npm, processes
from tests.acceptance.processes import CALLER_KEY, ROOT, Child

CODEX = npm.modules("codex") / ".bin" / "codex"

pytestmark = npm.needs(CODEX, called="the Codex CLI")

CONFIG = """
model = "gpt-5.5"
model_provider = "handrail"
check_for_update_on_startup = false
web_search = "disabled"
[analytics]
enabled = false
[features]
plugins = false
[model_providers.handrail]
name = "Handrail"
base_url = "{url}"
env_key = "HANDRAIL_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = {retries}
"""

MANNERS = {"openai": "openai/v1", "codex": "codex", "compatible": "transformers/v1"}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with processes.scripted_upstream(tmp_path_factory.mktemp("upstream")) as child:
        yield child


@pytest.fixture
def home() -> Iterator[Path]:
    # Codex complains about a home below the system's temporary directory.
    place = ROOT / ".cache" / "codex-home"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def run_codex(
    home: Path, prompt: str, *, url: str, more: tuple[str, ...] = (), retries: int = 0
) -> list[Any]:
    """One `codex exec`; its JSON events."""
    (home / "config.toml").write_text(CONFIG.format(url=url, retries=retries))
    work = home / "work"
    work.mkdir(exist_ok=True)
    flags = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--json"]
    done = subprocess.run(
        [str(CODEX), "exec", *more, *flags, prompt],
        cwd=work,
        env={"PATH": os.environ["PATH"], "CODEX_HOME": str(home), "HANDRAIL_KEY": CALLER_KEY},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert events, done.stderr[-2000:]
    return events


def said(events: list[Any]) -> str:
    """What the agent answered."""
    return " ".join(
        event["item"]["text"]
        for event in events
        if event["type"] == "item.completed" and event["item"]["type"] == "agent_message"
    )


def last_request(upstream: Child) -> Any:
    with urlopen(f"{upstream.url}/seen") as reply:
        return json.load(reply)["requests"][-1]


@pytest.mark.parametrize("profile", MANNERS)
def test_codex_completes_a_turn_with_a_shell_call_and_a_second_turn(
    profile: str, upstream: Child, home: Path, tmp_path: Path
) -> None:
    server = f"{upstream.url}/{MANNERS[profile]}"
    with processes.gateway(tmp_path, "--port", "0", upstream=server, profile=profile) as gateway:
        marker = home / "work" / "made-by-codex"
        command = json.dumps({"cmd": f"echo done > {marker.name}"})
        events = run_codex(
            home, f"Make it. [[tool=exec_command args={command} words=4]]", url=gateway.url
        )
        assert events[-1]["type"] == "turn.completed", events
        assert marker.read_text() == "done\n"
        assert len(said(events).split()) == 4
        second = run_codex(
            home, "And again. [[words=6]]", url=gateway.url, more=("resume", "--last")
        )
        assert second[-1]["type"] == "turn.completed", second
        assert len(said(second).split()) == 6
        sent = last_request(upstream)["body"]
        assert sent["store"] is False
        assert sent["stream"] is True
        assert len(sent["input"]) > 4  # the history of the first turn came along


MODELS = {  # what Codex is told, and the name by which the Codex backend is asked
    "gpt-5.6": "gpt-5.6-sol",
    "gpt-5.5": "gpt-5.5",
    "gpt-5.1": "gpt-5.1",
    "gpt-5-codex-low": "gpt-5.3-codex",
    "o4-mini": "o4-mini",
    "o3": "o3",
    "o1": "o1",
    "my-own-model": "my-own-model",
}


def test_every_family_of_the_catalogue_has_a_model_here() -> None:
    known = shipped()
    assert {known[sent].family for sent in MODELS.values() if sent in known} == {
        entry.family for entry in known.values()
    }


@pytest.mark.parametrize(("model", "sent"), MODELS.items())
def test_codex_reaches_a_model_of_each_family_by_the_backends_name(
    model: str, sent: str, upstream: Child, home: Path, tmp_path: Path
) -> None:
    server = f"{upstream.url}/codex"
    with processes.gateway(tmp_path, "--port", "0", upstream=server, profile="codex") as gateway:
        events = run_codex(home, "Hello. [[words=3]]", url=gateway.url, more=("-m", model))
        assert events[-1]["type"] == "turn.completed", events
        assert len(said(events).split()) == 3
        body = last_request(upstream)["body"]
        assert body["model"] == sent
        if model.endswith("-low"):
            assert body["reasoning"]["effort"] == "low"


def test_codex_retries_a_turn_whose_upstream_stream_was_dropped(
    upstream: Child, home: Path, tmp_path: Path
) -> None:
    with processes.gateway(tmp_path, upstream=f"{upstream.url}/openai/v1") as gateway:
        prompt = "Hello. [[words=5 drop=2 times=1 tag=cut]]"
        events = run_codex(home, prompt, url=gateway.url, retries=2)
        assert events[-1]["type"] == "turn.completed", events
        assert len(said(events).split()) == 5
        with urlopen(f"{upstream.url}/seen") as reply:
            assert json.load(reply)["tags"]["cut"] == 2


def test_codex_tells_its_user_when_a_usage_limit_resets(
    upstream: Child, home: Path, tmp_path: Path
) -> None:
    server = f"{upstream.url}/codex"
    with processes.gateway(tmp_path, "--port", "0", upstream=server, profile="codex") as gateway:
        events = run_codex(home, "Hello. [[status=429 usage_limit]]", url=gateway.url)
        assert events[-1]["type"] == "turn.failed"
        assert "usage limit" in json.dumps(events[-1])


def test_codex_waits_as_long_as_a_rate_limit_says_and_then_gets_its_answer(
    upstream: Child, home: Path, tmp_path: Path
) -> None:
    # An answer uses 16 tokens: the next is waited for for 7.5 s, longer than Codex takes to ask.
    settings = tmp_path / "handrail.toml"
    settings.write_text('[[limits]]\nname = "slow"\nwindow = "second"\nmax_tokens = 2\n')
    options = ("--port", "0", "--config", str(settings))
    with processes.gateway(tmp_path, *options, upstream=f"{upstream.url}/openai/v1") as gateway:
        with OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0) as client:
            client.responses.create(model="gpt-5.5", input="hi")
        events = run_codex(home, "Hello. [[words=5]]", url=gateway.url, retries=1)
        assert events[-1]["type"] == "turn.completed", events
        assert len(said(events).split()) == 5
        assert admin(gateway, tmp_path, "/admin/limits")["data"][0]["refused"] == 1


def admin(gateway: Child, directory: Path, path: str) -> Any:
    """What the admin API says."""
    key = (directory / "data" / "admin.key").read_text().strip()
    origin = gateway.url.removesuffix("/v1")
    with urlopen(Request(f"{origin}{path}", headers={"api-key": key})) as reply:
        return json.load(reply)
