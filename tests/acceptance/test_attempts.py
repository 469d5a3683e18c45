"""Crash policy over SIGKILL: what had been sent, of which nothing was visible, is sent again."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from openai import OpenAI

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, Child, monotonic

RETRY = {"handrail-crash-policy": "retry"}


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Child]:
    with processes.scripted_upstream(tmp_path) as child:
        yield child


def calls(upstream: Child, tag: str) -> int:
    """How many upstream calls have arrived under a tag."""
    with urlopen(f"{upstream.url}/seen", timeout=5) as reply:
        return int(json.load(reply)["tags"].get(tag, 0))


def wait_for(upstream: Child, tags: set[str]) -> None:
    """Until a call of every tag has arrived."""
    began = monotonic()
    while any(calls(upstream, tag) == 0 for tag in tags):
        assert monotonic() - began < 10


def ended(client: OpenAI, response_id: str) -> tuple[str, str, str]:
    """How a response ended: status, text, and how many attempts there were."""
    began = monotonic()
    while monotonic() - began < 10:
        raw = client.responses.with_raw_response.retrieve(response_id)
        response = raw.parse()
        if response.status not in ("queued", "in_progress"):
            return str(response.status), response.output_text, raw.headers["handrail-attempts"]
    raise AssertionError("it does not end")


def test_after_kill_9_a_run_of_which_nothing_was_visible_has_a_second_attempt(
    tmp_path: Path, upstream: Child
) -> None:
    base = f"{upstream.url}/openai/v1"
    with processes.gateway(tmp_path, upstream=base) as gateway:
        client = OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0)
        with client:
            ids = {
                tag: client.responses.create(
                    model="m",
                    input=f"[[tag={tag} times=1 {script}]]",
                    background=True,
                    extra_headers=headers,
                ).id
                for tag, script, headers in (
                    ("unseen", "early=stall", RETRY),
                    ("seen", "stall=3", RETRY),
                    ("safe", "early=stall", {}),
                )
            }
            wait_for(upstream, set(ids))
            for event in client.responses.retrieve(ids["seen"], stream=True):
                if getattr(event, "delta", "").strip() == "2":
                    break
        gateway.kill()
    with processes.gateway(tmp_path, upstream=base) as gateway:
        with OpenAI(base_url=gateway.url, api_key=CALLER_KEY, max_retries=0) as client:
            status, text, attempts = ended(client, ids["unseen"])
            assert (status, text.split()[0], attempts) == ("completed", "call4", "2")
            assert calls(upstream, "unseen") == 2
            status, text, attempts = ended(client, ids["seen"])
            assert (status, text.split()[1:], attempts) == ("failed", ["1", "2"], "1")
            assert ended(client, ids["safe"]) == ("failed", "", "1")
            assert (calls(upstream, "seen"), calls(upstream, "safe")) == (1, 1)
            events = list(client.responses.retrieve(ids["unseen"], stream=True))
            assert [event.sequence_number for event in events] == list(range(len(events)))
        assert gateway.stop() == 0
