"""What the headers of a create ask of its run: crash policy, priority, retention, one run a key.

They have a meaning only for what the gateway itself runs in background, retention also for what it
keeps of the foreground; elsewhere they are ignored, and the decision says so. A value that cannot
be read is an error everywhere: it was meant to do something.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeVar

from handrail.core import idempotency
from handrail.core.caller_policy import CrashPolicy, Priority
from handrail.core.durations import read_duration
from handrail.core.policy import Mode, Plan, Reason
from handrail.errors import Code, RequestRejected

CRASH: Final = "handrail-crash-policy"
PRIORITY: Final = "handrail-priority"
RETENTION: Final = "handrail-retention"
ACCOUNT: Final = "handrail-account"
PROJECT: Final = "handrail-project"

_LABEL: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """The options of one create, None for each that it does not name. Retention in seconds.

    `retry_count` is how often an SDK has sent the same before; nobody asks for anything by that.
    """

    key: str | None = None
    retry_count: int | None = None
    crash: CrashPolicy | None = None
    priority: Priority | None = None
    retention_seconds: int | None = None
    account: str | None = None


def read_options(header: Callable[[str], str]) -> RequestOptions:
    """The options in the headers of a create; `header` gives a value by its name, "" for none.

    Raises RequestRejected, which names the header, for a value that cannot be read.
    """
    return RequestOptions(
        key=idempotency.read_key(header(idempotency.HEADER).strip()),
        retry_count=idempotency.read_retry_count(header(idempotency.RETRY_COUNT).strip()),
        crash=_word(header, CRASH, CrashPolicy),
        priority=_word(header, PRIORITY, Priority),
        retention_seconds=_retention(header(RETENTION).strip()),
        account=_account(header(ACCOUNT).strip()),
    )


def read_project(header: Callable[[str], str]) -> str | None:
    """The label that calls are charged under; None without one. Raises RequestRejected."""
    text = header(PROJECT).strip()
    if text and not _LABEL.fullmatch(text):
        raise RequestRejected(
            Code.INVALID_VALUE,
            f"'{PROJECT}' must be a label of 1 to 64 letters, digits, '.', '-' and '_'.",
            param=PROJECT,
        )
    return text or None


def with_options(plan: Plan, options: RequestOptions, *, highest: Priority = Priority.HIGH) -> Plan:
    """The plan, with what the options change of it.

    Raises RequestRejected for a retention that is longer than the caller's, and for a priority
    above `highest`.
    """
    if options.account is not None:
        text = "The request demands the account that its calls are made with."
        reason = Reason(name="account=demanded", text=text)
        plan = replace(plan, account=options.account, reasons=(*plan.reasons, reason))
    if plan.mode in (Mode.BACKGROUND, Mode.KEPT):
        plan = _kept_for(plan, options.retention_seconds)
    if plan.mode is not Mode.BACKGROUND:
        return _ignored(plan, options)
    crash, priority = options.crash or plan.crash, options.priority or plan.priority
    if priority.above(highest):
        raise RequestRejected(
            Code.INVALID_VALUE,
            f"'{PRIORITY}' can be {highest} at the highest for this caller.",
            param=PRIORITY,
        )
    reasons = list(plan.reasons)
    if crash is CrashPolicy.RETRY:
        text = "An attempt whose answer is lost is followed by another while nothing is visible."
        reasons.append(Reason(name="crash=retry", text=text))
    if priority is not Priority.NORMAL:
        text = f"It is of {priority} priority among the caller's own waiting responses."
        reasons.append(Reason(name=f"priority={priority}", text=text))
    return replace(plan, crash=crash, priority=priority, reasons=tuple(reasons))


def _kept_for(plan: Plan, seconds: int | None) -> Plan:
    if seconds is None:
        return plan
    if seconds > plan.retention_seconds:
        raise RequestRejected(
            Code.INVALID_VALUE,
            f"'{RETENTION}' can only shorten how long the response is kept, which is "
            f"{plan.retention_seconds}s here.",
            param=RETENTION,
        )
    text = f"The request asks to have the response kept for {seconds} s only."
    reason = Reason(name=f"retention={seconds}s", text=text)
    return replace(plan, retention_seconds=seconds, reasons=(*plan.reasons, reason))


def _ignored(plan: Plan, options: RequestOptions) -> Plan:
    named = {
        idempotency.HEADER: options.key,
        CRASH: options.crash,
        PRIORITY: options.priority,
        RETENTION: None if plan.mode is Mode.KEPT else options.retention_seconds,
    }
    text = "The header has no meaning here: the response is not one of the gateway's own runs."
    told = [Reason(name=f"{name}=ignored", text=text) for name in named if named[name] is not None]
    return replace(plan, reasons=(*plan.reasons, *told)) if told else plan


def _word(header: Callable[[str], str], name: str, words: type[Word]) -> Word | None:
    text = header(name).strip()
    if not text:
        return None
    try:
        return words(text)
    except ValueError:
        raise RequestRejected(
            Code.INVALID_VALUE, f"'{name}' must be one of {', '.join(words)}.", param=name
        ) from None


def _account(text: str) -> str | None:
    if text and not _LABEL.fullmatch(text):
        raise RequestRejected(
            Code.INVALID_VALUE, f"'{ACCOUNT}' must be the name of an account.", param=ACCOUNT
        )
    return text or None


def _retention(text: str) -> int | None:
    if not text:
        return None
    seconds = read_duration(text)
    if not seconds:
        raise RequestRejected(
            Code.INVALID_VALUE,
            f"'{RETENTION}' must be a duration such as 90s, 15m or 2h.",
            param=RETENTION,
        )
    return seconds
