"""The usage endpoint of the Codex backend: its place, and what its answer tells."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.codex_usage import read_usage_endpoint, usage_place
from handrail.core.limits import Told, Window, read_windows

NOW = 1_738_000_000.0
PRIMARY = {
    "used_percent": 42,
    "limit_window_seconds": 18_000,
    "reset_after_seconds": 600,
    "reset_at": 1_738_300_000,
}


def told(**said: Any) -> Told:
    found = read_usage_endpoint(msgspec.json.encode(said), now=NOW)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://chatgpt.com/backend-api/codex", "https://chatgpt.com/backend-api /wham/usage"),
        ("https://chatgpt.com/backend-api", "https://chatgpt.com/backend-api /wham/usage"),
        ("https://chatgpt.com/backend-api/", "https://chatgpt.com/backend-api /wham/usage"),
        ("http://127.0.0.1:9/codex", "http://127.0.0.1:9/codex /api/codex/usage"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9 /api/codex/usage"),
    ],
)
def test_its_place_depends_on_the_base_url(url: str, place: str) -> None:
    assert " ".join(usage_place(url)) == place


def test_the_whole_of_an_answer() -> None:
    found = told(
        plan_type="pro",
        rate_limit={
            "allowed": True,
            "limit_reached": False,
            "primary_window": PRIMARY,
            "secondary_window": {**PRIMARY, "used_percent": 8.5, "reset_after_seconds": 0},
        },
        additional_rate_limits=[
            {
                "limit_name": "gpt-5.2-codex-sonic",
                "metered_feature": "codex_bengalfox",
                "rate_limit": {"primary_window": PRIMARY, "secondary_window": None},
            },
            {"metered_feature": "other", "rate_limit": {"primary_window": PRIMARY}},
        ],
        code_review_rate_limit={"primary_window": PRIMARY},
        credits={"has_credits": True, "unlimited": False, "balance": "9.99"},
    )
    assert (found.plan, found.credits) == ("pro", "9.99")
    assert found.windows[0] == Window(
        name="codex-primary",
        used_percent=42.0,
        resets_at=NOW + 600,
        seconds=18_000,
        seen_at=NOW,
    )
    assert found.windows[1].resets_at == 1_738_300_000
    assert [(each.name, each.about) for each in found.windows] == [
        ("codex-primary", None),
        ("codex-secondary", None),
        ("codex-code-review-primary", "codex-code-review"),
        ("codex-bengalfox-primary", "gpt-5.2-codex-sonic"),
        ("codex-other-primary", "codex-other"),
    ]


def test_headers_and_endpoint_name_a_window_alike() -> None:
    headers = {
        "x-codex-primary-used-percent": "42",
        "x-codex-primary-reset-after-seconds": "600",
        "x-codex-primary-window-minutes": "300",
    }
    assert read_windows(headers, now=NOW) == told(rate_limit={"primary_window": PRIMARY}).windows


def test_nothing_used_is_a_word_too_and_a_window_without_a_length_has_none() -> None:
    empty = {"used_percent": 0, "limit_window_seconds": 0, "reset_after_seconds": 0}
    assert told(rate_limit={"primary_window": empty}).windows == (
        Window(name="codex-primary", used_percent=0.0, seen_at=NOW),
    )


def test_credits_without_end_are_told() -> None:
    assert told(credits={"has_credits": True, "unlimited": True}).credits == "unlimited"


def test_a_limit_that_is_named_twice_is_there_once() -> None:
    entry = {"metered_feature": "codex", "rate_limit": {"primary_window": PRIMARY}}
    found = told(
        rate_limit={"primary_window": {"used_percent": 1}}, additional_rate_limits=[entry, entry]
    )
    assert [(each.name, each.used_percent) for each in found.windows] == [("codex-primary", 42)]


def test_only_so_many_limits_are_read() -> None:
    entries = [
        {"metered_feature": f"codex_{n}", "rate_limit": {"primary_window": PRIMARY}}
        for n in range(40)
    ]
    assert len(told(additional_rate_limits=entries).windows) == 16


@pytest.mark.parametrize("used", [None, "42", True, -1, 1e300, [42]])
def test_a_use_that_is_no_percent_is_not_told(used: Any) -> None:
    assert told(rate_limit={"primary_window": {**PRIMARY, "used_percent": used}}) == Told()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"\xff", b"<html>", b'{"a":"\xff"}', b"[" * 100_000]
)
def test_what_is_no_object_tells_nothing(body: bytes) -> None:
    assert read_usage_endpoint(body, now=NOW) is None


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["primary_window", "used_percent", "reset_at", "metered_feature", "rate_limit"]
            ),
            inner,
        )
    ),
    max_leaves=15,
)


@given(said=_ANY)
def test_nothing_is_raised_whatever_is_in_it(said: Any) -> None:
    names = (
        "rate_limit",
        "additional_rate_limits",
        "credits",
        "plan_type",
        "code_review_rate_limit",
    )
    told(**dict.fromkeys(names, said))
    told(additional_rate_limits=[said], credits={"has_credits": True, "balance": said})
