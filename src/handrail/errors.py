"""Everything that can go wrong, and whose fault it is.

The lowest layer: it imports nothing of ours. CATALOGUE is the only place where an error code gets
its status and type, and `docs/reference/errors.md` is held against it by a test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Code(StrEnum):
    """The codes that Handrail itself puts into an error body."""

    INVALID_JSON = "invalid_json"
    DUPLICATE_PARAMETER = "duplicate_parameter"
    INVALID_TYPE = "invalid_type"
    INVALID_VALUE = "invalid_value"
    MISSING_PARAMETER = "missing_required_parameter"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    BACKGROUND_NOT_ENABLED = "background_not_enabled"
    BACKGROUND_REQUIRES_STORE = "background_requires_store"
    BACKGROUND_NOT_SUPPORTED = "background_not_supported"
    STORE_NOT_ALLOWED = "store_not_allowed"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    IDEMPOTENCY_KEY_EXPIRED = "idempotency_key_expired"
    PREVIOUS_RESPONSE_NOT_FOUND = "previous_response_not_found"
    RESPONSE_NOT_COMPLETED = "response_not_completed"
    HISTORY_TOO_LARGE = "history_too_large"
    ITEM_NOT_FOUND = "item_reference_not_found"
    SETTINGS_INVALID = "settings_invalid"
    MALFORMED_REQUEST = "malformed_request"
    INVALID_API_KEY = "invalid_api_key"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    NOT_FOUND = "not_found"
    MODEL_NOT_FOUND = "model_not_found"
    ENCRYPTED_CONTENT_ELSEWHERE = "encrypted_content_elsewhere"
    UNSUPPORTED_ENDPOINT = "unsupported_endpoint"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    URI_TOO_LONG = "uri_too_long"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    EXPECTATION_FAILED = "expectation_failed"
    HOST_NOT_ALLOWED = "host_not_allowed"
    UPGRADE_REQUIRED = "upgrade_required"
    QUEUE_FULL = "queue_full"
    ACCOUNTS_EXHAUSTED = "accounts_exhausted"
    BUDGET_EXCEEDED = "budget_exceeded"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    CONCURRENCY_EXCEEDED = "concurrency_exceeded"
    STORAGE_QUOTA_EXCEEDED = "storage_quota_exceeded"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL_ERROR = "internal_error"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_PROTOCOL_ERROR = "upstream_protocol_error"
    UPSTREAM_ENDED_EARLY = "upstream_ended_early"
    UPSTREAM_STALLED = "upstream_stalled"
    UPSTREAM_CREDENTIALS_REJECTED = "upstream_credentials_rejected"
    NO_ACCOUNT_ALLOWED = "no_account_allowed"
    TARGET_GONE = "target_gone"
    STORE_UNAVAILABLE = "store_unavailable"
    STORAGE_FULL = "storage_full"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    SHUTTING_DOWN = "shutting_down"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    HTTP_VERSION = "http_version_not_supported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a code always means on the wire."""

    status: int
    type: str
    retry_after: int | None = None
    should_retry: bool | None = None


def _caller(status: int) -> Entry:
    return Entry(status=status, type="invalid_request_error")


