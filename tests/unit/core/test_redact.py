"""What counts as secret, and that it does not survive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.redact import MASK, SECRET_NAMES, masked, redacted, scrub


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abcd1234.x", f"Authorization: {MASK}"),
        ("bearer   tok_en-1", MASK),
        ('{"a":"BEARER abcd"}', f'{{"a":"{MASK}"}}'),
        ("Incorrect API key: sk-proj-abcDEF_123456", f"Incorrect API key: {MASK}"),
        ("key hr_0123456789abcdef!", f"key {MASK}!"),
        ("sess-0123456789 and whsec_abcdefgh", f"{MASK} and {MASK}"),
        ("grant rt_0123456789 for ac_ABCD.EFGH12.", f"grant {MASK} for {MASK}."),
        ("grant rt.1.AbCd-0123_456 ended", f"grant {MASK} ended"),
        ("jwt eyJhbGciOiJI.eyJzdWIi.c2ln end", f"jwt {MASK} end"),
        ("jwt eyJhbGciOiJI.eyJzdWIi end", f"jwt {MASK} end"),
        ("ask a.b+c@mail.example.org now", f"ask {MASK} now"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, clean: str) -> None:
    assert scrub(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The model 'gpt-5.5' does not exist.",
        "Rate limit reached, try again in 1.5s.",
        "a skill-0 task-12345678x risk_",
        "the bearer of news",
        "resp_0123456789abcdef",
        "mail at home",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert scrub(text) == text


def test_the_mask_says_what_it_is() -> None:
    assert MASK == "[redacted]"


def test_known_secrets_are_masked_whatever_they_look_like() -> None:
    assert scrub("a p!ain b p!ain two", ["p!ain", "", "two"]) == f"a {MASK} b {MASK} {MASK}"


@given(st.text(max_size=30), st.text(min_size=11, max_size=20), st.text(max_size=30))
def test_a_known_secret_never_survives(before: str, secret: str, after: str) -> None:
    assert secret not in scrub(before + secret + after, [secret])


@given(st.from_regex(r"(sk|hr|sess|whsec|rt|ac)[-_][A-Za-z0-9_\-]{8,40}", fullmatch=True))
def test_a_key_of_ours_never_survives_inside_a_sentence(key: str) -> None:
    assert key not in scrub(f"the key {key} was refused")


@pytest.mark.parametrize(
    ("value", "shown"),
    [("", "…"), ("short", "…"), ("x" * 19, "…"), ("x" * 16 + "abcd", "…abcd")],
)
def test_a_secret_shows_four_characters_when_it_can_spare_them(value: str, shown: str) -> None:
    assert masked(value) == shown


def test_the_names_of_secrets_are_lower_case_as_headers_are() -> None:
    assert {"authorization", "cookie", "set-cookie", "x-api-key"} <= SECRET_NAMES
    assert {name.lower() for name in SECRET_NAMES} == SECRET_NAMES


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("password", "p", MASK),
        ("Token", 5, MASK),
        ("words", "plain", "plain"),
        ("words", "key sk-aaaaaaaaaaaa", f"key {MASK}"),
        ("count", 5, 5),
        ("list", [{"password": "p", "n": 1}], [{"password": MASK, "n": 1}]),
        ("headers", {"Cookie": "a=b", "accept": "x@y.org"}, {"Cookie": MASK, "accept": MASK}),
        ("pair", ("a", ["Bearer abcdefgh"]), ["a", [MASK]]),
    ],
)
def test_a_secret_is_masked_at_any_depth(name: str, value: object, shown: object) -> None:
    assert redacted(name, value) == shown
