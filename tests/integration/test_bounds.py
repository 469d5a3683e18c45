"""What one background response may take: time, silence, bytes, and how long it is kept."""

from typing import Any

import openai
import pytest

from tests.clocks import JumpingClock
from tests.conftest import BACKGROUND, Scripted, Start, eventually
from tests.integration.test_lifecycle import events_of, finished

TOML = '[background]\nenabled = true\n{}\n[upstream]\nidle_timeout = "1s"\n'
RETRY = {"handrail-crash-policy": "retry"}


async def failed(start: Start, setting: str, script: str, **headers: str) -> tuple[Any, list[Any]]:
    """How a run ends that goes beyond a bound: the response, and its events."""
    async with start(toml=TOML.format(setting)) as gateway, gateway.client() as client:
        queued = await client.responses.create(
            model="m", input=f"[[{script}]]", background=True, extra_headers=headers
        )
        response = await finished(client, queued.id, seconds=8)
        events = await events_of(client, queued.id)
        assert response.status == "failed"
        assert [event.sequence_number for event in events] == list(range(len(events)))
        return response, events


async def test_a_run_that_takes_too_long_ends_with_what_there_was(
    start: Start, upstream: Scripted
) -> None:
    response, _ = await failed(start, 'max_duration = "1s"', "words=1000 delay=0.1")
    assert response.error.type == "deadline_exceeded"
    assert 0 < len(response.output_text.split()) < 15
    await eventually(lambda: upstream.seen.open == 0)


async def test_a_run_that_never_gets_an_answer_is_bounded_too(
    start: Start, upstream: Scripted
) -> None:
    response, _ = await failed(start, 'max_duration = "1s"', "before=60")
    assert response.error.type == "deadline_exceeded"
    await eventually(lambda: upstream.seen.open == 0)


@pytest.mark.parametrize("script", ["early=stall tag=t", "status=503 retry_after=0.7 tag=t"])
async def test_all_attempts_and_calls_together_have_one_duration(
    start: Start, upstream: Scripted, script: str
) -> None:
    response, events = await failed(start, 'max_duration = "2s"', script, **RETRY)
    assert response.error.type == "deadline_exceeded"
    assert upstream.seen.tags["t"] in (2, 3)
    assert len(events) == 4


async def test_a_run_whose_upstream_falls_silent_ends_with_what_there_was(start: Start) -> None:
    response, _ = await failed(start, "", "stall=3")
    assert response.error.type == "upstream_stalled"
    assert len(response.output_text.split()) == 3


async def test_a_run_that_says_too_much_ends_with_what_there_was(
    start: Start, upstream: Scripted
) -> None:
    response, events = await failed(
        start, "max_output_bytes = 20000", "words=1000 size=1000 delay=0.001"
    )
    assert response.error.type == "output_too_large"
    assert 10_000 < len(response.output_text) < 40_000
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert response.output_text == text
    await eventually(lambda: upstream.seen.open == 0)


# --- how long it is kept -------------------------------------------------------------------------


async def test_a_request_may_have_its_response_kept_for_a_shorter_time(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="m",
            input="hi",
            background=True,
            extra_headers={"handrail-retention": "15m"},
        )
        assert "retention=900s" in raw.headers["handrail-decision"]
        short = await finished(client, raw.parse().id)
        long = await client.responses.create(model="m", input="hi", background=True)
        await finished(client, long.id)
    # A machine that was off for an hour: time that a restart learns from the wall clock alone.
    clock = JumpingClock()
    clock.wrong_by = 3_600.0
    async with start(clock=clock, **BACKGROUND) as gateway, gateway.client() as client:
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(short.id)
        assert (await client.responses.retrieve(long.id)).status == "completed"


@pytest.mark.parametrize(("value", "said"), [("25h", "86400s"), ("soon", "duration")])
async def test_a_retention_that_cannot_be_had_is_a_400_that_names_the_header(
    start: Start, upstream: Scripted, value: str, said: str
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        with pytest.raises(openai.BadRequestError, match=said) as caught:
            await client.responses.create(
                model="m",
                input="hi",
                background=True,
                extra_headers={"handrail-retention": value},
            )
        assert caught.value.param == "handrail-retention"
        assert upstream.seen.calls == 0
