"""Starts gateways and ends them: the real command, or one that dies at a named point."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from tests.acceptance import processes
from tests.acceptance.processes import ROOT, UPSTREAM_KEY, monotonic
from tests.crash.client import CALLERS
from tests.crash.points import Point, When

DRAIN_SECONDS: Final = 2
GONE_SECONDS: Final = 60.0
START_SECONDS: Final = 60.0

_NOWHERE: Final = Point(name="", when=When.LOAD)
_KEYS: Final = {f"CRASH_KEY_{name.upper()}": key for name, (key, _) in CALLERS.items()}


def _settings(*, executor: str, drain: int, running: int) -> str:
    callers = "\n".join(
        f'[callers.{name}]\nkey_env = "CRASH_KEY_{name.upper()}"\n'
        f'max_running = {running}\nmax_queued = 1000\nstore = "keep"\n'
        f'when_left = "{"continue" if name == "ann" else "stop"}"\n'
        + (f"retention = {int(kept)}\n" if kept else "")
        for name, (_, kept) in CALLERS.items()
    )
    return (
        f'[server]\nport = 0\ndrain = {drain}\n[log]\nlevel = "warning"\n'
        f'[background]\nenabled = true\nexecutor = "{executor}"\nmax_running = {2 * running}\n'
        f"max_queued = 3000\n{callers}"
    )


# Settings files by name. Few runs at once in the first three, so that some wait when it is killed.
SETTINGS: Final[Mapping[str, str]] = {
    "gateway": _settings(executor="gateway", drain=20, running=5),
    "drain": _settings(executor="gateway", drain=0, running=5),
    "remote": _settings(executor="upstream", drain=20, running=5),
    "wide": _settings(executor="gateway", drain=DRAIN_SECONDS, running=200),
    "races": _settings(executor="gateway", drain=1, running=40),
}


class Life:
    """One gateway process. `ended` is its exit status once it is gone."""

    def __init__(self, pid: int, url: str, ended: "asyncio.Future[int]") -> None:
        self.pid = pid
        self.url = url
        self.ended = ended

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it is gone."""
        if not self.ended.done():
            os.kill(self.pid, number)

    async def gone(self) -> int:
        """Wait until it is gone; its exit status."""
        async with asyncio.timeout(GONE_SECONDS):
            return await asyncio.shield(self.ended)

    async def kill(self) -> int:
        """SIGKILL, and wait."""
        self.signal(signal.SIGKILL)
        return await self.gone()


class Host:
    """One data directory, one scripted upstream, and the gateways on them, one after another.

    `quick` starts all of them in forked processes, which saves the time of the imports.
    """

    def __init__(self, directory: Path, *, quick: bool = False) -> None:
        self.directory = directory
        self.quick = quick
        self.upstream = processes.scripted_upstream(directory)
        self.slowest_start = 0.0
        self._life: Life | None = None
        self._warm: asyncio.subprocess.Process | None = None
        for name, text in SETTINGS.items():
            (directory / f"{name}.toml").write_text(text)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._life is not None:
            await self._life.kill()
        if self._warm is not None and self._warm.stdin is not None:
            self._warm.stdin.close()
            await self._warm.wait()
        self.upstream.kill()

    async def start(self, settings: str = "gateway", *, quick: bool = False) -> Life:
        """The real command, listening; or the same in a forked process if it is to be quick."""
        if self.quick or quick:
            forked = await self.start_at(_NOWHERE, 1, settings=settings, armed=False)
            assert forked is not None
            return forked
        began = monotonic()
        life = await self.spawn(settings)
        async with asyncio.timeout(START_SECONDS):
            life.url = await self._listens
        self.slowest_start = max(self.slowest_start, monotonic() - began)
        return life

    async def spawn(self, settings: str = "gateway") -> Life:
        """The real command, not yet listening."""
        with (self.directory / "gateway.log").open("ab") as log:
            command = str(Path(sys.executable).with_name("handrail"))
            process = await asyncio.create_subprocess_exec(
                command, *self._arguments(settings),
                cwd=ROOT, env=self._environment(), stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        self._listens: asyncio.Future[str] = loop.create_future()
        life = Life(process.pid, "", loop.create_future())
        self._reading = loop.create_task(self._read(process, life))
        self._life = life
        return life

    async def _read(self, process: asyncio.subprocess.Process, life: Life) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            found = re.search(rb"Handrail listens on (\S+)", line)
            if found is not None:
                self._listens.set_result(found[1].decode())
        life.ended.set_result(await process.wait())
        if not self._listens.done():
            self._listens.set_exception(self._failed(life))
            self._listens.exception()  # whoever killed it on purpose does not ask

    async def start_at(
        self, point: Point, nth: int, *, settings: str = "gateway", armed: bool
    ) -> Life | None:
        """One that dies at a point; None when it died before it listened."""
        warm = await self._warmed()
        assert warm.stdin is not None
        order = {
            "arguments": self._arguments(settings)[1:],
            "environment": self._environment(),
            "log": str(self.directory / "gateway.log"),
            "point": point.name,
            "nth": nth,
            "armed": armed,
        }
        warm.stdin.write(json.dumps(order).encode() + b"\n")
        pid = int(await self._line(b"pid "))
        said = await self._line(b"")
        loop = asyncio.get_running_loop()
        life = Life(pid, said.removeprefix("listens on "), loop.create_future())
        self._life = life
        if said.startswith("ended "):
            life.ended.set_result(int(said.removeprefix("ended ")))
            if life.ended.result() != -signal.SIGKILL:
                raise self._failed(life)
            return None
        self._reading = loop.create_task(self._wait_for(life))
        return life

    async def _wait_for(self, life: Life) -> None:
        life.ended.set_result(int(await self._line(b"ended ")))

    async def _line(self, start: bytes) -> str:
        assert self._warm is not None
        assert self._warm.stdout is not None
        line = await self._warm.stdout.readline()
        assert line.startswith(start), line
        return line.removeprefix(start).decode().strip()

    async def _warmed(self) -> asyncio.subprocess.Process:
        if self._warm is None:
            self._warm = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.crash.gateway",
                cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
        return self._warm

    def _failed(self, life: Life) -> RuntimeError:
        log = (self.directory / "gateway.log").read_text()[-2_000:]
        return RuntimeError(f"the gateway ended with {life.ended.result()}: {log}")

    def _arguments(self, settings: str) -> list[str]:
        manners = "storing" if settings == "remote" else "openai"
        return [
            "serve",
            "--config", str(self.directory / f"{settings}.toml"),
            "--data-dir", str(self.directory / "data"),
            "--upstream", f"{self.upstream.url}/{manners}/v1",
        ]  # fmt: skip

    def _environment(self) -> Mapping[str, Any]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "HANDRAIL_UPSTREAM_API_KEY": UPSTREAM_KEY,
            **_KEYS,
        }
