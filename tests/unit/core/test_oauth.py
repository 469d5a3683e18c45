"""Grants: what an issuer's answers say, what of them is kept, and that no repr shows a secret."""

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.oauth import (
    MAX_CREDENTIAL,
    Asking,
    Claims,
    Grant,
    UnusableReply,
    authorize_url,
    challenge,
    code_form,
    is_credential,
    is_workspace,
    read_claims,
    read_grant,
    read_refreshed,
    refresh_body,
    revoke_body,
)
from tests.unit.core.generated import JSON
from tests.unit.core.jwts import AUTH, PROFILE, jwt, of, part

NOW = 1_000_000.0
OLD = Grant(
    access="old-access",
    refresh="old-refresh",
    email="old@example.com",
    account_id="old-account",
    plan="free",
    is_fedramp=True,
    expires_at=NOW + 5,
)


def refreshed(answer: Any, before: Grant = OLD) -> Grant:
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return read_refreshed(data, before, now=NOW)


# --- claims ---------------------------------------------------------------------------------------


def test_a_jwt_says_whose_it_is_and_until_when() -> None:
    auth = {
        "chatgpt_account_id": "acct-1",
        "chatgpt_plan_type": "plus",
        "chatgpt_account_is_fedramp": True,
    }
    said = read_claims(jwt({"email": "a@example.com", "exp": 1_700_000_000, AUTH: auth}))
    assert said == Claims(
        email="a@example.com",
        account_id="acct-1",
        plan="plus",
        is_fedramp=True,
        ends_at=1_700_000_000.0,
    )
    assert "a@example.com" not in repr(said)
    assert "acct-1" not in repr(said)


def test_the_email_of_an_access_credential_is_in_its_profile() -> None:
    assert read_claims(jwt({PROFILE: {"email": "p@example.com"}})).email == "p@example.com"
    both = {"email": "a@example.com", PROFILE: {"email": "p@example.com"}}
    assert read_claims(jwt(both)).email == "a@example.com"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "opaque",
        "a.b",
        "a.b.c.d",
        "..",
        f"a.{part(b'{')}.c",
        f"a.{part([1])}.c",
        f"a.{part('text')}.c",
        "a.A.c",
        "ä.ö.ü",
        f"a.{part({'email': 'x@example.com'})}.{'c' * 4 * MAX_CREDENTIAL}",
        f"a.{part(b'[' * 5_000)}.c",
        f"a.{part(bytes([255, 254]))}.c",
        "a." + part(b'{"email":"\xff"}') + ".c",
    ],
)
def test_what_is_no_jwt_says_nothing(text: str) -> None:
    assert read_claims(text) == Claims()


def test_a_jwt_may_be_as_long_as_four_credentials() -> None:
    body = f"a.{part({'email': 'x@example.com'})}."
    assert read_claims(body + "c" * (4 * MAX_CREDENTIAL - len(body))).email == "x@example.com"
    assert read_claims(body + "c" * (4 * MAX_CREDENTIAL - len(body) + 1)) == Claims()


@pytest.mark.parametrize("plan", ["p", "pl", "pla", "plan", "~~?>", "ÿÿÿ>>>???"])
def test_a_jwt_is_base64url_without_padding_of_any_length(plan: str) -> None:
    document = jwt(json.dumps({AUTH: {"chatgpt_plan_type": plan}}, ensure_ascii=False).encode())
    assert "=" not in document
    assert read_claims(document).plan == plan


@pytest.mark.parametrize("value", ["", 5, None, [], {}, "two\nlines", "\x1b[2J", "x" * 321])
def test_a_claim_that_cannot_be_shown_is_none(value: object) -> None:
    said = read_claims(
        jwt({"email": value, AUTH: {"chatgpt_plan_type": value, "chatgpt_account_id": value}})
    )
    assert said == Claims()


@pytest.mark.parametrize("size", [1, 320])
def test_a_claim_may_have_320_characters(size: int) -> None:
    assert read_claims(jwt(email="x" * size)).email == "x" * size


@pytest.mark.parametrize("value", ["a b", "käse"])
def test_an_account_id_that_no_header_can_carry_is_none(value: str) -> None:
    assert read_claims(of(value)).account_id is None


@pytest.mark.parametrize("value", [True, "1700000000", None, 0, -5, 1e11, 1e300])
def test_an_end_that_is_no_unix_time_is_none(value: object) -> None:
    assert read_claims(jwt(exp=value)).ends_at is None


@pytest.mark.parametrize("value", [1, 1.5, 9e10])
def test_an_end_may_be_any_number_of_seconds(value: float) -> None:
    assert read_claims(jwt(exp=value)).ends_at == value


