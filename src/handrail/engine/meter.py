"""What each upstream call has used, for whoever keeps account of it.

The dispatcher opens one meter a call. What reads the reply shows it the event or the object that
ends the response, which is all that is looked at; when the call is over, in whatever way, the
meter hands one record to a listener. Polls, resumes and other questions about a response have none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self

import msgspec

from handrail.core import affinity, events, wire
from handrail.core.events import Event, MalformedEvent
from handrail.core.lifecycle import State
from handrail.core.retry import Cause
from handrail.core.stream_limits import StreamLimit, limit_in
from handrail.core.usage import Usage, read_usage
from handrail.core.wire import Body
from handrail.engine.clock import Clock
from handrail.errors import UpstreamFailed, UpstreamRefused
from handrail.telemetry import get_logger

MAX_NAME: Final = 200
"""How much of a model's name is kept; callers may write anything there."""


class Outcome(StrEnum):
    """What became of an upstream call, judged by the event that ended its response.

    ACCEPTED: the upstream goes on by itself. REFUSED: it answered with an error status.
    UNREACHED: no request was handed over. LOST: it may have run, and its end never came. LEFT: we
    closed it before its end, because its caller left, cancelled, or the gateway stopped.
    """

    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNREACHED = "unreached"
    LOST = "lost"
    LEFT = "left"


_ENDED: Final[Mapping[State, Outcome]] = MappingProxyType(
    {
        State.COMPLETED: Outcome.COMPLETED,
        State.INCOMPLETE: Outcome.INCOMPLETE,
        State.FAILED: Outcome.FAILED,
        State.CANCELLED: Outcome.CANCELLED,
        State.QUEUED: Outcome.ACCEPTED,
        State.IN_PROGRESS: Outcome.ACCEPTED,
    }
)

