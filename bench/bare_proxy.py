"""The plainest proxy that the same libraries make: uvicorn in front, aiohttp behind, no rules.

What Handrail costs more than this is Handrail's own work (guard, key, policy, rewriting, reading
every event); what this costs more than nginx is the price of the stack. It has no protection of
any kind and closes nothing when a caller leaves early.
"""

import argparse
from typing import Any

import aiohttp
import uvicorn


class Proxy:
    """The ASGI application."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self._session.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await self._pass(scope, receive, send)

    async def _pass(self, scope: Any, receive: Any, send: Any) -> None:
        parts = []
        more = True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        async with self._session.request(
            scope["method"],
            self._upstream + scope["path"],
            data=b"".join(parts),
            headers={"content-type": "application/json"},
        ) as reply:
            kept = ("content-type", "content-length")
            headers = [(n.encode(), reply.headers[n].encode()) for n in kept if n in reply.headers]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            async for part in reply.content.iter_any():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    given = parser.parse_args()
    uvicorn.run(
        Proxy(given.upstream),
        port=given.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,  # it does not notice who has left
    )
