"""Answers: streams folded to JSON, empty ones, errors, and how long to wait."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from handrail.core import wire
from handrail.core.failover import consequence
from handrail.core.mending import mended
from handrail.core.profiles import CODEX
from handrail.core.rewrite import upstream_request
from handrail.core.upstream_errors import is_about_model, refusal
from handrail.errors import Code, HandrailError, UpstreamRefused
from tests.conformance.bodies import encoded
from tests.conformance.known import catalogue
from tests.conformance.recorded import NOW, Json, Outcome, Row
from tests.conformance.upstream_stub import Reply, Upstream, answered

# What the reference computes from the output and puts beside it, as SDKs do on their own.
_COMPUTED: Final = frozenset(
    {
        "output_text",
        "reasoning_summary_text",
        "phase",
        "phase_text",
        "commentary_text",
        "final_answer_text",
    }
)


def convert_sse_to_json(row: Row) -> Outcome:
    """A stream whose caller wants JSON. Ours says `store: false` of every stateless answer."""
    text, status = row.args[0], (*row.args[1:2], 200)[0]
    reply = Reply(
        status=status,
        headers={"content-type": "text/event-stream"},
        body=text.encode(),
        silent=text.startswith("<stream silent"),
    )
    return Outcome(recorded=_recorded_answer(row), ours=answer(Upstream(reply)))


def answer(upstream: Upstream) -> Json:
    """What the caller gets for a create over this upstream."""
    try:
        body = asyncio.run(answered(upstream))
    except HandrailError as error:
        fault = error.fault
        if fault.code in set(Code):  # found by the gateway, not told by the upstream
            return {"outcome": f"{fault.status} {fault.code}"}
        return {"outcome": str(fault.status), "code": fault.code, "message": fault.message}
    found: Json = json.loads(body)
    assert found.pop("store") is False
    return {"outcome": "answered", "http": 200, **found}


def _recorded_answer(row: Row) -> Json:
    if row.error is not None:
        return {"outcome": "exception"}
    body, status = row.result["body"], row.result["status"]
    if row.result["contentType"] == "text/event-stream":
        return {"outcome": "answered", "http": status, "raw text": True}
    if "error" in body:
        return {"outcome": str(status), **{k: body["error"][k] for k in ("code", "message")}}
    rest = {name: value for name, value in body.items() if name not in _COMPUTED}
    return {"outcome": "answered", "http": status, **rest}


def is_empty_response(row: Row) -> Outcome:
    """Whether a 200 with this body makes another create go out."""
    body = encoded(row.args[0])
    upstream = Upstream(Reply(headers={"content-type": "application/json"}, body=body))
    found = answer(upstream)
    assert found["outcome"] in ("answered", "502 upstream_protocol_error")
    return Outcome(recorded={"repeated": row.result}, ours={"repeated": len(upstream.calls) > 1})


def _body(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else encoded(body)


def refused(status: int, body: Any, headers: Mapping[str, str] | None = None) -> UpstreamRefused:
    """Our error for an upstream answer."""
    return refusal(status, dict(headers or {}), _body(body), now=NOW)


def handle_error_response(row: Row) -> Outcome:
    """An error answer: status, code, message and type where both have them, seconds to wait."""
    given = row.args[0]
    fault = refused(given["status"], given["body"], given["headers"]).fault
    error = row.result["body"]["error"]
    limit = row.result["rateLimit"]
    recorded = {
        "outcome": str(row.result["status"]),
        "code": error.get("code"),
        "wait": None if limit is None else limit["retryAfterMs"] / 1_000,
        "message": error["message"],
        "type": error.get("type"),
    }
    ours = {
        "outcome": str(fault.status),
        "code": fault.code,
        "wait": fault.retry_after,
        "message": fault.message,
        "type": fault.type,
    }
    # The reference quotes the raw body or the status line where the upstream gave no message.
    quoted = (_body(given["body"]).decode(), given["statusText"], "Request failed")
    mute = {"message"} if error["message"] in quoted and _has_no_message(given["body"]) else set()
    mute |= {"type"} if error.get("type") is None else set()
    return Outcome(
        recorded={k: v for k, v in recorded.items() if k not in mute},
        ours={k: v for k, v in ours.items() if k not in mute},
    )


def _has_no_message(body: Any) -> bool:
    return not (isinstance(body, dict) and (body.get("detail") or _is_text(body.get("error"))))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def error_classification(row: Row) -> Outcome:
    """What an error is taken for; the first argument names the question."""
    question, *args = row.args
    return _QUESTIONS[question](row, args)


def _disabled(row: Row, args: list[Any]) -> Outcome:
    """Whether the error is about the account behind us and not about the request."""
    status, code, message = args
    fault = refused(status, {"error": {"code": code, "message": message}}).fault
    about = fault.code == Code.UPSTREAM_CREDENTIALS_REJECTED
    return Outcome(recorded={"about the account": row.result}, ours={"about the account": about})


def _entitlement(row: Row, args: list[Any]) -> Outcome:
    code, message = args
    fault = refused(404, {"error": {"code": code, "message": message}}).fault
    ours = fault.code == "usage_not_included"
    return Outcome(recorded={"entitlement": row.result}, ours={"entitlement": ours})


def _unsupported(row: Row, args: list[Any]) -> Outcome:
    error = refused(400, args[0])
    recorded = {"unsupported": row.result["isUnsupported"]}
    ours: Json = {"unsupported": is_about_model(error)}
    if "message" in row.result:
        recorded["message"] = row.result["message"]
        ours["message"] = error.fault.message
    return Outcome(recorded=recorded, ours=ours)


def _fallback(row: Row, args: list[Any]) -> Outcome:
    """Which model is asked next: ours knows the chains that the settings name, and no others."""
    asked = args[0]
    body = encoded({"model": asked["requestedModel"], "input": "hi"})
    request = upstream_request(
        wire.read_create(body), profile=CODEX, stream=False, catalogue=catalogue()
    )
    for model in asked.get("attemptedModels", ()):
        request = request.with_model(model)
    error = refused(400, asked["errorBody"])
    better = mended(request, error, fallbacks=asked.get("customChain", {}))
    model = None if better is None else wire.string(better.body, "model")
    return Outcome(recorded={"next model": row.result}, ours={"next model": model})


def _withdrawn(row: Row, args: list[Any]) -> Outcome:
    """Whether a 401 with this text ends the account's rotation."""
    means = consequence(refused(401, {"error": {"message": args[0]}}), model="m")
    return Outcome(recorded={"over": row.result}, ours={"over": means.ended})


