"""One HTTP request to the real application, as plain ASGI, seen from the client's side."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

PATIENCE: Final = 900.0
"""Virtual seconds after which an answer is called missing; longer than any trouble lasts."""


class Broken(Exception):
    """The connection ended before the answer did."""


class Conversation:
    """What the guard gives the application for one connection, and what the client reads of it."""

    def __init__(self) -> None:
        self.on_lost: Callable[[], None] | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.slowness = 0.0
        self._parts: deque[bytes] = deque()
        self._ended = False
        self._broken = False
        self._news = asyncio.Event()
        self._left = asyncio.Event()
        self._body: list[dict[str, Any]] = []

    # --- the application's side ------------------------------------------------------------

    def scope(
        self, method: str, path: str, *, key: str, headers: Mapping[str, str], body: bytes
    ) -> dict[str, Any]:
        """The ASGI scope of the request; `path` may have a query."""
        raw_path, _, query = path.encode().partition(b"?")
        sent = {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}
        self._body = [{"type": "http.request", "body": body, "more_body": False}]
        return {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "raw_path": raw_path,
            "query_string": query,
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "handrail.connection": self,
        }

    async def receive(self) -> dict[str, Any]:
        """The request's body, then nothing until the client has left."""
        if self._body:
            return self._body.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """A part of the answer; a slow reader makes the sender wait."""
        if self._broken:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {n.decode(): v.decode() for n, v in message["headers"]}
        else:
            self._parts.append(message.get("body", b""))
            self._ended = not message.get("more_body", False)
        self._news.set()
        if self.slowness:
            await asyncio.sleep(self.slowness)

    def drop(self) -> None:
        """The connection is gone."""
        self._broken = True
        self._news.set()

    # --- the client's side -----------------------------------------------------------------

    def leave(self) -> None:
        """The client closes the connection."""
        self._broken = True
        self._left.set()
        if self.on_lost is not None:
            self.on_lost()

    async def start(self) -> int:
        """The status. Raises Broken."""
        while not self.status:
            await self._more()
        return self.status

    async def body(self) -> bytes:
        """The whole body. Raises Broken."""
        await self.start()
        return b"".join([part async for part in self.parts()])

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises Broken."""
        while True:
            while self._parts:
                yield self._parts.popleft()
            if self._ended:
                return
            await self._more()

    async def _more(self) -> None:
        if self._broken:
            raise Broken
        self._news.clear()
        async with asyncio.timeout(PATIENCE):
            await self._news.wait()
