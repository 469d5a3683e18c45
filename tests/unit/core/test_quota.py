"""Whose quota is exceeded, by byte counts alone."""

import pytest

from handrail.core.quota import Exceeded, Quota

QUOTA = Quota(max_bytes=100, caller_bytes={"ann": 10, "bob": 0})


@pytest.mark.parametrize(
    ("caller", "of_caller", "of_all", "expected"),
    [
        ("ann", 10, 100, None),
        ("ann", 11, 50, Exceeded.CALLER),
        ("ann", 11, 101, Exceeded.CALLER),
        ("ann", 10, 101, Exceeded.GATEWAY),
        ("bob", 90, 100, None),  # 0 sets no bound of its own
        ("bob", 101, 101, Exceeded.GATEWAY),
        ("cyd", 99, 100, None),  # a caller that no setting names
    ],
)
def test_the_callers_own_quota_comes_first(
    caller: str, of_caller: int, of_all: int, expected: Exceeded | None
) -> None:
    assert QUOTA.exceeded(caller, of_caller=of_caller, of_all=of_all) is expected


def test_without_a_quota_nothing_is_too_much() -> None:
    assert Quota().exceeded("ann", of_caller=1 << 60, of_all=1 << 60) is None
