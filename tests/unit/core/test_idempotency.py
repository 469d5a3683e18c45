"""Idempotency-Key: what is one, what two creates have in common, and when it means nothing."""

import json

import pytest
from hypothesis import given

from handrail.core import idempotency, wire
from handrail.errors import RequestRejected
from tests.unit.core.generated import KNOWN, UNKNOWN, spelled


def digest(body: str) -> bytes:
    """The digest of a create."""
    return idempotency.digest(wire.read_create(body.encode()))


@pytest.mark.parametrize("text", ["a", "x" * 255, "!~", "550e8400-e29b-41d4-a716-446655440000"])
def test_visible_ascii_is_a_key(text: str) -> None:
    assert idempotency.read_key(text) == text


def test_no_header_is_no_key() -> None:
    assert idempotency.read_key("") is None


@pytest.mark.parametrize("text", ["x" * 256, "a b", "\u00e9", "a\n", "\x7f"])
def test_anything_else_is_a_400_that_names_the_header(text: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        idempotency.read_key(text)
    assert (caught.value.fault.status, caught.value.fault.param) == (400, "idempotency-key")


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("1", 1), ("007", 7), ("9" * 9, 999_999_999)]
)
def test_an_sdk_says_how_often_it_has_sent_a_request(text: str, count: int) -> None:
    assert idempotency.read_retry_count(text) == count


@pytest.mark.parametrize("text", ["", "-1", "1.0", "one", "9" * 10, "\u0661", "1 "])
def test_what_is_no_count_is_none(text: str) -> None:
    assert idempotency.read_retry_count(text) is None


@pytest.mark.parametrize(
    "other",
    [
        '{"model":"m","input":"hi","x":{"a":1,"b":[1,2]}}',
        ' { "input" : "hi", "x": {"b": [1, 2], "a": 1}, "model": "\\u006d" } ',
    ],
)
def test_the_same_request_in_another_spelling_is_the_same(other: str) -> None:
    assert digest(other) == digest('{"model":"m","input":"hi","x":{"a":1,"b":[1,2]}}')


@pytest.mark.parametrize(
    "other",
    [
        '{"model":"m","input":"ho"}',
        '{"model":"m","input":["hi"]}',
        '{"model":"m","input":"hi","stream":true}',
        '{"model":"m","input":"hi","x":null}',
        '{"model":"m","input":"hi","x":1e999}',
    ],
)
def test_another_request_is_another(other: str) -> None:
    assert digest(other) != digest('{"model":"m","input":"hi"}')


def test_a_part_that_cannot_be_read_counts_by_its_bytes() -> None:
    assert digest('{"model":"m","x":1e999}') == digest('{"model":"m","x":1e999}')
    assert digest('{"model":"m","x":1e999}') != digest('{"model":"m","x":1e998}')


@given(spelled(KNOWN | UNKNOWN))
def test_any_create_has_a_digest_and_always_the_same(data: bytes) -> None:
    try:
        request = wire.read_create(data)
    except RequestRejected:
        return
    again = wire.read_create(json.dumps(json.loads(data), indent=1).encode())
    assert idempotency.digest(request) == idempotency.digest(again)


def test_a_key_whose_response_went_is_a_400_with_a_code_of_its_own() -> None:
    fault = idempotency.key_expired().fault
    assert (fault.status, fault.code, fault.param) == (
        400,
        "idempotency_key_expired",
        "idempotency-key",
    )
