"""What must hold when all trouble is over; what must hold at every moment is checked at once.

Seen from the clients' side wherever that can be: the database is asked only for what nobody can
ask the gateway (what is left of destroyed runs, and runs whose creator got no answer).
"""

import asyncio
import json
import random
import re
from typing import Any, Final

from handrail.core.retry import MAX_ATTEMPTS
from tests.simulation.clients import whole_frames
from tests.simulation.conversation import Conversation
from tests.simulation.plan import Plan, key_of
from tests.simulation.process import Process
from tests.simulation.seen import Known
from tests.simulation.watch import Watch

RECOVERED_SECONDS: Final = 35.0
"""After the last trouble: the longest wait of the recovery between two tries, and a little."""

_WORD: Final = re.compile(rb"run-\d+-\d\.\d")

READ_SECONDS: Final = 2.0
"""For the whole of a run that has ended; far less than a heartbeat."""

Json = dict[str, Any]


class Judge:
    """Holds a finished simulation against the invariants."""

    def __init__(self, watch: Watch, plan: Plan, process: Process) -> None:
        self._watch = watch
        self._seen = watch.seen
        self._plan = plan
        self._process = process

    async def settled(self) -> bool:
        """Wait until every run is terminal; how long that may take follows from the limits.

        False when some are not: nothing further can be judged then.
        """
        await asyncio.sleep(RECOVERED_SECONDS)
        owner = self._process.parts.owner
        query = f"select id from runs where owner is not null and owner <> '{owner}'"
        abandoned = self._watch.disk.rows(query)
        if abandoned:
            self._watch.violate(f"{len(abandoned)} runs of a dead process were never taken over")
        unfinished = self._unfinished()
        attempts = MAX_ATTEMPTS if self._plan.retrying else 1
        each = attempts * (self._plan.settings.max_run_seconds + 5.0)
        bound = (len(unfinished) + 1) * each
        deadline = self._watch.loop.time() + bound
        while (left := self._unfinished()) and self._watch.loop.time() < deadline:
            await asyncio.sleep(1.0)
        if left:
            self._watch.violate(f"{len(left)} runs did not end within {bound:.0f} s")
        return not left

    def _unfinished(self) -> list[str]:
        query = "select id from runs where state in ('queued', 'in_progress')"
        return [row[0] for row in self._watch.disk.rows(query)]

    def at_rest(self) -> None:
        """With nothing to do, nothing may be held."""
        parts = self._process.parts
        if parts.executor.running:
            self._watch.violate(f"the executor still counts {parts.executor.running} runs")
        if parts.tails._live:
            self._watch.violate(f"{len(parts.tails._live)} followed runs have no reader")
        for call in self._watch.upstream.open_calls():
            self._watch.violate(f"the upstream call of {call.tag} was never closed")

    async def every_run(self, chance: random.Random) -> None:
        """Every accepted run, read again from the first byte to the last."""
        for known in list(self._seen.runs.values()):
            await self._one(known, chance)
        for (run_id,) in self._watch.disk.rows("select id from runs"):
            if run_id not in self._seen.runs:
                self._watch.count("accepted, and its client never learned of it")

    async def _one(self, known: Known, chance: random.Random) -> None:
        path = f"/v1/responses/{known.id}"
        asked = self._ask(known.caller, path)
        if await asked.start() != 200:
            return self._seen.missing(known)
        if known.deleted:
            self._watch.violate(f"{known.tag} is there after its deletion")
        response = json.loads(await asked.body())
        self._seen.observed(known, response, self._seen.asks(known))
        if self._seen.may_be_over(known, within=1.0):
            return None  # it may go while it is read
        frames = await self._frames(known, f"{path}?stream=true")
        for number, frame in enumerate(frames):
            self._seen.event(known, number, frame)
        if known.last != len(frames) - 1:
            self._watch.violate(f"{known.tag}: {len(frames)} events, the end is {known.last}")
        if known.frames and max(known.frames) >= len(frames):
            self._watch.violate(f"{known.tag}: event {max(known.frames)} was shown and is gone")
        for _ in range(2):
            cursor = chance.randint(0, len(frames) + 1)
            rest = await self._frames(known, f"{path}?stream=true&starting_after={cursor}")
            if rest != frames[cursor + 1 :]:
                self._watch.violate(f"{known.tag}: resumed after {cursor}, got {len(rest)} events")
        self._check_output(known, response, frames)
        self._watch.count(f"ended {cause_of(response)}")
        return None

    async def _frames(self, known: Known, path: str) -> list[bytes]:
        began = self._watch.loop.time()
        asked = self._ask(known.caller, path)
        if await asked.start() != 200:
            self._watch.violate(f"{known.tag} cannot be streamed: {asked.status}")
            return []
        frames, rest = whole_frames(await asked.body())
        if self._watch.loop.time() - began > READ_SECONDS:
            self._watch.violate(f"{known.tag}: reading what is all there made its reader wait")
        if rest:
            self._watch.violate(f"{known.tag}: half an event at the end of a stream")
        return frames

    def _ask(self, caller: str, path: str) -> Conversation:
        return self._process.ask("GET", path, key=key_of(caller))

    # --- against what the upstream sent (I5) -----------------------------------------------

    def _check_output(self, known: Known, response: Json, frames: list[bytes]) -> None:
        calls = self._watch.upstream.calls.get(known.tag, [])
        status, got = response["status"], "".join(map(_text, response["output"]))
        if status == "completed":
            answer = calls[-1].answer if calls else None
            if answer is None or answer.end != "completed" or answer.text != got:
                self._watch.violate(f"{known.tag} is completed with {got[:40]!r}")
            if not response["usage"]:
                self._watch.violate(f"{known.tag} is completed without usage")
            streamed = "".join(map(_delta, frames))
            if answer is not None and answer.head == "stream" and streamed != got:
                self._watch.violate(f"{known.tag}: its events say something else than its output")
        elif got:
            sent = [call.answer.text for call in calls]
            if not any(text.startswith(got) or got.startswith(text) for text in sent):
                self._watch.violate(f"{known.tag} ended with what nobody sent: {got[:40]!r}")
        if status == "cancelled" and (response["output"] or response["error"]):
            self._watch.violate(f"{known.tag} is cancelled and has output or error")
        if calls and calls[-1].answer.end == "completed" and calls[-1].heard == "whole":
            self._check_whole(known, status)

    def _check_whole(self, known: Known, status: str) -> None:
        if status not in ("completed", "cancelled", "failed"):
            self._watch.violate(f"{known.tag} is {status}, and its upstream answered whole")

    # --- what is left ----------------------------------------------------------------------

    def nothing_left(self) -> None:
        """After every retention is over and the sweep has been."""
        for table in ("runs", "segments", "items", "idempotency"):
            [[count]] = self._watch.disk.rows(f"select count(*) from {table}")
            if count:
                self._watch.violate(f"{count} rows are left in {table}")

    def nothing_readable(self) -> None:
        """What the database holds of outputs is sealed."""
        if _WORD.search(self._watch.disk.connection.serialize()):
            self._watch.violate("an output can be read in the database")

    def nothing_of_destroyed(self) -> None:
        """A deleted run has no row."""
        for known in self._seen.runs.values():
            if known.deleted:
                for table, column in (("runs", "id"), ("segments", "run_id"), ("items", "run_id")):
                    query = f"select 1 from {table} where {column} = '{known.id}'"
                    if self._watch.disk.rows(query):
                        self._watch.violate(f"the deleted {known.tag} has rows in {table}")


def cause_of(response: Json) -> str:
    """How a run ended: its status, and for a failed one the cause."""
    error = response["error"]
    return f"{response['status']} {error['type']}" if error else str(response["status"])


def _text(item: Json) -> str:
    parts = item.get("content") or item.get("summary") or []
    return "".join(part.get("text", "") for part in parts) + str(item.get("arguments", ""))


def _delta(frame: bytes) -> str:
    if b".delta\ndata: " not in frame:
        return ""
    return str(json.loads(frame.partition(b"\ndata: ")[2]).get("delta", ""))
