"""Kept foreground responses whose reader leaves, is cut off, or cancels; and what a stop does."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.conftest import Scripted, Start, eventually
from tests.integration.test_kept_foreground import KEEP_ALL, rows
from tests.integration.test_lifecycle import events_of, finished

STOP = KEEP_ALL
CONTINUE: dict[str, Any] = {"toml": KEEP_ALL["toml"] + 'when_left = "continue"\n'}
SLOW = "[[words=15 delay=0.03]]"


async def begun(client: AsyncOpenAI, text: str = SLOW, events: int = 5) -> tuple[Any, list[Any]]:
    """A stream, and its first events."""
    stream: Any = await client.responses.create(model="m", input=text, stream=True)
    return stream, [await anext(stream) for _ in range(events)]


async def test_a_stream_whose_reader_leaves_is_stopped_and_says_so(
    start: Start, upstream: Scripted
) -> None:
    async with start(**STOP) as gateway, gateway.client() as client:
        stream, head = await begun(client, "[[words=500 delay=0.05]]")
        await stream.close()
        await eventually(lambda: upstream.seen.open == 0)
        response = await finished(client, head[0].response.id)
        assert (response.status, response.output, response.error) == ("cancelled", [], None)
        seen = await events_of(client, response.id)
        assert seen[: len(head)] == head
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        assert (seen[-1].type, seen[-1].response.status) == ("response.failed", "cancelled")
        assert (await client.responses.cancel(response.id)).status == "cancelled"


async def test_where_it_may_it_goes_on_and_is_resumed_without_a_gap(
    start: Start, upstream: Scripted
) -> None:
    async with start(**CONTINUE) as gateway, gateway.client() as client:
        stream, head = await begun(client)
        await stream.close()
        response_id = head[0].response.id
        assert (await client.responses.retrieve(response_id)).status == "in_progress"
        rest = await events_of(client, response_id, after=head[-1].sequence_number)
        numbers = [event.sequence_number for event in (*head, *rest)]
        assert numbers == list(range(len(numbers)))
        assert rest[-1].response.status == "completed"
        assert len(rest[-1].response.output_text.split()) == 15
        assert (upstream.seen.calls, upstream.seen.left) == (1, 0)
        again = await client.responses.create(
            model="m", input="on", previous_response_id=response_id
        )
        assert again.status == "completed"


async def test_no_more_go_on_without_a_reader_than_the_caller_may_run(
    start: Start, upstream: Scripted
) -> None:
    toml = CONTINUE["toml"] + "max_running = 2\n"
    async with start(toml=toml) as gateway, gateway.client() as client:
        begun_ones = [await begun(client, "[[words=60 delay=0.05]]") for _ in range(3)]
        for number, (stream, _) in enumerate(begun_ones):
            await stream.close()
            await eventually(lambda n=number: upstream.seen.left == max(0, n - 1))  # type: ignore[misc]
        states = [
            (await client.responses.retrieve(head[0].response.id)).status for _, head in begun_ones
        ]
        assert states[:2] == ["in_progress", "in_progress"]
        last = await finished(client, begun_ones[2][1][0].response.id)
        assert last.status == "cancelled"
        await client.responses.cancel(begun_ones[0][1][0].response.id)
        stream, head = await begun(client)
        await stream.close()
        assert (await finished(client, head[0].response.id)).status == "completed"


@pytest.mark.parametrize("options", [STOP, CONTINUE])
@pytest.mark.parametrize("stream", [True, False])
async def test_whoever_leaves_before_anything_was_shown_leaves_nothing_behind(
    start: Start, upstream: Scripted, tmp_path: Path, *, options: Any, stream: bool
) -> None:
    async with start(**options) as gateway, gateway.client() as client:
        text = "[[before=60]]" if stream else "[[words=500 delay=0.05]]"
        call = asyncio.create_task(client.responses.create(model="m", input=text, stream=stream))
        await eventually(lambda: upstream.seen.open == 1)
        assert rows(tmp_path) == 1
        call.cancel()
        await eventually(lambda: upstream.seen.open == 0)
        await eventually(lambda: rows(tmp_path) == 0)
        assert upstream.seen.left == 1


@pytest.mark.parametrize("options", [STOP, CONTINUE])
async def test_it_can_be_cancelled_by_its_id_while_it_is_under_way(
    start: Start, upstream: Scripted, options: Any
) -> None:
    async with start(**options) as gateway, gateway.client() as client:
        stream, head = await begun(client, "[[words=500 delay=0.05]]")
        cancelled = await client.responses.cancel(head[0].response.id)
        assert (cancelled.status, upstream.seen.open) == ("cancelled", 0)
        rest = [event async for event in stream]
        assert (rest[-1].type, rest[-1].response.status) == ("response.failed", "cancelled")
        assert (await client.responses.cancel(cancelled.id)).status == "cancelled"


async def test_a_finished_one_was_synchronous_and_cannot_be_cancelled(start: Start) -> None:
    async with start(**STOP) as gateway, gateway.client() as client:
        stream = await client.responses.create(model="m", input="[[fail]]", stream=True)
        failed: list[Any] = [event async for event in stream]
        completed = await client.responses.create(model="m", input="hi")
        for response_id in (completed.id, failed[0].response.id):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.cancel(response_id)
            assert caught.value.body == {
                "message": "Cannot cancel a synchronous response.",
                "type": "invalid_request_error",
                "param": "response_id",
                "code": None,
            }


async def test_deleting_one_under_way_closes_the_upstream_and_ends_its_stream(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    async with start(**STOP) as gateway, gateway.client() as client:
        stream, head = await begun(client, "[[words=500 delay=0.05]]")
        await client.responses.delete(head[0].response.id)
        assert upstream.seen.open == 0
        async with asyncio.timeout(5):
            _ = [event async for event in stream]
        assert rows(tmp_path) == 0


async def test_silence_is_filled_and_leaves_no_trace_in_the_log(start: Start) -> None:
    options = {"toml": '[server]\nheartbeat = "1s"\n' + KEEP_ALL["toml"]}
    async with start(**options) as gateway, gateway.client() as client:
        for agent, sign in (("sdk", b": keep-alive\n\n"), ("codex_exec/1", b"event: keepalive\n")):
            reply = await client._client.post(
                f"{gateway.url}/responses",
                json={"model": "m", "input": "[[words=3 first=1.5]]", "stream": True},
                headers={"authorization": f"Bearer {gateway.key}", "user-agent": agent},
            )
            frames = [f + b"\n\n" for f in reply.content.split(b"\n\n")[:-1]]
            beats = [frame for frame in frames if frame.startswith(sign[:10])]
            assert beats
            if agent != "sdk":  # under the number of what was there, so no cursor moves by it
                assert all(b'"sequence_number":1' in frame for frame in beats)
            log = [frame for frame in frames if frame not in beats]
            response_id = log[0].partition(b'"id":"')[2].partition(b'"')[0].decode()
            again = await client._client.get(
                f"{gateway.url}/responses/{response_id}",
                params={"stream": "true"},
                headers={"authorization": f"Bearer {gateway.key}"},
            )
            assert again.content == b"".join(log)


DRAIN = KEEP_ALL["toml"] + '[server]\ndrain = "{}s"\n'


async def test_a_drain_lets_kept_streams_finish_and_takes_no_new_ones(
    start: Start, upstream: Scripted
) -> None:
    async with start(toml=DRAIN.format(10)) as gateway, gateway.client() as client:
        stream, _ = await begun(client)
        waiting = asyncio.create_task(client.responses.create(model="m", input=SLOW))
        await eventually(lambda: upstream.seen.open == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        rest = [event async for event in stream]
        assert rest[-1].response.status == "completed"
        assert (await waiting).status == "completed"


async def test_a_drain_that_is_over_ends_them_honestly(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    async with start(toml=DRAIN.format(0)) as gateway, gateway.client() as client:
        stream, head = await begun(client, "[[stall=3]]")
        waiting = asyncio.create_task(client.responses.create(model="m", input="[[stall=3]]"))
        await eventually(lambda: upstream.seen.open == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            rest = [event async for event in stream]
            with pytest.raises(openai.InternalServerError) as caught:
                await waiting
        assert caught.value.code == "shutting_down"
        assert rest[-1].response.error.type == "worker_lost"
    assert rows(tmp_path) == 1
    async with start(toml=DRAIN.format(0)) as gateway, gateway.client() as client:
        response = await client.responses.retrieve(head[0].response.id)
        assert (response.status, response.error.type) == ("failed", "worker_lost")  # type: ignore[union-attr]


async def test_a_thousand_comings_and_goings_leave_no_run_and_no_call_open(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    async with start(**STOP) as gateway, gateway.client() as client:

        async def come_and_go(number: int) -> None:
            call = asyncio.create_task(
                client.responses.create(
                    model="m", input="[[words=50 delay=0.001]]", stream=number % 2 == 0
                )
            )
            await asyncio.wait([call], timeout=(number % 37) / 1_000)
            if not call.cancel() and number % 2 == 0:
                stream: Any = call.result()
                await stream.close()
            await asyncio.wait([call])

        for first in range(0, 1_000, 20):
            await asyncio.gather(*(come_and_go(first + n) for n in range(20)))
        await eventually(lambda: upstream.seen.open == 0, seconds=20)
        counts = gateway.gateway._store.counts
        async with asyncio.timeout(20):
            while (await counts())["running"]:
                await asyncio.sleep(0.01)
