"""Whether an upstream call may be made once more: the never-twice rule as two pure functions.

`verdict` is about calls within one attempt, and asks for proof that the last one did not run: it
failed before the request was handed over, or the upstream itself said 429 or 503. (A 401 is such a
proof too, but with one credential there is nothing else to try.) Anything else may have been paid
for. `attempt_verdict` is about a new attempt of a run after such a loss: never under the policy
`safe`, and under `retry` only while nothing of the lost answer is visible.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from handrail.core.caller_policy import CrashPolicy
from handrail.core.lifecycle import LAST_OPENING
from handrail.core.upstream_errors import LASTING
from handrail.errors import Code, HandrailError, UpstreamFailed, UpstreamRefused

MAX_CALLS: Final = 5
"""Most calls of one attempt."""

MAX_ATTEMPTS: Final = 3
MAX_WAIT: Final = 60.0

_SAFE_STATUS: Final = frozenset({429, 503})


class Cause(StrEnum):
    """Why an upstream call was made: the word that stands beside it in the store.

    The first six are calls of one attempt: what came before did not run. Each of the others opens
    a new attempt, because what came before may have run.
    """

    FIRST = "first"
    UNREACHED = "unreached"
    REFUSED = "refused"
    MENDED = "mended"
    OTHER_ACCOUNT = "other_account"
    OTHER_TARGET = "other_target"
    ENDED_EARLY = "ended_early"
    STALLED = "stalled"
    SERVER_ERROR = "server_error"
    WORKER_LOST = "worker_lost"


_LOST_CALL: Final[Mapping[str, Cause]] = MappingProxyType(
    {Code.UPSTREAM_ENDED_EARLY: Cause.ENDED_EARLY, Code.UPSTREAM_STALLED: Cause.STALLED}
)
_LOST_STATUS: Final = frozenset({500, 502, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Call again or not; `wait` (seconds) and `cause` have a meaning only with `again`."""

    again: bool
    reason: str
    wait: float = 0.0
    cause: Cause = Cause.FIRST


def verdict(error: HandrailError, *, calls: int) -> Verdict:
    """What to do after `error`, the `calls`-th upstream call having just failed (1 or more)."""
    if isinstance(error, UpstreamFailed):
        if error.sent:
            return Verdict(again=False, reason="the upstream may have run the call")
        wait, cause = min(0.25 * 2**calls, 5.0), Cause.UNREACHED
        reason = "the upstream was never reached"
    elif isinstance(error, UpstreamRefused) and LASTING & {error.fault.type, error.fault.code}:
        return Verdict(again=False, reason="the limit will not pass soon")
    elif error.fault.code == Code.ACCOUNTS_EXHAUSTED:
        wait, cause = error.fault.retry_after or MAX_WAIT, Cause.REFUSED
        reason = "no account may be used now"
    elif isinstance(error, UpstreamRefused) and error.upstream_status in _SAFE_STATUS:
        wait, cause = error.fault.retry_after or min(2.0**calls, 30.0), Cause.REFUSED
        reason = f"the upstream answered {error.upstream_status} without running the call"
    else:
        return Verdict(again=False, reason="the answer is final")
    if calls >= MAX_CALLS:
        return Verdict(again=False, reason=f"{reason}, {calls} times")
    return _after(wait, reason, cause)


def attempt_verdict(
    error: HandrailError | None, *, policy: CrashPolicy, attempts: int, last_seq: int
) -> Verdict:
    """Whether a run that was under way may have a new attempt after `error`.

    None stands for a worker that died or was stopped. `attempts` is how many there have been (1 or
    more), `last_seq` the number of the last event that somebody may have seen.
    """
    cause = Cause.WORKER_LOST if error is None else _lost(error)
    if cause is None:
        return Verdict(again=False, reason="the answer is final")
    if policy is not CrashPolicy.RETRY:
        return Verdict(again=False, reason="the upstream may have run the call")
    if last_seq > LAST_OPENING:
        return Verdict(again=False, reason="a part of the answer is visible")
    if attempts >= MAX_ATTEMPTS:
        return Verdict(again=False, reason=f"there were {attempts} attempts")
    # A restart has taken its time already.
    asked = 0.0 if error is None else error.fault.retry_after or min(0.25 * 2**attempts, 5.0)
    return _after(asked, f"nothing of the answer is visible ({cause})", cause)


def _lost(error: HandrailError) -> Cause | None:
    """What became of a call that may have run; None for one whose answer is known."""
    if isinstance(error, UpstreamFailed) and error.sent:
        return _LOST_CALL.get(error.fault.code or "")
    if isinstance(error, UpstreamRefused) and error.upstream_status in _LOST_STATUS:
        # Not a 500 that says that the context is too long: that is an answer, and a 400 by now.
        return Cause.SERVER_ERROR if error.fault.status in _LOST_STATUS else None
    return None


def _after(wait: float, reason: str, cause: Cause) -> Verdict:
    if wait > MAX_WAIT:
        return Verdict(again=False, reason=f"{reason}; it asks to wait {wait:.0f} s")
    return Verdict(again=True, reason=reason, wait=wait, cause=cause)
