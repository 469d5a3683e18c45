"""Foreground responses that the gateway keeps, with the real SDK."""

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.conftest import OTHER_KEY, Scripted, Start, eventually
from tests.integration.test_continuing import texts, three_turns
from tests.integration.test_lifecycle import events_of, finished
from tests.integration.test_stopping import small_disk

__all__ = ["small_disk"]

KEEP: dict[str, Any] = {"toml": '[callers.default]\nstore = "keep"\n'}
KEEP_ALL: dict[str, Any] = {"toml": '[callers.default]\nstore = "keep_all"\n'}
MANNERS = ["openai", "codex", "transformers", "llamacpp", "vllm"]


def rows(path: Path) -> int:
    """How many runs the store of the gateway `data` holds."""
    with sqlite3.connect(path / "data" / "handrail.db") as connection:
        count: int = connection.execute("select count(*) from runs").fetchone()[0]
    connection.close()
    return count


@pytest.mark.parametrize("manners", MANNERS)
async def test_what_the_caller_asks_to_store_is_kept_here_and_nowhere_else(
    start: Start, upstream: Scripted, manners: str
) -> None:
    async with start(manners=manners, **KEEP) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="m", input="hi [[words=3]]", store=True
        )
        response = raw.parse()
        assert raw.headers["handrail-decision"].startswith("mode=kept; store=gateway; steps=")
        assert raw.headers["x-ratelimit-remaining-requests"] == "99"
        assert (response.status, response.background) == ("completed", False)
        assert response.to_dict()["store"] is True
        assert len(response.output_text.split()) == 3
        assert not response.id.startswith("resp_upstream")
        assert await client.responses.retrieve(response.id) == response
        listed = await client.responses.input_items.list(response.id)
        shown: list[Any] = listed.data
        assert [item.content[0].text for item in shown] == ["hi [[words=3]]"]
        assert upstream.last["store"] is False
        assert upstream.seen.calls == 1


@pytest.mark.parametrize("manners", MANNERS)
async def test_a_kept_stream_is_the_log_that_can_be_read_again(
    start: Start, upstream: Scripted, manners: str
) -> None:
    async with start(manners=manners, **KEEP) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="m", input="hi [[words=5]]", store=True, stream=True
        )
        assert raw.headers["x-ratelimit-remaining-requests"] == "99"
        seen: list[Any] = [event async for event in raw.parse()]
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        opening = [(event.type, event.response.status) for event in seen[:2]]
        assert opening == [
            ("response.created", "in_progress"),
            ("response.in_progress", "in_progress"),
        ]
        assert {event.response.to_dict()["store"] for event in (*seen[:2], seen[-1])} == {True}
        assert seen[-1].type == "response.completed"
        response_id = seen[0].response.id
        assert await events_of(client, response_id) == seen
        for cursor in range(len(seen)):
            assert await events_of(client, response_id, after=cursor) == seen[cursor + 1 :]
        assert (await client.responses.retrieve(response_id)) == seen[-1].response


async def test_the_stream_helper_of_the_sdk_reads_it(start: Start) -> None:
    async with start(**KEEP_ALL) as gateway, gateway.client() as client:
        async with client.responses.stream(model="m", input="hi [[words=4]]") as stream:
            final = await stream.get_final_response()
        assert len(final.output_text.split()) == 4
        assert (await client.responses.retrieve(final.id)).status == "completed"


STORED: list[tuple[Any, Any, bool]] = [
    (KEEP, openai.omit, False),
    (KEEP, False, False),
    (KEEP, True, True),
    (KEEP_ALL, openai.omit, True),
    (KEEP_ALL, None, True),
    (KEEP_ALL, False, False),
]


@pytest.mark.parametrize(("options", "store", "kept"), STORED)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_store_of_false_is_always_obeyed(
    start: Start, tmp_path: Path, *, options: Any, store: Any, kept: bool, stream: bool
) -> None:
    async with start(**options) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="m", input="hi", store=store, stream=stream
        )
        response: Any = raw.parse()
        if stream:
            response = [event async for event in response][-1].response
        assert response.to_dict()["store"] is kept
        assert rows(tmp_path) == kept
        mode = "kept" if kept else "stateless"
        assert raw.headers["handrail-decision"].startswith(f"mode={mode}; ")
        if not kept:
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(response.id)


@pytest.mark.parametrize("manners", ["openai", "codex", "vllm"])
async def test_a_conversation_of_three_turns_with_tools_and_reasoning(
    start: Start, upstream: Scripted, manners: str
) -> None:
    async with start(manners=manners, **KEEP_ALL) as gateway:
        first, second, _ = await asyncio.to_thread(three_turns, gateway.url, gateway.key)
        assert [item.type for item in first.output] == ["reasoning", "function_call"]
        kinds = [item.get("type") for item in upstream.last["input"]]
        assert kinds == [
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
            "reasoning",
            "message",
            "message",
        ]
        assert upstream.last["input"][1]["encrypted_content"].startswith("gAAAA-scripted")
        assert upstream.last["input"][5]["content"][0]["text"] == second.output_text
        assert upstream.last["store"] is False


