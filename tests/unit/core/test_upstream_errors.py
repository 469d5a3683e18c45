"""Upstream error answers in every form, and what a caller is told."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.upstream_errors import MAX_MESSAGE, refusal, retry_after
from handrail.errors import Fault
from tests.unit.core.generated import JSON, spelled

NOW = 1_700_000_000.0
IN_A_MINUTE = "Tue, 14 Nov 2023 22:14:20 GMT"
WEEK = 604_800.0


def told(status: int, body: Any = b"", headers: dict[str, str] | None = None) -> Fault:
    """The fault of an upstream answer; a body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = refusal(status, headers or {}, data, now=NOW, secrets=["p!ain"])
    assert error.upstream_status == status
    return error.fault


def test_an_error_object_keeps_its_message_code_type_and_param() -> None:
    error = {"message": "No such model.", "type": "t", "code": "c", "param": "model", "x": 1}
    fault = told(404, {"error": error})
    assert fault == Fault(status=404, type="t", code="c", message="No such model.", param="model")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_credential_is_ours_and_nothing_of_the_answer_is_told(status: int) -> None:
    body = {"error": {"message": "key sk-abcdefghijkl of org X", "code": "token_expired"}}
    fault = told(status, body, {"retry-after": "1"})
    assert (fault.status, fault.code) == (503, "upstream_credentials_rejected")
    assert (fault.type, fault.should_retry) == ("server_error", False)
    assert fault.retry_after == 60
    assert "org X" not in str(fault.body())


@pytest.mark.parametrize("status", [100, 199, 301, 304, 399])
def test_a_status_that_is_no_answer_is_a_protocol_error(status: int) -> None:
    fault = told(status)
    assert (fault.status, fault.code) == (502, "upstream_protocol_error")
    assert str(status) in fault.message


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (499, "invalid_request_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_an_error_without_a_type_gets_that_of_its_status(status: int, kind: str) -> None:
    for error in ({"message": "m"}, {"message": "m", "type": None}, {"message": "m", "type": ""}):
        fault = told(status, {"error": error})
        assert (fault.status, fault.type, fault.code) == (status, kind, None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"detail": "Store must be set to false"}, "Store must be set to false"),
        (
            {"detail": [{"msg": "Field required", "loc": ["a"]}, {"msg": "Bad"}]},
            "Field required; Bad",
        ),
        ({"detail": ["one", {"other": 1}]}, "one; {'other': 1}"),
        ({"detail": [str(number) for number in range(9)]}, "0; 1; 2; 3; 4"),
        ({"detail": {"a": 1}}, '{"a":1}'),
        ({"detail": None}, "null"),
        ({"error": "plain words"}, "plain words"),
        ({"message": "at the top", "code": 400}, "at the top"),
        ({"error": None, "detail": "x"}, "x"),
        ({"error": {"message": ["odd"]}}, "['odd']"),
    ],
)
def test_every_form_of_error_is_understood(body: Any, message: str) -> None:
    fault = told(400, body)
    assert fault.message == message
    assert fault.code is None
    assert set(fault.body()["error"]) == {"message", "type", "param", "code"}  # type: ignore[call-overload]


def test_an_error_text_keeps_the_keys_beside_it() -> None:
    fault = told(400, {"error": "words", "code": "c", "type": "t", "param": "p"})
    assert (fault.message, fault.code, fault.type, fault.param) == ("words", "c", "t", "p")


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"", "", "an empty body"),
        (b" \n", "", "an empty body"),
        (b"<html>nginx</html>", "", "an HTML page"),
        (b"  <!doctype html>", "", "an HTML page"),
        (b"Bad Gateway", "text/html; charset=utf-8", "an HTML page"),
        (b"Bad Gateway", "text/plain", "no error object"),
        (b"[]", "", "no error object"),
        (b"5", "", "no error object"),
        (b"{}", "", "no error object"),
        (b'{"message":5}', "", "no error object"),
        (b'{"error":{}}', "", "no error object"),
        (b'{"error":{"message":null}}', "", "no error object"),
        (b'{"error":{"message":""}}', "", "no error object"),
        (b'{"error":5}', "", "no error object"),
        (b"\xff\xfe", "", "no error object"),
        (b'{"error":{"message":"\\ud800"}}', "", "no error object"),
        (b"[" * 5_000, "", "no error object"),
    ],
)
def test_an_answer_that_says_nothing_is_described(
    body: bytes, content_type: str, words: str
) -> None:
    fault = told(502, body, {"content-type": content_type})
    assert words in fault.message
    assert "502" in fault.message
    assert "nginx" not in fault.message


