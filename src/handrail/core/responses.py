"""The response object that Handrail answers with, from `queued` to its end.

Field list and defaults are those of OpenAI's Response schema; strict validation by the openai SDK
(3.54.0) is the test. What the caller asked is echoed, what the upstream said goes over it, and
the gateway's own fields (id, status, store …) go over both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Raw

from handrail.core import events, wire
from handrail.core.fold import Fold
from handrail.core.lifecycle import State
from handrail.core.policy import Mode, Plan
from handrail.core.redact import hidden, scrub
from handrail.core.wire import Body, CreateRequest

# Every key of a fresh response with the value it has when the caller said nothing.
DEFAULTS: Final[Mapping[str, Raw]] = MappingProxyType(
    {
        "id": wire.raw(""),
        "object": wire.raw("response"),
        "created_at": wire.raw(0),
        "status": wire.raw("queued"),
        "background": wire.FALSE,
        "completed_at": wire.NULL,
        "error": wire.NULL,
        "frequency_penalty": wire.raw(0.0),
        "incomplete_details": wire.NULL,
        "instructions": wire.NULL,
        "max_output_tokens": wire.NULL,
        "max_tool_calls": wire.NULL,
        "metadata": wire.raw({}),
        "model": wire.raw(""),
        "output": wire.raw([]),
        "parallel_tool_calls": wire.TRUE,
        "presence_penalty": wire.raw(0.0),
        "previous_response_id": wire.NULL,
        "prompt_cache_key": wire.NULL,
        "reasoning": wire.raw({"effort": None, "summary": None}),
        "safety_identifier": wire.NULL,
        "service_tier": wire.raw("auto"),
        "store": wire.FALSE,
        "temperature": wire.raw(1.0),
        "text": wire.raw({"format": {"type": "text"}}),
        "tool_choice": wire.raw("auto"),
        "tools": wire.raw([]),
        "top_logprobs": wire.raw(0),
        "top_p": wire.raw(1.0),
        "truncation": wire.raw("disabled"),
        "usage": wire.NULL,
        "user": wire.NULL,
    }
)

_ECHOED: Final = frozenset(DEFAULTS) - {
    "id",
    "object",
    "created_at",
    "status",
    "background",
    "completed_at",
    "error",
    "incomplete_details",
    "output",
    "store",
    "usage",
}

# The literals of the SDK's ResponseError.code; strict parsing refuses any other.
ERROR_CODES: Final = frozenset(
    {
        "server_error",
        "rate_limit_exceeded",
        "invalid_prompt",
        "data_residency_mismatch",
        "bio_policy",
        "misalignment_policy_violation",
        "vector_store_timeout",
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_content_policy_violation",
        "invalid_image_mode",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """Why a run failed. `cause` is ours or the upstream's own word and goes into `error.type`."""

    cause: str
    message: str
    code: str = "server_error"

    def __post_init__(self) -> None:
        # Words of an upstream may quote a key, and errors get pasted into issues.
        for name in ("cause", "message", "code"):
            object.__setattr__(self, name, scrub(getattr(self, name)))

    def body(self) -> dict[str, str]:
        """The `error` object; a code that the SDK does not know moves into `type`."""
        known = self.code in ERROR_CODES
        return {
            "code": self.code if known else "server_error",
            "message": self.message,
            "type": self.cause if known else self.code,
        }


def opening(request: CreateRequest, *, plan: Plan, response_id: str, created_at: int) -> Body:
    """The response as it is before anything happened: status `queued`, the request echoed.

    `created_at` is in unix seconds.
    """
    echoed = {
        # Copied: a slice would keep the whole request in memory for as long as the response.
        name: value.copy()
        for name, value in request.body.items()
        if name in _ECHOED and wire.is_set(request.body, name)
    }
    if "tools" in echoed:
        tools = wire.items(echoed["tools"], param="tools")
        echoed["tools"] = wire.raw([_tool(tool) for tool in tools])
    return {
        **DEFAULTS,
        **echoed,
        "id": wire.raw(response_id),
        "created_at": wire.raw(created_at),
        "background": wire.raw(plan.mode in (Mode.BACKGROUND, Mode.UPSTREAM)),
        "store": wire.raw(plan.store),
        "previous_response_id": wire.raw(request.previous_response_id),
    }


def unopened(*, model: str, response_id: str, created_at: int) -> Body:
    """The response of a stateless call that the upstream ended before it had begun one."""
    return {
        **DEFAULTS,
        "id": wire.raw(response_id),
        "created_at": wire.raw(created_at),
        "model": wire.raw(model),
        "status": wire.raw(State.IN_PROGRESS),
    }


def _tool(tool: Body) -> Body:
    # OpenAI echoes function tools with these keys filled in; the SDK's strict model requires them.
    if bytes(tool.get("type", b"")) != b'"function"':
        return tool
    return {"parameters": wire.NULL, "strict": wire.TRUE, **tool}


# What a run keeps of its own over whatever an upstream snapshot says.
_OWN: Final = ("id", "object", "created_at", "background", "store", "metadata", "status")


def in_progress(base: Body) -> Body:
    """`base` once the upstream call is on its way."""
    return {**base, "status": wire.raw(State.IN_PROGRESS)}


def closed(
    base: Body, *, fold: Fold, state: State, now: int, error: RunError | None = None
) -> Body:
    """The response at its end: what the upstream said, under our id, with the output so far.

    A cancelled response has no output and no error; one that failed keeps its partial output.
    `now` is in unix seconds.
    """
    # Everything that a foreground caller would see too; `headers`, which the Codex backend adds,
    # are those of its own reply and not part of the response.
    upstream = {name: value for name, value in fold.snapshot.items() if name != "headers"}
    response = {**base, **upstream, **{name: base[name] for name in _OWN}}
    response["previous_response_id"] = base["previous_response_id"]
    response["status"] = wire.raw(state)
    response["completed_at"] = wire.raw(now if state is State.COMPLETED else None)
    response["output"] = wire.raw([] if state is State.CANCELLED else fold.output())
    response["error"] = wire.NULL
    if state is State.FAILED:
        reason = error or upstream_error(fold.snapshot)
        response["error"] = wire.raw(reason.body())
    if state is not State.INCOMPLETE:
        response["incomplete_details"] = wire.NULL
    return response


def upstream_error(snapshot: Mapping[str, Raw]) -> RunError:
    """The error that an upstream put into its own failed response."""
    body = _loosely(snapshot["error"]) if "error" in snapshot else {}
    return RunError(
        cause=str(body.get("type") or "upstream_failed"),
        message=str(body.get("message") or "The upstream reported a failure without a message."),
        code=str(body.get("code") or "server_error"),
    )


def without_secrets(response: Body) -> Body:
    """A response whose `error` shows nothing that looks like a key; the same one if none does."""
    if not wire.is_set(response, "error"):
        return response
    error = _loosely(response["error"])
    shown = hidden(error)
    return response if shown == error else {**response, "error": wire.raw(shown)}


def error_event(item: events.Event) -> RunError:
    """The error in an `error` event, in its flat form (HTTP) or nested form (WebSocket, Azure)."""
    body = _loosely(Raw(item.data))
    nested = body.get("error")
    source = nested if isinstance(nested, dict) else body
    return RunError(
        cause="upstream_failed",
        message=str(source.get("message") or "The upstream ended with an error event."),
        code=str(source.get("code") or "server_error"),
    )


def _loosely(value: Raw) -> dict[str, Any]:
    # The error of somebody who has just failed: what cannot be read of it is left out.
    try:
        body = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
