"""The real SDK with the guardrails in it, both kinds of client."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI

from handrail import Executor, LibrarySettings, Switch
from handrail.integrations.openai import AsyncHandrailTransport, HandrailTransport
from tests.conftest import UPSTREAM_KEY

ON = Switch(enabled=True, source="test", locked=False)
OFF = LibrarySettings()
CODEX = LibrarySettings(profile="codex")
COMPATIBLE = LibrarySettings(profile="compatible")
UPSTREAM_RUN = LibrarySettings(switch=ON, executor=Executor.UPSTREAM)

Ask = Callable[..., Any]


def asynchronous(url: str, settings: LibrarySettings, **options: Any) -> AsyncOpenAI:
    """The SDK with the guardrails in it."""
    return AsyncOpenAI(
        base_url=url,
        api_key=UPSTREAM_KEY,
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(transport=AsyncHandrailTransport(settings)),
        **options,
    )


def synchronous(url: str, settings: LibrarySettings) -> OpenAI:
    """The same, for programs without an event loop."""
    return OpenAI(
        base_url=url,
        api_key=UPSTREAM_KEY,
        max_retries=0,
        http_client=DefaultHttpxClient(transport=HandrailTransport(settings)),
    )


class Either:
    """Both clients behind one way of asking, so that each test holds for both."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def ask(
        self, url: str, settings: LibrarySettings, call: Callable[[Any], Any]
    ) -> tuple[Any, httpx2.Headers]:
        """The result of `call` on the raw responses of a client, and the headers of the reply."""
        if self.kind == "async":
            async with asynchronous(url, settings) as client:
                raw = await call(client.responses.with_raw_response)
                return raw.parse(), raw.headers

        def asking() -> tuple[Any, httpx2.Headers]:
            with synchronous(url, settings) as client:
                raw = call(client.responses.with_raw_response)
                return raw.parse(), raw.headers

        return await asyncio.to_thread(asking)

    async def create(
        self, url: str, settings: LibrarySettings = OFF, **fields: Any
    ) -> tuple[Any, httpx2.Headers]:
        """A create."""
        body = {"model": "m", "input": "hi", **fields}
        return await self.ask(url, settings, lambda responses: responses.create(**body))


Recorder = tuple[str, list[tuple[str, str, str]]]
"""The base URL of a server that takes anything, and what it has seen."""
