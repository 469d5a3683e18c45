"""A background response's whole life, with the real SDK over real sockets."""

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.conftest import BACKGROUND, OTHER_KEY, Scripted, Start, eventually


async def finished(client: AsyncOpenAI, response_id: str, *, seconds: float = 5.0) -> Any:
    """Poll as a user would, until the response has ended."""
    async with asyncio.timeout(seconds):
        while True:
            response = await client.responses.retrieve(response_id)
            if response.status not in ("queued", "in_progress"):
                return response
            await asyncio.sleep(0.02)


async def events_of(client: AsyncOpenAI, response_id: str, after: int | None = None) -> list[Any]:
    """Every event after a number, to the end of the stream."""
    options: Any = {} if after is None else {"starting_after": after}
    stream = await client.responses.retrieve(response_id, stream=True, **options)
    return [event async for event in stream]


async def test_a_background_response_is_queued_at_once_and_polled_to_its_end(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(
            model="m", input="hi [[words=3 delay=0.05]]", background=True
        )
        assert (queued.status, queued.background, queued.output) == ("queued", True, [])
        response = await finished(client, queued.id)
        assert response.status == "completed"
        assert response.id == queued.id
        assert response.output_text.split()[1:] == ["1", "2"]
        assert response.completed_at is not None
        assert upstream.seen.calls == 1
        assert upstream.last["store"] is False
        assert "background" not in upstream.last


async def test_the_log_is_numbered_without_gaps_and_starts_and_ends_as_the_contract_says(
    start: Start,
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(model="m", input="hi", background=True)
        events = await events_of(client, queued.id)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        kinds = [event.type for event in events]
        assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
        assert [event.response.status for event in events[:3]] == [
            "queued",
            "queued",
            "in_progress",
        ]
        assert kinds[-1] == "response.completed"
        assert {event.response.id for event in (*events[:3], events[-1])} == {queued.id}


async def test_resume_at_every_cursor_gives_exactly_what_follows(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(
            model="m", input="hi [[words=30 delay=0.002]]", background=True
        )
        live = await events_of(client, queued.id)
        for cursor in range(len(live) + 2):
            rest = await events_of(client, queued.id, after=cursor)
            assert rest == live[cursor + 1 :]


async def test_a_live_reader_and_a_late_one_see_the_same_bytes(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(
            model="m", input="hi [[words=40 delay=0.01]]", background=True
        )

        async def read() -> bytes:
            reply = await client.with_options(max_retries=0)._client.get(
                f"{gateway.url}/responses/{queued.id}",
                params={"stream": "true"},
                headers={"authorization": f"Bearer {gateway.key}"},
            )
            return bytes(reply.content)

        first, second = await asyncio.gather(read(), read())
        assert first == second == await read()


async def test_background_and_stream_together_stream_and_can_be_resumed_by_another_reader(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        stream = await client.responses.create(
            model="m", input="hi [[words=20 delay=0.02]]", background=True, stream=True
        )
        head = [await anext(stream) for _ in range(6)]
        await stream.close()
        response_id = head[0].response.id  # type: ignore[union-attr]
        rest = await events_of(client, response_id, after=head[-1].sequence_number)
        numbers = [event.sequence_number for event in (*head, *rest)]
        assert numbers == list(range(len(numbers)))
        assert rest[-1].response.status == "completed"
        assert upstream.seen.calls == 1


async def test_a_reader_that_leaves_at_created_does_not_stop_the_run(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        for _ in range(5):
            stream = await client.responses.create(
                model="m", input="hi [[words=5 delay=0.02]]", background=True, stream=True
            )
            created = await anext(stream)
            await stream.close()
            response = await finished(client, created.response.id)  # type: ignore[union-attr]
            assert response.status == "completed"
            assert len(response.output_text.split()) == 5
        assert upstream.seen.left == 0


async def test_the_stream_helper_of_the_sdk_works_live_and_on_resume(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        async with client.responses.stream(
            model="m", input="hi [[words=10 delay=0.01]]", background=True
        ) as stream:
            seen = [event async for event in stream]
            final = await stream.get_final_response()
        assert len(final.output_text.split()) == 10
        async with client.responses.stream(response_id=final.id, starting_after=4) as again:
            rest = [event async for event in again]
        # The helper reads from the start to rebuild its state, and shows what follows the cursor.
        numbers = [event.sequence_number for event in rest]
        assert numbers == [n for event in seen if (n := event.sequence_number) > 4]


async def test_cancel_closes_the_upstream_and_stays(start: Start, upstream: Scripted) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(
            model="m", input="hi [[words=100 delay=0.05]]", background=True
        )
        await eventually(lambda: upstream.seen.open == 1)
        cancelled = await client.responses.cancel(queued.id)
        assert (cancelled.status, cancelled.output, cancelled.error) == ("cancelled", [], None)
        await eventually(lambda: upstream.seen.open == 0, seconds=1.0)
        again = await client.responses.cancel(queued.id)
        assert again == cancelled == await client.responses.retrieve(queued.id)
        events = await events_of(client, queued.id)
        assert (events[-1].type, events[-1].response.status) == ("response.failed", "cancelled")
        assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_a_queued_response_is_cancelled_without_any_upstream_call(
    start: Start, upstream: Scripted
) -> None:
    options = {"toml": "[background]\nenabled = true\nmax_running = 1\n"}
    async with start(**options) as gateway, gateway.client() as client:
        first = await client.responses.create(
            model="m", input="[[words=100 delay=0.05]]", background=True
        )
        second = await client.responses.create(model="m", input="second", background=True)
        await eventually(lambda: upstream.seen.open == 1)
        assert (await client.responses.retrieve(second.id)).status == "queued"
        assert (await client.responses.cancel(second.id)).status == "cancelled"
        await client.responses.cancel(first.id)
        third = await client.responses.create(model="m", input="third", background=True)
        assert (await finished(client, third.id)).status == "completed"
        assert upstream.seen.calls == 2


async def test_a_finished_response_cannot_be_cancelled(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(model="m", input="hi", background=True)
        await finished(client, queued.id)
        with pytest.raises(openai.BadRequestError, match="Cannot cancel a completed response") as e:
            await client.responses.cancel(queued.id)
        assert e.value.param == "response_id"
        assert (await client.responses.retrieve(queued.id)).status == "completed"


async def test_a_deleted_response_is_gone_for_everybody(start: Start, upstream: Scripted) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(
            model="m", input="[[words=100 delay=0.05]]", background=True
        )
        await eventually(lambda: upstream.seen.open == 1)
        await client.responses.delete(queued.id)
        await eventually(lambda: upstream.seen.open == 0, seconds=1.0)
        for call in (
            client.responses.retrieve(queued.id),
            client.responses.cancel(queued.id),
            client.responses.delete(queued.id),
            client.responses.input_items.list(queued.id)._get_page(),
        ):
            with pytest.raises(openai.NotFoundError, match="not found"):
                await call


async def test_readers_of_a_deleted_response_see_their_stream_end(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        stream = await client.responses.create(
            model="m", input="[[words=100 delay=0.05]]", background=True, stream=True
        )
        created = await anext(stream)
        await client.responses.delete(created.response.id)  # type: ignore[union-attr]
        async with asyncio.timeout(2):
            rest = [event async for event in stream]
        assert [event.sequence_number for event in rest] == list(range(1, len(rest) + 1))


async def test_input_items_are_listed_with_ids_and_in_pages(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        given: Any = [
            {"role": "user", "content": "one"},
            {"type": "message", "id": "msg_two", "role": "user", "content": "two"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "done"},
        ]
        queued = await client.responses.create(model="m", input=given, background=True)
        items = [item async for item in client.responses.input_items.list(queued.id, limit=2)]
        assert len({item.id for item in items}) == 4
        assert [item.type for item in items] == [
            "function_call_output",
            "function_call",
            "message",
            "message",
        ]
        ascending = [
            item
            async for item in client.responses.input_items.list(queued.id, order="asc", limit=3)
        ]
        assert ascending == items[::-1]
        assert ascending[1].id == "msg_two"


async def test_a_failed_upstream_ends_the_run_honestly_and_keeps_what_there_was(
    start: Start, upstream: Scripted
) -> None:
    cases = {
        "drop=3": "upstream_ended_early",
        "eof=3": "upstream_ended_early",
        "malformed=3": "upstream_protocol_error",
        "error=3": "upstream_failed",
    }
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        for number, (directive, cause) in enumerate(cases.items(), start=1):
            queued = await client.responses.create(
                model="m", input=f"[[words=9 delay=0.001 {directive}]]", background=True
            )
            response = await finished(client, queued.id)
            assert (response.status, response.error.code) == ("failed", "server_error")
            assert response.error.type == cause
            assert len(response.output_text.split()) == 3
            events = await events_of(client, queued.id)
            assert events[-1].type == "response.failed"
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert upstream.seen.calls == number


async def test_an_event_beyond_every_bound_is_an_answer_and_the_run_can_be_read(
    start: Start,
) -> None:
    huge = "[[words=1 size=9000000]]"  # an event may have 8 MiB
    async with start(manners="codex", **BACKGROUND) as gateway, gateway.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.create(model="m", input=huge)
        assert (caught.value.status_code, caught.value.code) == (502, "upstream_protocol_error")
        queued = await client.responses.create(model="m", input=huge, background=True)
        response = await finished(client, queued.id)
        assert (response.status, response.error.type) == ("failed", "upstream_protocol_error")


async def test_an_incomplete_and_a_failed_answer_keep_the_upstreams_reason(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(model="m", input="[[incomplete]]", background=True)
        response = await finished(client, queued.id)
        assert response.status == "incomplete"
        assert response.incomplete_details.reason == "max_output_tokens"
        queued = await client.responses.create(model="m", input="[[fail]]", background=True)
        response = await finished(client, queued.id)
        assert (response.status, response.error.message) == ("failed", "The scripted model failed.")


async def test_only_an_answer_that_proves_that_nothing_ran_is_followed_by_another_call(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        again = "[[tag=again status=429 retry_after=0.01 times=2]]"
        queued = await client.responses.create(model="m", input=again, background=True)
        assert (await finished(client, queued.id)).status == "completed"
        assert upstream.seen.tags["again"] == 3
        once = "[[tag=once status=500 times=1]]"
        queued = await client.responses.create(model="m", input=once, background=True)
        response = await finished(client, queued.id)
        assert (response.status, response.error.message) == ("failed", "Scripted.")
        assert upstream.seen.tags["once"] == 1


async def test_a_full_queue_is_a_429_that_says_when_to_come_back(
    start: Start, upstream: Scripted
) -> None:
    options = {"toml": "[background]\nenabled = true\nmax_running = 1\nmax_queued = 2\n"}
    async with start(**options) as gateway, gateway.client() as client:

        async def create() -> Any:
            return await client.responses.create(
                model="m", input="[[words=200 delay=0.05]]", background=True
            )

        first = await create()
        await eventually(lambda: upstream.seen.open == 1)
        waiting = [await create(), await create()]
        with pytest.raises(openai.RateLimitError) as error:
            await create()
        assert error.value.code == "queue_full"
        assert int(error.value.response.headers["retry-after"]) > 0
        for response in (first, *waiting):
            await client.responses.cancel(response.id)


async def test_another_callers_id_is_the_same_404_as_an_unknown_one(start: Start) -> None:
    options = {
        "toml": '[callers.other]\nkey_env = "OTHER_KEY"\n',
        "environment": {"OTHER_KEY": OTHER_KEY},
        **BACKGROUND,
    }
    async with start(**options) as gateway, gateway.client() as client:
        queued = await client.responses.create(model="m", input="hi", background=True)
        unknown = "resp_" + "0" * 48
        async with gateway.client(key=OTHER_KEY) as other:
            answers: dict[str, set[str]] = {}
            for response_id in (queued.id, unknown):
                for name, call in {
                    "get": other.responses.retrieve(response_id),
                    "stream": other.responses.retrieve(response_id, stream=True),
                    "cancel": other.responses.cancel(response_id),
                    "delete": other.responses.delete(response_id),
                    "items": other.responses.input_items.list(response_id)._get_page(),
                }.items():
                    with pytest.raises(openai.NotFoundError) as error:
                        await call
                    text = json.dumps(error.value.body).replace(response_id, "ID")
                    answers.setdefault(name, set()).add(text)
        assert all(len(texts) == 1 for texts in answers.values()), answers
        assert (await finished(client, queued.id)).status == "completed"


async def test_an_item_reference_is_resolved_from_what_is_kept_or_refused_by_name(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(model="m", input="first", background=True)
        first = await finished(client, queued.id)
        reference: Any = [
            {"type": "item_reference", "id": first.output[0].id},
            {"role": "user", "content": "go on"},
        ]
        second = await client.responses.create(model="m", input=reference, background=True)
        assert (await finished(client, second.id)).status == "completed"
        assert upstream.last["input"][0]["content"][0]["text"] == first.output_text
        missing: Any = [{"type": "item_reference", "id": "msg_unknown"}]
        with pytest.raises(openai.BadRequestError, match="msg_unknown") as error:
            await client.responses.create(model="m", input=missing, background=True)
        assert error.value.param == "input[0].id"
        assert upstream.seen.calls == 2


@pytest.mark.parametrize("cursor", ["-1", "1.5", "x", "", str(2**53), "9" * 40, "0x1"])
async def test_a_bad_cursor_is_a_400_that_names_it(start: Start, cursor: str) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(model="m", input="hi", background=True)
        with pytest.raises(openai.BadRequestError) as error:
            await client.responses.retrieve(
                queued.id, stream=True, extra_query={"starting_after": cursor}
            )
        assert error.value.param == "starting_after"


async def test_obfuscation_is_left_out_of_a_replay_when_asked(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(model="m", input="hi", background=True)
        await finished(client, queued.id)
        plain = await client.responses.retrieve(
            queued.id, stream=True, include_obfuscation=False, starting_after=2
        )
        numbers = [event.sequence_number async for event in plain]
        assert numbers == list(range(3, 3 + len(numbers)))
