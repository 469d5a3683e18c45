"""Never twice over SIGKILL and lost replies, with the real command.

What had been sent, and of which nothing was visible, is sent again where that is allowed; what a
client sends again because it got no reply is one response.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from openai import APIConnectionError, AsyncOpenAI, OpenAI

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, Child, monotonic
from tests.cutting_proxy import ANSWERED, cutting_proxy

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


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_that_was_lost_is_given_to_its_repeat_also_after_kill_9(
    tmp_path: Path, upstream: Child, stream: bool
) -> None:
    base = f"{upstream.url}/openai/v1"
    body: dict[str, Any] = {"model": "m", "input": "[[tag=t words=2]]", "background": True}

    async def create(url: str, count: int) -> Any:
        headers = {"x-stainless-retry-count": str(count)}
        async with AsyncOpenAI(base_url=url, api_key=CALLER_KEY, max_retries=0) as client:
            made: Any = await client.responses.create(**body, stream=stream, extra_headers=headers)
            return (await anext(made)).response if stream else made

    with processes.gateway(tmp_path, upstream=base) as gateway:
        port = int(gateway.url.split(":")[2].partition("/")[0])
        async with cutting_proxy(port, [ANSWERED, ANSWERED]) as proxy:
            for count in range(2):
                with pytest.raises(APIConnectionError):
                    await create(proxy.url, count)
        await asyncio.to_thread(wait_for, upstream, {"t"})
        gateway.kill()
    with processes.gateway(tmp_path, upstream=base) as gateway:
        made = await create(gateway.url, 2)
        assert await asyncio.to_thread(calls, upstream, "t") == 1
        assert (await create(gateway.url, 0)).id != made.id
        assert gateway.stop() == 0
