"""The gateway's own store and upstream client, with points at which they kill their process."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from handrail.store.sqlite import SqliteStore
from handrail.upstream.client import AiohttpClient, AiohttpReply, UpstreamCall
from tests.crash.points import STORE

UNANSWERED_SECONDS: Final = 0.005

_METHOD: ContextVar[str] = ContextVar("method")


class Trigger:
    """Kills this process, as `kill -9` would, when `point` is reached for the `nth` time.

    Counts only while it is `armed`.
    """

    def __init__(self, point: str, nth: int, *, armed: bool) -> None:
        self.armed = armed
        self._point = point
        self._left = nth

    def reach(self, point: str) -> None:
        """The process is at `point`; each is reached by one thread only."""
        if self.armed and point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class CrashingStore(SqliteStore):
    """SQLite, with the points of `points.STORE` around each method and inside each transaction."""

    def __init__(self, path: Path, *, trigger: Trigger, **rest: Any) -> None:
        super().__init__(path, **rest)
        self.trigger = trigger

    async def _write(self, work: Callable[[Any], Any], **how: bool) -> Any:
        name = _METHOD.get()

        def then_die(connection: Any) -> Any:
            outcome = work(connection)
            self.trigger.reach(f"{name}.inside")  # in the writing thread, before the commit
            return outcome

        return await super()._write(then_die, **how)


def _watched(name: str) -> Callable[..., Awaitable[Any]]:
    inner = getattr(SqliteStore, name)

    async def method(self: CrashingStore, *arguments: Any, **named: Any) -> Any:
        self.trigger.reach(f"{name}.before")
        token = _METHOD.set(name)
        try:
            outcome = await inner(self, *arguments, **named)
        finally:
            _METHOD.reset(token)
        self.trigger.reach(f"{name}.after")
        return outcome

    return method


for _name in STORE:
    setattr(CrashingStore, _name, _watched(_name))


class CrashingClient(AiohttpClient):
    """aiohttp, with the points of `points.UPSTREAM`."""

    def __init__(self, *, trigger: Trigger) -> None:
        super().__init__()
        self._trigger = trigger

    async def send(self, call: UpstreamCall) -> Any:
        """See the port."""
        self._trigger.reach("upstream.before")
        asking = asyncio.ensure_future(super().send(call))
        try:
            done, _ = await asyncio.wait({asking}, timeout=UNANSWERED_SECONDS)
            if not done:
                self._trigger.reach("upstream.unanswered")
            reply = await asking
        except asyncio.CancelledError:
            asking.cancel()
            await asyncio.wait({asking})
            raise
        self._trigger.reach("upstream.answered")
        return _Reply(reply, self._trigger)


class _Reply:
    def __init__(self, reply: AiohttpReply, trigger: Trigger) -> None:
        self._reply = reply
        self._trigger = trigger

    @property
    def status(self) -> int:
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._reply.headers

    async def read(self, *, limit: int, idle_seconds: float) -> bytes:
        return await self._reply.read(limit=limit, idle_seconds=idle_seconds)

    async def slice(self) -> bytes:
        data = await self._reply.slice()
        self._trigger.reach("upstream.slice")
        return data

    async def finish(self) -> None:
        await self._reply.finish()

    def close(self) -> None:
        self._reply.close()
        self._trigger.reach("upstream.closed")
