"""One record an upstream call, over the real server, in whatever way the call ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import APIStatusError

from handrail.core.retry import Cause
from handrail.core.usage import Usage
from handrail.engine.meter import CallRecord, Outcome
from tests.conftest import BACKGROUND, Running, Scripted, Start, eventually

TOLD = Usage(input=7, cached=2, output=9, reasoning=3)
Records = list[CallRecord]


@pytest.fixture
def metered(start: Start) -> Callable[..., Any]:
    """Starts a gateway whose records are kept in a list beside it."""

    @asynccontextmanager
    async def starting(**options: Any) -> AsyncIterator[tuple[Running, Records]]:
        records: Records = []
        async with start(**options, ports={"on_call": records.append}) as gateway:
            yield gateway, records

    return starting


def only(records: Records) -> CallRecord:
    (record,) = records
    return record


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stateless_call_is_one_record_with_what_it_used(
    metered: Callable[..., Any], stream: bool
) -> None:
    async with metered() as (gateway, records), gateway.client() as client:
        answer = await client.responses.create(model="gpt-5.4", input="hi", stream=stream)
        if stream:
            async for _ in answer:
                pass
        await eventually(lambda: bool(records))
        record = only(records)
    assert (record.outcome, record.status, record.usage) == (Outcome.COMPLETED, 200, TOLD)
    assert (record.attribution.caller, record.attribution.mode) == ("default", "stateless")
    assert (record.model, record.endpoint, record.cause) == ("gpt-5.4", "responses", Cause.FIRST)
    assert (record.account, record.tier) == (None, "default")
    assert record.target.startswith("openai http://127.0.0.1")


@pytest.mark.parametrize(
    ("text", "outcome", "status", "usage"),
    [
        ("[[fail]]", Outcome.FAILED, 200, TOLD),
        ("[[incomplete]]", Outcome.INCOMPLETE, 200, TOLD),
        ("[[eof=2]]", Outcome.LOST, 200, None),
        ("[[drop=2]]", Outcome.LOST, 200, None),
        ("[[malformed=2]]", Outcome.LOST, 200, None),
        ("[[error=2]]", Outcome.FAILED, 200, None),
        ("[[early=hangup]]", Outcome.LOST, None, None),
        ("[[status=500]]", Outcome.REFUSED, 500, None),
        ("[[status=429 retry_after=1]]", Outcome.REFUSED, 429, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_goes_wrong_is_a_record_too(
    metered: Callable[..., Any],
    text: str,
    outcome: Outcome,
    status: int | None,
    usage: Usage | None,
    stream: bool,
) -> None:
    async with metered(manners="codex") as (gateway, records), gateway.client() as client:
        try:
            answer = await client.responses.create(model="gpt-5.4", input=text, stream=stream)
            if stream:
                async for _ in answer:
                    pass
        except APIStatusError:
            pass
        await eventually(lambda: bool(records))
    record = only(records)
    assert (record.outcome, record.status, record.usage) == (outcome, status, usage)


async def test_a_reader_that_leaves_leaves_a_record(
    metered: Callable[..., Any], upstream: Scripted
) -> None:
    async with metered() as (gateway, records), gateway.client() as client:
        text = "[[words=500 delay=0.05]]"
        stream = await client.responses.create(model="m", input=text, stream=True)
        await anext(aiter(stream))
        await stream.close()
        await eventually(lambda: bool(records))
        waiting = asyncio.create_task(client.responses.create(model="m", input="[[before=60]]"))
        await eventually(lambda: upstream.seen.open == 1 and len(upstream.seen.requests) == 2)
        waiting.cancel()
        await eventually(lambda: len(records) == 2)
    assert [(record.outcome, record.status) for record in records] == [
        (Outcome.LEFT, 200),
        (Outcome.LEFT, None),
    ]


async def test_an_upstream_that_is_not_there_is_a_record_of_no_call(
    metered: Callable[..., Any],
) -> None:
    flags = {"flags": {"upstream.url": "http://127.0.0.1:9/v1"}}
    async with metered(**flags) as (gateway, records), gateway.client() as client:
        with pytest.raises(APIStatusError):
            await client.responses.create(model="m", input="hi")
    assert (only(records).outcome, only(records).status) == (Outcome.UNREACHED, None)


async def test_a_mended_call_is_two_records_the_second_by_its_own_name(
    metered: Callable[..., Any],
) -> None:
    toml = '[upstream.model_fallbacks]\n"unserved-1" = ["gpt-5.4-mini"]\n'
    async with metered(toml=toml) as (gateway, records), gateway.client() as client:
        await client.responses.create(model="unserved-1", input="hi")
    assert [(r.outcome, r.cause, r.model, r.sent_models) for r in records] == [
        (Outcome.REFUSED, Cause.FIRST, "unserved-1", ("unserved-1",)),
        (Outcome.COMPLETED, Cause.MENDED, "unserved-1", ("gpt-5.4-mini",)),
    ]
    assert records[0].attribution == records[1].attribution


@pytest.mark.parametrize("stream", [False, True])
async def test_polls_resumes_and_listings_are_no_records(
    metered: Callable[..., Any], stream: bool
) -> None:
    async with metered(**BACKGROUND) as (gateway, records), gateway.client() as client:
        run = await client.responses.create(model="m", input="hi", background=True)
        await eventually(lambda: bool(records))
        await client.responses.retrieve(run.id)
        async for _ in await client.responses.retrieve(run.id, stream=True):
            pass
        await client.responses.input_items.list(run.id)
        await client.models.list()
        await client.responses.delete(run.id)
    record = only(records)
    assert (record.attribution.mode, record.attribution.response_id) == ("background", run.id)
    assert (record.outcome, record.usage) == (Outcome.COMPLETED, TOLD)


async def test_a_cancelled_run_has_its_record(metered: Callable[..., Any]) -> None:
    async with metered(**BACKGROUND) as (gateway, records), gateway.client() as client:
        text = "[[words=500 delay=0.05]]"
        run = await client.responses.create(model="m", input=text, background=True)
        async for event in await client.responses.retrieve(run.id, stream=True):
            if event.type == "response.output_text.delta":
                break
        await client.responses.cancel(run.id)
        assert only(records).outcome is Outcome.LEFT


async def test_each_call_of_a_run_that_is_tried_again_is_a_record(
    metered: Callable[..., Any],
) -> None:
    async with metered(**BACKGROUND) as (gateway, records), gateway.client() as client:
        text = "[[status=503 retry_after=0.01 times=2 tag=again]]"
        run = await client.responses.create(model="m", input=text, background=True)
        async for _ in await client.responses.retrieve(run.id, stream=True):
            pass
    assert [(r.outcome, r.status, r.cause) for r in records] == [
        (Outcome.REFUSED, 503, Cause.FIRST),
        (Outcome.REFUSED, 503, Cause.REFUSED),
        (Outcome.COMPLETED, 200, Cause.REFUSED),
    ]


async def test_a_kept_response_is_one_record(metered: Callable[..., Any]) -> None:
    toml = '[callers.default]\nstore = "keep"\n'
    async with metered(toml=toml) as (gateway, records), gateway.client() as client:
        kept = await client.responses.create(model="m", input="hi", store=True)
        await client.responses.retrieve(kept.id)
    record = only(records)
    assert (record.attribution.mode, record.attribution.response_id) == ("kept", kept.id)
    assert record.usage == TOLD


ENDPOINTS: Mapping[str, Usage | None] = {"compact": TOLD, "input_tokens": None}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_the_endpoints_beside_create_are_records(
    metered: Callable[..., Any], endpoint: str
) -> None:
    async with metered() as (gateway, records), gateway.client() as client:
        body = {"model": "m", "input": "some words"}
        await client.post(f"/responses/{endpoint}", body=body, cast_to=object)
    record = only(records)
    assert (record.endpoint, record.outcome) == (endpoint, Outcome.COMPLETED)
    assert record.usage == ENDPOINTS[endpoint]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_upstream_runs_itself_is_one_record_however_often_it_is_polled(
    metered: Callable[..., Any], stream: bool
) -> None:
    flags = {
        "flags": {
            "background.enabled": True,
            "background.executor": "upstream",
            "upstream.runs_background": True,
        }
    }
    options = {"manners": "storing", "profile": "openai", **flags}
    async with metered(**options) as (gateway, records), gateway.client() as client:
        made = await client.responses.create(model="m", input="hi", background=True, stream=stream)
        if stream:
            events = [event async for event in made]
            made = events[0].response
        for _ in range(3):
            await client.responses.retrieve(made.id)
        await eventually(lambda: bool(records))
    expected = (Outcome.COMPLETED, TOLD) if stream else (Outcome.ACCEPTED, None)
    assert (only(records).outcome, only(records).usage) == expected
    assert only(records).attribution.mode == "background-upstream"
