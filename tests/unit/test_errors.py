"""The catalogue of errors, and the envelope that every client is to see."""

from typing import Any

import pytest

from handrail.errors import (
    CATALOGUE,
    Code,
    ConfigInvalid,
    Fault,
    HandrailError,
    MethodNotAllowed,
    RequestRejected,
    ResponseNotFound,
    StateConflict,
    StoreFailed,
    UpstreamFailed,
    UpstreamRefused,
    fault,
)

EVERY = pytest.mark.parametrize("code", Code)


def envelope(error: HandrailError) -> Any:
    """The error object that a client gets."""
    body: Any = error.fault.body()
    assert list(body) == ["error"]
    return body["error"]


def test_every_code_is_in_the_catalogue() -> None:
    assert set(CATALOGUE) == set(Code)


@EVERY
def test_a_status_is_an_error_and_never_a_409_which_sdks_repeat(code: Code) -> None:
    assert 400 <= CATALOGUE[code].status <= 599
    assert CATALOGUE[code].status != 409


@EVERY
def test_the_type_says_whose_fault_it_is(code: Code) -> None:
    entry = CATALOGUE[code]
    wanted = "server_error" if entry.status >= 500 else "invalid_request_error"
    if code is Code.HTTP_VERSION:
        wanted = "invalid_request_error"
    if entry.status == 429:
        wanted = "rate_limit_error"
    if code is Code.ACCOUNTS_EXHAUSTED:  # the type by which Codex CLI knows such a limit
        wanted = "usage_limit_reached"
    assert entry.type == wanted


@EVERY
def test_every_429_and_503_says_when_to_come_back_and_nothing_else_does(code: Code) -> None:
    entry = CATALOGUE[code]
    assert (entry.retry_after is not None) is (entry.status in (429, 503))
    assert entry.retry_after is None or 1 <= entry.retry_after <= 120


def test_only_what_somebody_has_to_mend_first_forbids_a_retry() -> None:
    forbidden = {code for code in Code if CATALOGUE[code].should_retry is False}
    assert forbidden == {
        Code.UPSTREAM_CREDENTIALS_REJECTED,
        Code.TARGET_GONE,
        Code.STORAGE_QUOTA_EXCEEDED,
        Code.NO_ACCOUNT_ALLOWED,
    }


# What clients may rely on: a code never changes its name or its status.
STATUS = {
    "invalid_json": 400,
    "duplicate_parameter": 400,
    "invalid_type": 400,
    "invalid_value": 400,
    "missing_required_parameter": 400,
    "unsupported_parameter": 400,
    "background_not_enabled": 400,
    "background_requires_store": 400,
    "background_not_supported": 400,
    "store_not_allowed": 400,
    "idempotency_key_reused": 400,
    "idempotency_key_expired": 400,
    "previous_response_not_found": 400,
    "response_not_completed": 400,
    "history_too_large": 400,
    "item_reference_not_found": 400,
    "settings_invalid": 400,
    "malformed_request": 400,
    "invalid_api_key": 401,
    "origin_not_allowed": 403,
    "not_found": 404,
    "model_not_found": 404,
    "encrypted_content_elsewhere": 400,
    "unsupported_endpoint": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "payload_too_large": 413,
    "uri_too_long": 414,
    "unsupported_media_type": 415,
    "expectation_failed": 417,
    "host_not_allowed": 421,
    "upgrade_required": 426,
    "queue_full": 429,
    "accounts_exhausted": 429,
    "budget_exceeded": 429,
    "rate_limit_exceeded": 429,
    "concurrency_exceeded": 429,
    "storage_quota_exceeded": 429,
    "headers_too_large": 431,
    "internal_error": 500,
    "upstream_unreachable": 502,
    "upstream_protocol_error": 502,
    "upstream_ended_early": 502,
    "upstream_stalled": 504,
    "upstream_credentials_rejected": 503,
    "no_account_allowed": 503,
    "target_gone": 503,
    "store_unavailable": 503,
    "storage_full": 503,
    "ledger_unavailable": 503,
    "shutting_down": 503,
    "too_many_connections": 503,
    "http_version_not_supported": 505,
}


