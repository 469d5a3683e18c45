"""The promises, held against what the gateway says over its API and what the upstream has seen.

I1  every id that was ever answered is there until it is deleted or its time is over, and then not;
I2  its events are numbered from 0 without gap or repeat, and the same bytes for every reader;
I3  there is one terminal event, last, and it says what polling says;
I4  no end changes (`Journal.shown` sees to it at every reply);
I5  what is completed is whole, what is partial is a part of one answer;
I6  `starting_after=k` gives exactly what comes after k;
I7  no second upstream call, and none after a cancel was answered.
"""

import json
import random
from dataclasses import dataclass, field
from typing import Any, Final

from tests.crash.calls import Calls
from tests.crash.client import Clients
from tests.crash.journal import (
    TERMINAL,
    Journal,
    Piece,
    Run,
    digest,
    frames_of,
    is_closing,
    number_of,
)
from tests.crash.orders import Json, calls_in, unlike

CLOSE_SECONDS: Final = 1.0
# What was sent just before is seen by the upstream when that gets its turn on the processor; and
# who polls may see the end a moment before the call is closed.
ON_ITS_WAY_SECONDS: Final = 0.1
CURSORS: Final = 2


@dataclass(slots=True)
class Checked:
    """What the checks went through. `closed` are the seconds from each cancel to the end of its
    upstream call, where that was open.
    """

    runs: int = 0
    bytes_compared: int = 0
    resumes: int = 0
    closed: list[float] = field(default_factory=list)


class Checks:
    """Every check of one run, and a shorter one for later."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.checked = Checked()

    async def first(
        self, run: Run, clients: Clients, *, calls: Calls, chance: random.Random
    ) -> None:
        """All of them, on a run that should have ended; what was read of it is let go then."""
        self.checked.runs += 1
        self._calls(run, calls.of_run(run))
        body = await clients.poll(run)
        if body is None or run.gone:
            await self._stays_gone(run, clients)
        elif run.remote:
            pass  # what it says is the upstream's
        elif body["status"] not in TERMINAL:
            self._journal.wrong(run, f"still {body['status']}")
        else:
            log = await clients.bytes_after(run, -1)
            if not await self._over(run, clients):
                self._log(run, log, body=body, calls=calls.of_run(run))
                await self._resumes(run, clients, frames=frames_of(log), chance=chance)
        run.pieces = []

    async def again(self, run: Run, clients: Clients) -> None:
        """The same object and the same bytes as at first. Raises Broken."""
        if run.remote:
            return
        before = run.log_digest
        body = await clients.poll(run)
        if body is None:
            await self._stays_gone(run, clients)
            return
        if run.kept_seconds is None or not run.gone:
            log = await clients.bytes_after(run, -1)
            if await self._over(run, clients):
                return
            self.checked.bytes_compared += len(log)
            if before and digest(frames_of(log)) != before:
                self._journal.wrong(run, "its events are other bytes than before")

    async def _over(self, run: Run, clients: Clients) -> bool:
        # A stream of a run whose retention ends while it is opened may be an empty one.
        if run.kept_seconds is not None and not run.gone:
            await clients.poll(run)
        return run.gone

    async def _stays_gone(self, run: Run, clients: Clients) -> None:
        if await clients.bytes_after(run, -1):
            self._journal.wrong(run, "its events can be read although it is gone")

    # --- I2, I3, I5 ------------------------------------------------------------------------

    def _log(self, run: Run, log: bytes, *, body: Any, calls: list[Json]) -> None:
        frames = frames_of(log)
        run.log_digest = digest(frames)
        wrong = self._journal.wrong
        if [number_of(frame) for frame in frames] != list(range(len(frames))):
            wrong(run, "numbers with a gap or a repeat")
        ends = [frame for frame in frames if is_closing(frame)]
        if len(ends) != 1 or frames[-1] != ends[0]:
            wrong(run, f"{len(ends)} terminal events, or one that is not the last")
        elif json.loads(ends[0].partition(b"\ndata: ")[2])["response"] != body:
            wrong(run, "the terminal event says otherwise than the poll")
        for piece in run.pieces:
            self._piece(run, piece, frames)
        self._content(run, body, log=log, calls=calls)
        self._end(run, body)

    def _piece(self, run: Run, piece: Piece, frames: list[bytes]) -> None:
        read = frames_of(bytes(piece.data))
        self.checked.bytes_compared += len(piece.data)
        first = piece.after + 1
        if frames[first : first + len(read)] != read:
            self._journal.wrong(run, f"other bytes after {piece.after} than were read before")
        if piece.ended and first + len(read) < len(frames):
            self._journal.wrong(run, f"a stream after {piece.after} ended too early")

    def _content(self, run: Run, body: Any, *, log: bytes, calls: list[Json]) -> None:
        numbers = calls_in(log)
        last = {calls[-1]["number"]} if calls else set()
        if not numbers <= last:
            self._journal.wrong(run, f"content of the calls {numbers}, and the last was {last}")
        whole = body["status"] == "completed"
        if whole and (not body["output"] or not body["usage"] or not numbers):
            self._journal.wrong(run, "completed without output or usage")
        if body["status"] == "cancelled":
            problem = "cancelled with output" if body["output"] or body["error"] else None
        else:
            number = min(numbers, default=0)
            problem = unlike(run.order, body["output"], number=number, whole=whole)
        if problem:
            self._journal.wrong(run, f"{body['status']}: {problem}")

    def _end(self, run: Run, body: Any) -> None:
        status, cause = body["status"], (body["error"] or {}).get("type")
        kind = run.order.kind
        allowed = status == kind.end and cause == kind.cause
        allowed = allowed or (status == "cancelled" and run.may_be_cancelled)
        allowed = allowed or (status == "failed" and cause == "worker_lost" and run.faults > 0)
        if not allowed:
            self._journal.wrong(run, f"ended {status} ({cause}), which nothing explains")

    # --- I6 --------------------------------------------------------------------------------

    async def _resumes(
        self, run: Run, clients: Clients, *, frames: list[bytes], chance: random.Random
    ) -> None:
        for _ in range(CURSORS):
            after = chance.randint(-1, len(frames))
            rest = await clients.bytes_after(run, after)
            if await self._over(run, clients):
                return
            self.checked.resumes += 1
            if frames_of(rest) != frames[after + 1 :]:
                self._journal.wrong(run, f"starting_after={after} gives something else")

    # --- I7 --------------------------------------------------------------------------------

    def _calls(self, run: Run, calls: list[Json]) -> None:
        if len(calls) > run.calls_allowed:
            self._journal.wrong(run, f"{len(calls)} upstream calls, {run.calls_allowed} allowed")
        paid = sum(call["how"] != "refused" for call in calls)
        if paid > run.attempts_allowed:
            self._journal.wrong(run, f"its answer was paid for {paid} times")
        if run.stopped_at is None or run.remote:
            return
        for call in calls:
            late = call["began"] - run.stopped_at
            if late > ON_ITS_WAY_SECONDS:
                self._journal.wrong(run, f"a call {late:.3f} s after its cancel: {call}")
            if call["ended"] is None:
                self._journal.wrong(run, "its upstream call is open after its cancel was answered")
            else:
                late = call["ended"] - run.stopped_at
                if call["how"] == "left" and run.stop_asked_at:
                    self.checked.closed.append(call["ended"] - run.stop_asked_at)
                if late > CLOSE_SECONDS:
                    self._journal.wrong(run, f"its upstream call was closed {late:.1f} s late")
