"""What an upstream's error answer means to the caller, whatever form it came in."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from handrail.core.redact import scrub
from handrail.errors import Code, Fault, UpstreamRefused, fault

MAX_MESSAGE: Final = 2_000
MAX_RETRY_AFTER: Final = 7 * 86_400.0

# Keys of an error object that clients act on: Codex CLI tells its user when a limit resets.
_KEPT: Final = ("plan_type", "resets_at", "resets_in_seconds")


def refusal(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    secrets: Sequence[str] = (),
) -> UpstreamRefused:
    """The error to raise for an upstream answer that is no success.

    `headers` has lower-case names, `now` is in unix seconds, `secrets` are masked wherever they
    turn up in the upstream's words. A 401 or 403 is about *our* credential, so the caller learns
    only that.
    """
    if status in (401, 403):
        problem = fault(
            Code.UPSTREAM_CREDENTIALS_REJECTED,
            "The upstream rejected the gateway's own credential; its operator has to mend that.",
        )
    elif status < 400:
        problem = fault(
            Code.UPSTREAM_PROTOCOL_ERROR, f"The upstream answered {status}, which is no answer."
        )
    else:
        problem = _translated(status, headers, body, now=now, secrets=secrets)
    return UpstreamRefused(problem, upstream_status=status)


def _translated(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    secrets: Sequence[str],
) -> Fault:
    error = _error_object(body)
    message = error.get("message") or _no_message(status, headers, body)
    kind = "invalid_request_error" if status < 500 else "server_error"
    return Fault(
        status=status,
        type=_text(error.get("type")) or ("rate_limit_error" if status == 429 else kind),
        code=_text(error.get("code")),
        message=scrub(str(message), secrets)[:MAX_MESSAGE],
        param=_text(error.get("param")),
        retry_after=retry_after(headers, now=now),
        extra={key: error[key] for key in _KEPT if isinstance(error.get(key), str | int | float)},
    )


def _text(value: object) -> str | None:
    # llama.cpp and vLLM put the HTTP status there as an integer; a code is a word or nothing.
    return value[:200] if isinstance(value, str) and value else None


def _error_object(body: bytes) -> dict[str, Any]:
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {**parsed, "message": error}
    if "detail" in parsed:  # the Codex backend, and every FastAPI server
        return {"message": _detail(parsed["detail"])}
    return parsed if isinstance(parsed.get("message"), str) else {}


def _detail(detail: object) -> str:
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list):
        return "; ".join(
            str(entry.get("msg", entry)) if isinstance(entry, dict) else str(entry)
            for entry in detail[:5]
        )
    return msgspec.json.encode(detail).decode()


def _no_message(status: int, headers: Mapping[str, str], body: bytes) -> str:
    if not body.strip():
        return f"The upstream answered {status} with an empty body."
    if "html" in headers.get("content-type", "") or body.lstrip()[:1] == b"<":
        return f"The upstream answered {status} with an HTML page instead of an error object."
    return f"The upstream answered {status} with a body that is no error object."


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (seconds or HTTP date), or None.

    Clamped to 7 days; a time in the past counts as not given.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            seconds = float(text) * scale
        except ValueError:
            seconds = _until(text, now=now) if name == "retry-after" else 0.0
        if 0.0 < seconds < float("inf"):
            return min(seconds, MAX_RETRY_AFTER)
    return None


def _until(text: str, *, now: float) -> float:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp() - now
