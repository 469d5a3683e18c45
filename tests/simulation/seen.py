"""Everything that clients were ever told, and what later answers may therefore not say."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.simulation.clock import Wall

Json = dict[str, Any]

RANKS: Final = {"queued": 0, "in_progress": 1}
FINAL: Final = 2
KEY_SECONDS: Final = 86_400

_OPENING: Final = ("response.created", "response.queued", "response.in_progress")
_CLOSING: Final = {
    "response.completed": ("completed",),
    "response.incomplete": ("incomplete",),
    "response.failed": ("failed", "cancelled"),
}


@dataclass(eq=False)
class Known:
    """One accepted run, as its clients know it. Times are the loop's, retention is in seconds."""

    id: str
    tag: str
    caller: str
    retention: float
    accepted_at: float
    unfinished_at: float
    process: int
    frames: dict[int, bytes] = field(default_factory=dict)
    rank: int = 0
    final: Json | None = None
    last: int | None = None  # number of the terminal event
    made: bool = False  # whether the create that made it was answered
    deleting: bool = False
    deleted: bool = False


@dataclass(frozen=True)
class Asked:
    """What was known when a question was asked: an answer may not go back behind it."""

    rank: int
    deleted: bool
    at: float


class Seen:
    """The clients' journal. Every method checks what it is told against what was told before."""

    def __init__(
        self, wall: Wall, time: Callable[[], float], violate: Callable[[str], None]
    ) -> None:
        self._wall = wall
        self._time = time
        self._violate = violate
        self.runs: dict[str, Known] = {}
        self.by_tag: dict[str, Known] = {}
        self.caller_of: dict[str, str] = {}
        self.stopped: dict[str, str] = {}
        self.refused: set[str] = set()
        self.ordered_at: dict[str, float] = {}
        self._renewable: set[str] = set()

    def orders(self, tag: str, caller: str) -> None:
        """A create is about to be sent for the first time."""
        self.caller_of[tag] = caller
        self.ordered_at[tag] = self._time()

    def accepted(
        self, run_id: str, *, tag: str, retention: float, process: int, at: float
    ) -> Known:
        """A create, sent at the loop's time `at`, was answered.

        The same create may only be answered with the same run.
        """
        known = self.runs.get(run_id)
        if known is not None:
            if known.tag != tag:
                self._violate(f"two creates, {known.tag} and {tag}, were given one run")
            return known
        began = self.ordered_at[tag]  # an answer that was lost may have been about it already
        known = Known(run_id, tag, self.caller_of[tag], retention, at, began, process)
        # Only after its run and its key are both gone does a key mean something new.
        if self.may_be_new(tag):
            self.stopped.pop(tag, None)
        elif tag in self.by_tag:
            self._violate(f"one create, {tag}, has made two runs")
        self.runs[run_id] = self.by_tag[tag] = known
        return known

    def asks(self, known: Known | None) -> Asked:
        """Somebody is about to ask about a run; None: about one that may not be."""
        if known is None:
            return Asked(0, False, self._time())
        return Asked(known.rank, known.deleted, self._time())

    # --- answers ---------------------------------------------------------------------------

    def observed(self, known: Known, response: Json, asked: Asked) -> None:
        """A response object was read."""
        status = response["status"]
        rank = RANKS.get(status, FINAL)
        if asked.deleted:
            self._violate(f"{known.tag} was read after it was deleted")
        if response["id"] != known.id:
            self._violate(f"{known.tag} was answered with another's object")
        if rank < asked.rank:
            self._violate(f"{known.tag} went back to {status}")
        if rank == FINAL:
            self.finished(known, response)
        else:
            known.unfinished_at = max(known.unfinished_at, asked.at)
        known.rank = max(known.rank, rank)

    def finished(self, known: Known, response: Json) -> None:
        """A final object was read, from a poll or inside the terminal event."""
        known.rank = FINAL
        if known.final is None:
            known.final = response
        elif known.final != response:
            before, after = known.final["status"], response["status"]
            self._violate(f"{known.tag} ended as {before}, and then otherwise, as {after}")

    def event(self, known: Known, number: int, frame: bytes) -> str:
        """The event that should have this number was read; its type."""
        before = known.frames.setdefault(number, frame)
        if before != frame:
            self._violate(f"{known.tag}: event {number} has changed")
        event = json.loads(frame.partition(b"\ndata: ")[2])
        kind: str = event["type"]
        if event["sequence_number"] != number:
            self._violate(f"{known.tag}: {event['sequence_number']} came in the place of {number}")
        if not frame.startswith(f"event: {kind}\n".encode()):
            self._violate(f"{known.tag}: event {number} is not what its line says")
        if kind in _CLOSING:
            self._closing(known, number, event["response"], kind)
        elif (kind in _OPENING) != (number <= 2) or (number <= 2 and kind != _OPENING[number]):
            self._violate(f"{known.tag}: {kind} has the number {number}")
        elif number == 2:
            known.rank = max(known.rank, 1)
        if known.last is not None and number > known.last:
            self._violate(f"{known.tag}: event {number} comes after the end")
        return kind

    def _closing(self, known: Known, number: int, response: Json, kind: str) -> None:
        if response["status"] not in _CLOSING[kind]:
            self._violate(f"{known.tag}: {kind} says {response['status']}")
        if known.last not in (None, number):
            self._violate(f"{known.tag} has two terminal events")
        known.last = number
        self.finished(known, response)

    def missing(self, known: Known) -> None:
        """A run that had been accepted was not found."""
        if not (known.deleting or self.may_be_over(known)):
            self._violate(f"{known.tag}, an accepted run, was not found")

    # --- what may be over ------------------------------------------------------------------

    def may_be_over(self, known: Known, *, within: float = 0.0) -> bool:
        """Whether the retention may be over: it starts at the end.

        `within`: or may be so many seconds from now.
        """
        return self._wall.passed_at_most(known.unfinished_at) + within >= known.retention

    def key_may_be_over(self, known: Known) -> bool:
        """Whether the key of its create may be over."""
        return self._is_over(self.ordered_at[known.tag])

    def may_be_new(self, tag: str) -> bool:
        """Whether the key of a create, sent again, may rightly make, or have made, another run."""
        known = self.by_tag.get(tag)
        gone = known is None or known.deleting or self.may_be_over(known)
        if gone and self._is_over(self.ordered_at[tag]):
            self._renewable.add(tag)
        return tag in self._renewable

    def _is_over(self, ordered_at: float) -> bool:
        return self._wall.passed_at_most(ordered_at) >= KEY_SECONDS

    def stop(self, known: Known, why: str) -> None:
        """From now on no upstream call may be made for it."""
        self.stopped[known.tag] = why
