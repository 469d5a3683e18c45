"""What clients were told: every reply that was seen is a promise that is held from then on."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from tests.acceptance.processes import monotonic
from tests.crash.orders import Order

TERMINAL: Final = ("completed", "failed", "incomplete", "cancelled")
RANK: Final = {"queued": 0, "in_progress": 1, **dict.fromkeys(TERMINAL, 2)}
CLOSING: Final = ("response.completed", "response.failed", "response.incomplete")


@dataclass(slots=True)
class Piece:
    """What one stream of a run gave: the bytes after number `after`.

    `ended` by the gateway, with an end; or `left` by its reader.
    """

    after: int
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    left: bool = False

    def whole(self) -> bytes:
        """The events that came whole; comments are no events."""
        frames = self.data.split(b"\n\n")[:-1]
        return b"".join(bytes(f) + b"\n\n" for f in frames if not f.startswith(b":"))

    @property
    def last(self) -> int:
        """The number of the last whole event."""
        return self.after + self.whole().count(b"\n\n")


@dataclass(slots=True, eq=False)
class Run:
    """One create of one client, and all that was ever said about it.

    `rank` is how far it was seen to be, `status` the end that it was seen to have, first at
    `ended_at`, `final` stands for the whole object then. `gone` means that it was seen to be
    deleted or expired, `doomed` that a deletion was asked for; `stopped_at` is when a reply said
    that it is cancelled or deleted. `faults` counts the faults that it lived through.
    """

    tag: str
    caller: str
    order: Order
    body: bytes
    asked_at: float
    key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    streamed: bool = False
    remote: bool = False
    foreground: bool = False
    attempts_allowed: int = 1
    kept_seconds: float | None = None
    id: str | None = None
    accepted_at: float = 0.0
    rank: int = -1
    status: str = ""
    ended_at: float = 0.0
    final: bytes = b""
    pieces: list[Piece] = field(default_factory=list)
    cancel_asked: bool = False
    stop_asked_at: float = 0.0
    stopped_at: float | None = None
    doomed: bool = False
    gone: bool = False
    expired: bool = False
    faults: int = 0
    lost_cancel: bool = False
    log_digest: bytes = b""

    @property
    def may_be_cancelled(self) -> bool:
        """Whether somebody asked for its end, or has left what may end with its reader."""
        left = self.foreground and any(piece.left for piece in self.pieces)
        return self.cancel_asked or self.doomed or left

    @property
    def calls_allowed(self) -> int:
        """The most upstream calls that its crash policy and the upstream's refusals explain."""
        return self.attempts_allowed + self.order.kind.refusals

    @property
    def cut(self) -> Piece | None:
        """The stream of it that broke last, if none came to its end."""
        if any(piece.ended for piece in self.pieces):
            return None
        return self.pieces[-1] if self.pieces else None


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise, and in which cycle it showed."""

    cycle: int
    what: str


class Journal:
    """All runs, and what was found wrong."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.by_key: dict[str, Run] = {}
        self.unanswered: list[Run] = []
        self.violations: list[Violation] = []
        self.cycle = 0
        self.refused = 0
        self.foreground = 0

    def wrong(self, run: Run | None, what: str) -> None:
        """A promise is broken."""
        about = f"{run.id} ({run.tag}, {run.order.kind.name}, {run.caller}): " if run else ""
        self.violations.append(Violation(self.cycle, about + what))
        print(f"BROKEN in cycle {self.cycle}: {about}{what}", file=sys.stderr)

    def accepted(self, run: Run, response_id: str) -> None:
        """A create was answered with this id, perhaps once more."""
        if run.id is None:
            run.id = response_id
            run.accepted_at = monotonic()
            self.runs.append(run)
        elif run.id != response_id:
            self.wrong(run, f"the same create gave another id, {response_id}")

    def shown(self, run: Run, data: bytes, *, since: int) -> None:
        """The object of a run was shown to somebody who asked when it had the rank `since`."""
        body: Any = json.loads(data)
        status = body["status"]
        if body["id"] != run.id:
            self.wrong(run, f"the object of another run, {body['id']}")
        if RANK[status] < since:
            self.wrong(run, f"{status} after it had been further")
        run.rank = max(run.rank, RANK[status])
        if status not in TERMINAL:
            return
        if status == "cancelled":
            run.stopped_at = run.stopped_at or monotonic()
        if status == "cancelled" and run.lost_cancel:
            self.wrong(run, "cancelled after a cancel had been told that it came too late")
        final = digest([data])
        if not run.final:
            run.status, run.final, run.ended_at = status, final, monotonic()
        elif run.final != final:
            self.wrong(run, f"its end changed from {run.status} to {data[-300:]!r}")

    def too_late(self, run: Run) -> None:
        """A cancel was told that the run had ended otherwise: so it must stay."""
        run.rank, run.lost_cancel = 2, True
        if run.status == "cancelled":
            self.wrong(run, "a cancel of what is cancelled was refused")

    def unknown(self, run: Run) -> None:
        """Somebody was told that there is no such run."""
        if run.doomed:
            run.gone = True
        elif run.kept_seconds is not None and self._may_be_over(run):
            run.gone = run.expired = True
        else:
            self.wrong(run, "lost: the gateway does not know it")

    def _may_be_over(self, run: Run) -> bool:
        return monotonic() - run.accepted_at >= (run.kept_seconds or 0.0)

    def known(self, run: Run, *, was_gone: bool) -> None:
        """Somebody was given something of this run."""
        if was_gone:
            self.wrong(run, "came back after it had been deleted or had expired")


def number_of(frame: bytes) -> int:
    """The sequence number of an event."""
    number: int = json.loads(frame.partition(b"\ndata: ")[2])["sequence_number"]
    return number


def frames_of(log: bytes) -> list[bytes]:
    """The events in the bytes of a stream, comments left out."""
    return [frame + b"\n\n" for frame in log.split(b"\n\n")[:-1] if not frame.startswith(b":")]


def is_closing(frame: bytes) -> bool:
    """Whether an event is a terminal one."""
    return frame.partition(b"\n")[0].removeprefix(b"event: ").decode() in CLOSING


def digest(parts: Iterable[bytes]) -> bytes:
    """What stands for bytes that need not be kept."""
    whole = sha256()
    for part in parts:
        whole.update(part)
    return whole.digest()
