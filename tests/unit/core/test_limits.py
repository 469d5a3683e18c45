"""What is known about when an account may be used."""

import pytest

from handrail.core.limits import (
    ALL,
    Cooldown,
    Told,
    Window,
    left,
    obstacles,
    read_told,
    read_windows,
)

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
    assert left((past, half, endless), model="m", now=NOW) == 0.5
    assert left((), model="m", now=NOW) == 1.0
    assert left((over,), model="m", now=NOW) == 0.0


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


def test_a_limit_beside_the_accounts_own_holds_for_the_model_that_it_names() -> None:
    said = {
        "x-codex-primary-used-percent": "10",
        "x-codex-bengalfox-primary-used-percent": "97",
        "x-codex-bengalfox-limit-name": " GPT-5.2-Codex-Sonic ",
        "x-codex-other-secondary-used-percent": "99",
        "x-codex-other-limit-name": "\x1b[31m",
    }
    windows = read_windows(said, now=NOW)
    assert [(each.name, each.about) for each in windows] == [
        ("codex-primary", None),
        ("codex-bengalfox-primary", "GPT-5.2-Codex-Sonic"),
        ("codex-other-secondary", "codex-other"),
    ]
    assert list(obstacles((), windows, model="gpt-5.4", now=NOW)) == []
    (found,) = obstacles((), windows, model="gpt-5.2-codex-sonic", now=NOW)
    assert "codex-bengalfox-primary" in found.reason
    assert left(windows, model="gpt-5.4", now=NOW) == 0.9
    assert left(windows, model="gpt-5.2-codex-sonic", now=NOW) == pytest.approx(0.03)


def test_from_which_percent_on_others_come_first_may_be_another() -> None:
    half = (Window(name="codex-primary", used_percent=50),)
    assert list(obstacles((), half, model="m", now=NOW, nearly_used_up=51)) == []
    assert len(list(obstacles((), half, model="m", now=NOW, nearly_used_up=50))) == 1


@pytest.mark.parametrize(
    ("said", "credits"),
    [
        ({"has-credits": "True", "unlimited": "False", "balance": " 12.50 "}, "12.5"),
        ({"has-credits": "1", "unlimited": " true "}, "unlimited"),
        ({"has-credits": "1", "unlimited": "0", "balance": "1234567.891"}, "1234567.89"),
        ({"has-credits": "1", "balance": "0"}, "0"),
        ({"has-credits": "0"}, "none"),
        ({"has-credits": "false", "unlimited": "0", "balance": "62500"}, "none"),
        ({"has-credits": "true", "unlimited": "false", "balance": "much"}, None),
        ({"has-credits": "yes", "balance": "5"}, None),
        ({}, None),
    ],
)
def test_headers_tell_what_was_paid_for(said: dict[str, str], credits: str | None) -> None:
    named = {f"x-codex-credits-{name}": value for name, value in said.items()}
    assert read_told(named, now=NOW) == Told(credits=credits)


def test_headers_tell_a_plan_if_it_is_a_word() -> None:
    assert read_told({"x-codex-plan-type": "team"}, now=NOW).plan == "team"
    assert read_told({"x-codex-plan-type": "<b>team"}, now=NOW).plan is None
    assert read_told({"x-codex-plan-type": "team<b>"}, now=NOW).plan is None
    assert read_told({"x-codex-primary-used-percent": "5"}, now=NOW).windows[0].used_percent == 5


def test_absurd_numbers_are_bounded() -> None:
    (found,) = read_windows(
        headers(primary_used_percent="9" * 15, primary_window_minutes="9" * 15), now=NOW
    )
    assert (found.used_percent, found.seconds) == (1_000.0, 316_224_000)


def test_windows_come_in_the_order_of_their_names_whatever_that_of_the_headers() -> None:
    said = {f"x-{name}-used-percent": "1" for name in ("codex-secondary", "codex-primary")}
    assert [each.name for each in read_windows(said, now=NOW)] == [
        "codex-primary",
        "codex-secondary",
    ]


def test_a_reset_in_words_has_a_zone_or_is_in_utc() -> None:
    moments = {"1970-01-01T02:20:00+02:00": 1_200.0, "1970-01-01T00:20:00": 1_200.0}
    for text, moment in moments.items():
        (found,) = read_windows(headers(primary_used_percent="1", primary_reset_at=text), now=NOW)
        assert found.resets_at == moment
