"""Rate limits in the settings: what is read, and what stops the start."""

from typing import Any

import pytest

from handrail.core.rates import Each, RateLimit, RateWindow
from tests.unit.reading import FILE, Read, refusal

LIMIT: dict[str, Any] = {"name": "team", "window": "minute", "max_requests": 60}


def table(**keys: Any) -> str:
    """One table `[[limits]]`; TOML writes these values as Python does."""
    rows = (f"{key} = {value!r}" for key, value in keys.items())
    return "[[limits]]\n" + "\n".join(rows) + "\n"


def test_a_limit_is_read_as_it_is_written(read: Read) -> None:
    whole = {**LIMIT, "model": "gpt-5*", "each": ["caller", "model"], "max_tokens": 0}
    second = {"name": "two", "window": "second", "caller": "ann", "project": "p", "max_tokens": 9}
    ann = "[callers.ann]\n"
    assert read(table(**whole) + table(**second) + ann).accounting.limits == (
        RateLimit(
            name="team",
            window=RateWindow.MINUTE,
            model="gpt-5*",
            each=(Each.CALLER, Each.MODEL),
            max_requests=60,
            max_tokens=0,
        ),
        RateLimit(name="two", window=RateWindow.SECOND, caller="ann", project="p", max_tokens=9),
    )


def test_without_any_there_are_none(read: Read) -> None:
    assert read("").accounting.limits == ()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"name": ""}, "limits[1].name: must be 1 to 64"),
        ({"window": "hour"}, "limits[1].window: Invalid enum value"),
        ({"max_requests": -1}, "limits[1].max_requests: must be a number from 0 to 100000."),
        ({"max_requests": 100_001}, "limits[1].max_requests: must be a number from 0 to 100000."),
        ({"max_requests": 1.5}, "limits[1].max_requests: Expected `int | null`"),
        ({"max_tokens": -1}, "limits[1].max_tokens: must be a number from 0 to"),
        ({"max_tokens": 10**13}, "limits[1].max_tokens: must be a number from 0 to"),
        ({"each": "caller"}, "limits[1].each: Expected `array`"),
        ({"each": ["account"]}, "limits[1].each[0]: Invalid enum value"),
        ({"each": ["model", "model"]}, "limits[1].each: names one of them twice."),
        ({"each": ["caller"], "caller": "ann"}, "limits[1].each: there is but one caller"),
        ({"each": ["project"], "project": "p"}, "limits[1].each: there is but one project"),
        ({"account": "work"}, "limits[1]: Object contains unknown field `account`"),
    ],
)
def test_a_limit_that_cannot_be_meant_stops_the_start(
    read: Read, keys: dict[str, Any], words: str
) -> None:
    said = refusal(read, table(**{**LIMIT, **keys}))
    assert words in said
    assert said.startswith(FILE)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("limits = 7\n", "'limits' must be a list of tables: [[limits]]."),
        ("[limits]\n", "'limits' must be a list of tables: [[limits]]."),
        (table(name="team", window="minute"), "limits[1]: needs max_requests or max_tokens."),
        (table(**LIMIT) + table(**LIMIT), "two limits have the name 'team'."),
    ],
)
def test_a_list_that_cannot_be_meant_stops_the_start(read: Read, toml: str, words: str) -> None:
    assert words in refusal(read, toml)


@pytest.mark.parametrize("kind", ["limits", "budgets"])
def test_what_is_for_a_caller_who_is_not_there_would_hold_nobody_back(
    read: Read, kind: str
) -> None:
    window = "minute" if kind == "limits" else "day"
    text = table(**{**LIMIT, "window": window, "caller": "nobody"}).replace("limits", kind)
    said = refusal(read, text)
    assert f"{kind}: 'team' is for the caller 'nobody'" in said
    assert "nobody" in read(text + "[callers.nobody]\n").callers
