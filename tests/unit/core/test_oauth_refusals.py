"""What an issuer's refusals mean: which end an account, and what its operator is told to do."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.oauth_refusals import IssuerRefused, Refusal, error_code, refusal_of

NOW = 1_000_000.0
ENDING = [
    "refresh_token_expired",
    "refresh_token_reused",
    "refresh_token_invalidated",
    "refresh_token_revoked",
    "token_revoked",
    "token_invalidated",
    "invalid_grant",
]


def refusal(status: int, body: object = None, **headers: str) -> Refusal:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return refusal_of(
        status,
        data,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        now=NOW,
    )


@pytest.mark.parametrize("code", ENDING)
@pytest.mark.parametrize("status", [400, 401, 403])
def test_these_codes_end_an_account_wherever_they_stand(code: str, status: int) -> None:
    for body in (
        {"error": {"code": code}},
        {"error": code},
        {"code": code},
        {"code": code.upper()},
    ):
        said = refusal(status, body, retry_after="5")
        assert said.permanent
        assert (said.code, said.status) == (code, status)
        assert "handrail accounts login" in said.next_step
        assert said.reason.startswith(("The login has ", "The login was ", "The issuer "))
        assert said.retry_after is None


@pytest.mark.parametrize("body", [None, b"", b"<html>", {}, {"error": "other"}, [1], {"error": 5}])
def test_any_401_ends_an_account(body: object) -> None:
    said = refusal(401, body)
    assert said.permanent
    assert said.reason == "The issuer takes this login no more"
    assert said.next_step == "sign in again: handrail accounts login"


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Your session Has been invalidated."}},
        {"message": "It has been revoked"},
        {"error": "x", "error_description": "the grant has been revoked"},
    ],
)
def test_words_that_say_so_end_an_account(status: int, body: object) -> None:
    assert refusal(status, body).permanent


@pytest.mark.parametrize(
    ("status", "body", "words", "step"),
    [
        (307, b"", "not followed", "oauth.issuer"),
        (204, b"", "not followed", "oauth.issuer"),
        (400, {"error": "invalid_request"}, "did not take", "if it stays so"),
        (400, {"error": {"message": "nothing has been said"}}, "did not take", "if it stays so"),
        (400, {"error": "invalid_client"}, "does not know this client", "oauth.client_id"),
        (400, {"error": "unauthorized_client"}, "does not know this client", "oauth.client_id"),
        (403, b"<html>blocked</html>", "this machine or network", "proxy"),
        (403, {"error": "access_denied"}, "declined", "accounts login"),
        (400, {"error": "expired_token"}, "has expired", "--device-code"),
        (404, {"message": "has been revoked"}, "did not take", "if it stays so"),
        (429, {"error": "slow"}, "too many requests", "nothing"),
        (500, b"", "is ill", "nothing"),
        (503, {"message": "it has been revoked"}, "is ill", "nothing"),
    ],
)
def test_what_passes_is_told_with_its_next_step(
    status: int, body: object, words: str, step: str
) -> None:
    said = refusal(status, body)
    assert not said.permanent
    assert words in said.reason
    assert step in said.next_step


@pytest.mark.parametrize("code", ["invalid_client", "unauthorized_client"])
def test_an_unknown_client_at_401_ends_no_login_and_names_the_settings(code: str) -> None:
    said = refusal(401, {"error": code})
    assert not said.permanent
    assert said.next_step == (
        "compare oauth.issuer and oauth.client_id with what the issuer gave you"
    )


def test_any_other_refusal_at_401_ends_the_login() -> None:
    said = refusal(401, {"error": "access_denied"})
    assert said.permanent
    assert said.next_step == (
        "begin again: handrail accounts login, then sign in again: handrail accounts login"
    )


@pytest.mark.parametrize(("status", "wait"), [(429, 7.0), (503, 7.0), (400, 7.0)])
def test_a_wait_that_the_issuer_asks_for_is_told(status: int, wait: float) -> None:
    assert refusal(status, {}, retry_after="7").retry_after == wait
    assert refusal(status, {}).retry_after is None


def test_a_wait_may_be_in_the_body() -> None:
    assert refusal(429, {"error": {"message": "Please try again in 12s"}}).retry_after == 12.0


def test_the_headers_may_be_left_out() -> None:
    assert refusal_of(500, b"", now=NOW).retry_after is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": {"code": "A_b.c"}}, "a_b.c"),
        ({"error": {"code": "rt-a-credential-given-back"}}, ""),
        ({"error": {"code": "5f2a9c1e"}}, ""),
        ({"error": {"code": 5}, "code": "outer"}, "outer"),
        ({"error": {"code": "eyJ two words"}}, ""),
        ({"error": "x" * 48}, "x" * 48),
        ({"error": "x" * 49}, ""),
        ({"error": ""}, ""),
        ({}, ""),
        ([], ""),
        (b'{"a":' * 5_000, ""),
        (b"\xff", ""),
    ],
)
def test_a_code_is_a_plain_word_or_none(body: object, code: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert error_code(data) == code


def test_a_refusal_in_one_line() -> None:
    said = refusal(401, {"error": {"code": "refresh_token_reused", "message": "canary"}})
    assert str(said) == (
        "The login has been used by another program, so the issuer ended it (401 "
        "refresh_token_reused). Next: let Handrail have a login that nothing else uses: handrail "
        "accounts login."
    )
    error = IssuerRefused(said)
    assert (str(error), error.refusal) == (str(said), said)
    assert str(refusal(500)) == "The issuer is ill (500). Next: nothing: it is tried again later."


@given(st.integers(100, 599), st.binary(max_size=60))
def test_any_reply_is_a_refusal_that_says_nothing_of_its_body(status: int, body: bytes) -> None:
    said = refusal_of(status, body, now=NOW)
    assert said.permanent == (status == 401)