def _invalidated(row: Row, args: list[Any]) -> Outcome:
    """What the caller hears of a revoked credential, in whatever words the upstream said it."""
    body = args[0] if args[0][:1] == "{" else {"message": args[0]}
    fault = refused(401, body).fault
    return Outcome(
        recorded={"outcome": row.result}, ours={"outcome": f"{fault.status} {fault.code}"}
    )


_QUESTIONS: Final = {
    "isWorkspaceDisabledError": _disabled,
    "isEntitlementError": _entitlement,
    "getUnsupportedCodexModelInfo": _unsupported,
    "resolveUnsupportedCodexFallbackModel": _fallback,
    "isTokenInvalidationError": _withdrawn,
    "buildTokenInvalidationBody": _invalidated,
}


def wait_in_body(row: Row) -> Outcome:
    """Seconds to wait, by the body alone."""
    return _wait(row, refused(429, row.args[0]).fault.retry_after)


def wait_in_headers(row: Row) -> Outcome:
    """Seconds to wait, by the headers alone."""
    return _wait(row, refused(503, "", row.args[0]).fault.retry_after)


def _wait(row: Row, ours: float | None) -> Outcome:
    recorded = None if row.result is None else row.result / 1_000
    rounded = None if ours is None else round(ours, 6)  # a unix time in ms leaves dust behind
    return Outcome(recorded={"wait": recorded}, ours={"wait": rounded})