def test_codes_that_are_no_words_are_left_out() -> None:
    fault = told(400, {"error": {"message": "m", "code": 400, "param": ["x"], "type": {}}})
    assert (fault.code, fault.param, fault.type) == (None, None, "invalid_request_error")


def test_what_a_client_acts_on_of_a_usage_limit_stays() -> None:
    error = {
        "type": "usage_limit_reached",
        "message": "m",
        "plan_type": "plus",
        "resets_at": 1_800_000_000,
        "resets_in_seconds": 3_600.5,
        "account": "x",
    }
    fault = told(429, {"error": error})
    assert fault.type == "usage_limit_reached"
    kept = {"plan_type": "plus", "resets_at": 1_800_000_000, "resets_in_seconds": 3_600.5}
    assert fault.extra == kept
    assert told(429, {"error": {**error, "plan_type": None, "resets_at": []}}).extra == {
        "resets_in_seconds": 3_600.5
    }
    assert fault.body()["error"]["resets_at"] == 1_800_000_000  # type: ignore[index]


def test_secrets_in_the_upstreams_words_are_masked() -> None:
    message = "key p!ain or sk-abcdefghijkl of a@b.example"
    text = told(400, {"error": {"message": message}}).message
    assert not [word for word in ("p!ain", "sk-abc", "a@b") if word in text]


def test_a_long_message_and_a_long_code_are_cut() -> None:
    fault = told(400, {"error": {"message": "m " * 9_000, "code": "c" * 9_000}})
    assert len(fault.message) == MAX_MESSAGE
    assert fault.code == "c" * 200


@given(st.integers(400, 599), spelled(JSON) | st.binary(max_size=30))
def test_any_answer_becomes_an_envelope_with_a_message(status: int, body: bytes) -> None:
    envelope: Any = told(status, body).body()
    json.dumps(envelope)
    assert isinstance(envelope["error"]["message"], str)
    assert isinstance(envelope["error"]["type"], str)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "99999999"}, WEEK),
        ({"retry-after": IN_A_MINUTE}, 60.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 -0000"}, 60.0),
        ({"retry-after": "Tue, 14 Nov 2023 23:14:20 +0100"}, 60.0),
        ({"retry-after": "Mon, 13 Nov 2023 22:14:20 GMT"}, None),
        ({"retry-after": "Tue, 14 Nov 2033 22:14:20 GMT"}, WEEK),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "0", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": IN_A_MINUTE}, None),
    ],
)
def test_the_time_to_wait_is_read_in_every_form(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers, now=NOW) == seconds


def test_the_time_to_wait_goes_along_with_the_error() -> None:
    assert told(429, {"error": {"message": "m"}}, {"retry-after": "7"}).retry_after == 7.0


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_no_header_breaks_the_reading_of_the_time_to_wait(text: str) -> None:
    seconds = retry_after({"retry-after": text, "retry-after-ms": text}, now=NOW)
    assert seconds is None or 0 < seconds <= WEEK


def test_a_date_with_an_endless_zone_is_no_time_to_wait() -> None:
    text = "Mon, 01 Jan 2024 00:00:00 +" + "9" * 20
    assert retry_after({"retry-after": text}, now=NOW) is None
