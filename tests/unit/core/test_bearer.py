"""What a command prints: a credential and its end, or nothing that could be one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.bearer import MARGIN_SECONDS, MAX_BYTES, Bearer, Unusable, read_bearer

NOW = 1_000_000.0


def read(output: bytes | dict[str, object], *, lifetime: float = 300.0) -> Bearer:
    data = output if isinstance(output, bytes) else json.dumps(output).encode()
    return read_bearer(data, now=NOW, lifetime=lifetime)


@pytest.mark.parametrize("output", [b"secret", b" secret\n", b"\nsecret\r\n"])
def test_a_plain_text_is_the_credential_for_its_lifetime(output: bytes) -> None:
    assert read(output, lifetime=20) == Bearer(secret="secret", until=NOW + 20)
    assert "secret" not in repr(read(output))


@pytest.mark.parametrize("name", ["accessToken", "access_token", "token"])
@pytest.mark.parametrize(
    ("end", "until"),
    [
        ({}, NOW + 300),
        ({"expires_on": NOW + 3_600}, NOW + 3_600 - MARGIN_SECONDS),
        ({"expires_on": str(int(NOW + 3_600))}, NOW + 3_600 - MARGIN_SECONDS),
        ({"expires_in": 3_600}, NOW + 3_600 - MARGIN_SECONDS),
        ({"expires_in": "61"}, NOW + 1),
        # Nearly over: it serves this call, and the next asks again.
        ({"expires_in": 30}, NOW - 30),
        ({"expires_on": NOW + 90, "expires_in": 5}, NOW + 30),
        ({"expiresOn": "2026-11-22 12:00:00"}, NOW + 300),
    ],
)
def test_json_may_say_when_it_ends(name: str, end: dict[str, object], until: float) -> None:
    assert read({name: "secret", "tokenType": "Bearer", **end}) == Bearer(
        secret="secret", until=until
    )


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (b"", "it printed no credential"),
        (b" \n", "it printed no credential"),
        (b"two words", "it printed no credential"),
        (b"two\nlines", "it printed no credential"),
        ("käse".encode(), "it printed no credential"),
        (b"a\x00b", "it printed no credential"),
        (b"x" * (16 * 1024 + 1), "it printed no credential"),
        (b"\xff", "it printed no text"),
        (b"x" * (MAX_BYTES + 1), f"it printed more than {MAX_BYTES} bytes"),
        (b"{", "it printed JSON that cannot be read"),
        (b'{"a":' * 5_000, "it printed JSON that cannot be read"),
        ({}, "it printed no credential"),
        ({"accessToken": 5}, "it printed no credential"),
        ({"accessToken": "a b"}, "it printed no credential"),
        ({"accessToken": "s", "expires_on": NOW}, "it printed a credential that has ended"),
        ({"accessToken": "s", "expires_in": 0}, "it printed a credential that has ended"),
        ({"accessToken": "s", "expires_in": "soon"}, "it printed an end that is no number"),
        ({"accessToken": "s", "expires_on": None}, "it printed an end that is no number"),
        (
            b'{"token":"s","expires_on":1' + b"0" * 400 + b"}",
            "it printed an end that is no number",
        ),
    ],
)
def test_anything_else_is_no_credential(output: bytes | dict[str, object], why: str) -> None:
    with pytest.raises(Unusable) as caught:
        read(output)
    assert str(caught.value) == why


def test_a_credential_may_have_sixteen_kibibytes_and_an_output_sixty_four() -> None:
    assert read(b"x" * 16 * 1024).secret == "x" * 16 * 1024
    assert MAX_BYTES == 65_536
    assert read(b"secret".ljust(MAX_BYTES)).secret == "secret"


@given(st.binary(max_size=60) | st.text(max_size=30).map('{{"token":{!r}}}'.format).map(str.encode))
def test_no_output_raises_anything_else(output: bytes) -> None:
    try:
        found = read_bearer(output, now=NOW, lifetime=5)
    except Unusable:
        return
    assert found.secret.isascii()
    assert found.secret.isprintable()
    assert found.until == NOW + 5
