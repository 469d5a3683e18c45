"""What an upstream's error means to the caller, whatever form it came in.

One mapper for all paths: an error answer (`refusal`) and an error at the end of a stream whose
caller wants JSON (`failure`). The upstream's message, code, type and param stay as they are; only
what would mislead a client is corrected, by the literal table RULES.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import msgspec

from handrail.core.redact import scrub
from handrail.core.responses import RunError
from handrail.core.retry_after import retry_after
from handrail.errors import Code, Fault, HandrailError, UpstreamRefused, fault

MAX_MESSAGE: Final = 2_000
MAX_WORD: Final = 200
"""Characters of a code, type or param."""

# Keys of an error object that clients act on: Codex CLI tells its user when a limit resets, Azure
# says which filter was hit.
_KEPT: Final = (
    "details",
    "innererror",
    "misalignment",
    "plan_type",
    "resets_at",
    "resets_in_seconds",
)

LASTING: Final = frozenset(
    {
        "billing_hard_limit_reached",
        "insufficient_quota",
        "usage_limit_reached",
        "usage_not_included",
    }
)
"""Codes and types of limits that last for hours or until somebody pays: asking again is in vain."""

UNSUPPORTED_MODEL: Final = frozenset(
    {
        "DeploymentNotFound",
        "model_not_found",
        "model_not_supported",
        "model_not_supported_with_chatgpt_account",
    }
)
"""Codes that say that this upstream does not serve this model to this account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which error answers are corrected, and to what.

    One of `statuses` whose code, type or (`in_message`) message matches `pattern` becomes `status`;
    `code` and `param` are filled in where the upstream gave none.
    """

    statuses: frozenset[int]
    pattern: re.Pattern[str]
    status: int
    in_message: bool = True
    code: str | None = None
    param: str | None = None


RULES: Final[tuple[Rule, ...]] = (
    # The account's plan, not its credential: the caller can choose another model.
    Rule(
        statuses=frozenset({403, 404, 429}),
        pattern=re.compile(
            "usage_not_included|not.included.in.your.plan|subscription.does.not.include"
        ),
        status=403,
        code="usage_not_included",
    ),
    # The Codex backend answers 404 for a spent limit; SDKs and Codex know it as 429. Only a code
    # counts: a text about limits may be about anything.
    Rule(
        statuses=frozenset({404}),
        pattern=re.compile("usage_limit|rate_limit_exceeded"),
        status=429,
        in_message=False,
    ),
    # Codex compacts and goes on only on this very code; llama.cpp, vLLM and others have their own.
    Rule(
        statuses=frozenset({400, 413, 422, 500}),
        pattern=re.compile(
            "context_length_exceeded|exceed_context_size|maximum context length|"
            "context (?:window|size|length) (?:of|is|exceeded)|exceeds? the (?:available )?context|"
            "prompt is too long|input (?:is )?too long"
        ),
        status=400,
        code="context_length_exceeded",
        param="input",
    ),
    Rule(
        statuses=frozenset({400, 404}),
        pattern=re.compile(
            "model is not supported when using codex|not currently available for this chatgpt|"
            "model .{1,200} does not exist or you do not have access"
        ),
        status=400,
        code="model_not_supported",
        param="model",
    ),
    # Azure's deployments are what `model` names.
    Rule(
        statuses=frozenset({404}),
        pattern=re.compile("deploymentnotfound"),
        status=404,
        in_message=False,
        param="model",
    ),
    Rule(
        statuses=frozenset({400}),
        pattern=re.compile("unsupported parameter"),
        status=400,
        code="unsupported_parameter",
    ),
)

# Status of a failed stream when its caller wanted JSON: as the API would have answered at once.
_FAILED_STATUS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "rate_limit_exceeded": 429,
        "insufficient_quota": 429,
        "usage_limit_reached": 429,
        "usage_not_included": 403,
        "invalid_prompt": 400,
        "context_length_exceeded": 400,
        "server_is_overloaded": 503,
        "slow_down": 503,
    }
)

_NAMED_PARAM: Final = re.compile(r"[Uu]nsupported parameter: '?([A-Za-z0-9_.\[\]]{1,100})")


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
    turn up in the upstream's words. A 401, 402 or 403 is about *our* account, so the caller learns
    only that, unless it says that the plan behind the credential does not include the model.
    """
    error = _error_object(body)
    rule = _rule(status, error)
    if status in (401, 402, 403) and rule is None:
        problem = fault(
            Code.UPSTREAM_CREDENTIALS_REJECTED,
            "The upstream rejected the gateway's own credential; its operator has to mend that.",
        )
    elif not 400 <= status <= 599:
        problem = fault(
            Code.UPSTREAM_PROTOCOL_ERROR, f"The upstream answered {status}, which is no answer."
        )
    else:
        said = error or {"message": body[:MAX_MESSAGE].decode(errors="replace")}
        if not error.get("message"):
            error = {**error, "message": _no_message(status, headers, body=body, error=error)}
        problem = _translated(status, headers, error, rule=rule, now=now, secrets=secrets)
        # Words that are no error object are not passed on, but may well say how long to wait.
        problem = replace(problem, retry_after=retry_after(headers, said, now=now))
    words = f"{_text(error.get('code'))} {error.get('message')}"[:MAX_MESSAGE]
    return UpstreamRefused(problem, upstream_status=status, said=words, headers=headers)


