"""The main job, end to end, in under a minute: run by scripts/demo.

A scripted model server stands in for the model; everything else is real: the gateway's own command
on SQLite, the openai SDK, and SIGKILL.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import platformdirs
from openai import OpenAI

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, Child

SETTINGS = """\
[background]
enabled = true
max_running = 1     # so that one response has to wait while another streams
"""


def say(text: str = "") -> None:
    """One line of the story."""
    print(text, flush=True)


def title(text: str) -> None:
    """A chapter."""
    say(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}")


def start_gateway(directory: Path, upstream: Child) -> tuple[Child, OpenAI]:
    """The gateway's command, and a client of it."""
    gateway = processes.gateway(
        directory,
        "--port", "0", "--config", str(directory / "handrail.toml"),
        upstream=f"{upstream.url}/openai/v1",
    )  # fmt: skip
    say(f"  gateway: process {gateway.process.pid}, {gateway.url}, SQLite in {directory}/data")
    return gateway, OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0)


def show(events: Any, *, until: int = 10**9) -> tuple[int, Any]:
    """Print text deltas as they come; the last number seen and the last event."""
    print("  ", end="")
    event = None
    for event in events:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
        if event.sequence_number >= until:
            break
    print(flush=True)
    return (event.sequence_number if event is not None else -1), event


def main() -> None:
    """Tell the story."""
    with tempfile.TemporaryDirectory(prefix="handrail-demo-") as name:
        directory = Path(name)
        (directory / "handrail.toml").write_text(SETTINGS)
        title("1. A model server that stores nothing, and Handrail in front of it")
        with processes.scripted_upstream(directory) as upstream:
            say(f"  SCRIPTED model server (no model, no network): {upstream.url}")
            say("  It refuses every request that does not say store=false, and any background.")
            tell(directory, upstream)


def tell(directory: Path, upstream: Child) -> None:
    """Chapters 2 to 6."""
    gateway, client = start_gateway(directory, upstream)
    title("2. A background response, read live with the openai SDK")
    done = client.responses.create(
        model="scripted", input="one [[words=24 delay=0.04 tag=one]]", background=True
    )
    say(f"  {done.id[:17]}… is {done.status}; the deltas:")
    show(client.responses.retrieve(done.id, stream=True))

    title("3. Two more: one streaming, one waiting its turn. Then SIGKILL")
    cut = client.responses.create(
        model="scripted", input="two [[words=60 delay=0.08 tag=two]]", background=True
    )
    waiting = client.responses.create(
        model="scripted", input="three [[words=24 delay=0.04 tag=three]]", background=True
    )
    number, _ = show(client.responses.retrieve(cut.id, stream=True), until=18)
    states = [client.responses.retrieve(run.id).status for run in (cut, waiting)]
    gateway.kill()
    client.close()
    say(f"  kill -9 {gateway.process.pid}: one was {states[0]}, the other {states[1]};")
    say(f"  the last event read was number {number}.")

    title("4. Started again: resume reading where it broke off")
    gateway, client = start_gateway(directory, upstream)
    resumed, last = show(client.responses.retrieve(cut.id, stream=True, starting_after=number))
    say(f"  events {number + 1} to {resumed}; the last one is {last.type}:")
    say(f"  {last.response.error.type}: {last.response.error.message}")
    say("  The waiting one had not been sent, so it runs now:")
    show(client.responses.retrieve(waiting.id, stream=True))

    account(client, {"one": done.id, "two": cut.id, "three": waiting.id}, upstream)
    next_steps(gateway)
    client.close()
    gateway.stop()


def account(client: OpenAI, runs: dict[str, str], upstream: Child) -> None:
    """What became of each run, and what the model server saw."""
    title("5. What became of each, and how often the model server was called")
    with urlopen(f"{upstream.url}/seen") as reply:
        seen = json.load(reply)
    say(f"  {'run':6} {'status':10} {'cause':12} {'words kept':>10} {'upstream calls':>15}")
    for name, response_id in runs.items():
        response = client.responses.retrieve(response_id)
        cause = (response.error and response.error.type) or "-"
        words = len(response.output_text.split())
        calls = seen["tags"][name]
        say(f"  {name:6} {response.status!s:10} {cause:12} {words:10} {calls:15}")
    stored = sum(body["body"].get("store") is not False for body in seen["requests"])
    say(f"  {seen['calls']} calls in all, {stored} of them with store other than false.")
    if seen["calls"] != len(runs) or set(seen["tags"].values()) != {1} or stored:
        sys.exit("  That is not what Handrail promises. Please report it.")
    say("  Nothing was lost, nothing was called twice, and nothing pretends to have completed.")


CURL_BODY = """'{"model":"gpt-5.5","input":"hi"}'"""
PROVIDER = '{name="Handrail",base_url="http://127.0.0.1:8787/v1",env_key="HANDRAIL_KEY"}'


def next_steps(gateway: Child) -> None:
    """The three lines to paste."""
    title("6. Use it for real:  OPENAI_API_KEY=sk-... .venv/bin/handrail serve --background")
    key_file = Path(platformdirs.user_data_dir("handrail", appauthor=False)) / "caller.key"
    base = "http://127.0.0.1:8787/v1"
    say("\n  SDK (Python):")
    say(f"OpenAI(base_url='{base}', api_key=open('{key_file}').read().strip())"
        ".responses.create(model='gpt-5.5', input='hi', background=True)")  # fmt: skip
    say("\n  curl:")
    say(f'curl {base}/responses -H "Authorization: Bearer $(cat {key_file})" '
        f"-H 'Content-Type: application/json' -d {CURL_BODY}")  # fmt: skip
    say("\n  Codex CLI:")
    say(f'HANDRAIL_KEY="$(cat {key_file})" codex -c model_provider=handrail '
        f"-c 'model_providers.handrail={PROVIDER}'")  # fmt: skip
    say(f"\n  (This demo's gateway, process {gateway.process.pid}, ends here.)")


if __name__ == "__main__":
    main()
