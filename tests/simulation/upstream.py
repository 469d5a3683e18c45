"""The simulated upstream: the client port, and a record of every call that ever reached it."""

import asyncio
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from handrail.errors import Code, UpstreamFailed
from handrail.upstream.client import SLICE_BYTES, UpstreamCall
from tests.simulation.answers import PROOFS, STATUS, Answer, draw

_TAG: Final = re.compile(rb"run-\d+")


class Host(Protocol):
    """The process that calls."""

    dead: bool
    number: int

    def passes(self, point: str) -> None: ...


@dataclass
class Call:
    """One call: whose run, by which process, and what became of it."""

    tag: str
    process: int
    number: int
    answer: Answer
    open: bool = True
    proof: bool = False  # that it did not run
    heard: str = ""  # how far the gateway read it


class Watcher(Protocol):
    """Who wants to know of calls."""

    def called(self, call: Call) -> None: ...

    def trace(self, what: str) -> None: ...


class Upstream:
    """One upstream for all processes of a simulation. What it answers depends on tag and count."""

    def __init__(self, seed: int, *, calm: float, watcher: Watcher) -> None:
        self._seed = seed
        self._calm = calm
        self.watcher = watcher
        self.calls: dict[str, list[Call]] = {}

    def take(self, body: bytes, process: int) -> Call:
        """A call has arrived."""
        found = _TAG.search(body)
        assert found is not None, body
        tag = found[0].decode()
        earlier = self.calls.setdefault(tag, [])
        chance = random.Random(f"{self._seed} {tag} {len(earlier)}")
        answer = draw(chance, tag=tag, calm=self._calm)
        call = Call(tag, process, len(earlier) + 1, answer)
        earlier.append(call)
        self.watcher.called(call)
        return call

    def open_calls(self) -> list[Call]:
        """Those under way."""
        return [call for calls in self.calls.values() for call in calls if call.open]


class SimulatedReply:
    """`UpstreamReply`: bytes arrive when the answer says, whether or not somebody reads."""

    def __init__(self, call: Call, *, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._arrivals: list[tuple[float, bytes]] = []
        moment = self._loop.time()
        for pause, data in self._pieces():
            moment += pause
            if data:
                self._arrivals.append((moment, data))
        self._next = 0
        self._end = moment
        self._closed = False

    def _pieces(self) -> list[tuple[float, bytes]]:
        answer = self._call.answer
        return list(answer.pieces) if answer.pieces else [(0.01, answer.body)]

    async def read(self, *, limit: int, idle_seconds: float) -> bytes:
        """See the port."""
        parts = []
        while part := await self.slice():
            parts.append(part)
        return b"".join(parts)

    async def slice(self) -> bytes:
        """See the port."""
        if self._next == len(self._arrivals):
            return await self._ending()
        await self._until(self._arrivals[self._next][0])
        parts, size, now = [], 0, self._loop.time()
        while self._next < len(self._arrivals) and size < SLICE_BYTES:
            moment, data = self._arrivals[self._next]
            if moment > now:
                break
            parts.append(data)
            size += len(data)
            self._next += 1
        return b"".join(parts)

    async def _ending(self) -> bytes:
        await self._until(self._end)
        end = self._call.answer.end
        if end == "stall":
            await asyncio.sleep(100_000)
        if end == "reset":
            raise UpstreamFailed(Code.UPSTREAM_ENDED_EARLY, "The upstream broke off its reply.")
        self._call.heard = "whole"
        return b""

    async def _until(self, moment: float) -> None:
        left = moment - self._loop.time()
        if left > 0:
            await asyncio.sleep(left)
        if self._closed:
            raise UpstreamFailed(Code.UPSTREAM_ENDED_EARLY, "The connection is closed.")

    async def finish(self) -> None:
        """See the port."""

    def close(self) -> None:
        """See the port."""
        self._closed = True
        self._call.open = False


class SimulatedClient:
    """`UpstreamClient` of one process."""

    def __init__(self, upstream: Upstream, host: Host) -> None:
        self._upstream = upstream
        self._host = host
        self.closed = False

    async def send(self, call: UpstreamCall) -> SimulatedReply:
        """See the port."""
        if self._host.dead:
            raise asyncio.CancelledError
        taken = self._upstream.take(call.body or b"", self._host.number)
        try:
            self._host.passes("a call sent")
            async with asyncio.timeout(call.reply_seconds):
                return await self._answer(taken)
        except TimeoutError:
            taken.open = False
            raise UpstreamFailed(Code.UPSTREAM_STALLED, "The upstream did not answer.") from None
        except BaseException:
            taken.open = False
            raise

    async def _answer(self, taken: Call) -> SimulatedReply:
        head = taken.answer.head
        await asyncio.sleep(100_000 if head == "silent" else taken.answer.patience)
        taken.proof = head in PROOFS
        self._upstream.watcher.trace(f"upstream answers {taken.tag}#{taken.number}: {head}")
        if head == "unreachable":
            raise UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "Nobody is there.", sent=False)
        if head == "dropped":
            raise UpstreamFailed(Code.UPSTREAM_ENDED_EARLY, "The connection was closed.")
        if head in STATUS:
            status, headers = STATUS[head]
            return SimulatedReply(taken, status=status, headers=headers)
        kind = "text/event-stream" if head == "stream" else "application/json"
        return SimulatedReply(taken, status=200, headers={"content-type": kind})

    async def close(self) -> None:
        """See the port."""
        self.closed = True
