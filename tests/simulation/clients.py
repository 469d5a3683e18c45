"""Simulated clients: each does one thing after the other, at random, and notes what it is told."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from tests.simulation.conversation import Broken, Conversation
from tests.simulation.plan import Plan
from tests.simulation.process import Process
from tests.simulation.seen import Asked, Known
from tests.simulation.watch import Watch

# Statuses and codes with which any request may be refused while something is wrong.
_PASSING: Final = frozenset(
    {(503, "store_unavailable"), (503, "storage_full"), (503, "shutting_down")}
)


class Scene(Protocol):
    """What clients see of the world."""

    watch: Watch
    plan: Plan
    process: Process | None
    over: bool

    def new_tag(self) -> str: ...

    def key_of(self, caller: str) -> str: ...

    def revoked(self, caller: str) -> bool: ...

    def troubled_since(self, moment: float) -> bool: ...


CANCEL_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Order:
    """A create that may be sent again under its key."""

    tag: str
    key: str | None
    stream: bool
    store_false: bool

    def body(self) -> bytes:
        body = {"model": "m", "input": self.tag, "background": True, "stream": self.stream}
        if self.store_false:
            body["store"] = False
        return json.dumps(body).encode()


def whole_frames(held: bytes) -> tuple[list[bytes], bytes]:
    """The events in a piece of a stream, comments left out, and the rest of it."""
    *blocks, rest = held.split(b"\n\n")
    return [block + b"\n\n" for block in blocks if not block.startswith(b":")], rest


class Client:
    """One client of one caller."""

    def __init__(self, scene: Scene, caller: str, chance: random.Random) -> None:
        self._scene = scene
        self._watch = scene.watch
        self._seen = scene.watch.seen
        self.caller = caller
        self._chance = chance
        self._orders: list[Order] = []
        self._lost: Order | None = None
        self._acts: Mapping[Callable[[Process], Awaitable[None]], int] = {
            self._create: 34,
            self._repeat: 8,
            self._misuse_key: 2,
            self._poll: 14,
            self._follow: 16,
            self._cancel: 10,
            self._delete: 5,
            self._look_at_foreign: 4,
            self._list_input: 2,
        }

    async def run(self) -> None:
        """Until the world is over."""
        pace = 2 * self._scene.plan.seconds / self._chance.choice((20, 60, 150))
        while not self._scene.over:
            await asyncio.sleep(self._chance.uniform(0, pace))
            process = self._scene.process
            if process is None or process.dead:
                await asyncio.sleep(0.05)
                continue
            [act] = self._chance.choices(list(self._acts), list(self._acts.values()))
            if self._lost is not None:
                act = self._repeat  # what a client does whose create got no answer
            try:
                await act(process)
            except Broken:
                self._excuse(process)
            except TimeoutError:
                self._watch.violate(f"no answer at all to {act.__name__}")

    def _excuse(self, process: Process) -> None:
        # Nobody but a process that ends may break off a reply that it has not begun.
        if not (process.dead or process.draining):
            self._watch.violate("a connection was dropped without a cause")
        self._watch.count("reply lost")

    def _ask(
        self, process: Process, method: str, path: str, *, key: str | None = None, body: bytes = b""
    ) -> Conversation:
        return process.ask(
            method,
            path,
            key=self._scene.key_of(self.caller),
            headers={} if key is None else {"idempotency-key": key},
            body=body,
            slowness=self._chance.choice((0.0, 0.0, 0.0, 0.3)),
        )

    def _pick(self, caller: str | None = None) -> Known | None:
        mine = [run for run in self._seen.runs.values() if run.caller == (caller or self.caller)]
        # Mostly what is young, because that is what races are about.
        part = mine[-3:] if self._chance.random() < 0.7 else mine
        return self._chance.choice(part) if part else None

    # --- creating --------------------------------------------------------------------------

    async def _create(self, process: Process) -> None:
        if len(self._seen.caller_of) >= self._scene.plan.most:
            return
        tag = self._scene.new_tag()
        key = f"key-of-{tag}" if self._chance.random() < 0.4 else None
        false = self._scene.plan.store_false and self._chance.random() < 0.2
        order = Order(tag, key, self._chance.random() < 0.5, false)
        self._seen.orders(tag, self.caller)
        if key is not None:
            self._orders.append(order)
        twice = key is not None and self._chance.random() < 0.2
        sent = [self._send(process, order) for _ in range(1 + twice)]
        for outcome in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(outcome, Broken) and key is not None:
                self._lost = order
            if isinstance(outcome, BaseException):
                raise outcome

    async def _repeat(self, process: Process) -> None:
        if not self._orders:
            return
        order = self._lost or self._chance.choice(self._orders[-4:])
        self._lost = None
        known = self._seen.by_tag.get(order.tag)
        if known is None:
            self._watch.count("key repeated, outcome unknown")
        elif known.process != process.number:
            self._watch.count("key repeated after a restart")
        await self._send(process, order)

    async def _send(self, process: Process, order: Order) -> None:
        self._watch.trace(f"{self.caller} creates {order.tag} key={order.key is not None}")
        before = self._seen.asks(self._seen.by_tag.get(order.tag))
        asked = self._ask(process, "POST", "/v1/responses", key=order.key, body=order.body())
        if await asked.start() != 200:
            return self._refused(order, await self._error(asked, "create"))
        if order.stream:
            return await self._read(process, asked, order=order, before=before)
        response = json.loads(await asked.body())
        known = self._accept(process, order, response["id"], asked=asked, before=before)
        if known.accepted_at == before.at:
            before = Asked(0, deleted=False, at=before.at)  # it is new
        return self._seen.observed(known, response, before)

    def _accept(
        self, process: Process, order: Order, run_id: str, *, asked: Conversation, before: Asked
    ) -> Known:
        earlier = self._seen.runs.get(run_id)
        retention = self._scene.plan.retention_of(self.caller, store_false=order.store_false)
        self._watch.count("accepted" if earlier is None else "key gave the same run")
        known = self._seen.accepted(
            run_id, tag=order.tag, retention=retention, process=process.number, at=before.at
        )
        if asked.headers.get("idempotent-replayed") != "true":
            if known.made:
                self._watch.violate(f"{order.tag} was answered again, and not as a repeat")
            known.made = True
        return known

    def _refused(self, order: Order, code: str) -> None:
        known = self._seen.by_tag.get(order.tag)
        if code == "idempotency_key_reused":
            self._watch.violate(f"{order.tag}: the same create was called another")
        if code == "idempotency_key_expired" and known is not None:
            self._seen.missing(known)
        # What was refused never runs. Not so when the gateway went down while it answered.
        if order.key is None and code != "shutting_down":
            self._seen.refused.add(order.tag)

    async def _misuse_key(self, process: Process) -> None:
        order = self._chance.choice(self._orders) if self._orders else None
        known = self._seen.by_tag.get(order.tag) if order else None
        if order is None or known is None or self._seen.key_may_be_over(known):
            return
        tag = self._scene.new_tag()
        self._seen.orders(tag, self.caller)
        other = Order(tag, order.key, order.stream, store_false=False)
        self._orders.remove(order)  # should the key be over by then, it means the other one
        asked = self._ask(process, "POST", "/v1/responses", key=other.key, body=other.body())
        if await asked.start() == 200:
            if not self._seen.key_may_be_over(known):
                self._watch.violate(f"the key of {known.tag} made another run")
            return asked.leave()
        if await self._error(asked, "create") == "idempotency_key_reused":
            self._orders.append(order)
        return None

    # --- reading ---------------------------------------------------------------------------

    async def _poll(self, process: Process) -> None:
        known = self._pick()
        if known is None:
            return
        before = self._seen.asks(known)
        asked = self._ask(process, "GET", f"/v1/responses/{known.id}")
        if await asked.start() == 200:
            self._seen.observed(known, json.loads(await asked.body()), before)
        elif await self._error(asked, "poll") == "404":
            self._seen.missing(known)

    async def _follow(self, process: Process) -> None:
        known = self._pick()
        if known is None:
            return
        seen = max(known.frames, default=-1)
        after = self._chance.choice((-1, seen, self._chance.randint(-1, max(seen, 0)), seen + 2))
        query = "" if after < 0 else f"&starting_after={after}"
        self._watch.trace(f"{self.caller} follows {known.tag} after {after}")
        if known.process != process.number and after >= 0:
            self._watch.count("resumed after a restart")
        asked = self._ask(process, "GET", f"/v1/responses/{known.id}?stream=true{query}")
        if await asked.start() == 200:
            await self._read(process, asked, known=known, after=after)
        elif await self._error(asked, "follow") == "404":
            self._seen.missing(known)

    async def _read(
        self,
        process: Process,
        asked: Conversation,
        *,
        known: Known | None = None,
        order: Order | None = None,
        before: Asked | None = None,
        after: int = -1,
    ) -> None:
        """Read a stream to its end, or leave in the middle of it."""
        began, number, held = self._watch.loop.time(), after, b""
        leaves = self._chance.choice((None, None, self._chance.randint(1, 30)))
        beyond = known is not None and after >= max(known.frames, default=-1) and after >= 0
        try:
            async for part in asked.parts():
                frames, held = whole_frames(held + part)
                for frame in frames:
                    if known is None:
                        assert order is not None
                        assert before is not None
                        opening = json.loads(frame.partition(b"\ndata: ")[2])["response"]["id"]
                        known = self._accept(process, order, opening, asked=asked, before=before)
                    number += 1
                    self._seen.event(known, number, frame)
                if leaves is not None and number - after >= leaves:
                    self._watch.count("reader left")
                    return asked.leave()
        except Broken:
            if not (process.dead or process.draining or self._scene.troubled_since(began)):
                self._watch.violate("a stream was cut without a cause")
            self._watch.count("stream cut")
            return None
        self._check_end(process, known, number=number, beyond=beyond and number == after)
        return None

    def _check_end(
        self, process: Process, known: Known | None, *, number: int, beyond: bool
    ) -> None:
        if known is None or known.last == number or beyond:
            return
        ended = known.last is not None and number > known.last
        gone = known.deleting or self._seen.may_be_over(known)
        if not (ended or gone or process.draining or process.dead):
            self._watch.violate(f"the stream of {known.tag} ended at {number}, before its end")

    async def _list_input(self, process: Process) -> None:
        known = self._pick()
        if known is None:
            return
        asked = self._ask(process, "GET", f"/v1/responses/{known.id}/input_items")
        if await asked.start() == 200:
            if known.tag.encode() not in await asked.body():
                self._watch.violate(f"the input of {known.tag} is not what it was")
        elif await self._error(asked, "input items") == "404":
            self._seen.missing(known)

    # --- ending ----------------------------------------------------------------------------

    async def _cancel(self, process: Process) -> None:
        known = self._pick()
        if known is None:
            return
        before = self._seen.asks(known)
        self._watch.trace(f"{self.caller} cancels {known.tag}")
        asked = self._ask(process, "POST", f"/v1/responses/{known.id}/cancel")
        status = await asked.start()
        late = self._watch.loop.time() - before.at > CANCEL_SECONDS
        if late and not self._scene.troubled_since(before.at):
            self._watch.violate(f"the cancel of {known.tag} was answered late")
        if status == 200:
            self._cancelled(known, json.loads(await asked.body()), before.rank)
        elif status == 400:
            self._watch.count("cancel came too late")
            await asked.body()
            known.rank = 2
        elif await self._error(asked, "cancel") == "404":
            self._seen.missing(known)

    def _cancelled(self, known: Known, response: dict[str, object], rank: int) -> None:
        self._watch.count(("cancelled waiting", "cancelled running", "cancelled again")[rank])
        if response["status"] != "cancelled" or response["output"] or response["error"]:
            self._watch.violate(f"the cancelled {known.tag} says {response['status']}")
        self._seen.finished(known, response)
        self._stopped(known, "its cancel")

    def _stopped(self, known: Known, why: str) -> None:
        self._seen.stop(known, f"{why} was answered")
        if any(call.open for call in self._watch.upstream.calls.get(known.tag, ())):
            self._watch.violate(f"{why} was answered while the call of {known.tag} was open")

    async def _delete(self, process: Process) -> None:
        known = self._pick()
        if known is None:
            return
        gone, known.deleting = known.deleted, True
        self._watch.trace(f"{self.caller} deletes {known.tag}")
        asked = self._ask(process, "DELETE", f"/v1/responses/{known.id}")
        if await asked.start() == 200:
            if gone:
                self._watch.violate(f"{known.tag} was deleted twice")
            self._watch.count(f"deleted {'ended' if known.rank == 2 else 'unfinished'}")
            known.deleted = True
            self._stopped(known, "its deletion")
        else:
            await self._error(asked, "delete")

    # --- what must not work ----------------------------------------------------------------

    async def _look_at_foreign(self, process: Process) -> None:
        others = [caller for caller in self._scene.plan.callers if caller != self.caller]
        known = self._pick(self._chance.choice(others)) if others else None
        if known is None:
            return
        method, rest = self._chance.choice(
            (("GET", ""), ("GET", "?stream=true"), ("POST", "/cancel"), ("DELETE", ""))
        )
        asked = self._ask(process, method, f"/v1/responses/{known.id}{rest}")
        status = await asked.start()
        if status == 200:
            self._watch.violate(f"{self.caller} was let in to a run of {known.caller}")
            return asked.leave()
        if status != 404:
            code = await self._error(asked, "foreign")
            if code not in ("401", "passing"):
                self._watch.violate(f"{self.caller} got {code} for a run of {known.caller}")
        return None

    async def _error(self, asked: Conversation, what: str) -> str:
        """A refusal, which must be one that has a cause; its code, "404" or "401" or "passing"."""
        status = await asked.start()
        said = json.loads(await asked.body())["error"]
        code = said["code"] or ""
        self._watch.trace(f"{self.caller}: {what} gives {status} {code}")
        if status in (429, 503) and "retry-after" not in asked.headers:
            self._watch.violate(f"a {status} without Retry-After")
        if (status, code) in _PASSING:
            self._watch.count(f"refused: {code}")
            return code if what == "create" else "passing"
        if status == 401 and self._scene.revoked(self.caller):
            return "401"
        if status == 404 and what != "create":
            return "404"
        if (status, code) == (429, "queue_full") or code.startswith("idempotency_key_"):
            self._watch.count(f"refused: {code}")
            return str(code)
        self._watch.violate(f"{what} was answered with {status} {code}: {said['message']}")
        return str(status)
