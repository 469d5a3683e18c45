"""Keys of callers: what one is worth, who holds it, and what may be asked of a new one."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.caller_keys import (
    CallerKey,
    Keyring,
    Standing,
    Wish,
    check_caller,
    key_digest,
    made,
    read_lifetime,
    read_overlap,
    rotated,
)
from handrail.errors import RequestRejected

DAY = 86_400


def key(name: str = "1", **fields: Any) -> CallerKey:
    """A key of ann's, made at second 1,000."""
    values: dict[str, Any] = {
        "id": f"key_{name}",
        "caller": "ann",
        "digest": key_digest(name),
        "label": "laptop",
        "created_at": 1_000.0,
        **fields,
    }
    return CallerKey(**values)


def refusal(caught: "pytest.ExceptionInfo[RequestRejected]") -> tuple[int, str | None, str | None]:
    fault = caught.value.fault
    return fault.status, fault.code, fault.param


def test_what_is_kept_of_a_key_is_its_sha256_and_shows_in_no_repr() -> None:
    digest = hashlib.sha256(b"hr_secret").digest()
    assert key_digest("hr_secret") == digest
    shown = repr(key(digest=digest)) + repr(Keyring.of([key(digest=digest)]))
    assert digest.hex() not in shown
    assert repr(digest) not in shown


@pytest.mark.parametrize(
    ("fields", "now", "standing"),
    [
        ({}, 9e9, Standing.ACTIVE),
        ({"expires_at": 2_000.0}, 1_999.9, Standing.ACTIVE),
        ({"expires_at": 2_000.0}, 2_000.0, Standing.EXPIRED),
        ({"expires_at": 2_000.0}, 2_000.1, Standing.EXPIRED),
        ({"revoked_at": 1_500.0}, 1_501.0, Standing.REVOKED),
        ({"revoked_at": 1_500.0}, 1_499.0, Standing.REVOKED),
        ({"revoked_at": 1_500.0, "expires_at": 1_400.0}, 1_600.0, Standing.REVOKED),
    ],
)
def test_a_key_is_active_until_it_expires_or_is_revoked(
    fields: dict[str, Any], now: float, standing: Standing
) -> None:
    assert key(**fields).standing(now) is standing


def test_the_words_for_what_a_key_is_worth_are_those_of_listings_and_logs() -> None:
    assert list(Standing) == ["active", "expired", "revoked"]


def test_a_ring_finds_a_key_by_its_whole_digest_alone() -> None:
    digest = key_digest("1")
    twin = digest[:8] + bytes(24)  # nobody can make one, but the first bytes must not be enough
    ring = Keyring.of([key(), key("2", digest=twin), key("3", caller="bob")])
    assert ring.find(digest) == key()
    assert ring.find(twin) == key("2", digest=twin)
    assert ring.find(key_digest("3")) == key("3", caller="bob")
    assert ring.find(digest[:8] + bytes(23) + b"\1") is None
    assert ring.find(key_digest("4")) is None
    assert Keyring().find(digest) is None


@given(st.lists(st.text(max_size=4), unique=True, max_size=20), st.text(max_size=4))
def test_a_ring_of_any_keys_finds_each_and_no_other(names: list[str], other: str) -> None:
    ring = Keyring.of(key(name) for name in names)
    assert all(ring.find(key_digest(name)) == key(name) for name in names)
    found = ring.find(key_digest(other))
    assert (found is not None) is (other in names)


def test_a_ring_cannot_be_changed() -> None:
    ring: Any = Keyring.of([key()])
    with pytest.raises(TypeError):
        ring.by_prefix[b""] = ()


@pytest.mark.parametrize("label", ["x" * 81, "two\nlines", "bell\x07", "\x1b[31m"])
def test_a_label_is_one_short_line(label: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        Wish(caller="ann", label=label)
    assert refusal(caught) == (400, "invalid_value", "label")
    assert caught.value.fault.message == "'label' must be one line of at most 80 characters."
    assert Wish(caller="ann", label="é" * 80).label == "é" * 80
    assert Wish(caller="ann").label == ""


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), (" 30d ", 30 * DAY), ("24h", DAY), ("3660d", 3_660 * DAY)]
)
def test_a_lifetime_is_a_duration(text: str, seconds: int) -> None:
    assert read_lifetime(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0s", "-1d", f"{3_660 * DAY + 1}s", "1w", "30", "for ever", "9" * 5_000]
)
def test_another_lifetime_is_refused_by_the_name_it_was_given_under(text: str) -> None:
    with pytest.raises(RequestRejected, match=r"such as 24h or 30d, up to 3660d") as caught:
        read_lifetime(text, param="--expires")
    assert refusal(caught) == (400, "invalid_value", "--expires")
    with pytest.raises(RequestRejected) as caught:
        read_lifetime(text)
    assert refusal(caught)[2] == "expires"


