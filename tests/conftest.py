"""Fixtures that every kind of test shares."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from handrail import telemetry
from handrail.bootstrap.gateway import Gateway
from handrail.engine.clock import Clock
from handrail.settings.load import load
from handrail.settings.model import Settings
from tests import scripted_upstream
from tests.scripted_upstream import Seen, Upstream

CALLER_KEY = "hr_test-caller-key-0123456789"
OTHER_KEY = "hr_test-other-key-9876543210"
UPSTREAM_KEY = "sk-upstream-credential-canary"

ENVIRONMENT = {
    "HANDRAIL_CALLER_KEY": CALLER_KEY,
    "HANDRAIL_UPSTREAM_API_KEY": UPSTREAM_KEY,
}


class Scripted:
    """The scripted upstream of one test."""

    def __init__(self, upstream: Upstream, origin: str) -> None:
        self._upstream = upstream
        self.origin = origin

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.origin.rpartition(":")[2])

    @property
    def server(self) -> Upstream:
        """The server itself."""
        return self._upstream

    @property
    def seen(self) -> Seen:
        """What has arrived."""
        return self._upstream.seen

    @property
    def last(self) -> dict[str, Any]:
        """The body of the last call."""
        body: dict[str, Any] = self.seen.requests[-1]["body"]
        return body

    def base_url(self, manners: str) -> str:
        """The base URL of a server with these manners."""
        return f"{self.origin}/codex" if manners == "codex" else f"{self.origin}/{manners}/v1"


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    runner, server, origin = await scripted_upstream.start()
    yield Scripted(server, origin)
    await runner.cleanup()


class Running:
    """A gateway in this process, on a real socket."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.gateway = gateway
        self.url = gateway.url
        self.key = key

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self.gateway.socket.getsockname()[1]
        return port

    def client(self, *, key: str | None = None, **options: Any) -> AsyncOpenAI:
        """The real SDK, pointed at it, validating strictly unless told otherwise."""
        options.setdefault("max_retries", 0)
        options.setdefault("_strict_response_validation", True)
        return AsyncOpenAI(base_url=self.url, api_key=key or self.key, **options)


Start = Callable[..., AbstractAsyncContextManager[Running]]


def settings_for(
    data_dir: Path,
    *,
    upstream_url: str,
    profile: str = "openai",
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings read the ordinary way, from the file beside the data directory if there is one."""
    file = data_dir.parent / f"{data_dir.name}.toml"
    given = {
        "config": str(file) if file.exists() else None,
        "server.port": 0,
        "upstream.url": upstream_url,
        "upstream.profile": profile,
        "log.level": "debug",
        **(flags or {}),
    }
    return load(given, {**ENVIRONMENT, **(environment or {})}, default_data_dir=data_dir)


@pytest.fixture
def start(tmp_path: Path, upstream: Scripted) -> Start:
    """Starts gateways; each is drained and closed when its block is left."""
    telemetry.configure("error")

    @asynccontextmanager
    async def starting(
        *,
        manners: str = "openai",
        profile: str | None = None,
        name: str = "data",
        toml: str | None = None,
        clock: Clock | None = None,
        ports: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncIterator[Running]:
        if toml is not None:
            (tmp_path / f"{name}.toml").write_text(toml)
        if profile is None:
            profile = manners if manners in ("openai", "codex") else "compatible"

        def read() -> Settings:
            return settings_for(
                tmp_path / name,
                upstream_url=upstream.base_url(manners),
                profile=profile,
                **options,
            )

        gateway = Gateway(read, clock=clock, **(ports or {}))
        listening = asyncio.Event()
        serving = asyncio.create_task(gateway.serve(started=listening.set))
        await asyncio.wait(
            [serving, asyncio.ensure_future(listening.wait())], return_when="FIRST_COMPLETED"
        )
        try:
            yield Running(gateway, CALLER_KEY)
        finally:
            gateway.stop()
            gateway.stop()
            await serving

    return starting


BACKGROUND = {"flags": {"background.enabled": True}}


async def eventually(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Wait until something that happens by itself has happened."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