_NEVER_RAN: Final = frozenset({Outcome.REFUSED, Outcome.UNREACHED})
_FREE_ENDPOINTS: Final = frozenset({"input_tokens"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Whom a call is charged to.

    `mode` is that of the plan. `response_id` names the run or the request that the call is made
    for: several calls may have one. `project` is the caller's own label, `account` the name of
    the account that the request demands, of `account_tags` it must have one if there are any.
    """

    caller: str
    mode: str
    response_id: str
    project: str | None = None
    account: str | None = None
    account_tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One upstream call that is over. Nothing of what was asked or answered is in it.

    `model` is the one that the caller named, `sent_models` are the names that the call went by,
    the last of them being what the upstream read. `endpoint` is the last part of the path.
    `status` is that of HTTP, None when no reply came. `usage` is None when none was told. `tier` is
    the service tier that the response names. `started_at` and `ended_at` are unix times, `seconds`
    comes from the monotonic clock. `limit` is the limit that ended a response which had begun.
    """

    attribution: Attribution
    target: str
    account: str | None
    model: str
    sent_models: tuple[str, ...]
    endpoint: str
    cause: Cause
    status: int | None
    outcome: Outcome
    usage: Usage | None
    tier: str | None
    started_at: float
    ended_at: float
    seconds: float
    limit: StreamLimit | None = None

    @property
    def counts(self) -> bool:
        """Whether it may have run, at an endpoint that costs something."""
        return self.outcome not in _NEVER_RAN and self.endpoint not in _FREE_ENDPOINTS


CallListener = Callable[[CallRecord], None]


def unheard(_: CallRecord) -> None:
    """A listener that keeps no account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallMade:
    """What is known of a call before it leaves."""

    attribution: Attribution
    target: str
    model: str
    sent_models: tuple[str, ...]
    endpoint: str
    cause: Cause


class Meter:
    """The meter of one call, running from the moment it is made. `over` hands the record on, once.

    As a context it covers the time in which the reply is read.

    `account` is the name of the account that the call was made with, `sealed` is told what the
    answer holds that only that account can read; both are set by whoever chooses it.
    """

    __slots__ = (
        "_began",
        "_call",
        "_clock",
        "_limit",
        "_listener",
        "_outcome",
        "_started",
        "_status",
        "_tier",
        "_told",
        "_usage",
        "account",
        "sealed",
    )

    def __init__(self, call: CallMade, *, listener: CallListener, clock: Clock) -> None:
        self.account: str | None = None
        self.sealed: Callable[[Sequence[str]], None] | None = None
        self._call = call
        self._listener: CallListener | None = listener
        self._clock = clock
        self._started = clock.now()
        self._began = clock.monotonic()
        self._status: int | None = None
        self._outcome: Outcome | None = None
        self._usage: Usage | None = None
        self._tier: str | None = None
        self._limit: StreamLimit | None = None
        self._told = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.over(error)

    def answered(self, status: int) -> None:
        """The reply's head has come."""
        self._status = status

    def heard(self, event: Event) -> None:
        """An event of the stream. Only one that ends the response is looked into."""
        if event.type in events.CLOSING:
            self._look_for_limit(event.data, failed=event.type == events.FAILED)
            try:
                self._ended(event.response(), _ENDED[events.closing_state(event)])
            except (MalformedEvent, msgspec.DecodeError):  # for whoever reads the stream to judge
                self._outcome = self._outcome or Outcome.LOST
        elif event.type == events.ERROR and not self._told:
            self._outcome = Outcome.FAILED
            self._look_for_limit(event.data)
        elif event.type == affinity.ITEM_DONE and self.sealed is not None:
            self._note(affinity.sealed_in_event(event.data))

    def read(self, body: Body) -> None:
        """A whole JSON object: a response in some state, or what another endpoint answers."""
        try:
            outcome = _ENDED[State(wire.string(body, "status") or "")]
        except (msgspec.DecodeError, ValueError):  # no state that we know: it answered, that is all
            outcome = Outcome.COMPLETED
        if "error" in body:
            said = b'{"error":%b}' % bytes(body["error"])
            self._look_for_limit(said, failed=outcome is Outcome.FAILED)
        self._ended(body, outcome)

    def _look_for_limit(self, data: bytes, *, failed: bool = True) -> None:
        if failed and not self._told and self._limit is None:
            self._limit = limit_in(data, now=self._clock.now())

    def counted(self, usage: Usage | None) -> None:
        """An answer that is no response is whole, and has used this; None for nobody knows."""
        self._told = True
        self._outcome = Outcome.COMPLETED
        self._usage = usage

    def _ended(self, response: Body, outcome: Outcome) -> None:
        if self._told:
            return  # what follows a first end is not part of the response
        self._told = True
        self._outcome = outcome
        if self.sealed is not None and "output" in response:
            self._note(affinity.sealed_in_items(bytes(response["output"])))
        self._usage = read_usage(response)
        try:
            self._tier = wire.string(response, "service_tier")
        except msgspec.DecodeError:
            self._tier = None

    def _note(self, sealed: Sequence[str]) -> None:
        if sealed and self.sealed is not None:
            self.sealed(sealed)

    def over(self, error: BaseException | None) -> None:
        """The call is over, with `error` if it did not end well. Raises nothing.

        A second call changes nothing.
        """
        listener, self._listener = self._listener, None
        if listener is None:
            return
        try:
            listener(self._record(error))
        except Exception as defect:  # account-keeping must never cost anybody an answer
            get_logger().error("call_not_recorded", exc_info=defect)

    def _record(self, error: BaseException | None) -> CallRecord:
        if isinstance(error, UpstreamRefused) and self._status is None:
            self._status = error.upstream_status
        call = self._call
        return CallRecord(
            attribution=call.attribution,
            target=call.target,
            account=self.account,
            model=call.model[:MAX_NAME],
            sent_models=tuple(name[:MAX_NAME] for name in call.sent_models),
            endpoint=call.endpoint,
            cause=call.cause,
            status=self._status,
            outcome=self._outcome or _without_end(error, answered=self._status is not None),
            usage=self._usage,
            tier=self._tier,
            started_at=self._started,
            ended_at=self._clock.now(),
            seconds=self._clock.monotonic() - self._began,
            limit=self._limit,
        )


def _without_end(error: BaseException | None, *, answered: bool) -> Outcome:
    """What became of a call whose response nobody saw the end of."""
    if isinstance(error, UpstreamRefused):
        return Outcome.REFUSED
    if isinstance(error, UpstreamFailed):
        return Outcome.LOST if error.sent else Outcome.UNREACHED
    if error is None:
        return Outcome.LOST
    return Outcome.LEFT
