"""Accounts in files of other programs: what is taken, what is left out and why, and no secret."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.account_files import (
    MAX_ACCOUNTS,
    MAX_BYTES,
    AccountFile,
    Found,
    Kind,
    NoAccounts,
    of_issuer,
    read_account_file,
)
from handrail.core.oauth import Grant
from tests.unit.core.generated import JSON
from tests.unit.core.jwts import AUTH, jwt, of

ACCESS = of("acct-canary", "plus", exp=1_700_000_000)
TOKENS = {
    "id_token": of("acct-canary", "team", email="ann@canary.example"),
    "access_token": ACCESS,
    "refresh_token": "refresh-canary",
}
OFFICIAL = {"OPENAI_API_KEY": None, "tokens": TOKENS, "last_refresh": "2026-11-22T12:00:00Z"}
ROW = {
    "recordId": "r1",
    "accountId": "acct-canary",
    "label": "work",
    "email": "ann@canary.example",
    "refreshToken": "refresh-canary",
    "accessToken": ACCESS,
    "expiresAt": 1_700_000_123_000,
    "enabled": True,
    "addedAt": 1,
    "rateLimitResetTimes": {},
}
POOL = {"version": 3, "accounts": [ROW], "activeIndex": 0, "activeIndexByFamily": {}}


def read(said: Any) -> AccountFile:
    return read_account_file(said if isinstance(said, bytes) else json.dumps(said).encode())


def refusal(said: Any) -> str:
    with pytest.raises(NoAccounts) as caught:
        read(said)
    text = str(caught.value)
    assert "canary" not in text
    assert "\n" not in text
    return text


def grant_of(file: AccountFile) -> Grant:
    (found,) = file.accounts
    assert found.grant is not None
    return found.grant


# --- auth.json ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [{}, {"auth_mode": None}, {"auth_mode": "chatgpt"}])
def test_the_login_of_an_auth_json_is_taken(mode: dict[str, object]) -> None:
    file = read({**OFFICIAL, **mode})
    assert file.kind is Kind.CODEX
    assert str(file.kind) == "Codex CLI"
    assert file.left_out == ()
    assert file.accounts == (
        Found(
            grant=Grant(
                access=ACCESS,
                refresh="refresh-canary",
                email="ann@canary.example",
                account_id="acct-canary",
                plan="team",
                expires_at=1_700_000_000.0,
            )
        ),
    )
    assert "canary" not in repr(file)


def test_the_account_id_of_the_file_goes_over_that_of_the_documents() -> None:
    assert grant_of(read({"tokens": {**TOKENS, "account_id": "own"}})).account_id == "own"
    assert grant_of(read({"tokens": {**TOKENS, "account_id": "a b"}})).account_id == "acct-canary"


@pytest.mark.parametrize(
    ("provenance", "issuer"),
    [
        ({"issuer": "https://id.example", "client_id": "app_1"}, "https://id.example"),
        ({"issuer": "https://id.example/"}, "https://id.example"),
        ({"issuer": "x" * 320}, "x" * 320),
        ({"issuer": "x" * 321}, None),
        ({"issuer": "a b"}, None),
        ({"issuer": 5}, None),
        ({}, None),
        ("https://id.example", None),
        (None, None),
    ],
)
def test_who_granted_a_login_is_told_where_the_file_says_so(
    provenance: object, issuer: str | None
) -> None:
    (found,) = read({"tokens": {**TOKENS, "oauth_provenance": provenance}}).accounts
    assert found.issuer == issuer


ISSUER = "https://id.example"


@pytest.mark.parametrize("provenance", [None, {"issuer": ISSUER}, {"issuer": f"{ISSUER}/"}])
def test_a_login_of_the_settings_issuer_or_of_nobody_known_is_taken(provenance: object) -> None:
    file = read({"tokens": {**TOKENS, "oauth_provenance": provenance}})
    assert of_issuer(file, ISSUER) == file
    assert of_issuer(file, f"{ISSUER}/") == file


def test_a_login_of_another_issuer_is_left_out_with_a_word() -> None:
    theirs = {"issuer": "https://other.canary.example"}
    file = read({"tokens": {**TOKENS, "oauth_provenance": theirs}})
    with pytest.raises(NoAccounts) as caught:
        of_issuer(file, ISSUER)
    words = "tokens: was granted by another issuer than oauth.issuer names."
    assert str(caught.value) == words
    (foreign,), mine = file.accounts, Found(api_key="sk-canary")
    mixed = AccountFile(kind=Kind.CODEX, accounts=(mine, foreign), left_out=("earlier",))
    found = of_issuer(mixed, ISSUER)
    assert found.accounts == (mine,)
    assert found.left_out == ("earlier", words)


def test_what_the_id_document_does_not_say_the_access_credential_does() -> None:
    access = jwt({"email": "b@canary.example", AUTH: {"chatgpt_account_is_fedramp": True}})
    for document in ({}, {"id_token": None}, {"id_token": "opaque"}):
        found = grant_of(
            read({"tokens": {"refresh_token": "r", "access_token": access, **document}})
        )
        assert (found.email, found.is_fedramp) == ("b@canary.example", True)
        assert (found.account_id, found.plan, found.expires_at) == (None, None, None)


@pytest.mark.parametrize(
    "said",
    [
        {"OPENAI_API_KEY": "sk-canary-key"},
        {"OPENAI_API_KEY": "sk-canary-key", "tokens": None},
        {"auth_mode": "apikey", "OPENAI_API_KEY": "sk-canary-key", "tokens": TOKENS},
    ],
)
def test_the_key_of_an_auth_json_is_taken(said: object) -> None:
    file = read(said)
    assert file.accounts == (Found(api_key="sk-canary-key"),)
    assert "canary" not in repr(file)


def test_a_login_goes_over_a_key_where_nothing_says_which_is_in_use() -> None:
    assert grant_of(read({**OFFICIAL, "OPENAI_API_KEY": "sk-canary-key"})).refresh


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({**OFFICIAL, "auth_mode": "canary"}, "auth_mode: only 'chatgpt' and 'apikey'"),
        ({**OFFICIAL, "auth_mode": {"canary": 1}}, "auth_mode: only"),
        ({"auth_mode": "chatgpt"}, "tokens: there are none; the login may be in the system's"),
        ({"auth_mode": "apikey", "tokens": TOKENS}, "OPENAI_API_KEY: there is none"),
        ({"tokens": None}, "OPENAI_API_KEY: there is none"),
        ({"OPENAI_API_KEY": ["canary"]}, "OPENAI_API_KEY: must be a text"),
        ({"OPENAI_API_KEY": "canary key"}, "OPENAI_API_KEY: must be a text"),
        ({"tokens": ["canary"]}, "tokens: must be an object"),
        ({"tokens": {}}, "tokens.access_token: must be a text"),
        ({"tokens": {"access_token": "canary"}}, "tokens.refresh_token: must be a text"),
        ({"tokens": {**TOKENS, "refresh_token": "canary\n"}}, "tokens.refresh_token: must be"),
    ],
)
def test_an_auth_json_that_cannot_be_taken_says_why(said: object, words: str) -> None:
    assert refusal(said).startswith(words)


# --- accounts of codex-multi-auth -----------------------------------------------------------------


def pool(*rows: Any) -> dict[str, Any]:
    return {**POOL, "accounts": list(rows)}


def test_the_accounts_of_a_pool_are_taken() -> None:
    file = read(pool(ROW, {"refreshToken": "second", "enabled": False}))
    assert file.kind is Kind.CODEX_MULTI_AUTH
    assert str(file.kind) == "codex-multi-auth"
    assert file.accounts == (
        Found(
            grant=Grant(
                access=ACCESS,
                refresh="refresh-canary",
                email="ann@canary.example",
                account_id="acct-canary",
                plan="plus",
                expires_at=1_700_000_123.0,
            ),
            label="work",
        ),
        Found(grant=Grant(access="", refresh="second"), enabled=False),
    )
    assert "canary" not in repr(file)
    assert "work" not in repr(file)


@pytest.mark.parametrize(
    ("given", "end"),
    [
        (1_700_000_123_000, 1_700_000_123.0),
        (1e11, 1e8),
        (1_700_000_123, 1_700_000_123.0),
        (9e10, 9e10),
        (1, 1.0),
        (0, 1_700_000_000.0),
        (-1, 1_700_000_000.0),
        (1e14, 1_700_000_000.0),
        (True, 1_700_000_000.0),
        ("soon", 1_700_000_000.0),
        (None, 1_700_000_000.0),
    ],
)
def test_ends_are_in_milliseconds_and_else_the_credentials_own(given: object, end: float) -> None:
    assert grant_of(read(pool({**ROW, "expiresAt": given}))).expires_at == end


@pytest.mark.parametrize("value", [None, "", "\x1b[2J", "x" * 81])
def test_a_label_that_cannot_be_shown_is_none(value: object) -> None:
    (found,) = read(pool({**ROW, "label": value})).accounts
    assert found.label is None
    (longest,) = read(pool({**ROW, "label": "x" * 80})).accounts
    assert longest.label == "x" * 80


def test_an_email_that_is_missing_may_be_in_the_credential() -> None:
    access = jwt(email="b@canary.example")
    row = {"refreshToken": "r", "accessToken": access}
    assert grant_of(read(pool(row))).email == "b@canary.example"
    assert grant_of(read(pool({**row, "email": "c@canary.example"}))).email == "c@canary.example"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("canary", "accounts[1]: must be an object."),
        ({}, "accounts[1].refreshToken: must be a text of printable ASCII without spaces."),
        (
            {"refreshToken": "canary two"},
            "accounts[1].refreshToken: must be a text of printable ASCII without spaces.",
        ),
        (
            {"refreshToken": "b", "accessToken": ["canary"]},
            "accounts[1].accessToken: must be a text of printable ASCII without spaces.",
        ),
        ({"refreshToken": "b", "enabled": "canary"}, "accounts[1].enabled: must be true or false."),
        ({"refreshToken": "b", "accountId": 5}, "accounts[1].accountId: must be a text."),
        ({"refreshToken": "b", "email": {}}, "accounts[1].email: must be a text."),
        ({"refreshToken": "b", "label": []}, "accounts[1].label: must be a text."),
        (
            {"refreshToken": "b", "authInvalidatedAt": 1},
            "accounts[1]: its login has ended (authInvalidatedAt); sign in anew.",
        ),
        (
            {**ROW, "accountId": "another-canary"},
            "accounts[1]: is the same login as accounts[0].",
        ),
    ],
)
def test_an_account_that_cannot_be_taken_is_left_out_with_its_place(row: object, why: str) -> None:
    file = read(pool(ROW, row, {"refreshToken": "third", "accessToken": ""}))
    assert [found.grant.refresh for found in file.accounts if found.grant] == [
        "refresh-canary",
        "third",
    ]
    assert file.left_out == (why,)
    assert "canary" not in why


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (pool(), "accounts: none can be imported."),
        (pool(5, 6), "accounts: none can be imported. accounts[0]: must be an object."),
        ({**POOL, "accounts": {"canary": 1}}, "accounts: must be a list of at most 1000."),
        ({**POOL, "version": 2}, "version: only 3 of an accounts file is known."),
        ({**POOL, "version": "canary"}, "version: only 3 of an accounts file is known."),
        ({"accounts": [ROW]}, "version: only 3 of an accounts file is known."),
        (b"canary", "The file is no JSON."),
        (b"", "The file is no JSON."),
        (b'{"canary":"\xff"}', "The file is no JSON."),
        (b'{"a":' * 5_000, "The file is no JSON."),
        (5, "The file is neither an auth.json of Codex CLI nor an accounts file of"),
        (["accounts", "tokens"], "The file is neither an auth.json of Codex CLI nor an accounts"),
        ("accounts", "The file is neither an auth.json of Codex CLI nor an accounts file of"),
        ([ROW], "The file is neither an auth.json of Codex CLI nor an accounts file of"),
        ({"refresh-canary": 1}, "The file is neither an auth.json of Codex CLI nor an accounts"),
        (b" " * (MAX_BYTES + 1), f"The file is larger than {MAX_BYTES} bytes."),
    ],
)
def test_a_file_that_cannot_be_read_says_why_and_shows_nothing_of_it(
    said: object, words: str
) -> None:
    assert refusal(said).startswith(words)


def test_a_pool_has_at_most_a_thousand_accounts() -> None:
    rows = [{"refreshToken": f"r{number}"} for number in range(MAX_ACCOUNTS + 1)]
    assert len(read(pool(*rows[:-1])).accounts) == MAX_ACCOUNTS
    assert "at most 1000" in refusal(pool(*rows))


def test_a_byte_order_mark_is_no_matter_and_four_mebibytes_are_read() -> None:
    assert MAX_BYTES == 4_194_304
    data = b"\xef\xbb\xbf" + json.dumps(POOL).encode()
    assert read(data) == read(POOL)
    assert read(data.ljust(MAX_BYTES)) == read(POOL)


@given(
    st.dictionaries(
        st.sampled_from(["accounts", "version", "tokens", "OPENAI_API_KEY", "auth_mode"]),
        st.just(3) | JSON | st.lists(JSON, max_size=3),
    )
)
def test_no_json_raises_anything_else(said: object) -> None:
    try:
        file = read(said)
    except NoAccounts:
        return
    assert file.accounts


@pytest.mark.parametrize("source", ["token", "id_token", "org", "manual", None])
def test_a_workspace_that_somebody_has_picked_stays_the_one_that_is_called_for(
    source: str | None,
) -> None:
    row = {"refreshToken": "r", "accountId": "ws-1", "accountIdSource": source}
    grant = grant_of(read({"version": 3, "accounts": [row]}))
    assert (grant.account_id, grant.called_for) == ("ws-1", "ws-1")
    assert grant.workspace == ("ws-1" if source in ("org", "manual") else None)
