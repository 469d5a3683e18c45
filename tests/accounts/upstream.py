"""An upstream that knows who asks: it counts calls by credential, and refuses some."""

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from tests.acceptance.processes import monotonic

ANSWER = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "m",
    "output": [],
    "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
}

Judge = Callable[[web.Request], Awaitable[web.Response | None]]


@asynccontextmanager
async def upstream(judge: Judge) -> AsyncIterator[str]:
    """It, on a free port: `judge` gives a refusal, or None for an answer. Yields its base URL."""

    async def create(request: web.Request) -> web.Response:
        await request.read()
        refused = await judge(request)
        return refused or web.json_response(ANSWER)

    async def models(request: web.Request) -> web.Response:
        refused = await judge(request)
        return refused or web.json_response({"object": "list", "data": []})

    app = web.Application()
    app.router.add_post("/v1/responses", create)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def bearer(request: web.Request) -> str:
    """The credential of a request."""
    return request.headers.get("authorization", "").removeprefix("Bearer ")


class Limits:
    """Refuses a share of the calls, of every account but one: which one, changes every few seconds.

    An account that was told to wait is cooling; being asked before its time is over is a violation,
    unless the call may have been under way when it was told.
    """

    GRACE = 0.1
    HEALTHY_SECONDS = 5.0

    def __init__(self, keys: dict[str, str], *, share: float, seed: int) -> None:
        self._keys = keys
        self._names = list(keys.values())
        self._chance = random.Random(seed)
        self._until = dict.fromkeys(self._names, 0.0)
        self._told = dict.fromkeys(self._names, 0.0)
        self.share = share
        self.asked: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.violations = 0

    def _healthy(self, now: float) -> set[str]:
        # One stays so a second longer: a request that was refused by the next one must find it.
        turns = (int(moment / self.HEALTHY_SECONDS) for moment in (now, now - 1.0))
        return {self._names[turn % len(self._names)] for turn in turns}

    async def judge(self, request: web.Request) -> web.Response | None:
        """See `Judge`."""
        name = self._keys[bearer(request)]
        self.asked[name] += 1
        now = monotonic()
        if now < self._until[name]:
            self.violations += now > self._told[name] + self.GRACE
            return self._refuse(429, self._until[name] - now)
        if name in self._healthy(now) or self._chance.random() >= self.share:
            return None
        if self._chance.random() < 0.3:
            return self._refuse(503, None)
        wait = self._chance.choice((0.15, 0.3, 0.6))
        self._until[name], self._told[name] = now + wait, now
        return self._refuse(429, wait)

    def _refuse(self, status: int, wait: float | None) -> web.Response:
        self.refused[status] += 1
        headers = {} if wait is None else {"retry-after": f"{max(wait, 0.01):.2f}"}
        body = {"error": {"message": "not now", "type": "t", "code": "c", "param": None}}
        return web.Response(
            status=status,
            text=json.dumps(body),
            headers=headers,
            content_type="application/json",
        )
