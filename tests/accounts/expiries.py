"""One login, many expiries: a busy gateway and command lines share it, and some are killed.

Every access credential is good for four seconds, and refreshed after half of them. In
most rounds three command lines ask with it at the moment of its end, beside the gateway's own
requests; in some the gateway is killed while its exchange is under way, and started again. The
issuer ends a login that shows a used refresh credential, except the very last one for as long as
nobody has used what it gave: that is what lost answers need.
"""

import asyncio
import contextlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from handrail.bootstrap.accounts import open_accounts
from handrail.core.credentials import OAUTH, pack
from handrail.core.oauth import read_grant
from handrail.store.accounts import NewAccount
from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, HANDRAIL, ROOT, Child
from tests.accounts.upstream import bearer, upstream
from tests.issuer import Issuer, start

FLIGHT: Final = 50
COMMANDS: Final = 3


@dataclass(kw_only=True)
class Found:
    """What was seen. `statuses` are of the gateway's replies; a killed gateway gives none."""

    expiries: int = 0
    kills: int = 0
    kills_in_exchange: int = 0
    exchanges: int = 0
    repeats: int = 0
    reuses: int = 0
    overlaps: int = 0
    requests: int = 0
    statuses: dict[str, int] | None = None
    failed_commands: int = 0
    unreadable: int = 0
    said: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For printing."""
        return asdict(self)

    def problems(self) -> list[str]:
        """What must not be."""
        found = []
        if self.exchanges > self.expiries + self.kills + 1:
            found.append(f"{self.exchanges} exchanges for {self.expiries} expiries")
        if self.reuses or self.failed_commands or self.unreadable:
            found.append("a reuse, a command that failed, or a store that could not be read")
            found += self.said
        if set(self.statuses or {}) - {"200"}:
            found.append(f"a client saw {self.statuses}")
        return found


class Experiment:
    """The processes, and what was counted."""

    def __init__(self, directory: Path, issuer: Issuer, url: str, *, lifetime: float) -> None:
        self._directory = directory
        self._lifetime = lifetime
        self._issuer = issuer
        self._url = url
        self._statuses: Counter[str] = Counter()
        self._gateway: Child | None = None
        self.found = Found()
        (directory / "settings.toml").write_text(f'[oauth]\nissuer = "{issuer.origin}"\n')

    async def sign_in(self) -> None:
        """One login, in the data directory."""
        book = self._issuer.book
        book.lifetime, book.leeway = self._lifetime, 3_600.0
        login = book.login("ann.canary@example.com", "acct-canary-1", "plus")
        grant = read_grant(json.dumps(book.grant(login)).encode(), now=book.now())
        store = open_accounts(self._directory / "data")
        account = NewAccount(
            name="plus",
            target="upstream",
            kind=OAUTH,
            credential=pack(grant),
            expires_at=grant.expires_at,
        )
        store.keep(account, now=book.now())
        store.close()

    async def start(self) -> None:
        """The gateway."""
        self._gateway = await asyncio.to_thread(
            processes.gateway,
            self._directory,
            "--port",
            "0",
            "--config",
            str(self._directory / "settings.toml"),
            upstream=self._url,
            environment={"HANDRAIL_UPSTREAM_API_KEY": ""},
        )

    def stop(self) -> None:
        """The gateway's end."""
        if self._gateway is not None:
            self._gateway.kill()
            self._gateway = None

    async def load(self) -> None:
        """Requests without a pause; those that meet a dead gateway are asked again."""
        headers = {"authorization": f"Bearer {CALLER_KEY}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while True:
                gateway = self._gateway
                if gateway is None:
                    await asyncio.sleep(0.02)
                    continue
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    body = {"model": "m", "input": "hi"}
                    async with session.post(f"{gateway.url}/responses", json=body) as reply:
                        await reply.read()
                        self._statuses[str(reply.status)] += 1
                await asyncio.sleep(0.2)

    async def expiry(self) -> None:
        """One end of a credential, with command lines beside the gateway."""
        before = self._issuer.counts["exchanges"]
        results = await asyncio.gather(*(self._command("check") for _ in range(COMMANDS)))
        self.found.failed_commands += sum(status != 0 for status in results)
        await self._until(lambda: self._issuer.counts["exchanges"] > before)
        self.found.expiries += self._issuer.counts["exchanges"] - before

    async def kill(self) -> None:
        """One end of a credential, with a kill while it is exchanged."""
        counts = self._issuer.counts
        before, asked = counts["exchanges"], counts["requests"]
        self._issuer.manners.slow_before = self._issuer.manners.slow_after = 0.2
        await self._until(lambda: counts["requests"] > asked)
        await asyncio.sleep(0.3 if self.found.kills % 2 else 0.05)
        self.found.kills_in_exchange += self._issuer.busy
        self.stop()
        self.found.kills += 1
        self._issuer.manners.slow_before = self._issuer.manners.slow_after = 0.0
        self.found.unreadable += await self._command("list") != 0
        await self.start()
        await self._until(lambda: counts["exchanges"] > before)
        self.found.expiries += counts["exchanges"] - before

    async def _until(self, condition: Any) -> None:
        async with asyncio.timeout(90):  # a lease of a dead process lasts a minute
            while not condition():
                await asyncio.sleep(0.01)

    async def _command(self, word: str) -> int:
        process = await asyncio.create_subprocess_exec(
            *HANDRAIL,
            "accounts",
            word,
            "--data-dir",
            str(self._directory / "data"),
            "--config",
            str(self._directory / "settings.toml"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/",
                "HANDRAIL_UPSTREAM_URL": self._url,
            },
        )
        said, _ = await process.communicate()
        if process.returncode:
            self.found.said.append(f"{word}: {said.decode()[-500:]}")
        return process.returncode or 0

    def sum_up(self) -> Found:
        """The figures."""
        counts, found = self._issuer.counts, self.found
        found.exchanges, found.repeats = counts["exchanges"], counts["repeats"]
        found.reuses, found.overlaps = counts["reuses"], counts["overlaps"]
        found.requests = self._statuses.total()
        found.statuses = dict(self._statuses)
        return found


async def expiries(directory: Path, *, count: int, kills: int, lifetime: float = 4.0) -> Found:
    """The experiment: `count` expiries, then `kills` with a kill each.

    An access credential is good for `lifetime` seconds.
    """
    runner, issuer = await start()

    async def judge(request: web.Request) -> web.Response | None:
        if issuer.book.is_live(bearer(request)):
            return None
        return web.json_response({"error": {"message": "expired"}}, status=401)

    try:
        async with upstream(judge) as url:
            experiment = Experiment(directory, issuer, url, lifetime=lifetime)
            await experiment.sign_in()
            await experiment.start()
            load = [asyncio.create_task(experiment.load()) for _ in range(FLIGHT)]
            try:
                while experiment.found.expiries < count:
                    await experiment.expiry()
                for _ in range(kills):
                    await experiment.kill()
            finally:
                for task in load:
                    task.cancel()
                await asyncio.wait(load)
                experiment.stop()
            return experiment.sum_up()
    finally:
        await runner.cleanup()
