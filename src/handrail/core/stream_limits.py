"""A limit that an upstream tells of inside a response that it had already begun to send.

HTTP said 200 by then, so only the error of the event that ended the response says it: that of
`response.failed`, or an `error` event in its flat or nested form. Threats and faults, row 15;
defect D-22 of the reference, which took such a call for a success.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from handrail.core.retry_after import retry_after
from handrail.core.upstream_errors import LASTING

_LIMITS: Final = LASTING - {"usage_not_included"} | {"rate_limit_exceeded"}
# No event of another kind is decoded for this: one may have megabytes.
_TRACES: Final = (b"_limit", b"_quota")
_NONE: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimit:
    """A limit by its code; `lasting` for hours or until somebody pays; `wait` in seconds, if told.

    What the upstream said in words is not in it.
    """

    code: str
    lasting: bool
    wait: float | None = None


def limit_in(data: bytes, *, now: float) -> StreamLimit | None:
    """The limit that a failed response, or the event that told of it, was ended by; mostly None.

    `data` is the JSON of either. `now` is in unix seconds. Whatever it is, nothing is raised.
    """
    if not any(trace in data for trace in _TRACES):
        return None
    try:
        error = _error(msgspec.json.decode(data))
    except (msgspec.DecodeError, RecursionError):
        return None
    words = [value for name in ("code", "type") if isinstance(value := error.get(name), str)]
    code = next((each for each in words if each in _LIMITS), None)
    if code is None:
        return None
    return StreamLimit(
        code=code,
        lasting=any(each in LASTING for each in words),
        wait=retry_after(_headers(error), error, now=now),
    )


def _error(said: Any) -> Mapping[str, Any]:
    """The error object in `said`: an event, a response inside one, or a response by itself."""
    found = said if isinstance(said, dict) else {}
    inner = found.get("response")
    nested = (inner if isinstance(inner, dict) else found).get("error")
    return nested if isinstance(nested, dict) else found


def _headers(error: Mapping[str, Any]) -> Mapping[str, str]:
    """The WebSocket form of an error carries those of the refusal that it stands for."""
    headers = error.get("headers")
    if not isinstance(headers, dict):
        return _NONE
    return {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
