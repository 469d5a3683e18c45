"""Upstream error answers in every form, and what a caller is told."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.responses import RunError
from handrail.core.upstream_errors import (
    MAX_MESSAGE,
    failure,
    is_about_model,
    refusal,
)
from handrail.errors import Fault
from tests.unit.core.generated import JSON, spelled

NOW = 1_700_000_000.0
NO_OBJECT = "with a body that is no error object"
HTML = "with an HTML page instead of an error object"


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


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_credential_is_ours_and_nothing_of_the_answer_is_told(status: int) -> None:
    body = {"error": {"message": "key sk-abcdefghijkl of org X", "code": "token_expired"}}
    fault = told(status, body, {"retry-after": "1"})
    assert (fault.status, fault.code) == (503, "upstream_credentials_rejected")
    assert (fault.type, fault.should_retry) == ("server_error", False)
    assert fault.retry_after == 60
    assert fault.message == (
        "The upstream rejected the gateway's own credential; its operator has to mend that."
    )


@pytest.mark.parametrize("status", [100, 199, 301, 304, 399, 600, 999])
def test_a_status_that_is_no_answer_is_a_protocol_error(status: int) -> None:
    fault = told(status)
    assert (fault.status, fault.code) == (502, "upstream_protocol_error")
    assert fault.message == f"The upstream answered {status}, which is no answer."


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (499, "invalid_request_error"),
        (500, "server_error"),
        (503, "server_error"),
        (599, "server_error"),
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
        (b"", "", "with an empty body"),
        (b" \n", "", "with an empty body"),
        (b"<html>nginx</html>", "", HTML),
        (b"  <!doctype html>", "", HTML),
        (b"Bad Gateway", "text/html; charset=utf-8", HTML),
        (b"Bad Gateway", "text/plain", NO_OBJECT),
        (b"[]", "", NO_OBJECT),
        (b"5", "", NO_OBJECT),
        (b"{}", "", NO_OBJECT),
        (b'{"message":5}', "", NO_OBJECT),
        (b'{"error":{}}', "", NO_OBJECT),
        (b'{"error":{"message":null}}', "", NO_OBJECT),
        (b'{"error":{"message":""}}', "", NO_OBJECT),
        (b'{"error":5}', "", NO_OBJECT),
        (b"\xff\xfe", "", NO_OBJECT),
        (b'{"error":{"message":"\xff"}}', "", NO_OBJECT),
        (b'{"error":{"message":"\\ud800"}}', "", NO_OBJECT),
        (b"[" * 5_000, "", NO_OBJECT),
    ],
)
def test_an_answer_that_says_nothing_is_described(
    body: bytes, content_type: str, words: str
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    assert told(502, body, headers).message == f"The upstream answered 502 {words}."


@pytest.mark.parametrize("place", ["code", "type"])
def test_an_error_without_a_message_is_told_by_its_code_or_type(place: str) -> None:
    fault = told(404, {"error": {place: "usage_limit_reached"}})
    assert (fault.status, fault.message) == (429, "The upstream answered 404: usage_limit_reached.")


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


@pytest.mark.parametrize("name", ["code", "type", "param"])
def test_a_secret_given_back_as_a_word_is_masked_and_so_is_one_that_a_cut_would_halve(
    name: str,
) -> None:
    for said in ("p!ain", "sk-abcdefghijkl", "x" * 198 + "p!ain"):
        fault = told(400, {"error": {"message": "m", name: said}})
        assert not [word for word in ("p!", "sk-abc") if word in str(fault)]
    kept = {"x" * 98 + "p!ain": "x" * 1_998 + "p!ain"}
    fault = told(400, {"error": {"message": "m", "details": kept}})
    assert "p!" not in str(fault.extra)


def test_a_long_message_and_a_long_code_are_cut() -> None:
    fault = told(400, {"error": {"message": "m " * 9_000, "code": "c" * 9_000}})
    assert len(fault.message) == MAX_MESSAGE == 2_000
    assert fault.code == "c" * 200


@given(st.integers(400, 599), spelled(JSON) | st.binary(max_size=30))
def test_any_answer_becomes_an_envelope_with_a_message(status: int, body: bytes) -> None:
    envelope: Any = told(status, body).body()
    json.dumps(envelope)
    assert isinstance(envelope["error"]["message"], str)
    assert isinstance(envelope["error"]["type"], str)


def test_the_time_to_wait_goes_along_with_the_error() -> None:
    assert told(429, {"error": {"message": "m"}}, {"retry-after": "7"}).retry_after == 7.0
    assert told(503, {"error": {"message": "Try again in 1.2s."}}).retry_after == 1.2
    assert told(429, {"error": {"message": "m", "retry_after": 9}}).retry_after == 9.0
    assert told(429, {"error": {"message": "m"}}).retry_after is None


def test_words_that_are_no_error_object_may_say_how_long_to_wait() -> None:
    fault = told(429, b"Too many requests, try again in 5 seconds.")
    assert (fault.retry_after, "Too many" in fault.message) == (5.0, False)
    assert told(503, b"<html>Retry after 2 min</html>").retry_after == 120.0
    assert told(429, b"try again in 5 seconds", {"retry-after": "7"}).retry_after == 7.0


@pytest.mark.parametrize(
    "kind",
    [
        "billing_hard_limit_reached",
        "insufficient_quota",
        "usage_limit_reached",
        "usage_not_included",
    ],
)
@pytest.mark.parametrize("place", ["type", "code"])
def test_a_lasting_limit_tells_clients_not_to_try_again(place: str, kind: str) -> None:
    assert told(429, {"error": {"message": "m", place: kind}}).should_retry is False
    assert told(429, {"error": {"message": "m"}}).should_retry is None


@pytest.mark.parametrize(
    ("status", "error", "becomes", "code"),
    [
        # D-24: the reference answers 404 here on one path and 429 on the other
        (404, {"type": "usage_limit_reached"}, 429, None),
        (404, {"code": "usage_limit_reached"}, 429, "usage_limit_reached"),
        (404, {"code": "rate_limit_exceeded"}, 429, "rate_limit_exceeded"),
        (404, {"message": "usage_limit_reached in words"}, 404, None),
        (404, {"code": "usage_not_included"}, 403, "usage_not_included"),
        (403, {"message": "Not included in your plan."}, 403, "usage_not_included"),
        (429, {"code": "usage_not_included"}, 403, "usage_not_included"),
        (404, {"message": "Your subscription does not include it"}, 403, "usage_not_included"),
        # D-33: the reference answers a context overflow with a made-up success
        (400, {"code": "context_length_exceeded"}, 400, "context_length_exceeded"),
        (400, {"type": "exceed_context_size_error", "code": 400}, 400, "context_length_exceeded"),
        (400, {"message": "maximum context length is 8"}, 400, "context_length_exceeded"),
        (
            400,
            {"message": "maximum context length is 8", "code": "invalid_value"},
            400,
            "context_length_exceeded",
        ),
        (
            400,
            {"message": "Your input exceeds the context window of this model."},
            400,
            "context_length_exceeded",
        ),
        (413, {"message": "prompt is too long: 9 > 8"}, 400, "context_length_exceeded"),
        (422, {"message": "Input is too long."}, 400, "context_length_exceeded"),
        (500, {"message": "the context size is 8"}, 400, "context_length_exceeded"),
        (502, {"message": "the context size is 8"}, 502, None),
        (
            400,
            {"message": "The 'm' model is not supported when using Codex with a ChatGPT account."},
            400,
            "model_not_supported",
        ),
        (
            404,
            {"message": "The model `m` does not exist or you do not have access to it."},
            400,
            "model_not_supported",
        ),
        (404, {"message": "m", "code": "model_not_found"}, 404, "model_not_found"),
        (400, {"message": "Unsupported parameter: x"}, 400, "unsupported_parameter"),
        (400, {"message": "Unsupported parameter: x", "code": "c"}, 400, "c"),
        (400, {"message": "something else"}, 400, None),
    ],
)
def test_an_answer_that_would_mislead_is_corrected(
    status: int, error: dict[str, Any], becomes: int, code: str | None
) -> None:
    fault = told(status, {"error": error})
    assert (fault.status, fault.code) == (becomes, code)


def test_a_word_that_only_arises_where_two_fields_meet_corrects_nothing() -> None:
    assert told(404, {"error": {"code": "usage_", "type": "limit"}}).status == 404
    assert told(404, {"error": {"type": "usage_not_", "message": "included"}}).status == 404


def test_what_an_answer_is_about_is_named() -> None:
    assert told(400, {"detail": "Unsupported parameter: max_output_tokens"}).param == (
        "max_output_tokens"
    )
    assert told(400, {"error": {"message": "unsupported parameter: 'a.b[0]'."}}).param == "a.b[0]"
    assert told(400, {"error": {"message": "Unsupported parameter: top_p."}}).param == "top_p"
    assert told(400, {"error": {"code": "context_length_exceeded"}}).param == "input"
    unserved = "The 'm' model is not supported when using Codex with a ChatGPT account."
    assert told(400, {"detail": unserved}).param == "model"
    body = {"detail": [{"loc": ["body", "tools", 0, "name"], "msg": "Field required"}]}
    assert told(422, body).param == "tools[0].name"
    both = [{"loc": ["query", "x"], "msg": "bad"}, {"loc": ["query", "y"], "msg": "bad"}]
    assert told(422, {"detail": both}).param == "query.x"
    assert told(422, {"detail": [{"loc": ["body"], "msg": "bad"}]}).param is None
    assert told(422, {"detail": []}).param is None
    deep = {"loc": ["body", *"abcdefghijkl"], "msg": "bad"}
    assert told(422, {"detail": [deep]}).param == "a.b.c.d.e.f.g.h.i.j"
    assert told(400, {"detail": {"message": "m", "code": "c", "param": "p"}}).param == "p"


def test_a_refused_model_is_known_by_its_code() -> None:
    words = {"message": "The model `m` does not exist or you do not have access to it."}
    body = json.dumps({"error": words}).encode()
    assert is_about_model(refusal(404, {}, body, now=NOW))
    assert not is_about_model(refusal(404, {}, b"{}", now=NOW))
    assert not is_about_model(failure(RunError(cause="x", message="m"), now=NOW))


@pytest.mark.parametrize(
    "code",
    ["model_not_found", "model_not_supported", "model_not_supported_with_chatgpt_account"],
)
def test_each_code_of_a_refused_model_is_known_but_not_at_the_end_of_a_stream(code: str) -> None:
    body = json.dumps({"error": {"code": code, "message": "m"}}).encode()
    assert is_about_model(refusal(400, {}, body, now=NOW))
    # A stream that has begun has run: nothing about it may be tried again.
    assert not is_about_model(failure(RunError(cause="x", message="m", code=code), now=NOW))


def test_details_stay_without_secrets_and_without_bulk() -> None:
    deep: Any = "x"
    for _ in range(9):
        deep = [deep]
    error = {
        "message": "m",
        "innererror": {"code": "Filter", "by": "p!ain", "many": list(range(50)), "n": 1.5},
        "details": deep,
        "misalignment": {},
    }
    fault = told(400, {"error": error})
    assert fault.extra == {
        "innererror": {"code": "Filter", "by": "[redacted]", "many": list(range(20)), "n": 1.5},
        "details": [[[[[]]]]],
    }


def test_every_detail_that_clients_act_on_stays_when_it_says_something() -> None:
    said = {
        "details": ["d"],
        "innererror": {"i": 1},
        "misalignment": {"category": "c"},
        "plan_type": "plus",
        "resets_at": 5,
        "resets_in_seconds": 0,
    }
    assert told(400, {"error": {"message": "m", "other": 1, **said}}).extra == said
    nothings: list[object] = [None, "", [], {}]
    for nothing in nothings:
        error = {"message": "m", **dict.fromkeys(said, nothing)}
        assert told(400, {"error": error}).extra == {}


def test_objects_and_texts_in_details_are_bounded_like_lists() -> None:
    deep: Any = "x"
    for _ in range(9):
        deep = {"k": deep}
    wide = {f"k{number}": number for number in range(50)}
    long = {"y" * 500: "z " * 5_000}
    error = {"message": "m", "details": deep, "innererror": wide, "misalignment": long}
    assert told(400, {"error": error}).extra == {
        "details": {"k": {"k": {"k": {"k": {}}}}},
        "innererror": {f"k{number}": number for number in range(20)},
        "misalignment": {"y" * 100: "z " * 1_000},
    }


@pytest.mark.parametrize(
    ("code", "cause", "status", "kind"),
    [
        ("rate_limit_exceeded", "x", 429, "rate_limit_error"),
        ("server_error", "usage_limit_reached", 429, "usage_limit_reached"),
        ("insufficient_quota", "x", 429, "rate_limit_error"),
        ("invalid_prompt", "x", 400, "invalid_request_error"),
        ("context_length_exceeded", "x", 400, "invalid_request_error"),
        ("usage_not_included", "x", 403, "invalid_request_error"),
        ("slow_down", "x", 503, "server_error"),
        ("server_is_overloaded", "x", 503, "server_error"),
        ("server_error", "upstream_failed", 502, "server_error"),
    ],
)
def test_a_failed_stream_is_answered_as_the_api_would_have_at_once(
    code: str, cause: str, status: int, kind: str
) -> None:
    error = RunError(cause=cause, message="Please try again in 6m0s.", code=code)
    fault = failure(error, now=NOW).fault
    assert (fault.status, fault.type, fault.code) == (status, kind, code)
    assert (fault.message, fault.retry_after) == ("Please try again in 6m0s.", 360.0)
