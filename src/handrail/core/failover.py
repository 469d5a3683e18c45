"""What a failed call means for the account that it was made with.

Whether the call may be made once more, with another account, is the never-twice rule: only on proof
that it did not run, which is a 401, 429 or 503, or a failure before the request was handed over.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from handrail.core.limits import ALL
from handrail.core.stream_limits import StreamLimit
from handrail.core.upstream_errors import LASTING
from handrail.errors import HandrailError, UpstreamFailed, UpstreamRefused

BREAKER_FAILURES: Final = 3
BREAKER_WINDOW: Final = 60.0
BREAKER_SECONDS: Final = 30.0
"""So many failures within so many seconds put an account behind the others for so long."""

_UNREACHED: Final = 6.0
_OVERLOADED: Final = 4.0
_REFUSED: Final = 30.0
_FORBIDDEN: Final = 300.0
_LIMIT: Final = 2.0
_LONGEST_GUESS: Final = 60.0
_SPENT: Final = 300.0
_NO_WORKSPACE: Final = 3_600.0

# Words of an issuer or upstream that has withdrawn a credential for good. Trying the other
# accounts after that looks like somebody who goes through a list of stolen ones.
_WITHDRAWN: Final = re.compile(
    "token_invalidated|token_revoked|account_deactivated|has been (?:invalidated|revoked|disabled)"
)


# Of a 402 or 403: somebody has to mend the workspace, and nobody says when.
_WORKSPACE_GONE: Final = re.compile(
    r"(?:deactivated|disabled|expired|suspended)_workspace|"
    r"workspace(?:_| is | has been | has )(?:deactivated|disabled|expired|suspended)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequence:
    """What becomes of an account, and of the call.

    `seconds` is how long it is not to be used for `scope`, 0 for not at all; `guessed` when only we
    say so. `ended`: it is over until somebody signs in again. `renew`: its credential may merely
    be old. `again`: the call has not run. `fails` counts for the breaker. `kept`: the operator and
    other processes are to know of it although its end is guessed.
    """

    reason: str
    again: bool = False
    scope: str = ALL
    seconds: float = 0.0
    guessed: bool = True
    ended: bool = False
    renew: bool = False
    fails: bool = False
    kept: bool = False


REFUSALS: Final = frozenset({402, 403})
"""They may be about the account or about the request: another is asked only by setting."""


def consequence(
    error: HandrailError, *, model: str, limited: int = 0, also: Collection[int] = ()
) -> Consequence:
    """What `error`, which ended a call for `model`, means for its account.

    `limited` is how many 429 in a row it has had before without being told how long to wait. `also`
    are those of REFUSALS after which another account is asked.
    """
    if isinstance(error, UpstreamFailed):
        if error.sent:
            return Consequence(reason="its call was lost", fails=True)
        return Consequence(reason="not reached", again=True, seconds=_UNREACHED, fails=True)
    if not isinstance(error, UpstreamRefused):
        return Consequence(reason="no word about the account")
    match error.upstream_status:
        case 401:
            return _unauthorized(error)
        case 402 | 403 if _WORKSPACE_GONE.search(error.said.lower()):
            # `again` by setting alone: of a 402 or 403 the never-twice rule says nothing.
            reason = "its workspace is deactivated, disabled or expired"
            again = error.upstream_status in also
            return Consequence(reason=reason, again=again, seconds=_NO_WORKSPACE, kept=True)
        case 402 | 403:
            again = error.upstream_status in also
            return Consequence(reason="refused by the upstream", again=again, seconds=_FORBIDDEN)
        case 404 | 429 if error.fault.status == 429:
            return _limited(error, model=model, before=limited)
        case 503:
            wait = error.fault.retry_after
            return Consequence(
                reason="overloaded", again=True, seconds=wait or _OVERLOADED, fails=True
            )
        case status:
            return Consequence(reason=f"answered {status}", fails=status >= 500)


def _unauthorized(error: UpstreamRefused) -> Consequence:
    if _WITHDRAWN.search(error.said.lower()):
        return Consequence(reason="its credential was withdrawn; sign in again", ended=True)
    return Consequence(reason="credential refused", again=True, seconds=_REFUSED, renew=True)


def _limited(error: UpstreamRefused, *, model: str, before: int) -> Consequence:
    said = StreamLimit(
        code=str(error.fault.code or error.fault.type),
        lasting=bool(LASTING & {error.fault.type, error.fault.code}),
        wait=error.fault.retry_after,
    )
    return replace(limit_reached(said, model=model, limited=before), again=True)


def limit_reached(limit: StreamLimit, *, model: str, limited: int = 0) -> Consequence:
    """What a limit means for the account whose call for `model` was ended by it.

    Never another call: this one had begun to answer. `limited` as for `consequence`.
    """
    guess = _SPENT if limit.lasting else min(_LIMIT * 2.0 ** min(limited, 10), _LONGEST_GUESS)
    return Consequence(
        reason=limit.code,
        scope=ALL if limit.lasting else model,
        seconds=limit.wait or guess,
        guessed=limit.wait is None,
    )


def is_open(failures: tuple[float, ...], *, now: float) -> float | None:
    """Until when the breaker holds an account back, by the times of its last failures.

    None when it does not. A success empties the list (defect D-35 of the reference).
    """
    recent = [moment for moment in failures if moment > now - BREAKER_WINDOW - BREAKER_SECONDS]
    for first, last in zip(recent, recent[BREAKER_FAILURES - 1 :], strict=False):
        if last - first <= BREAKER_WINDOW and last + BREAKER_SECONDS > now:
            return recent[-1] + BREAKER_SECONDS
    return None
