"""Whether an upstream call may be made once more: the never-twice rule as one pure function.

Under the `safe` policy another call is made only on proof that the first did not run: it failed
before the request was handed over, or the upstream itself said 429 or 503. (A 401 is such a proof
too, but with one credential there is nothing else to try.) Anything else may have been paid for.
"""

from dataclasses import dataclass
from typing import Final

from handrail.core.upstream_errors import LASTING
from handrail.errors import HandrailError, UpstreamFailed, UpstreamRefused

MAX_CALLS: Final = 5
MAX_WAIT: Final = 60.0

_SAFE_STATUS: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Call again or not; `wait` is in seconds and has a meaning only with `again`."""

    again: bool
    reason: str
    wait: float = 0.0


def verdict(error: HandrailError, *, calls: int) -> Verdict:
    """What to do after `error`, the `calls`-th upstream call having just failed (1 or more)."""
    if isinstance(error, UpstreamFailed):
        if error.sent:
            return Verdict(again=False, reason="the upstream may have run the call")
        wait = min(0.25 * 2**calls, 5.0)
        reason = "the upstream was never reached"
    elif isinstance(error, UpstreamRefused) and LASTING & {error.fault.type, error.fault.code}:
        return Verdict(again=False, reason="the limit will not pass soon")
    elif isinstance(error, UpstreamRefused) and error.upstream_status in _SAFE_STATUS:
        wait = error.fault.retry_after or min(2.0**calls, 30.0)
        reason = f"the upstream answered {error.upstream_status} without running the call"
    else:
        return Verdict(again=False, reason="the answer is final")
    if calls >= MAX_CALLS:
        return Verdict(again=False, reason=f"{reason}, {calls} times")
    if wait > MAX_WAIT:
        return Verdict(again=False, reason=f"{reason}; it asks to wait {wait:.0f} s")
    return Verdict(again=True, reason=reason, wait=wait)
