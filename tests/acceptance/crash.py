"""Kills the gateway with SIGKILL at random moments under load and checks what it promised.

    python -m tests.acceptance.crash --cycles 50 --seed 1

Clients create background responses, half of them streamed, and journal every byte they read. The
gateway is killed at a random moment and started again, over and over. Then, over the API only:
every id that was ever answered is there (I1); its events are numbered without gap or repeat and
begin with the very bytes that were read before (I2); there is one terminal event, last, equal to
what polling gives (I3); no run had more than one upstream call (I7); and what had been sent when
the gateway died was terminal within 5 s of the restart.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, Child, monotonic

HEADERS = {"authorization": f"Bearer {CALLER_KEY}"}
TERMINAL = ("completed", "failed", "incomplete", "cancelled")
LIMIT_SECONDS = 5.0


@dataclass
class Journal:
    """What the clients were told."""

    accepted: dict[str, str] = field(default_factory=dict)
    read: dict[str, bytes] = field(default_factory=dict)
    refused: int = 0


@dataclass
class Report:
    """What came of it."""

    cycles: int = 0
    accepted: int = 0
    completed: int = 0
    worker_lost: int = 0
    other_ends: int = 0
    bytes_compared: int = 0
    slowest_terminal: float = 0.0
    slowest_start: float = 0.0
    violations: list[str] = field(default_factory=list)


class Driver:
    """One experiment."""

    def __init__(self, directory: Path, *, seed: int, clients: int = 8) -> None:
        self.random = random.Random(seed)
        self.directory = directory
        self.clients = clients
        self.journal = Journal()
        self.report = Report()
        self.upstream = processes.scripted_upstream(directory)
        self.gateway = self._start()
        self.number = 0

    def _start(self) -> Child:
        began = monotonic()
        child = processes.gateway(self.directory, upstream=f"{self.upstream.url}/openai/v1")
        self.report.slowest_start = max(self.report.slowest_start, monotonic() - began)
        return child

    async def run(self, cycles: int) -> Report:
        """All cycles, then the final check."""
        async with aiohttp.ClientSession(headers=HEADERS) as http:
            for _ in range(cycles):
                await self.cycle(http)
            await self.check_all(http)
        self.report.accepted = len(self.journal.accepted)
        self.gateway.stop()
        self.upstream.kill()
        return self.report

    async def cycle(self, http: aiohttp.ClientSession) -> None:
        """Load, a kill, a restart, and the first promise: what was sent is terminal soon."""
        self.report.cycles += 1
        before = set(self.journal.accepted)
        load = [asyncio.create_task(self.client(http)) for _ in range(self.clients)]
        await asyncio.sleep(self.random.uniform(0.02, 0.8))
        self.gateway.kill()
        await asyncio.gather(*load, return_exceptions=True)
        sent = await self.tags(http)
        self.gateway = self._start()
        began = monotonic()
        waiting = {
            response_id
            for response_id, tag in self.journal.accepted.items()
            if response_id not in before and sent.get(tag)
        }
        while waiting and monotonic() - began < 2 * LIMIT_SECONDS:
            for response_id in list(waiting):
                body = await self.get(http, response_id)
                if body is None or body["status"] in TERMINAL:
                    waiting.discard(response_id)
            await asyncio.sleep(0.01)
        took = monotonic() - began
        self.report.slowest_terminal = max(self.report.slowest_terminal, took)
        if took > LIMIT_SECONDS:
            self.report.violations.append(f"{len(waiting)} sent runs not terminal in {took:.1f} s")

    async def client(self, http: aiohttp.ClientSession) -> None:
        """Create and read until the gateway is gone."""
        try:
            while True:
                await self.one_response(http)
        except (aiohttp.ClientError, OSError):
            return

    async def one_response(self, http: aiohttp.ClientSession) -> None:
        """One background response: created, perhaps streamed, journalled."""
        self.number += 1
        tag = f"t{self.number}"
        words, delay = self.random.randint(1, 60), self.random.choice((0, 0.001, 0.01, 0.03))
        streamed = self.random.random() < 0.5
        body = {
            "model": "m",
            "input": f"[[tag={tag} words={words} delay={delay}]]",
            "background": True,
            "stream": streamed,
        }
        async with http.post(f"{self.gateway.url}/responses", json=body) as reply:
            if reply.status != 200:
                self.journal.refused += 1
                await asyncio.sleep(0.05)
                return
            if not streamed:
                self.journal.accepted[(await reply.json())["id"]] = tag
                return
            await self.read_stream(reply, tag)

    async def read_stream(self, reply: aiohttp.ClientResponse, tag: str) -> None:
        """Journal a stream as far as it comes, whole events only."""
        held = b""
        response_id = ""
        async for chunk in reply.content.iter_any():
            held += chunk
            whole, blank, _ = held.rpartition(b"\n\n")
            if not response_id and blank:
                first = json.loads(whole.split(b"\n")[1].removeprefix(b"data: "))
                response_id = first["response"]["id"]
                self.journal.accepted[response_id] = tag
            if response_id:
                self.journal.read[response_id] = whole + blank

    async def get(self, http: aiohttp.ClientSession, response_id: str) -> Any:
        """A poll; None, and a violation, when an accepted id is unknown."""
        async with http.get(f"{self.gateway.url}/responses/{response_id}") as reply:
            if reply.status != 200:
                self.report.violations.append(f"{response_id}: poll gave {reply.status}")
                return None
            return await reply.json()

    async def tags(self, http: aiohttp.ClientSession) -> dict[str, int]:
        """How often each run's upstream call arrived."""
        async with http.get(f"{self.upstream.url}/seen") as reply:
            found: dict[str, int] = (await reply.json())["tags"]
            return found

    async def check_all(self, http: aiohttp.ClientSession) -> None:
        """Everything that was ever accepted, checked over the API."""
        for response_id in self.journal.accepted:
            async with asyncio.timeout(120):
                while True:
                    body = await self.get(http, response_id)
                    if body is None or body["status"] in TERMINAL:
                        break
                    await asyncio.sleep(0.02)
            if body is not None:
                await self.check_one(http, response_id, body)
        for tag, calls in (await self.tags(http)).items():
            if calls > 1:
                self.report.violations.append(f"{tag}: {calls} upstream calls")

    async def check_one(self, http: aiohttp.ClientSession, response_id: str, body: Any) -> None:
        """One response: its log against its object and against what was read before."""
        url = f"{self.gateway.url}/responses/{response_id}?stream=true"
        async with http.get(url) as reply:
            log = await reply.read()
        before = self.journal.read.get(response_id, b"")
        self.report.bytes_compared += len(before)
        events = [json.loads(frame.split(b"\ndata: ")[1]) for frame in log.split(b"\n\n") if frame]
        wrong = self.report.violations
        if not log.startswith(before):
            wrong.append(f"{response_id}: the log does not begin with what was read")
        if [event["sequence_number"] for event in events] != list(range(len(events))):
            wrong.append(f"{response_id}: numbers with a gap or repeat")
        ends = [event for event in events if event["type"].split(".")[-1] in TERMINAL[:3]]
        ends = [event for event in ends if "response" in event]
        if len(ends) != 1 or events[-1] is not ends[0] or ends[0]["response"] != body:
            wrong.append(f"{response_id}: {len(ends)} terminal events, or not equal to the poll")
        self.count(body)

    def count(self, body: Any) -> None:
        """How it ended; a completed one must be whole."""
        if body["status"] == "completed":
            self.report.completed += 1
            if not body["output"] or not body["usage"]:
                self.report.violations.append(f"{body['id']}: completed without output or usage")
        elif (body["error"] or {}).get("type") == "worker_lost":
            self.report.worker_lost += 1
        else:
            self.report.other_ends += 1


async def experiment(directory: Path, *, cycles: int, seed: int) -> Report:
    """Run it and give the report."""
    return await Driver(directory, seed=seed).run(cycles)


def main() -> int:
    """The command; exit status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="handrail-crash-") as directory:
        report = asyncio.run(experiment(Path(directory), cycles=options.cycles, seed=options.seed))
    for name, value in vars(report).items():
        print(f"{name:>18}  {value}")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
