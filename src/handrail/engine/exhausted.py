"""What a caller hears when no account can serve a request now, and how long there is to wait."""

from dataclasses import replace
from typing import Final

from handrail.core.select import Choice
from handrail.engine.single import no_credential
from handrail.errors import Code, Fault, HandrailError, UpstreamRefused, fault

_SOON: Final = 5.0
"""Seconds to wait where nothing is known: about as long as what passes by itself takes."""


def exhausted(choice: Choice, *, now: float) -> Fault:
    """No account may be used: when the first of them may again, if anybody knows."""
    if choice.until is None:
        return no_credential().fault
    wait = max(choice.until - now, 1.0)
    problem = fault(
        Code.ACCOUNTS_EXHAUSTED,
        f"The gateway has no account left for this request: {choice.reason}. The first is free "
        f"again in {wait:.0f} s.",
    )
    return replace(problem, retry_after=wait, extra={"resets_at": int(choice.until)})


def with_wait(error: HandrailError, choice: Choice, *, now: float) -> HandrailError:
    """`error`, a 429 or 503 of the upstream, with a wait if it has none.

    It is until the first account is out of its pause, told or guessed.
    """
    if error.fault.retry_after is not None or not isinstance(error, UpstreamRefused):
        return error
    obstacles = [seen.obstacle for seen in choice.considered]
    ends = [each.until for each in obstacles if each is not None and each.until is not None]
    wait = max(min(ends) - now, 1.0) if ends and all(obstacles) else _SOON
    return UpstreamRefused(
        replace(error.fault, retry_after=wait),
        upstream_status=error.upstream_status,
        said=error.said,
        headers=error.headers,
    )
