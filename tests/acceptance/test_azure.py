"""The profile azure against Azure's own server library for this API, as a process of its own.

The library (azure-ai-agentserver-responses, MIT) brings 70 packages, so it is not part of this
project's environment. A Python that has it, and uvicorn, is named by an environment variable:

    HANDRAIL_AGENTSERVER_PYTHON=/path/to/venv/bin/python scripts/test tests/acceptance
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, ROOT, Child

PYTHON = os.environ.get("HANDRAIL_AGENTSERVER_PYTHON", "")
VERSION = '[upstream]\napi_version = "2025-04-01-preview"\n'

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="HANDRAIL_AGENTSERVER_PYTHON names no Python with Azure's server library"
)


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    directory = tmp_path_factory.mktemp("azure")
    with Child(
        [PYTHON, str(ROOT / "tests/acceptance/azure/server.py")],
        ready=r"azure's server on (\S+)",
        environment={"OTEL_SDK_DISABLED": "true", "HOME": str(directory)},
        log=directory / "azure.log",
    ) as child:
        yield child


def settings(directory: Path, executor: str) -> tuple[str, ...]:
    """Flags of a gateway that runs background responses so."""
    file = directory / "handrail.toml"
    file.write_text(f'{VERSION}[background]\nenabled = true\nexecutor = "{executor}"\n')
    return ("--port", "0", "--config", str(file))


@pytest.fixture(params=["gateway", "upstream"])
async def client(
    request: pytest.FixtureRequest, azure: Child, tmp_path: Path
) -> AsyncIterator[AsyncOpenAI]:
    """The real SDK, pointed at a gateway in front of Azure's server."""
    flags = settings(tmp_path, request.param)
    with processes.gateway(tmp_path, *flags, upstream=azure.url, profile="azure") as child:
        async with AsyncOpenAI(base_url=child.url, api_key=CALLER_KEY, max_retries=0) as sdk:
            yield sdk


async def ended(client: AsyncOpenAI, made: str) -> Any:
    async with asyncio.timeout(15):
        while True:
            response = await client.responses.retrieve(made)
            if response.status not in ("queued", "in_progress"):
                return response


async def test_a_response_and_a_stream(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model="deployment", input="abc")
    assert response.output_text == "cba by deployment"
    assert response.to_dict()["store"] is False
    async with client.responses.stream(model="deployment", input="abc") as stream:
        kinds = [event.type async for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


async def test_an_effort_in_the_name_and_reasoning_of_a_known_model(client: AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(model="gpt-5.5-high", input="abc")
    assert raw.parse().output_text == "cba by gpt-5.5"
    decision = raw.headers["handrail-decision"]
    assert "reasoning.effort: set to high" in decision
    assert "reasoning.encrypted_content added" in decision


async def test_a_background_response_is_polled_listed_and_deleted(client: AsyncOpenAI) -> None:
    made = await client.responses.create(model="deployment", input="abc", background=True)
    assert made.status in ("queued", "in_progress")
    response = await ended(client, made.id)
    assert (response.status, response.output_text) == ("completed", "cba by deployment")
    items = [item async for item in client.responses.input_items.list(made.id)]
    assert "abc" in items[0].to_json()
    await client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)


async def test_a_background_response_is_cancelled_and_stays_so(client: AsyncOpenAI) -> None:
    made = await client.responses.create(model="deployment", input="slow", background=True)
    assert (await client.responses.cancel(made.id)).status == "cancelled"
    response = await ended(client, made.id)
    assert (response.status, response.output) == ("cancelled", [])


async def test_a_background_stream_is_resumed(client: AsyncOpenAI) -> None:
    events = []
    async with await client.responses.create(
        model="deployment", input="abc", background=True, stream=True
    ) as stream:
        events = [event async for event in stream]
    made = events[0].response.id  # type: ignore[union-attr]
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(numbers)))
    again = await client.responses.retrieve(made, stream=True, starting_after=2)
    rest = [event.sequence_number async for event in again]
    assert rest == numbers[3:]


async def test_what_azure_refuses_keeps_its_words(client: AsyncOpenAI) -> None:
    metadata = {f"key-{number}": "" for number in range(17)}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="deployment", input="abc", metadata=metadata)
    assert "metadata" in caught.value.message
