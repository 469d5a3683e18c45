"""What is known about when an account may be used."""

import pytest

from handrail.core.limits import ALL, Cooldown, Window, left, obstacles, read_windows

NOW = 1_795_348_800.0  # 2026-11-22T12:00:00Z


def headers(**said: str) -> dict[str, str]:
    return {f"x-codex-{name.replace('_', '-')}": value for name, value in said.items()}


def test_windows_are_read_from_the_headers_of_the_codex_backend() -> None:
    said = headers(
        primary_used_percent="12.5",
        primary_window_minutes="300",
        primary_reset_after_seconds="30",
        primary_reset_at="1795350000",
        secondary_used_percent="96",
        secondary_reset_at="1795350000",
        plan_type="plus",
    )
    assert read_windows(said, now=NOW) == (
        Window(
            name="codex-primary",
            used_percent=12.5,
            resets_at=NOW + 30,
            seconds=18_000,
            seen_at=NOW,
        ),
        Window(name="codex-secondary", used_percent=96, resets_at=1_795_350_000.0, seen_at=NOW),
    )


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T13:00:00Z", NOW + 3_600),
        ("2026-11-22T13:00:00", NOW + 3_600),
        ("1795352400000", NOW + 3_600),
        ("1795352400", NOW + 3_600),
        ("soon", None),
        ("", None),
        ("9999999999", NOW + 7 * 86_400),
    ],
)
def test_a_reset_is_a_date_seconds_or_milliseconds_and_a_week_at_most(
    text: str, moment: float | None
) -> None:
    (window,) = read_windows(headers(primary_used_percent="1", primary_reset_at=text), now=NOW)
    assert window.resets_at == moment


@pytest.mark.parametrize("text", ["", "-1", "much", "1e5", "9" * 30])
def test_a_window_whose_use_cannot_be_read_is_none(text: str) -> None:
    assert read_windows(headers(primary_used_percent=text), now=NOW) == ()
    assert read_windows(headers(primary_reset_after_seconds="5"), now=NOW) == ()


def test_what_is_left_is_what_the_fullest_window_that_still_stands_leaves() -> None:
    past = Window(name="a", used_percent=100, resets_at=NOW)
    half = Window(name="b", used_percent=50, resets_at=NOW + 1)
    endless = Window(name="c", used_percent=20)
    over = Window(name="d", used_percent=150)
    assert left((past, half, endless), now=NOW) == 0.5
    assert left((), now=NOW) == 1.0
    assert left((over,), now=NOW) == 0.0


def test_a_cool_down_stands_against_its_model_or_all_until_it_is_over() -> None:
    of_all = Cooldown(scope=ALL, until=NOW + 5, reason="usage_limit_reached")
    of_one = Cooldown(scope="m", until=NOW + 6, reason="rate_limit_exceeded", guessed=True)
    over = Cooldown(scope=ALL, until=NOW, reason="over")
    found = list(obstacles((of_all, of_one, over), (), model="m", now=NOW))
    assert [(o.reason, o.until, o.guessed) for o in found] == [
        ("usage_limit_reached", NOW + 5, False),
        ("rate_limit_exceeded", NOW + 6, True),
    ]
    found = list(obstacles((of_all, of_one, over), (), model="other", now=NOW))
    assert [o.reason for o in found] == ["usage_limit_reached"]


def test_a_quota_that_is_nearly_used_up_is_only_a_guess() -> None:
    full = Window(name="codex-primary", used_percent=95, resets_at=NOW + 9)
    nearly = Window(name="b", used_percent=94.9)
    past = Window(name="c", used_percent=100, resets_at=NOW - 1)
    (found,) = obstacles((), (full, nearly, past), model="m", now=NOW)
    assert (found.reason, found.until, found.guessed) == (
        "its quota codex-primary is used to 95 %",
        NOW + 9,
        True,
    )


def test_only_headers_of_that_very_name_tell_a_window_and_blanks_do_not_matter() -> None:
    assert read_windows({"x-codex-primary-used-percent-more": "5"}, now=NOW) == ()
    (window,) = read_windows(headers(primary_used_percent=" 5 "), now=NOW)
    assert window.used_percent == 5
    assert ALL == ""
