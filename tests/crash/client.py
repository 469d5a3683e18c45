"""The verbs of a client. Each writes into the journal what the gateway said, and judges it."""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, Self

from tests.acceptance.processes import monotonic
from tests.crash.journal import TERMINAL, Journal, Piece, Run, frames_of, is_closing
from tests.crash.orders import Order
from tests.crash.wire import Api, Broken, NoAnswer, Reply

# Each caller's key, and how long its runs are kept after their end (None: longer than we watch).
CALLERS: Final[Mapping[str, tuple[str, float | None]]] = {
    "ann": ("hr_crash-caller-key-of-ann-012345", None),
    "bob": ("hr_crash-caller-key-of-bob-012345", None),
    "brief": ("hr_crash-caller-key-of-brief-0123", 1.0),
}
NOBODY: Final = "resp_" + "0" * 48

READ_SECONDS: Final = 5.0
LEAVE_SECONDS: Final = 0.002

Leave = Callable[[Piece], bool]


class Clients:
    """All callers of one life of the gateway, and what they may still ask of it."""

    def __init__(self, url: str, journal: Journal) -> None:
        self.journal = journal
        self.draining = False
        self._apis = {name: Api(url, key) for name, (key, _) in CALLERS.items()}

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        for api in self._apis.values():
            await self._stack.enter_async_context(api)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # --- creating --------------------------------------------------------------------------

    async def create(self, run: Run, *, leave: Leave = lambda _: False) -> bool:
        """POST it, perhaps not for the first time; whether it was taken. Raises Broken."""
        try:
            return await self._create(run, leave)
        except Broken:
            if run.id is None and run.key is None and not run.foreground:
                self.journal.unanswered.append(run)
            raise

    async def create_again(self, run: Run) -> bool:
        """The same create as an SDK sends it that has got no reply. Raises Broken."""
        run.headers = {**run.headers, "x-stainless-retry-count": "1"}
        return await self.create(run)

    async def create_and_leave(self, run: Run, seconds: float) -> None:
        """POST it and be gone so soon, having seen the reply or not. Raises Broken."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._create(run)

    async def _create(self, run: Run, leave: Leave = lambda _: False) -> bool:
        headers = {"x-stainless-retry-count": "0", **run.headers}
        if run.key is not None:
            headers["idempotency-key"] = run.key
        since = run.rank
        if run.streamed:
            return await self._create_stream(run, headers, leave=leave)
        coming: list[Reply] = []

        def sink(reply: Reply, _: bytes) -> bool:
            coming[:] = [reply]
            return False

        try:
            reply = await self._ask(
                run, "POST", "/v1/responses", body=run.body, headers=headers, sink=sink
            )
        finally:
            # Whoever leaves in the very moment in which the reply is whole has got it.
            if coming and coming[0].whole and coming[0].status == 200:
                self.journal.accepted(run, coming[0].json()["id"])
                self.journal.shown(run, bytes(coming[0].body), since=since)
        return self._taken(run, reply)

    async def _create_stream(self, run: Run, headers: Mapping[str, str], *, leave: Leave) -> bool:
        piece = Piece(after=-1)

        def sink(reply: Reply, data: bytes) -> bool:
            known = bool(piece.data)
            if reply.status == 200:
                piece.data += data
                if not known:
                    run.pieces.append(piece)
                if run.id is None and piece.last >= 0:
                    self.journal.accepted(run, _id_in(piece.whole()))
            return run.id is not None and leave(piece)

        reply = await self._ask(
            run, "POST", "/v1/responses", body=run.body, headers=headers, sink=sink
        )
        piece.left = not reply.whole
        if reply.status == 200 and reply.whole:
            self._ended(run, piece)
        return self._taken(run, reply)

    async def pass_through(self, run: Run) -> None:
        """The same without background; a stream that has begun must have an end. Raises Broken."""
        body = {**json.loads(run.body), "background": False}
        api = self._apis[run.caller]
        reply = await api.send("POST", "/v1/responses", body=json.dumps(body).encode())
        frames = frames_of(bytes(reply.body))
        if reply.status == 200:
            self.journal.foreground += 1
            if not frames or not is_closing(frames[-1]):
                self.journal.wrong(run, f"a foreground stream ended with {frames[-1:]}")
        else:
            self._taken(run, reply)

    def _taken(self, run: Run, reply: Reply) -> bool:
        if reply.status == 200:
            return True
        error = reply.json()["error"]
        if reply.status in (429, 503) and "retry-after" in reply.headers:
            self.journal.refused += 1
        elif error["code"] == "idempotency_key_expired":
            self.journal.unknown(run)
        else:
            self.journal.wrong(run, f"create gave {reply.status} {error}")
        return False

    # --- reading ---------------------------------------------------------------------------

    async def poll(self, run: Run) -> Any:
        """The object as it is now; None when there is no such run. Raises Broken."""
        since, was_gone = run.rank, run.gone
        reply = await self._ask(run, "GET", f"/v1/responses/{run.id}")
        if not self._found(run, reply, was_gone=was_gone):
            return None
        if not run.remote:
            self.journal.shown(run, bytes(reply.body), since=since)
        return reply.json()

    async def follow(
        self, run: Run, *, after: int = -1, leave: Leave = lambda _: False
    ) -> Piece | None:
        """Its events after a number, live, until they end or `leave` says so. Raises Broken."""
        piece = Piece(after=after)
        was_gone = run.gone

        def sink(reply: Reply, data: bytes) -> bool:
            if reply.status != 200:
                return False
            if not piece.data:
                run.pieces.append(piece)
            piece.data += data
            return leave(piece)

        cursor = "" if after < 0 else f"&starting_after={after}"
        reply = await self._ask(
            run, "GET", f"/v1/responses/{run.id}?stream=true{cursor}", sink=sink
        )
        if not self._found(run, reply, was_gone=was_gone):
            return None
        piece.left = not reply.whole
        if reply.whole:
            self._ended(run, piece)
        return piece

    def _ended(self, run: Run, piece: Piece) -> None:
        frames = piece.whole()
        closed = frames and is_closing(frames.rstrip().rpartition(b"\n\n")[2])
        if closed:
            piece.ended = True
            run.rank = 2
        elif not (frames or run.doomed or self.draining):
            # Nothing after the asked number: then that must have been the last, which is checked
            # when the whole log is known.
            piece.ended = True
            run.pieces.append(piece)
        elif not (run.doomed or self.draining):
            self.journal.wrong(run, f"a stream ended without an end: {frames[-200:]!r}")

    def _found(self, run: Run, reply: Reply, *, was_gone: bool) -> bool:
        if reply.status == 200:
            self.journal.known(run, was_gone=was_gone)
            return True
        if reply.status == 404:
            self.journal.unknown(run)
        else:
            self.journal.wrong(run, f"{reply.status} {reply.json()}")
        return False

    # --- ending ----------------------------------------------------------------------------

    async def cancel(self, run: Run) -> None:
        """Cancel it; what lost the race is told so. Raises Broken."""
        run.cancel_asked = True
        run.stop_asked_at = run.stop_asked_at or monotonic()
        since, was_gone = run.rank, run.gone
        reply = await self._ask(run, "POST", f"/v1/responses/{run.id}/cancel")
        if reply.status == 400:
            self.journal.too_late(run)
        elif self._found(run, reply, was_gone=was_gone):
            self.journal.shown(run, bytes(reply.body), since=since)
            body = reply.json()
            if body["status"] != "cancelled" or body["output"] or body["error"]:
                self.journal.wrong(run, f"cancelled as {str(body)[:300]}")

    async def cancel_and_leave(self, run: Run) -> None:
        """Send a cancel, and be gone at once or soon. Raises Broken."""
        run.cancel_asked = True
        run.stop_asked_at = run.stop_asked_at or monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._apis[run.caller].send("POST", f"/v1/responses/{run.id}/cancel")

    async def delete(self, run: Run) -> None:
        """Delete it. Raises Broken."""
        run.doomed = True
        run.stop_asked_at = run.stop_asked_at or monotonic()
        was_gone = run.gone
        reply = await self._ask(run, "DELETE", f"/v1/responses/{run.id}")
        if self._found(run, reply, was_gone=was_gone):
            run.gone = True
            run.stopped_at = run.stopped_at or monotonic()

    async def stranger(self, run: Run, chance: random.Random) -> None:
        """Another caller asks for it, and learns what he learns of an id that nobody has."""
        others = [name for name in self._apis if name != run.caller]
        api = self._apis[chance.choice(others)]
        method, tail = chance.choice(
            [
                ("GET", ""),
                ("GET", "?stream=true"),
                ("GET", "/input_items"),
                ("POST", "/cancel"),
                ("DELETE", ""),
            ]
        )
        told = []
        for response_id in (str(run.id), NOBODY):
            reply = await api.send(method, f"/v1/responses/{response_id}{tail}")
            text = reply.body.replace(response_id.encode(), b"ID")
            # A gateway that drains closes some connections, whoever asks.
            told.append((reply.status, sorted(set(reply.headers) - {"connection"}), text))
        if told[0] != told[1] or told[0][0] != 404:
            self.journal.wrong(run, f"a stranger's {method} {tail} gave {told}")

    async def ready(self) -> None:
        """Ask whether the gateway is ready."""
        reply = await next(iter(self._apis.values())).send("GET", "/readyz")
        if reply.status not in (200, 503):
            self.journal.wrong(None, f"/readyz gave {reply.status}")

    async def bytes_after(self, run: Run, after: int) -> bytes:
        """The events after a number, to the end, without a journal. Raises Broken."""
        cursor = "" if after < 0 else f"&starting_after={after}"
        reply = await self._apis[run.caller].send(
            "GET", f"/v1/responses/{run.id}?stream=true{cursor}"
        )
        if reply.status != 200:
            self._found(run, reply, was_gone=run.gone)
            return b""
        return bytes(reply.body)

    async def _ask(self, run: Run, method: str, path: str, **rest: Any) -> Reply:
        try:
            return await self._apis[run.caller].send(method, path, **rest)
        except NoAnswer:
            self.journal.wrong(run, f"{method} was not answered")
            raise


def order_run(tag: str, order: Order, *, caller: str, streamed: bool = False, **more: Any) -> Run:
    """A run that is to be asked for. `more` are further fields of it."""
    body: dict[str, Any] = {"model": "m", "input": order.text(tag), "stream": streamed}
    # A foreground response that is to be kept says store=true; a background one is kept anyway.
    body["store" if more.get("foreground") else "background"] = True
    if order.kind.name == "tool":
        parameters = {"type": "object", "properties": {}}
        body["tools"] = [{"type": "function", "name": "look_up", "parameters": parameters}]
    return Run(
        tag=tag,
        caller=caller,
        order=order,
        body=json.dumps(body).encode(),
        asked_at=monotonic(),
        streamed=streamed,
        kept_seconds=CALLERS[caller][1],
        **more,
    )


def ask_for(run: Run, order: Order) -> Run:
    """The same run with another order."""
    run.order = order
    run.body = json.dumps({**json.loads(run.body), "input": order.text(run.tag)}).encode()
    return run


async def until_ended(clients: Clients, run: Run, *, pause: float = 0.01) -> Any:
    """Poll until it has ended or is gone; the last object. Raises Broken."""
    while True:
        body = await clients.poll(run)
        if body is None or body["status"] in TERMINAL:
            return body
        await asyncio.sleep(pause)


def _stream_of(run: Run, after: int) -> str:
    cursor = "" if after < 0 else f"&starting_after={after}"
    return f"/v1/responses/{run.id}?stream=true{cursor}"


def _id_in(frames: bytes) -> str:
    first = json.loads(frames.partition(b"\ndata: ")[2].partition(b"\n")[0])
    response_id: str = first["response"]["id"]
    return response_id