async def test_background_and_foreground_go_on_from_each_other(
    start: Start, upstream: Scripted
) -> None:
    toml = '[background]\nenabled = true\n[callers.default]\nstore = "keep_all"\n'
    async with start(toml=toml) as gateway, gateway.client() as client:
        first = await client.responses.create(model="m", input="one [[words=1]]")
        queued = await client.responses.create(
            model="m", input="two [[words=1]]", background=True, previous_response_id=first.id
        )
        second = await finished(client, queued.id)
        await client.responses.create(model="m", input="three", previous_response_id=second.id)
        assert texts(upstream.last["input"])[::2] == ["one", "two", "three"]


async def test_an_upstream_header_of_the_caller_goes_along(
    start: Start, upstream: Scripted
) -> None:
    async with start(**KEEP_ALL) as gateway, gateway.client() as client:
        await client.responses.create(
            model="m", input="hi", extra_headers={"openai-beta": "x=v1", "x-other": "no"}
        )
        headers = upstream.seen.requests[-1]["headers"]
        sent = {name.lower(): value for name, value in headers.items()}
        assert sent["openai-beta"] == "x=v1"
        assert "x-other" not in sent


async def test_an_include_of_ours_that_is_refused_is_taken_back(
    start: Start, upstream: Scripted
) -> None:
    async with start(**KEEP_ALL) as gateway, gateway.client() as client:
        response = await client.responses.create(
            model="plain", input="hi", reasoning={"effort": "low"}
        )
        assert (response.status, upstream.seen.calls) == ("completed", 2)
        assert await client.responses.retrieve(response.id) == response


# --- errors --------------------------------------------------------------------------------------


async def error_of(client: AsyncOpenAI, text: str, **options: Any) -> Any:
    """What a caller learns of a create that fails."""
    with pytest.raises(openai.APIStatusError) as caught:
        await client.responses.create(model="m", input=text, **options)
    headers = caught.value.response.headers
    told = {name: headers.get(name) for name in ("retry-after", "x-should-retry")}
    return (caught.value.status_code, caught.value.body, told)


@pytest.mark.parametrize(
    "text",
    [
        "[[status=400]]",
        "[[status=401]]",
        "[[status=429 retry_after=7]]",
        "[[status=429 usage_limit]]",
        "[[status=500]]",
        "[[status=503]]",
        "[[drop=2]]",
        "[[drop=0]]",
        "[[eof=3]]",
        "[[malformed=1]]",
        "[[error=1]]",
        "[[fail]]",
    ],
)
async def test_an_error_is_the_same_as_of_a_stateless_call_and_nothing_is_kept(
    start: Start, upstream: Scripted, tmp_path: Path, text: str
) -> None:
    # In front of this upstream a stateless call is read as a stream too.
    async with start(manners="codex", **KEEP) as gateway, gateway.client() as client:
        stateless = await error_of(client, text, store=False)
        assert await error_of(client, text, store=True) == stateless
        assert rows(tmp_path) == 0
        assert upstream.seen.calls == 2


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_a_stream_that_the_upstream_refuses_is_an_error_and_not_a_stream(
    start: Start, upstream: Scripted, tmp_path: Path, status: int
) -> None:
    async with start(**KEEP) as gateway, gateway.client() as client:
        text = f"[[status={status}]]"
        stateless = await error_of(client, text, store=False, stream=True)
        assert await error_of(client, text, store=True, stream=True) == stateless
        assert rows(tmp_path) == 0
        assert upstream.seen.calls == 2


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[[drop=2]]", "upstream_ended_early"),
        ("[[eof=2]]", "upstream_ended_early"),
        ("[[malformed=2]]", "upstream_protocol_error"),
        ("[[error=2]]", "upstream_failed"),
        ("[[fail]]", "upstream_failed"),
    ],
)
async def test_a_stream_that_fails_ends_with_that_and_is_kept_so(
    start: Start, upstream: Scripted, text: str, cause: str
) -> None:
    async with start(**KEEP) as gateway, gateway.client() as client:
        stream = await client.responses.create(model="m", input=text, store=True, stream=True)
        seen: list[Any] = [event async for event in stream]
        assert seen[-1].type == "response.failed"
        assert seen[-1].response.to_dict()["error"]["type"] == cause
        assert await events_of(client, seen[0].response.id) == seen
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(
                model="m", input="on", previous_response_id=seen[0].response.id
            )
        assert caught.value.code == "response_not_completed"


