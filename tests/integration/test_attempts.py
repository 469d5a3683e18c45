"""Crash policy through the real SDK: never paid twice by accident, and never two answers in one."""

import asyncio
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from handrail.store.base import Call
from tests.conftest import BACKGROUND, Running, Scripted, Start, eventually
from tests.integration.test_lifecycle import events_of, finished

RETRY = {"handrail-crash-policy": "retry"}
DRAIN = '[background]\nenabled = true\n[server]\ndrain = "0s"\n[upstream]\nidle_timeout = "1s"\n'
LOSSES = {
    "early=hangup": "ended_early",
    "early=drop": "ended_early",
    "early=stall": "stalled",
    "status=500": "server_error",
    "status=502": "server_error",
    "status=504": "server_error",
}


async def calls_of(gateway: Running, response_id: str) -> Sequence[Call]:
    """The upstream calls that are written down for a response."""
    return await gateway.gateway._store.calls(response_id, caller="default")


async def create(client: AsyncOpenAI, script: str, **headers: str) -> Any:
    """A background response that may have several attempts."""
    return await client.responses.create(
        model="m", input=f"[[{script}]]", background=True, extra_headers={**RETRY, **headers}
    )


@pytest.mark.parametrize(("loss", "cause"), LOSSES.items())
async def test_under_retry_a_loss_before_anything_is_visible_is_followed_by_a_new_attempt(
    start: Start, upstream: Scripted, loss: str, cause: str
) -> None:
    async with start(toml=DRAIN) as gateway, gateway.client() as client:
        queued = await create(client, f"tag=t times=1 {loss}")
        response = await finished(client, queued.id, seconds=8)
        assert response.status == "completed"
        assert response.output_text.split()[0] == "call2"
        raw = await client.responses.with_raw_response.retrieve(queued.id)
        assert raw.headers["handrail-attempts"] == "2"
        assert upstream.seen.tags["t"] == 2
        calls = await calls_of(gateway, queued.id)
        assert [(each.number, each.attempt, each.cause) for each in calls] == [
            (1, 1, "first"),
            (2, 2, cause),
        ]
        events = await events_of(client, queued.id)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        kinds = [event.type for event in events]
        assert (kinds.count("response.created"), kinds.count("response.in_progress")) == (1, 1)


@pytest.mark.parametrize("loss", LOSSES)
async def test_under_safe_the_same_loss_is_the_end(
    start: Start, upstream: Scripted, loss: str
) -> None:
    async with start(toml=DRAIN) as gateway, gateway.client() as client:
        queued = await create(client, f"tag=t times=1 {loss}", **{"handrail-crash-policy": "safe"})
        response = await finished(client, queued.id, seconds=8)
        assert response.status == "failed"
        assert upstream.seen.tags["t"] == 1