@pytest.mark.parametrize("value", ["true", 1, None])
def test_only_true_is_fedramp(value: object) -> None:
    assert not read_claims(jwt({AUTH: {"chatgpt_account_is_fedramp": value}})).is_fedramp


# --- asking ---------------------------------------------------------------------------------------


def test_the_challenge_is_that_of_the_rfc() -> None:
    # RFC 7636, appendix B.
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_the_address_to_sign_in_at_has_what_codex_sends() -> None:
    asking = Asking(
        client_id="app_1",
        redirect_uri="http://localhost:1455/auth/callback",
        scopes=("openid", "offline_access"),
        originator="codex_cli_rs",
        state="st&te",
        challenge="chall",
    )
    url = urlsplit(authorize_url("https://issuer.example/oauth/authorize", asking))
    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://issuer.example/oauth/authorize"
    assert {name: value for name, (value,) in parse_qs(url.query).items()} == {
        "response_type": "code",
        "client_id": "app_1",
        "redirect_uri": "http://localhost:1455/auth/callback",
        "scope": "openid offline_access",
        "code_challenge": "chall",
        "code_challenge_method": "S256",
        "id_token_add_organizations": "true",
        "codex_cli_simplified_flow": "true",
        "state": "st&te",
        "originator": "codex_cli_rs",
    }
    narrowed = authorize_url("https://issuer.example/a", replace(asking, workspace="ws-1"))
    assert parse_qs(urlsplit(narrowed).query)["allowed_workspace_id"] == ["ws-1"]
    assert "ws-1" not in repr(replace(asking, workspace="ws-1"))
    assert "st&te" not in repr(asking)
    assert "chall" not in repr(asking)


def test_what_is_sent_is_what_codex_sends() -> None:
    assert refresh_body(OLD, client_id="app_1") == {
        "client_id": "app_1",
        "grant_type": "refresh_token",
        "refresh_token": "old-refresh",
        "refresh_reason": "proactive_expiry",
    }
    assert revoke_body(OLD, client_id="app_1") == {
        "token": "old-refresh",
        "token_type_hint": "refresh_token",
        "client_id": "app_1",
    }
    assert code_form("c", verifier="v", client_id="app_1", redirect_uri="http://x") == {
        "grant_type": "authorization_code",
        "code": "c",
        "redirect_uri": "http://x",
        "client_id": "app_1",
        "code_verifier": "v",
    }


# --- reading a grant ------------------------------------------------------------------------------


def test_a_whole_answer_becomes_a_grant() -> None:
    access = of("acct-1", "plus", exp=5)
    answer = {
        "id_token": of("acct-2", "team", email="a@example.com"),
        "access_token": access,
        "refresh_token": "new-refresh",
        "expires_in": 3_600,
    }
    assert read_grant(json.dumps(answer).encode(), now=NOW) == Grant(
        access=access,
        refresh="new-refresh",
        email="a@example.com",
        account_id="acct-2",
        plan="team",
        expires_at=NOW + 3_600,
    )


def test_no_repr_of_a_grant_shows_a_credential_or_whose_it_is() -> None:
    shown = repr(OLD) + str(OLD)
    for secret in (OLD.access, OLD.refresh, OLD.email, OLD.account_id):
        assert str(secret) not in shown
    assert "free" in shown


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"refresh_token": "r"}, "it has no access credential"),
        ({"access_token": "a"}, "it has no refresh credential (was offline_access granted?)"),
        ({}, "it has no access credential"),
    ],
)
def test_the_first_grant_has_both_credentials(answer: object, why: str) -> None:
    with pytest.raises(UnusableReply) as caught:
        read_grant(json.dumps(answer).encode(), now=NOW)
    assert str(caught.value) == why


@pytest.mark.parametrize("empty", [{}, {"access_token": None}, {"refresh_token": ""}])
def test_what_an_answer_leaves_out_stays_as_it_was(empty: dict[str, object]) -> None:
    assert refreshed(empty) == OLD


def test_a_new_credential_goes_over_the_old_one() -> None:
    new = refreshed({"access_token": "new-access", "refresh_token": "new-refresh"})
    assert (new.access, new.refresh) == ("new-access", "new-refresh")
    assert (new.email, new.account_id, new.plan) == (OLD.email, OLD.account_id, OLD.plan)
    assert new.is_fedramp
    # Nobody says when the new one ends, and the old one's end is not it.
    assert new.expires_at is None


def test_only_the_access_credential_may_be_new() -> None:
    new = refreshed({"access_token": "new-access", "expires_in": 60})
    assert (new.access, new.refresh, new.expires_at) == ("new-access", "old-refresh", NOW + 60)