def failure(error: RunError, *, now: float) -> HandrailError:
    """The error to raise for a stream that failed when its caller waits for JSON."""
    status = _FAILED_STATUS.get(error.code) or _FAILED_STATUS.get(error.cause) or 502
    kept = {"code": error.code, "type": error.cause, "message": error.message}
    problem = _translated(status, {}, kept, rule=None, now=now)
    kind = problem.type if problem.type in LASTING else _type_of(status)
    return HandrailError(replace(problem, type=kind))


def is_about_model(error: HandrailError) -> bool:
    """Whether the upstream refused a call because it does not serve the model."""
    return isinstance(error, UpstreamRefused) and error.fault.code in UNSUPPORTED_MODEL


def _rule(status: int, error: Mapping[str, Any]) -> Rule | None:
    words = f"{error.get('code')} {error.get('type')}".lower()
    message = str(error.get("message"))[:MAX_MESSAGE].lower()
    for rule in RULES:
        said = f"{words} {message}" if rule.in_message else words
        if status in rule.statuses and rule.pattern.search(said):
            return rule
    return None


def _translated(
    status: int,
    headers: Mapping[str, str],
    error: Mapping[str, Any],
    *,
    rule: Rule | None,
    now: float,
    secrets: Sequence[str] = (),
) -> Fault:
    status = rule.status if rule else status
    code = _word(error.get("code"), secrets) or (rule.code if rule else None)
    if rule is not None and rule.code == "context_length_exceeded":
        code = rule.code
    kind = _word(error.get("type"), secrets) or _type_of(status)
    param = (
        _word(error.get("param"), secrets) or (rule.param if rule else None) or _named_param(error)
    )
    lasting = bool(LASTING & {code, kind})
    return Fault(
        status=status,
        type=kind,
        code=code,
        message=scrub(str(error["message"]), secrets)[:MAX_MESSAGE],
        param=param,
        retry_after=retry_after(headers, error, now=now),
        should_retry=False if lasting else None,
        extra=_kept(error, secrets),
    )


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def _kept(error: Mapping[str, Any], secrets: Sequence[str]) -> dict[str, object]:
    found = {key: _scrubbed(error[key], secrets, depth=4) for key in _KEPT if key in error}
    return {key: value for key, value in found.items() if value not in (None, "", [], {})}


def _scrubbed(value: object, secrets: Sequence[str], *, depth: int) -> object:
    if isinstance(value, str):
        return scrub(value, secrets)[:MAX_MESSAGE]
    if isinstance(value, list):
        entries = value[:20] if depth else []
        return [_scrubbed(entry, secrets, depth=depth - 1) for entry in entries]
    if isinstance(value, dict):
        entries = list(value.items())[:20] if depth else []
        return {
            scrub(key, secrets)[:100]: _scrubbed(entry, secrets, depth=depth - 1)
            for key, entry in entries
        }
    return value


def _text(value: object) -> str | None:
    # llama.cpp and vLLM put the HTTP status there as an integer; a code is a word or nothing.
    return value if isinstance(value, str) and value else None


def _word(value: object, secrets: Sequence[str]) -> str | None:
    # Before it is cut: half a secret would look like none.
    said = _text(value)
    return said and scrub(said, secrets)[:MAX_WORD]


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
        return _detail(parsed["detail"])
    return parsed if isinstance(parsed.get("message"), str) else {}


def _detail(detail: object) -> dict[str, Any]:
    if isinstance(detail, str):
        return {"message": detail}
    if isinstance(detail, dict) and detail.get("message"):
        return detail
    if isinstance(detail, list):
        entries = detail[:5]
        words = [str(e.get("msg", e)) if isinstance(e, dict) else str(e) for e in entries]
        first = entries[0] if entries and isinstance(entries[0], dict) else {}
        return {"message": "; ".join(words), "param": _location(first.get("loc"))}
    return {"message": msgspec.json.encode(detail).decode()}


def _location(path: object) -> str | None:
    """`["body", "tools", 0, "name"]`, as FastAPI names a place, as `tools[0].name`."""
    if not isinstance(path, list):
        return None
    steps = path[1:] if path[:1] == ["body"] else path
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps[:10])
    return name.removeprefix(".") or None


def _named_param(error: Mapping[str, Any]) -> str | None:
    found = _NAMED_PARAM.search(str(error.get("message"))[:MAX_MESSAGE])
    return found[1].rstrip(".") if found else None


def _no_message(
    status: int, headers: Mapping[str, str], *, body: bytes, error: Mapping[str, Any]
) -> str:
    word = _text(error.get("code")) or _text(error.get("type"))
    if word:
        return f"The upstream answered {status}: {word}."
    if not body.strip():
        return f"The upstream answered {status} with an empty body."
    if "html" in headers.get("content-type", "") or body.lstrip()[:1] == b"<":
        return f"The upstream answered {status} with an HTML page instead of an error object."
    return f"The upstream answered {status} with a body that is no error object."
