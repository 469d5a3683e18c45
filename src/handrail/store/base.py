"""The store as the engine sees it: a port and frozen rows.

Written so that SQLite and PostgreSQL can both do it: every method is one transaction, writes of a
run under way are conditional on its fence, and the state moves only by `core.lifecycle`.

Times are the wall clock's, and say when something was. How long something is kept is told in
seconds, which count from the moment of the write by the time that passes: a wall clock that jumps
destroys nothing, whenever it does.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from handrail.core.admission import Limits
from handrail.core.caller_policy import Priority
from handrail.core.lifecycle import State
from handrail.core.retry import Cause
from handrail.errors import StoreFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Consecutive events of one run: numbers `first` to `last`, their SSE frames in that order."""

    first: int
    frames: tuple[bytes, ...]

    @property
    def last(self) -> int:
        """The number of the last frame."""
        return self.first + len(self.frames) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """What makes a create the same as an earlier one: its key, and a digest of its body.

    `kept_seconds` is how long the key is known at least.
    """

    key: str
    digest: bytes
    kept_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resend:
    """What tells a blind repeat of a create: a digest of its body, and whether this is one.

    `kept_seconds` is how long the create is recognised when it comes again.
    """

    digest: bytes
    again: bool
    kept_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be accepted. `plan`, `request` and `response` are JSON; times in unix seconds.

    `response` is the response object as it is before anything happened, `opening` the first
    events, `items` the ids of the input items that a later `item_reference` may name. `previous` is
    the response that this one goes on from, kept here or by an upstream.
    """

    id: str
    caller: str
    created_at: float
    target: str
    plan: bytes
    request: bytes
    response: bytes
    opening: Segment
    items: tuple[str, ...] = ()
    repeat: Repeat | None = None
    previous: str | None = None
    resend: Resend | None = None
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as it is. `fence` is the number that a write must carry to be let in.

    `response` is the opening object until the end, then the final one. `attempt` counts attempts,
    0 before the first was sent; `calls` counts upstream calls. `previous` is the response that it
    goes on from. Times in unix seconds, None where it has not happened.
    """

    id: str
    caller: str
    state: State
    created_at: float
    target: str
    plan: bytes
    request: bytes
    response: bytes
    attempt: int
    fence: int
    calls: int
    last_seq: int
    sent_at: float | None
    finished_at: float | None
    previous: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A run without anything of its content. Times in unix seconds, None where not yet.

    `attempts` were sent, in `calls` upstream calls. `state` is None where that is damaged.
    """

    id: str
    caller: str
    state: State | None
    created_at: float
    sent_at: float | None
    finished_at: float | None
    target: str
    attempts: int
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a caller has here: runs that wait, that hold a slot, that are kept in all; and bytes."""

    caller: str
    waiting: int
    running: int
    kept: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One upstream call of a run, counted from 1: in which attempt, why, and when (unix seconds).

    A call is written down before it is sent, so one that is here may still have failed to leave.
    """

    number: int
    attempt: int
    cause: Cause
    sent_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """The end of a run: its final state and object, and the events not yet appended.

    The last frame of `segment` is the terminal event. `items` are output item ids. `kept_seconds`
    is how long the run is kept from now on, `finished_at` a wall clock's time.
    """

    state: State
    response: bytes
    segment: Segment
    finished_at: float
    kept_seconds: float
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Part of a run's events, from the asked number on. `state` and `last_seq` are of that moment.

    `frames` is empty when there is nothing after the asked number; a slice ends early at a size
    bound, so a reader asks again until it reaches `last_seq`.
    """

    frames: tuple[bytes, ...]
    state: State
    last_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A response that an upstream runs and keeps: whose it is and where; made in unix seconds.

    `account` is the id of the one that it was made with, None for the settings' own credential.
    """

    id: str
    caller: str
    target: str
    created_at: float
    account: str | None = None


Visit = Callable[[Run], None]
"""Looks at one run of a chain; what it raises ends the walk."""

Close = Callable[[Run, Sequence[bytes]], Closing | None]
"""Builds the end of a run from its row and its stored frames; None leaves the run as it is."""


class Store(Protocol):
    """Where runs are kept. Every method raises StoreFailed when the store cannot do its work."""

    @property
    def broken(self) -> StoreFailed | None:
        """Why nothing can be written any more before the next start; None while all is well."""

    async def accept(self, run: NewRun, *, limits: Limits) -> str:
        """Keep a new run, durably, before returning; the id of the run that stands.

        That is an earlier one if the same create was made under the same key, or if this is a
        blind repeat of one that was not answered: of several that were not, the one that has been
        given out least. Raises RequestRejected for a full queue, for a key that stands for another
        body, for one whose run is no longer there, and when `previous` is gone.
        """

    async def answered(self, notes: Mapping[str, bool]) -> None:
        """Whether the creates of these runs got their reply; until told, they did not."""

    async def keep(self, run: NewRun, *, owner: str) -> Run:
        """Keep a run that its maker carries out itself, durably, and under way from the start.

        It waits in no queue and takes none of the slots that `claim` hands out. Raises
        RequestRejected when `previous` is gone.
        """

    async def claim(self, *, owner: str, limits: Limits) -> Run | None:
        """Hand the next waiting run to `owner` under a new fence; None when nobody may start.

        That is a queued run, or one `in_progress` that was put back to have a new attempt.
        """

    async def begin(self, run_id: str, fence: int, *, now: float, segment: Segment) -> bool:
        """Record that the first upstream call is about to be sent; the run is `in_progress`.

        False when the fence is no longer valid; nothing may be sent then.
        """

    async def call_again(self, run_id: str, fence: int, *, now: float, cause: Cause) -> bool:
        """Record one more upstream call of the attempt that is under way. False when fenced."""

    async def begin_again(self, run_id: str, fence: int, *, now: float, cause: Cause) -> int | None:
        """Record that the first call of a new attempt is about to be sent; its fence.

        The old fence is used up, so that nothing of the attempt before can be written any more.
        None when fenced, and when an event of an answer is in the log: nothing may be sent then.
        """

    async def append(self, run_id: str, fence: int, segment: Segment) -> bool:
        """Add events, durably, before returning. False when fenced; nothing was written then."""

    async def release(self, run_id: str, fence: int) -> bool:
        """Put a claimed run back into the queue; its state stays what it is.

        False when fenced, and when an event of an answer is in its log.
        """

    async def finish(self, run_id: str, fence: int, closing: Closing) -> bool:
        """End a run. False when fenced; nothing was written then."""

    async def conclude(
        self, run_id: str, *, caller: str | None, close: Close, events: bool = False
    ) -> Run | None:
        """End a run from outside its execution, atomically against it, and give the row after.

        `close` sees the row (and with `events` its frames) inside the transaction. A new fence
        shuts the execution out. None when there is no such run of `caller` (None: of anyone).
        """

    async def get(self, run_id: str, *, caller: str) -> Run | None:
        """One run of `caller`; None when there is none or its retention is over.

        It is not over, in any method here, while a run that goes on from it is kept.
        """

    async def calls(self, run_id: str, *, caller: str) -> Sequence[Call]:
        """The upstream calls of a run, in their order; none where `get` gives none."""

    async def read(self, run_id: str, *, after: int, caller: str) -> Slice | None:
        """Events after number `after`; None as for `get`."""

    async def ancestry(self, run_id: str, *, caller: str, visit: Visit) -> str | None:
        """Show `visit` a run of `caller`, then the one that it goes on from, back to the first.

        All as of one moment, one run at a time in memory. The id that leads to no run, None when
        every link holds.
        """

    async def delete(self, run_id: str, *, caller: str) -> bool:
        """Destroy a run and everything kept of it, also when its retention has just ended.

        False when there was none.
        """

    async def find_items(self, caller: str, ids: Collection[str]) -> Mapping[str, bytes]:
        """The kept items of `caller` that have one of these ids, as JSON."""

    async def abandoned(self, *, owner: str) -> Sequence[str]:
        """The runs that someone other than `owner` has claimed and not ended."""

    async def requeue(self, run_id: str) -> None:
        """The same, whoever owned it."""

    async def unfinished_of_others(self, callers: Collection[str]) -> Sequence[str]:
        """The unfinished runs of callers that are not among `callers`."""

    async def sweep(self, *, limit: int) -> int:
        """Destroy up to `limit` runs whose retention is over, and say how many.

        One that another goes on from stays until that one's retention is over too. Forgets the
        remotes whose time is over as well.
        """

    async def remember(self, remote: Remote, *, kept_seconds: float) -> bool:
        """Keep where a response is, durably, before returning, for so long.

        False when the id is another caller's, or another upstream's; nothing was written then.
        """

    async def locate(self, response_id: str, *, caller: str) -> Remote | None:
        """Where a response of `caller` is; None when it is not known."""

    async def forget(self, response_id: str, *, caller: str) -> None:
        """The upstream no longer has this response."""

    async def outlines(self, *, after: str | None, limit: int) -> Sequence[Outline] | None:
        """Runs of all callers, the newest first, those that came before run `after`.

        None when there is no such run any more.
        """

    async def shares(self) -> Sequence[Share]:
        """What every caller has, by name; nobody who has nothing."""

    async def counts(self) -> Mapping[str, int]:
        """How many runs are `waiting`, and how many `running` hold a slot."""

    async def close(self) -> None:
        """Finish what was handed in and let go of the files."""
