"""Questions about usage: moments, groups, and the answer in figures."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from handrail.core.report import Line
from handrail.core.usage_query import UsageQuery, answer, read_query
from handrail.errors import RequestRejected

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=BERLIN)


def asked(**words: str) -> UsageQuery:
    given: Any = {"since": "30d", "until": None, "by": "model", **words}
    return read_query(**given, now=NOW)


def test_a_question_without_an_end_goes_up_to_now() -> None:
    assert asked() == UsageQuery(since=NOW - timedelta(days=30), until=NOW, by=("model",))


def test_a_day_begins_at_midnight_of_the_zone_and_a_duration_ends_now() -> None:
    found = asked(since=" 2026-11-01 ", until="12h", by="day, caller")
    assert found.since == datetime(2026, 11, 1, tzinfo=BERLIN)
    assert found.until == NOW - timedelta(hours=12)
    assert found.by == ("day", "caller")


@pytest.mark.parametrize(
    ("words", "param"),
    [
        ({"since": "yesterday"}, "since"),
        ({"since": ""}, "since"),
        ({"since": "999999999999d"}, "since"),
        ({"until": "2026-13-01"}, "until"),
        ({"by": "prompt"}, "by"),
        ({"by": "model,model"}, "by"),
        ({"by": " , "}, "by"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(words: dict[str, str], param: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        asked(**words)
    assert caught.value.fault.param == param
    assert caught.value.fault.message.startswith(f"'{param}' must be ")


def test_an_answer_has_every_figure_and_null_for_what_nobody_knows() -> None:
    first, second = (datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2))
    query = UsageQuery(since=first, until=second, by=("day",))
    found = [
        Line(key=("2026-11-01",), calls=2, input=7, output=9, cost=1_500_000_000),
        Line(key=("2026-11-02",), calls=1, failed=1, unpriced=1),
    ]
    body = answer(found, query)
    assert (body["since"], body["by"]) == ("2026-11-01T00:00:00+00:00", ("day",))
    assert body["until"] == "2026-11-02T00:00:00+00:00"
    assert body["rows"][0] == {
        "day": "2026-11-01",
        "calls": 2,
        "failed": 0,
        "input_tokens": 7,
        "cached_tokens": 0,
        "output_tokens": 9,
        "reasoning_tokens": 0,
        "cost_usd": 1.5,
        "unpriced_calls": 0,
    }
    assert (body["rows"][1]["cost_usd"], body["rows"][1]["unpriced_calls"]) == (None, 1)
    assert (body["total"]["calls"], body["total"]["cost_usd"]) == (3, 1.5)
