"""The meter of one upstream call: what it looks at, and the one record that comes of it."""

import asyncio
import io
import json
from typing import Any

import pytest

from handrail import telemetry
from handrail.core import events
from handrail.core.events import Event, event, lifecycle_event
from handrail.core.retry import Cause
from handrail.core.stream_limits import StreamLimit
from handrail.core.usage import Usage
from handrail.core.wire import raw
from handrail.engine.clock import SystemClock
from handrail.engine.meter import MAX_NAME, Attribution, CallMade, CallRecord, Meter, Outcome
from handrail.errors import Code, Fault, UpstreamFailed, UpstreamRefused

USAGE = {"input_tokens": 7, "output_tokens": 9}
CHARGED = Attribution(caller="ann", mode="stateless", response_id="resp_1", project="site")
REFUSED = UpstreamRefused(
    Fault(status=429, type="rate_limit_error", code=None, message="no"), upstream_status=429
)


def opened(records: list[CallRecord], *, model: str = "m") -> Meter:
    call = CallMade(
        attribution=CHARGED,
        target="openai https://up.example/v1",
        model=model,
        sent_models=(model,),
        endpoint="responses",
        cause=Cause.FIRST,
    )
    return Meter(call, listener=records.append, clock=SystemClock())


def closing(kind: str, **response: Any) -> Event:
    return lifecycle_event(kind, {name: raw(value) for name, value in response.items()}, number=9)


def record_of(*heard: Event, error: BaseException | None = None) -> CallRecord:
    records: list[CallRecord] = []
    meter = opened(records)
    meter.answered(200)
    for one in heard:
        meter.heard(one)
    meter.over(error)
    (record,) = records
    return record


def test_the_terminal_event_gives_outcome_usage_and_tier() -> None:
    end = closing(events.COMPLETED, status="completed", usage=USAGE, service_tier="flex")
    record = record_of(closing(events.CREATED, usage={"input_tokens": 99}), end)
    assert (record.outcome, record.usage) == (Outcome.COMPLETED, Usage(input=7, output=9))
    assert (record.tier, record.status, record.attribution) == ("flex", 200, CHARGED)
    assert record.ended_at >= record.started_at
    assert record.seconds >= 0


@pytest.mark.parametrize(
    ("kind", "status", "outcome"),
    [
        (events.COMPLETED, "completed", Outcome.COMPLETED),
        (events.COMPLETED, "incomplete", Outcome.INCOMPLETE),  # vLLM's way to say so
        (events.INCOMPLETE, "incomplete", Outcome.INCOMPLETE),
        (events.FAILED, "failed", Outcome.FAILED),
        (events.FAILED, "cancelled", Outcome.CANCELLED),
    ],
)
def test_the_end_judges_and_not_the_status_of_http(
    kind: str, status: str, outcome: Outcome
) -> None:
    record = record_of(closing(kind, status=status, usage=USAGE))
    assert (record.outcome, record.usage) == (outcome, Usage(input=7, output=9))


def test_nothing_after_the_first_end_counts() -> None:
    first = closing(events.FAILED, status="failed")
    again = closing(events.COMPLETED, status="completed", usage=USAGE)
    record = record_of(first, again, error_event())
    assert (record.outcome, record.usage) == (Outcome.FAILED, None)


def error_event() -> Event:
    return event(events.ERROR, {"message": raw("no")})


def test_an_error_event_is_a_failure_until_an_end_says_more() -> None:
    assert record_of(error_event()).outcome is Outcome.FAILED
    end = closing(events.INCOMPLETE, status="incomplete", usage=USAGE)
    record = record_of(error_event(), end)
    assert (record.outcome, record.usage) == (Outcome.INCOMPLETE, Usage(input=7, output=9))


