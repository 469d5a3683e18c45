"""Many requests over four accounts, a fifth of the calls refused: nobody outside may notice."""

import asyncio
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from handrail.core.failover import BREAKER_SECONDS
from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY
from tests.accounts.upstream import Limits, upstream

AT_ONCE: Final = 20
NAMES: Final = ("a", "b", "c", "d")
REQUEST: Final = {"model": "m", "input": "hi"}


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was seen. `spread` is the most asked account over the least, without refusals."""

    requests: int
    client_errors: int
    refused_429: int
    refused_503: int
    calls_to_cooling: int
    asked: dict[str, int]
    spread: float

    def as_dict(self) -> dict[str, Any]:
        """For printing."""
        return asdict(self)


async def failover(directory: Path, *, requests: int, seed: int, settle: bool = True) -> Found:
    """The experiment, with a gateway process of its own; `settle` measures the spread as well."""
    keys = {f"sk-account-{name}": name for name in NAMES}
    limits = Limits(keys, share=0.5, seed=seed)
    settings = directory / "settings.toml"
    table = "\n".join(f'{name} = "env:KEY_{name.upper()}"' for name in NAMES)
    settings.write_text(f"[upstream.accounts]\n{table}\n")
    environment = {f"KEY_{name.upper()}": key for key, name in keys.items()}
    async with upstream(limits.judge) as url:
        gateway = await asyncio.to_thread(
            processes.gateway,
            directory,
            "--port",
            "0",
            "--config",
            str(settings),
            upstream=url,
            environment=environment,
        )
        try:
            errors = await _ask(gateway.url, requests)
            mixed = Counter(limits.asked)
            limits.share = 0.0
            if settle:
                await asyncio.sleep(BREAKER_SECONDS + 1.0)  # until nothing is held back
                limits.asked.clear()
                errors += await _ask(gateway.url, 1_000)
        finally:
            gateway.kill()
    even = limits.asked
    return Found(
        requests=requests,
        client_errors=errors,
        refused_429=limits.refused[429],
        refused_503=limits.refused[503],
        calls_to_cooling=limits.violations,
        asked=dict(mixed),
        spread=max(even.values()) / max(min(even[name] for name in NAMES), 1),
    )


async def _ask(url: str, requests: int) -> int:
    """How many of so many requests were not answered with 200."""
    left = iter(range(requests))
    errors = 0
    headers = {"authorization": f"Bearer {CALLER_KEY}"}

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal errors
        for _ in left:
            async with session.post(f"{url}/responses", json=REQUEST) as reply:
                await reply.read()
                errors += reply.status != 200

    async with aiohttp.ClientSession(headers=headers) as session, asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(client(session))
    return errors
