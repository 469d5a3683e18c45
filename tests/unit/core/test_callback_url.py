"""The address at which a browser ends: the code in it, or exactly what is wrong with it."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.callback_url import CallbackRefused, read_callback

STATE = "state-canary-0123456789"
BASE = "http://localhost:1455/auth/callback"
WHOLE = f"{BASE}?code=code-canary&scope=openid+email&state={STATE}"


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        f"  {WHOLE}\n",
        f"<{WHOLE}>",
        f"'{WHOLE}'",
        f'"{WHOLE}"',
        f"{WHOLE}#top",
        WHOLE.removeprefix("http://"),
        f"?code=code-canary&state={STATE}",
        f"code=code-canary&state={STATE}",
        f"state={STATE}&code=code%2Dcanary",
    ],
)
def test_the_code_is_read_from_an_address_or_its_query(text: str) -> None:
    assert read_callback(text, state=STATE) == "code-canary"


WRONG = [
    ("", "Nothing was given."),
    (" \n", "Nothing was given."),
    ("x" * 16_385, "That is longer than 16384 characters."),
    ("x" * 16_384, "neither a code nor an error"),
    ("code-canary", "neither a code nor an error"),
    (BASE, "neither a code nor an error"),
    (f"{BASE}?", "neither a code nor an error"),
    ("?", "neither a code nor an error"),
    (f"{BASE}?scope=openid", "neither a code nor an error"),
    ("http://[::1/?code=a", "cannot be read"),
    (f"?{'a=b&' * 50}code=code-canary", "cannot be read"),
    (f"?{'a=b&' * 49}code=code-canary", "has no state"),
    ("http://localhost:1455", "neither a code nor an error"),
    (f"{BASE}?code=code-canary", "has no state"),
    (f"{BASE}?error=access_denied", "has no state"),
    (f"{BASE}?code=code-canary&state=", "belongs to another sign-in"),
    (f"{BASE}?code=code-canary&state={STATE}x", "belongs to another sign-in"),
    (f"{BASE}?code=code-canary&state={STATE[:-1]}", "belongs to another sign-in"),
    (f"{BASE}?code=code-canary&state=\udc80", "belongs to another sign-in"),
    (f"{BASE}?code=code-canary&state=another&state={STATE}", "belongs to another sign-in"),
    (f"{BASE}?code=code-canary&state=%ed%a0%80", "belongs to another sign-in"),
    (f"{BASE}?code=code-canary&state={STATE}&state={STATE}", "belongs to another sign-in"),
    (f"{BASE}?error=access_denied&state=another", "belongs to another sign-in"),
    (f"{BASE}?state={STATE}", "has no code"),
    (f"{BASE}?code=&state={STATE}", "has no code"),
    (f"{BASE}?code=code-canary&code=b&state={STATE}", "more than one code"),
    (f"{BASE}?code={'c' * 4097}&state={STATE}", "cannot be one"),
    (f"{BASE}?code=code-canary%0a&state={STATE}", "cannot be one"),
    (f"https://issuer.example/oauth/authorize?code_challenge=x&state={STATE}", "to sign in at"),
    (f"https://issuer.example/oauth/authorize?response_type=code&state={STATE}", "to sign in at"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_a_wrong_address_says_exactly_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(CallbackRefused) as caught:
        read_callback(text, state=STATE)
    said = str(caught.value)
    assert words in said
    assert "canary" not in said
    assert "\n" not in said
    assert not caught.value.final


@pytest.mark.parametrize("size", [1, 4096])
def test_a_code_has_up_to_4096_characters(size: int) -> None:
    assert read_callback(f"code={'c' * size}&state={STATE}", state=STATE) == "c" * size


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("error=access_denied", "The issuer ended the sign-in: access_denied."),
        (
            "error=access_denied&error_description=The+user+said+no.",
            "The issuer ended the sign-in: access_denied (The user said no).",
        ),
        ("error=", "The issuer ended the sign-in: no reason."),
        ("error=a&error=b&error_description=c%0Ad", "The issuer ended the sign-in: a (c d)."),
        (
            "error=a&error_description=c&error_description=d",
            "The issuer ended the sign-in: a (c).",
        ),
        ("error=a&code=code-canary", "The issuer ended the sign-in: a."),
        (
            f"error=a&error_description={quote('x' * 300)}",
            f"The issuer ended the sign-in: a ({'x' * 200}).",
        ),
        (
            f"error=a&error_description={quote(chr(27) + '[2J for ann@example.com' + chr(10))}",
            "The issuer ended the sign-in: a ([2J for [redacted]).",
        ),
    ],
)
def test_an_error_of_the_issuer_ends_the_sign_in(query: str, said: str) -> None:
    with pytest.raises(CallbackRefused) as caught:
        read_callback(f"{BASE}?{query}&state={STATE}", state=STATE)
    assert str(caught.value) == said
    assert caught.value.final


@given(st.text(max_size=60))
def test_no_text_gives_a_code_without_the_state(text: str) -> None:
    with pytest.raises(CallbackRefused):
        read_callback(text, state=STATE)