@pytest.mark.parametrize("stream", [True, False])
async def test_what_takes_too_long_or_says_too_much_is_ended(
    start: Start, upstream: Scripted, tmp_path: Path, stream: bool
) -> None:
    toml = KEEP["toml"] + '[background]\nmax_duration = "1s"\nmax_output_bytes = 4096\n'
    async with start(toml=toml) as gateway, gateway.client() as client:
        ends = {
            "[[stall=2]]": (504, "upstream_stalled", "deadline_exceeded"),
            "[[words=99 size=900]]": (502, "upstream_protocol_error", "output_too_large"),
        }
        for text, (status, code, cause) in ends.items():
            if stream:
                made = await client.responses.create(model="m", input=text, store=True, stream=True)
                events: list[Any] = [event async for event in made]
                assert events[-1].response.error.type == cause
            else:
                told = await error_of(client, text, store=True)
                assert (told[0], told[1]["code"]) == (status, code)
                assert rows(tmp_path) == 0
            await eventually(lambda: upstream.seen.open == 0)


async def test_a_store_that_is_full_refuses_what_is_to_be_kept_and_nothing_else(
    start: Start, upstream: Scripted, small_disk: Path
) -> None:
    async with start(name="disk/data", toml=None) as gateway, gateway.client() as client:
        pass
    (small_disk / "data.toml").write_text(KEEP["toml"])
    async with start(name="disk/data") as gateway, gateway.client() as client:
        with (small_disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

        async def create_many() -> None:
            for _ in range(60):  # what room there is inside the files is used up by some
                await client.responses.create(model="m", input="x" * 200_000, store=True)

        with pytest.raises(openai.InternalServerError) as error:
            await create_many()
        assert (error.value.status_code, error.value.code) == (503, "storage_full")
        calls = upstream.seen.calls
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="m", input="x" * 200_000, store=True)
        assert upstream.seen.calls == calls
        assert (await client.responses.create(model="m", input="hi")).status == "completed"


# --- who may see it, and who waits ---------------------------------------------------------------


async def test_another_caller_gets_the_same_404_as_for_an_unknown_id(
    start: Start, upstream: Scripted
) -> None:
    options = {
        "toml": KEEP_ALL["toml"] + '[callers.o]\nkey_env = "OTHER"\n',
        "environment": {"OTHER": OTHER_KEY},
    }
    async with (
        start(**options) as gateway,
        gateway.client() as ann,
        gateway.client(key=OTHER_KEY) as bob,
    ):
        hers = await ann.responses.create(model="m", input="hers")
        for response_id in (hers.id, "resp_unknown"):
            calls = [
                bob.responses.retrieve(response_id),
                bob.responses.retrieve(response_id, stream=True),
                bob.responses.cancel(response_id),
                bob.responses.delete(response_id),
                bob.get(f"/responses/{response_id}/input_items", cast_to=dict),
            ]
            for call in calls:
                with pytest.raises(openai.NotFoundError) as caught:
                    await call
                body: Any = caught.value.body
                assert body["message"] == f"Response with id '{response_id}' not found."
        bodies = []
        for response_id in (hers.id, "resp_unknown"):
            with pytest.raises(openai.BadRequestError) as refused:
                await bob.responses.create(model="m", input="x", previous_response_id=response_id)
            said: Any = refused.value.body
            bodies.append({**said, "message": said["message"].replace(response_id, "ID")})
        assert bodies[0] == bodies[1]
        reference: Any = [{"type": "item_reference", "id": hers.output[0].id}]
        with pytest.raises(openai.BadRequestError) as missing:
            await bob.responses.create(model="m", input=reference)
        assert missing.value.code == "item_reference_not_found"


async def test_kept_foreground_responses_take_no_slots_of_background_ones(
    start: Start, upstream: Scripted
) -> None:
    toml = KEEP_ALL["toml"] + "max_running = 1\n[background]\nenabled = true\nmax_running = 1\n"
    async with start(toml=toml) as gateway, gateway.client() as client:
        streams = [
            await client.responses.create(model="m", input="[[stall=1]]", stream=True)
            for _ in range(3)
        ]
        queued = await client.responses.create(model="m", input="hi", background=True)
        assert (await finished(client, queued.id)).status == "completed"
        for stream in streams:
            await stream.close()


async def test_an_idempotency_key_has_no_meaning_for_it_and_that_is_said(
    start: Start, upstream: Scripted
) -> None:
    async with start(**KEEP_ALL) as gateway, gateway.client() as client:
        create = client.responses.with_raw_response.create
        key = {"Idempotency-Key": "key-1"}
        made = [await create(model="m", input="hi", extra_headers=key) for _ in range(2)]
        assert "idempotency-key=ignored" in made[0].headers["handrail-decision"]
        assert made[0].parse().id != made[1].parse().id