def test_an_end_that_cannot_be_read_is_no_end() -> None:
    for data in (b'{"type":"response.completed","response":7}', b'{"response":{"status":5}}'):
        bad = Event(events.COMPLETED, 1, data, b"")
        assert record_of(bad).outcome is Outcome.LOST
    tier = closing(events.COMPLETED, status="completed", service_tier=7)
    assert record_of(tier).tier is None


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.LOST),
        (UpstreamFailed(Code.UPSTREAM_ENDED_EARLY, "gone"), Outcome.LOST),
        (asyncio.CancelledError(), Outcome.LEFT),
        (GeneratorExit(), Outcome.LEFT),
    ],
)
def test_a_call_without_an_end_says_who_ended_it(
    error: BaseException | None, outcome: Outcome
) -> None:
    record = record_of(error=error)
    assert (record.outcome, record.usage) == (outcome, None)


def test_a_call_without_a_reply_says_whether_it_was_sent() -> None:
    records: list[CallRecord] = []
    opened(records).over(UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "gone", sent=False))
    opened(records).over(REFUSED)
    assert [(r.outcome, r.status) for r in records] == [
        (Outcome.UNREACHED, None),
        (Outcome.REFUSED, 429),
    ]


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"status": "completed", "usage": USAGE}, Outcome.COMPLETED),
        ({"status": "failed", "usage": USAGE}, Outcome.FAILED),
        ({"status": "queued", "usage": USAGE}, Outcome.ACCEPTED),
        ({"object": "response.compaction", "usage": USAGE}, Outcome.COMPLETED),
        ({"status": 7, "usage": USAGE}, Outcome.COMPLETED),
        ({"status": "odd", "usage": USAGE}, Outcome.COMPLETED),
    ],
)
def test_an_object_is_read_as_the_end(body: dict[str, Any], outcome: Outcome) -> None:
    records: list[CallRecord] = []
    meter = opened(records)
    meter.read({name: raw(value) for name, value in body.items()})
    meter.over(None)
    assert (records[0].outcome, records[0].usage) == (outcome, Usage(input=7, output=9))


def test_a_call_is_told_once() -> None:
    records: list[CallRecord] = []
    meter = opened(records)
    meter.over(asyncio.CancelledError())
    meter.over(None)
    assert [record.outcome for record in records] == [Outcome.LEFT]


def test_a_name_of_any_length_is_kept_in_part_only() -> None:
    records: list[CallRecord] = []
    opened(records, model="x" * 5_000).over(None)
    assert records[0].model == "x" * MAX_NAME
    assert records[0].sent_models == ("x" * MAX_NAME,)


def test_a_listener_that_fails_costs_nobody_an_answer() -> None:
    log = io.StringIO()
    telemetry.configure("error", stream=log)

    def broken(_: CallRecord) -> None:
        raise ZeroDivisionError

    call = CallMade(
        attribution=CHARGED,
        target="t",
        model="m",
        sent_models=("m",),
        endpoint="responses",
        cause=Cause.FIRST,
    )
    Meter(call, listener=broken, clock=SystemClock()).over(None)
    line = json.loads(log.getvalue().splitlines()[0])
    assert line["event"] == "call_not_recorded"


LIMIT = {"code": "rate_limit_exceeded", "message": "Please try again in 1.5s."}
TOLD = StreamLimit(code="rate_limit_exceeded", lasting=False, wait=1.5)


def test_a_limit_that_ends_a_stream_is_in_the_record() -> None:
    failed = closing(events.FAILED, status="failed", error=LIMIT)
    error = event(events.ERROR, {"error": raw(LIMIT)})
    assert record_of(failed).limit == TOLD
    assert record_of(error).limit == TOLD
    assert record_of(error, closing(events.FAILED, status="failed", error=None)).limit == TOLD


def test_what_is_no_end_by_a_limit_tells_none() -> None:
    done = closing(events.COMPLETED, status="completed", error=LIMIT)
    assert record_of(done).limit is None
    assert record_of(done, event(events.ERROR, {"error": raw(LIMIT)})).limit is None
    assert record_of(closing(events.FAILED, status="failed")).limit is None


@pytest.mark.parametrize(
    ("status", "limit"), [("failed", TOLD), ("completed", None), ("in_progress", None)]
)
def test_a_limit_in_a_json_object_is_told_too(status: str, limit: StreamLimit | None) -> None:
    records: list[CallRecord] = []
    meter = opened(records)
    meter.answered(200)
    meter.read({"status": raw(status), "error": raw(LIMIT)})
    meter.over(None)
    assert records[0].limit == limit
