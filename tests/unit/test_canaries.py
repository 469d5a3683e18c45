"""The detector finds what is planted, so that finding nothing means something."""

import base64
import json
from urllib.parse import quote

import pytest

from tests.canaries import Canaries

SECRET = "Zq/9+x&7 planted-secret-of-the-test:0123456789"


@pytest.fixture
def canaries() -> Canaries:
    found = Canaries()
    found.plant("ours", SECRET)
    found.plant("other")
    return found


@pytest.mark.parametrize(
    "leak",
    [
        SECRET.encode(),
        SECRET.lower().encode(),
        SECRET[:24].encode(),
        SECRET[10:34].encode(),
        SECRET[-24:].encode(),
        SECRET.encode().hex().encode(),
        SECRET.encode().hex().upper().encode(),
        quote(SECRET, safe="").encode(),
        base64.b64encode(SECRET.encode()),
        base64.b64encode(b"u:" + SECRET.encode() + b":x"),
        base64.urlsafe_b64encode(b"{" + SECRET.encode() + b"}"),
    ],
)
def test_a_planted_leak_is_found_in_every_spelling(canaries: Canaries, leak: bytes) -> None:
    found = canaries.found(b'{"log":"before ' + leak + b' after"}')
    assert {entry.partition(" ")[0] for entry in found} == {"ours"}
    assert canaries.found(leak, but=["ours"]) == []


def test_a_secret_that_json_escapes_is_found(canaries: Canaries) -> None:
    canaries.plant("odd", 'a"b\\c')
    assert canaries.found(json.dumps({"x": 'a"b\\c'}).encode()) == ["odd escaped"]


def test_nothing_is_found_where_nothing_leaked(canaries: Canaries) -> None:
    shown = f'{{"key": "…{SECRET[-4:]}", "status": 401, "names": ["ours", "other"]}}'
    assert canaries.found(shown.encode()) == []
    assert canaries.found(SECRET[:8].encode()) == []


def test_what_is_made_up_is_the_same_each_time_and_differs_by_name(canaries: Canaries) -> None:
    again = Canaries()
    assert again.plant("key", form="sk-{}") == canaries.plant("key", form="sk-{}")
    assert again.plant("another", form="sk-{}") != canaries.plant("key", form="sk-{}")
    assert len(canaries) == 3
    assert canaries.those("ey", "the") == ["other", "key"]