async def test_there_are_three_attempts_and_then_the_last_error_is_told(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await create(client, "tag=t early=drop")
        response = await finished(client, queued.id, seconds=8)
        assert (response.status, response.error.type) == ("failed", "upstream_ended_early")
        assert (upstream.seen.tags["t"], len(await calls_of(gateway, queued.id))) == (3, 3)


async def test_calls_within_an_attempt_are_counted_beside_attempts(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await create(client, "status=503 times=1 retry_after=0.01 tag=t")
        assert (await finished(client, queued.id)).status == "completed"
        raw = await client.responses.with_raw_response.retrieve(queued.id)
        assert raw.headers["handrail-attempts"] == "1"
        causes = [(each.attempt, each.cause) for each in await calls_of(gateway, queued.id)]
        assert causes == [(1, "first"), (1, "refused")]


async def test_once_a_part_is_visible_a_loss_is_the_end_and_the_part_is_kept(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await create(client, "words=9 delay=0.03 drop=3 tag=t times=1")
        response = await finished(client, queued.id)
        assert (response.status, response.error.type) == ("failed", "upstream_ended_early")
        assert response.output_text.split() == ["call1", "1", "2"]
        assert upstream.seen.tags["t"] == 1


# --- what a live reader sees ---------------------------------------------------------------------


def told(events: Sequence[Any]) -> str:
    """The text that a reader of deltas has put together."""
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def stream_helper(client: AsyncOpenAI, script: str) -> tuple[list[Any], Any]:
    """All events, and the response, as the SDK's accumulator gives them."""
    async with client.responses.stream(
        model="m", input=f"[[{script}]]", background=True, extra_headers=RETRY
    ) as stream:
        return [event async for event in stream], await stream.get_final_response()


async def sync_stream_helper(client: AsyncOpenAI, script: str) -> tuple[list[Any], Any]:
    """The same of the SDK without an event loop."""

    def read() -> tuple[list[Any], Any]:
        with (
            OpenAI(base_url=client.base_url, api_key=client.api_key, max_retries=0) as sync,
            sync.responses.stream(
                model="m", input=f"[[{script}]]", background=True, extra_headers=RETRY
            ) as stream,
        ):
            return list(stream), stream.get_final_response()

    return await asyncio.to_thread(read)


@pytest.mark.parametrize("helper", [stream_helper, sync_stream_helper])
@pytest.mark.parametrize("loss", ["early=drop", "status=500", "early=hangup"])
async def test_the_sdks_accumulator_over_a_lost_attempt_has_the_second_answer_alone(
    start: Start, upstream: Scripted, helper: Any, loss: str
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        events, final = await helper(client, f"words=20 delay=0.005 tag=t times=1 {loss}")
        assert upstream.seen.tags["t"] == 2
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert told(events) == final.output_text
        assert final.output_text.split() == ["call2", *(str(n) for n in range(1, 20))]
        assert len(final.output) == 1


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_reader_of_a_visible_attempt_sees_it_fail_and_no_other_text(
    start: Start, upstream: Scripted, kind: str
) -> None:
    script = "[[words=9 delay=0.03 drop=3 tag=t times=1]]"
    fields: Any = {"model": "m", "input": script, "background": True, "stream": True}
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        if kind == "async":
            stream = await client.responses.create(**fields, extra_headers=RETRY)
            events: list[Any] = [event async for event in stream]
        else:

            def read() -> list[Any]:
                with OpenAI(base_url=gateway.url, api_key=gateway.key, max_retries=0) as sync:
                    return list(sync.responses.create(**fields, extra_headers=RETRY))

            events = await asyncio.to_thread(read)
        assert events[-1].type == "response.failed"
        assert events[-1].response.output_text == told(events)
        assert told(events).split() == ["call1", "1", "2"]
        assert upstream.seen.tags["t"] == 1


async def test_of_a_loss_in_the_moment_of_becoming_visible_one_of_both_is_true(
    start: Start, upstream: Scripted
) -> None:
    """The first events may or may not be durable when the connection breaks."""
    async with start(**BACKGROUND) as gateway, gateway.client() as client:

        async def one(number: int) -> None:
            script = f"words=5 drop=0 tag=t{number} times=1 first=0.0{number % 10}"
            queued = await create(client, script)
            response = await finished(client, queued.id, seconds=10)
            events = await events_of(client, queued.id)
            assert [event.sequence_number for event in events] == list(range(len(events)))
            calls = upstream.seen.tags[f"t{number}"]
            added = [event for event in events if event.type == "response.output_item.added"]
            assert len(added) == 1
            assert (response.status, calls) in {("failed", 1), ("completed", 2)}
            if response.status == "completed":
                assert told(events) == response.output_text

        await asyncio.gather(*(one(number) for number in range(30)))


# --- stopping and cancelling ---------------------------------------------------------------------


async def test_a_drain_puts_back_what_may_have_another_attempt(
    start: Start, upstream: Scripted
) -> None:
    toml = DRAIN.replace('"1s"', '"60s"')
    async with start(toml=toml) as gateway, gateway.client() as client:
        queued = await create(client, "early=stall tag=t times=1")
        await eventually(lambda: upstream.seen.open == 1)
    assert upstream.seen.open == 0
    async with start(toml=toml) as gateway, gateway.client() as client:
        response = await finished(client, queued.id)
        assert (response.status, response.output_text.split()[0]) == ("completed", "call2")
        causes = [each.cause for each in await calls_of(gateway, queued.id)]
        assert causes == ["first", "worker_lost"]
        events = await events_of(client, queued.id)
        assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_a_cancel_between_two_attempts_is_the_end(start: Start, upstream: Scripted) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await create(client, "status=500 retry_after=50 tag=t")
        await eventually(lambda: upstream.seen.finished == 1)
        while (await client.responses.retrieve(queued.id)).status == "queued":
            await asyncio.sleep(0.005)
        assert (await client.responses.cancel(queued.id)).status == "cancelled"
        assert gateway.gateway._parts.executor.running == 0
        assert upstream.seen.tags["t"] == 1
        assert (await client.responses.retrieve(queued.id)).status == "cancelled"


# --- who chooses ---------------------------------------------------------------------------------


async def test_a_callers_policy_is_the_default_and_a_request_may_say_otherwise(
    start: Start, upstream: Scripted
) -> None:
    toml = '[background]\nenabled = true\n[callers.default]\ncrash = "retry"\n'
    async with start(toml=toml) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="m", input="[[tag=default status=500 times=1]]", background=True
        )
        assert "crash=retry" in raw.headers["handrail-decision"]
        assert (await finished(client, raw.parse().id)).status == "completed"
        queued = await create(
            client, "tag=own status=500 times=1", **{"handrail-crash-policy": "safe"}
        )
        assert (await finished(client, queued.id)).status == "failed"
        assert (upstream.seen.tags["default"], upstream.seen.tags["own"]) == (2, 1)


async def test_a_policy_that_does_not_exist_is_a_400_that_names_the_header(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        for background in (True, False):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(
                    model="m",
                    input="hi",
                    background=background,
                    extra_headers={"handrail-crash-policy": "maybe"},
                )
            assert caught.value.param == "handrail-crash-policy"
        assert upstream.seen.calls == 0


async def test_without_background_the_policy_is_ignored_and_that_is_told(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="m", input="hi", extra_headers=RETRY
        )
        assert "handrail-crash-policy=ignored" in raw.headers["handrail-decision"]


async def test_a_decision_is_kept_with_the_run_whatever_the_settings_say_later(
    start: Start, upstream: Scripted
) -> None:
    toml = '[background]\nenabled = true\nmax_running = 1\n[server]\ndrain = "0s"\n'
    async with start(toml=toml) as gateway, gateway.client() as client:
        held = await client.responses.create(model="m", input="[[stall=1]]", background=True)
        waiting = await create(client, "tag=t status=500 times=1")
        await eventually(lambda: upstream.seen.open == 1)
        assert held.id != waiting.id
    async with start(toml=toml) as gateway, gateway.client() as client:
        assert (await finished(client, waiting.id)).status == "completed"
        assert upstream.seen.tags["t"] == 2