def test_every_code_has_the_name_and_the_status_that_clients_know() -> None:
    assert {code.value: CATALOGUE[code].status for code in Code} == STATUS


@EVERY
def test_a_fault_is_what_the_catalogue_says_of_its_code(code: Code) -> None:
    found, entry = fault(code, "m"), CATALOGUE[code]
    assert (found.code, found.status, found.type) == (code, entry.status, entry.type)
    assert (found.retry_after, found.should_retry) == (entry.retry_after, entry.should_retry)


def test_the_envelope_has_all_four_keys_also_when_they_are_null() -> None:
    found = Fault(status=404, type="invalid_request_error", code=None, message="m")
    assert found.body() == {
        "error": {"message": "m", "type": "invalid_request_error", "param": None, "code": None}
    }


def test_the_envelope_carries_what_clients_act_on() -> None:
    found = Fault(status=429, type="t", code="c", message="m", extra={"resets_at": 5})
    assert found.body()["error"] == {
        "message": "m",
        "type": "t",
        "param": None,
        "code": "c",
        "resets_at": 5,
    }


def test_a_rejected_request_names_its_parameter() -> None:
    error = RequestRejected(Code.INVALID_TYPE, "m", param="store")
    assert str(error) == "m"
    assert envelope(error) == {
        "message": "m",
        "type": "invalid_request_error",
        "param": "store",
        "code": "invalid_type",
    }


def test_a_wrong_method_is_told_which_ones_there_are() -> None:
    error = MethodNotAllowed("PUT", allow=["GET", "DELETE"])
    assert (error.fault.status, error.fault.code) == (405, "method_not_allowed")
    assert error.fault.headers == {"allow": "GET, DELETE"}
    assert "GET and DELETE" in str(error)


def test_a_conflict_of_states_is_a_400_without_a_code() -> None:
    error = StateConflict("Cannot cancel a completed response.", param="response_id")
    assert error.fault.status == 400
    assert (envelope(error)["code"], envelope(error)["param"]) == (None, "response_id")


def test_an_unknown_response_is_a_404_in_the_words_of_the_api() -> None:
    error = ResponseNotFound("resp_1")
    assert error.fault.status == 404
    assert envelope(error) == {
        "message": "Response with id 'resp_1' not found.",
        "type": "invalid_request_error",
        "param": "response_id",
        "code": None,
    }


def test_a_failed_upstream_counts_as_sent_unless_it_is_proved_otherwise() -> None:
    assert UpstreamFailed(Code.UPSTREAM_STALLED, "m").sent
    unsent = UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "m", sent=False)
    assert not unsent.sent
    assert (unsent.fault.status, unsent.fault.code) == (502, "upstream_unreachable")


def test_a_refusal_remembers_what_the_upstream_said() -> None:
    error = UpstreamRefused(fault(Code.UPSTREAM_CREDENTIALS_REJECTED, "m"), upstream_status=401)
    assert (error.upstream_status, error.fault.status) == (401, 503)


def test_a_failing_store_is_a_503() -> None:
    assert StoreFailed(Code.STORAGE_FULL, "m").fault.status == 503


def test_everything_raised_on_purpose_has_one_root_but_wrong_settings() -> None:
    roots = (RequestRejected, StateConflict, ResponseNotFound, UpstreamFailed, UpstreamRefused)
    assert all(issubclass(kind, HandrailError) for kind in (*roots, StoreFailed))
    assert not issubclass(ConfigInvalid, HandrailError)


def test_the_catalogue_cannot_be_changed() -> None:
    table: Any = CATALOGUE
    with pytest.raises(TypeError):
        table[Code.NOT_FOUND] = None