CATALOGUE: Final[Mapping[Code, Entry]] = MappingProxyType(
    {
        Code.INVALID_JSON: _caller(400),
        Code.DUPLICATE_PARAMETER: _caller(400),
        Code.INVALID_TYPE: _caller(400),
        Code.INVALID_VALUE: _caller(400),
        Code.MISSING_PARAMETER: _caller(400),
        Code.UNSUPPORTED_PARAMETER: _caller(400),
        Code.BACKGROUND_NOT_ENABLED: _caller(400),
        Code.BACKGROUND_REQUIRES_STORE: _caller(400),
        Code.BACKGROUND_NOT_SUPPORTED: _caller(400),
        Code.STORE_NOT_ALLOWED: _caller(400),
        # 400 and not 409: SDKs send a 409 again.
        Code.IDEMPOTENCY_KEY_REUSED: _caller(400),
        Code.IDEMPOTENCY_KEY_EXPIRED: _caller(400),
        Code.PREVIOUS_RESPONSE_NOT_FOUND: _caller(400),
        # 400 and not 409 here too: the response may be under way for hours.
        Code.RESPONSE_NOT_COMPLETED: _caller(400),
        Code.HISTORY_TOO_LARGE: _caller(400),
        Code.ITEM_NOT_FOUND: _caller(400),
        # The operator's own file, told to the operator: nothing here has failed.
        Code.SETTINGS_INVALID: _caller(400),
        Code.MALFORMED_REQUEST: _caller(400),
        Code.INVALID_API_KEY: _caller(401),
        Code.ORIGIN_NOT_ALLOWED: _caller(403),
        Code.NOT_FOUND: _caller(404),
        Code.MODEL_NOT_FOUND: _caller(404),
        Code.ENCRYPTED_CONTENT_ELSEWHERE: _caller(400),
        Code.UNSUPPORTED_ENDPOINT: _caller(404),
        Code.METHOD_NOT_ALLOWED: _caller(405),
        Code.REQUEST_TIMEOUT: _caller(408),
        Code.PAYLOAD_TOO_LARGE: _caller(413),
        Code.URI_TOO_LONG: _caller(414),
        Code.UNSUPPORTED_MEDIA_TYPE: _caller(415),
        Code.EXPECTATION_FAILED: _caller(417),
        Code.HOST_NOT_ALLOWED: _caller(421),
        Code.UPGRADE_REQUIRED: _caller(426),
        Code.QUEUE_FULL: Entry(status=429, type="rate_limit_error", retry_after=5),
        # The type that Codex CLI knows: it tells its user when the limit is over, and stops asking.
        Code.ACCOUNTS_EXHAUSTED: Entry(status=429, type="usage_limit_reached", retry_after=60),
        # What it says of its own is the reset of the budget's window, mostly.
        Code.BUDGET_EXCEEDED: Entry(status=429, type="rate_limit_error", retry_after=5),
        # What it says of its own is the time until one more request fits.
        Code.RATE_LIMIT_EXCEEDED: Entry(status=429, type="rate_limit_error", retry_after=1),
        Code.CONCURRENCY_EXCEEDED: Entry(status=429, type="rate_limit_error", retry_after=1),
        # Room comes when something is deleted or expires: an SDK's own repeats would only knock.
        Code.STORAGE_QUOTA_EXCEEDED: Entry(
            status=429, type="rate_limit_error", retry_after=60, should_retry=False
        ),
        Code.HEADERS_TOO_LARGE: _caller(431),
        Code.INTERNAL_ERROR: Entry(status=500, type="server_error"),
        # 502 and 504: the upstream call may have run, so the answer does not say "try again".
        Code.UPSTREAM_UNREACHABLE: Entry(status=502, type="server_error"),
        Code.UPSTREAM_PROTOCOL_ERROR: Entry(status=502, type="server_error"),
        Code.UPSTREAM_ENDED_EARLY: Entry(status=502, type="server_error"),
        Code.UPSTREAM_STALLED: Entry(status=504, type="server_error"),
        # Only the operator can mend a refused credential, so no client should try again.
        Code.UPSTREAM_CREDENTIALS_REJECTED: Entry(
            status=503, type="server_error", retry_after=60, should_retry=False
        ),
        # Only the operator can give an account a tag, or the caller another rule.
        Code.NO_ACCOUNT_ALLOWED: Entry(
            status=503, type="server_error", retry_after=60, should_retry=False
        ),
        # The response is safe where it was made; only the settings no longer say where that is.
        Code.TARGET_GONE: Entry(
            status=503, type="server_error", retry_after=60, should_retry=False
        ),
        Code.STORE_UNAVAILABLE: Entry(status=503, type="server_error", retry_after=2),
        Code.STORAGE_FULL: Entry(status=503, type="server_error", retry_after=30),
        Code.LEDGER_UNAVAILABLE: Entry(status=503, type="server_error", retry_after=10),
        Code.SHUTTING_DOWN: Entry(status=503, type="server_error", retry_after=5),
        Code.TOO_MANY_CONNECTIONS: Entry(status=503, type="server_error", retry_after=1),
        Code.HTTP_VERSION: _caller(505),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One error as a client is to see it: status, the envelope's four keys, and retry advice.

    `retry_after` is in seconds. `headers` go out with it. `extra` holds further keys of the error
    object that clients act on, such as `resets_at` of a usage limit.
    """

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    retry_after: float | None = None
    should_retry: bool | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)

    def body(self) -> dict[str, object]:
        """The envelope of OpenAI's API, all four keys always present."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
            **self.extra,
        }
        return {"error": error}


def fault(code: Code, message: str, *, param: str | None = None) -> Fault:
    """The fault that belongs to one of our own codes."""
    entry = CATALOGUE[code]
    return Fault(
        status=entry.status,
        type=entry.type,
        code=code.value,
        message=message,
        param=param,
        retry_after=entry.retry_after,
        should_retry=entry.should_retry,
    )


class HandrailError(Exception):
    """Root of what the gateway raises on purpose; carries the fault to show."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class RequestRejected(HandrailError):
    """The caller's request cannot be served as it is: a 4xx that names the parameter."""

    def __init__(self, code: Code, message: str, *, param: str | None = None) -> None:
        super().__init__(fault(code, message, param=param))


class MethodNotAllowed(HandrailError):
    """The route exists, but not for this method; `allow` are the methods that it has."""

    def __init__(self, method: str, *, allow: Sequence[str]) -> None:
        message = f"{method} is not allowed here, only {' and '.join(allow)}."
        problem = fault(Code.METHOD_NOT_ALLOWED, message)
        super().__init__(replace(problem, headers={"allow": ", ".join(allow)}))


class StateConflict(HandrailError):
    """The response exists but its state does not allow the call (400: SDKs retry a 409)."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(
            Fault(status=400, type="invalid_request_error", code=None, message=message, param=param)
        )


class ResponseNotFound(HandrailError):
    """No response of that id for this caller; another caller's id gives the very same answer."""

    def __init__(self, response_id: str) -> None:
        self.id = response_id
        super().__init__(
            Fault(
                status=404,
                type="invalid_request_error",
                code=None,
                message=f"Response with id '{response_id}' not found.",
                param="response_id",
            )
        )


class UpstreamFailed(HandrailError):
    """The upstream could not be reached, or broke off, or made no sense.

    `sent` is False only on proof that no complete request reached it.
    """

    def __init__(self, code: Code, message: str, *, sent: bool = True) -> None:
        super().__init__(fault(code, message))
        self.sent = sent


class UpstreamRefused(HandrailError):
    """The upstream answered with an error of its own; `upstream_status` is what it said.

    `said` is its code and words, `headers` those of its reply: for rules about accounts. They may
    name one, so they go nowhere.
    """

    def __init__(
        self,
        fault: Fault,
        *,
        upstream_status: int,
        said: str = "",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(fault)
        self.upstream_status = upstream_status
        self.said = said
        self.headers = headers


class IssuerFailed(Exception):
    """An OAuth issuer gave no answer that is of use. For the operator: no caller sees it.

    The message is one line without a secret. `sent` is False only on proof that no complete
    request reached the issuer; otherwise a credential that works once may be used up.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class StoreFailed(HandrailError):
    """The run store cannot do what was asked of it: disk, lock or corruption.

    `detail` is for the log: the engine's own name of the error. `final` says that asking again is
    of no use before the next start.
    """

    def __init__(
        self, code: Code, message: str, *, detail: str | None = None, final: bool = False
    ) -> None:
        super().__init__(fault(code, message))
        self.detail = detail
        self.final = final


class BudgetExceeded(HandrailError):
    """A budget does not allow the call: a 429 that says when it will.

    `resets_at` is in unix seconds, `retry_after` in seconds. `passes` says that only work under way
    stands in the way; otherwise an SDK's own repeats would only knock.
    """

    def __init__(self, message: str, *, resets_at: float, retry_after: float, passes: bool) -> None:
        problem = fault(Code.BUDGET_EXCEEDED, message)
        super().__init__(
            replace(
                problem,
                retry_after=retry_after,
                should_retry=None if passes else False,
                extra={"resets_at": int(resets_at)},
            )
        )


class RateLimited(HandrailError):
    """A rate limit does not allow the call yet: a 429 that says when it will.

    `retry_after` is in seconds, `headers` tell how the limits stand.
    """

    def __init__(self, message: str, *, retry_after: float, headers: Mapping[str, str]) -> None:
        problem = fault(Code.RATE_LIMIT_EXCEEDED, message)
        super().__init__(replace(problem, retry_after=retry_after, headers=headers))


class ConfigInvalid(Exception):
    """A setting is wrong; the message is one line that names the file or variable."""
