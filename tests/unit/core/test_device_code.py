"""The device flow's answers: a code to type in, not yet, and what to exchange then."""

import json
from typing import Any

import pytest

from handrail.core.device_code import (
    SECONDS,
    Approval,
    DeviceCode,
    is_pending,
    read_approval,
    read_device_code,
)
from handrail.core.oauth import UnusableReply

STARTED = {"device_auth_id": "device-canary", "user_code": "ABCD-1234", "interval": "5"}
APPROVED = {"authorization_code": "code-canary", "code_verifier": "verifier-canary"}


def data(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def test_a_code_to_type_in() -> None:
    code = read_device_code(data(STARTED))
    assert code == DeviceCode(device_id="device-canary", user_code="ABCD-1234", interval=5.0)
    assert "canary" not in repr(code)
    assert "ABCD" not in repr(code)
    assert SECONDS == 900


def test_the_code_has_two_names() -> None:
    other = {**STARTED, "usercode": STARTED["user_code"]}
    del other["user_code"]
    assert read_device_code(data(other)).user_code == "ABCD-1234"


@pytest.mark.parametrize(
    ("given", "interval"),
    [
        (5, 5.0),
        ("7", 7.0),
        (2.5, 2.5),
        (0, 1.0),
        (-3, 1.0),
        (1e9, 60.0),
        ("9999", 60.0),
        ("99999", 5.0),
        ("soon", 5.0),
        (None, 5.0),
        (True, 5.0),
        ([], 5.0),
    ],
)
def test_an_interval_is_from_one_second_to_a_minute(given: object, interval: float) -> None:
    assert read_device_code(data({**STARTED, "interval": given})).interval == interval


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>canary", "it is no JSON"),
        (b'{"a":' * 5_000, "it is no JSON"),
        (b'"\xff"', "it is no JSON"),
        ([], "it is no JSON object"),
        ({**STARTED, "user_code": "\x1b[2J"}, "it has no code that a person could type in"),
        ({**STARTED, "user_code": "abc"}, "it has no code that a person could type in"),
        ({**STARTED, "user_code": "a" * 33}, "it has no code that a person could type in"),
        ({**STARTED, "user_code": 12345}, "it has no code that a person could type in"),
        ({**STARTED, "device_auth_id": None}, "it has no usable device_auth_id"),
    ],
)
def test_what_is_no_code_to_type_in_says_why(body: object, why: str) -> None:
    with pytest.raises(UnusableReply) as caught:
        read_device_code(data(body))
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("status", "body", "pending"),
    [
        (403, b"", True),
        (404, b"<html>", True),
        (403, {"error": {"code": "deviceauth_pending"}}, True),
        (400, {"error": "authorization_pending"}, True),
        (400, {"error": "slow_down"}, True),
        (400, {"error": "other"}, False),
        (403, {"error": "access_denied"}, False),
        (404, {"error": {"code": "expired_token"}}, False),
        (401, b"", False),
        (500, b"", False),
    ],
)
def test_not_yet_is_a_403_or_404_or_a_word(status: int, body: object, pending: bool) -> None:
    assert is_pending(status, data(body)) is pending


def test_what_to_exchange() -> None:
    approval = read_approval(data(APPROVED))
    assert approval == Approval(code="code-canary", verifier="verifier-canary")
    assert "canary" not in repr(approval)


@pytest.mark.parametrize("name", ["authorization_code", "code_verifier"])
@pytest.mark.parametrize("value", [None, "", 5, "a b"])
def test_an_approval_needs_both(name: str, value: object) -> None:
    with pytest.raises(UnusableReply, match=f"no usable {name}"):
        read_approval(data({**APPROVED, name: value}))