def test_only_the_refresh_credential_may_be_new() -> None:
    new = refreshed({"refresh_token": "new-refresh"})
    assert (new.access, new.refresh) == ("old-access", "new-refresh")
    assert new.expires_at == OLD.expires_at


def test_the_access_credential_says_what_the_id_document_does_not() -> None:
    new = refreshed({"access_token": of("acct-9", "pro", **{PROFILE: {"email": "p@example.com"}})})
    assert (new.email, new.account_id, new.plan) == ("p@example.com", "acct-9", "pro")
    assert not new.is_fedramp


def test_an_id_document_alone_changes_who_it_is() -> None:
    auth = {"chatgpt_account_id": "acct-3", "chatgpt_account_is_fedramp": True}
    new = refreshed({"id_token": jwt({AUTH: auth})}, Grant(access="a", refresh="r"))
    assert new == Grant(access="a", refresh="r", account_id="acct-3", is_fedramp=True)


@pytest.mark.parametrize("document", [5, None, {}, "opaque"])
def test_an_id_document_that_cannot_be_read_is_as_none(document: object) -> None:
    assert refreshed({"id_token": document}) == OLD


@pytest.mark.parametrize(
    "lifetime", [True, "3600", None, 0, -1, 10 * 366 * 86_400 + 1, [], 10**400]
)
def test_an_odd_lifetime_loses_no_grant(lifetime: object) -> None:
    new = refreshed({"access_token": jwt(exp=NOW + 77), "expires_in": lifetime})
    assert new.expires_at == NOW + 77
    assert refreshed({"access_token": "opaque", "expires_in": lifetime}).expires_at is None
    assert refreshed({"expires_in": lifetime}).expires_at == OLD.expires_at


@pytest.mark.parametrize("lifetime", [1, 0.5, 10 * 366 * 86_400])
def test_a_lifetime_counts_from_our_own_clock(lifetime: float) -> None:
    new = refreshed({"access_token": jwt(exp=5), "expires_in": lifetime})
    assert new.expires_at == NOW + lifetime


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "it is no JSON"),
        (b"<html>", "it is no JSON"),
        (b'{"a":"\xff"}', "it is no JSON"),
        (b'{"a":' * 5_000, "it is no JSON"),
        ([], "it is no JSON object"),
        ("text", "it is no JSON object"),
        ({"access_token": 5}, "its access_token is no text that a header can carry"),
        ({"access_token": "canary two"}, "its access_token is no text that a header can carry"),
        ({"refresh_token": ["canary"]}, "its refresh_token is no text that a header can carry"),
        ({"refresh_token": False}, "its refresh_token is no text that a header can carry"),
    ],
)
def test_an_answer_that_cannot_be_used_says_why_and_nothing_else(answer: object, why: str) -> None:
    with pytest.raises(UnusableReply) as caught:
        refreshed(answer)
    assert str(caught.value) == why


@pytest.mark.parametrize("value", ["x", "!", "~", "x" * 16_384])
def test_a_credential_is_visible_ascii(value: str) -> None:
    assert is_credential(value)


def test_a_credential_has_at_most_16_kibibytes() -> None:
    assert MAX_CREDENTIAL == 16_384


@pytest.mark.parametrize("value", ["", " ", "a b", "ü", "\x7f", "a\n", "x" * 16_385, 5, None, b"x"])
def test_anything_else_is_no_credential(value: object) -> None:
    assert not is_credential(value)


@given(st.dictionaries(st.sampled_from(["access_token", "refresh_token", "expires_in"]), JSON))
def test_no_answer_gives_a_grant_that_no_header_can_carry(answer: dict[str, Any]) -> None:
    try:
        new = refreshed(answer)
    except UnusableReply:
        return
    assert is_credential(new.access)
    assert is_credential(new.refresh)


@given(st.text(max_size=80))
def test_any_text_can_be_asked_for_claims(text: str) -> None:
    assert read_claims(text).ends_at is None


def test_what_is_called_for_stays_when_another_grant_follows() -> None:
    chosen = replace(OLD, account_id="a", workspace="ws-1")
    body = json.dumps({"access_token": "new", "refresh_token": "next"}).encode()
    following = read_refreshed(body, chosen, now=NOW)
    assert (following.access, following.workspace, following.called_for) == ("new", "ws-1", "ws-1")
    assert replace(chosen, workspace=None).called_for == "a"
    assert replace(chosen, workspace=None, account_id=None).called_for is None


def test_a_workspace_has_an_id_that_a_header_can_carry() -> None:
    for text in ("ws-1", "9d203cc0_A", "x" * 128):
        assert is_workspace(text)
    for text in ("", "a b", "ä", "a\n", "x" * 129):
        assert not is_workspace(text)