def test_an_overlap_may_be_nothing_and_is_thirty_days_at_most() -> None:
    assert read_overlap("0s") == 0
    assert read_overlap("30d") == 30 * DAY
    for text in (f"{30 * DAY + 1}s", "x"):
        with pytest.raises(RequestRejected, match="up to 30d") as caught:
            read_overlap(text)
        assert refusal(caught) == (400, "invalid_value", "overlap")
        with pytest.raises(RequestRejected) as caught:
            read_overlap(text, param="--overlap")
        assert refusal(caught)[2] == "--overlap"


def test_a_caller_must_be_in_the_settings() -> None:
    check_caller("ann", {"ann", "bob"})
    with pytest.raises(RequestRejected) as caught:
        check_caller("eve", {"bob", "ann"})
    assert refusal(caught) == (400, "invalid_value", "caller")
    assert caught.value.fault.message == (
        "There is no caller 'eve' in the settings, which have ann, bob. Add [callers.NAME] first."
    )
    with pytest.raises(RequestRejected, match="'\\\\x1b\\[31m' in the settings, which have none"):
        check_caller("\x1b[31m", [])
    with pytest.raises(RequestRejected) as caught:
        check_caller("e" * 500, ["ann"])
    assert f"'{'e' * 64}' in" in caught.value.fault.message


def test_a_key_that_stands_in_the_place_of_a_name_is_not_repeated() -> None:
    with pytest.raises(RequestRejected, match=r"no caller '\[redacted\]' in") as caught:
        check_caller("hr_m-Jg04LwVQTgDLsYxx9W6DOLEEQ2JZN_VceuPLOyX0U", ["ann"])
    assert "JZN_Vceu" not in caught.value.fault.message


@pytest.mark.parametrize(("lifetime", "end"), [(None, None), (DAY, 5_000.0 + DAY)])
def test_a_new_key_is_what_was_wished_for(lifetime: int | None, end: float | None) -> None:
    wish = Wish(caller="ann", label="ci", lifetime=lifetime)
    assert made(wish, key_id="key_9", digest=bytes(32), now=5_000.0) == CallerKey(
        id="key_9",
        caller="ann",
        digest=bytes(32),
        label="ci",
        created_at=5_000.0,
        expires_at=end,
    )


NEW = {"key_id": "key_2", "digest": key_digest("2"), "now": 5_000.0}


@pytest.mark.parametrize(
    ("expires", "overlap", "new_end", "old_end"),
    [
        (None, 100, None, 5_100.0),
        (None, 0, None, 5_000.0),
        (9_000.0, 100, 13_000.0, 5_100.0),
        (5_050.0, 100, 9_050.0, 5_050.0),
    ],
)
def test_a_successor_lives_as_long_as_the_old_key_was_to_and_the_old_one_not_longer(
    expires: float | None, overlap: float, new_end: float | None, old_end: float
) -> None:
    old = key(expires_at=expires, last_used_at=4_000.0)
    new, end = rotated(old, overlap=overlap, **NEW)  # type: ignore[arg-type]
    assert end == old_end
    assert new == key("2", created_at=5_000.0, expires_at=new_end)


@pytest.mark.parametrize(
    ("fields", "word"), [({"revoked_at": 1.0}, "revoked"), ({"expires_at": 5_000.0}, "expired")]
)
def test_a_key_that_opens_nothing_has_no_successor(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(RequestRejected, match=f"The key key_1 is {word}; make a new") as caught:
        rotated(replace(key(), **fields), overlap=10, **NEW)  # type: ignore[arg-type]
    assert refusal(caught) == (400, "invalid_value", "id")
