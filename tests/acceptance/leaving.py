"""All that leaves a gateway and its command line, collected, to be looked through for canaries."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.acceptance.processes import HANDRAIL, ROOT
from tests.canaries import Canaries

KEY_FILES = {
    "caller.key": "caller key of a file",
    "admin.key": "admin key",
    "store.key": "store key",
    "accounts.key": "accounts key",
}
"""The files whose very purpose is to hold a key, and which one."""


@dataclass(kw_only=True)
class Left:
    """Bytes that have left, where, and which canaries may be in them because they belong there."""

    where: str
    data: bytes
    but: Sequence[str] = ()


@dataclass(kw_only=True)
class World:
    """One data directory, one settings file, and what has left. `said` are canaries of content."""

    directory: Path
    canaries: Canaries
    environment: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""
    left: list[Left] = field(default_factory=list)

    @property
    def content(self) -> list[str]:
        """What a caller and the model have said to each other: it leaves to the caller alone."""
        return self.canaries.those("prompt", "output", "metadata")

    def config(self, text: str) -> Path:
        """The settings file, written anew."""
        path = self.directory / "handrail.toml"
        path.write_text(text)
        return path

    async def run(
        self,
        *arguments: str,
        given: str = "",
        environment: Mapping[str, str] | None = None,
        but: Sequence[str] = (),
    ) -> str:
        """A command, as a process of its own; what it prints."""
        process = await asyncio.create_subprocess_exec(
            *HANDRAIL,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                **self.environment,
                **(environment or {}),
            },
        )
        out, err = await process.communicate(given.encode())
        where = f"handrail {' '.join(arguments)} ({process.returncode})"
        self.left.append(Left(where=where, data=out + b"\n" + err, but=but))
        return out.decode()

    async def on_data(self, *arguments: str, given: str = "", but: Sequence[str] = ()) -> str:
        """A command on the data directory and the settings file."""
        place = ["--data-dir", str(self.directory / "data")]
        place += ["--config", str(self.directory / "handrail.toml")]
        return await self.run(*arguments, *place, given=given, but=but)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        but: Sequence[str] | None = None,
        patience: float = 30.0,
    ) -> bytes:
        """One HTTP call, by the caller unless `headers` say otherwise; the reply's body."""
        sent = self.headers if headers is None else headers
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        if data is not None:
            sent = {"content-type": "application/json", **sent}
        head, parts = b"", []
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            try:
                async with (
                    asyncio.timeout(patience),
                    session.request(method, f"{self.url}{path}", data=data, headers=sent) as reply,
                ):
                    head = f"{reply.status} {reply.reason} {reply.raw_headers}\n".encode()
                    async for part in reply.content.iter_any():
                        parts.append(part)  # noqa: PERF401 - what came before an end is kept
            except (aiohttp.ClientError, TimeoutError):
                pass  # what had arrived by then has left
        got = b"".join(parts)
        allowed = self.content if but is None else but
        where = f"{method} {path} {body}"[:200]
        self.left.append(Left(where=where, data=head + got, but=allowed))
        return got

    async def response(self, model: str, **more: Any) -> bytes:
        """One create."""
        headers = {**self.headers, **more.pop("headers", {})}
        patience = more.pop("patience", 30.0)
        but = more.pop("but", None)
        prompt = self.canaries.plant("prompt", form="tell me about {}")
        body = {"model": model, "input": prompt, **more}
        return await self.call(
            "POST", "/v1/responses", body, headers=headers, but=but, patience=patience
        )

    def written(self) -> None:
        """Every file of the data directory, and the logs, have left as well."""
        for path in sorted((self.directory / "data").rglob("*")):
            if path.is_file():
                name = KEY_FILES.get(path.name)
                but = [name] if name else []
                self.left.append(Left(where=path.name, data=path.read_bytes(), but=but))
        for path in self.directory.glob("*.log"):
            self.left.append(Left(where=path.name, data=path.read_bytes()))

    def leaks(self) -> dict[str, list[str]]:
        """Where canaries are that do not belong there."""
        found: dict[str, list[str]] = {}
        for left in self.left:
            names = self.canaries.found(left.data, but=left.but)
            if names:
                found.setdefault(left.where, []).extend(names)
        return found
