"""Going on from a kept response over an upstream that keeps nothing, with the real SDK."""

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.conftest import BACKGROUND, OTHER_KEY, Scripted, Start, eventually
from tests.integration.test_lifecycle import events_of, finished

TWO_CALLERS: dict[str, Any] = {
    "toml": '[background]\nenabled = true\n[callers.o]\nkey_env = "OTHER"\n',
    "environment": {"OTHER": OTHER_KEY},
}
TOOLS: Any = [{"type": "function", "name": "look", "parameters": {"type": "object"}}]
ENCRYPTED: Any = ["reasoning.encrypted_content"]


async def ended(client: Any, text: Any, previous: str | None = None, **options: Any) -> Any:
    """A background response that has ended."""
    queued = await client.responses.create(
        model="m",
        input=text,
        background=True,
        previous_response_id=previous or openai.omit,
        **options,
    )
    assert queued.previous_response_id == previous
    return await finished(client, queued.id)


def texts(given: list[dict[str, Any]]) -> list[str]:
    """What each message of an input says, and the type of each other item."""
    return [
        item["content"][0]["text"].split()[0] if item["type"] == "message" else item["type"]
        for item in given
    ]


def three_turns(url: str, key: str, **options: Any) -> list[Any]:
    """A tool is called, answered, and asked about, by the synchronous SDK that validates all."""
    with OpenAI(
        base_url=url, api_key=key, max_retries=0, _strict_response_validation=True
    ) as client:

        def turn(given: Any, previous: str | None) -> Any:
            response = client.responses.create(
                model="m",
                input=given,
                tools=TOOLS,
                include=ENCRYPTED,
                previous_response_id=previous,
                **options,
            )
            while response.status in ("queued", "in_progress"):
                response = client.responses.retrieve(response.id)
            assert (response.status, response.previous_response_id) == ("completed", previous)
            return response

        first = turn("ask [[tool=look reasoning]]", None)
        call_id = first.output[-1].call_id
        output = {"type": "function_call_output", "call_id": call_id, "output": "o"}
        second = turn([output], first.id)
        return [first, second, turn("last [[words=2]]", second.id)]


@pytest.mark.parametrize("manners", ["openai", "codex", "vllm"])
async def test_three_turns_with_tools_and_reasoning_reach_the_upstream_whole(
    start: Start, upstream: Scripted, manners: str
) -> None:
    async with start(manners=manners, **BACKGROUND) as gateway:
        first, second, third = await asyncio.to_thread(
            three_turns, gateway.url, gateway.key, background=True
        )
        assert [item.type for item in first.output] == ["reasoning", "function_call"]
        sent = upstream.last
        assert "previous_response_id" not in sent
        assert sent["store"] is False
        assert [item.get("type") for item in sent["input"]] == [
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
            "reasoning",
            "message",
            "message",
        ]
        assert sent["input"][1]["encrypted_content"].startswith("gAAAA-scripted")
        assert sent["input"][2]["call_id"] == sent["input"][3]["call_id"]
        assert sent["input"][5]["content"][0]["text"] == second.output_text
        assert third.output_text.split()[1:] == ["1"]
        named = {"id" in item for item in sent["input"] if item["type"] == "reasoning"}
        assert named == {manners == "vllm"}  # the others look items up by their ids


async def test_stateless_creates_go_on_from_what_is_kept(start: Start, upstream: Scripted) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        first = await ended(client, "one [[words=1]]")
        raw = await client.responses.with_raw_response.create(
            model="m", input="two", previous_response_id=first.id
        )
        assert raw.headers["handrail-decision"].startswith(
            "mode=stateless; store=false; previous_response_id=kept; steps="
        )
        assert "previous_response_id: removed" in raw.headers["handrail-decision"]
        response = raw.parse()
        assert response.previous_response_id == first.id
        assert response.to_dict()["store"] is False
        assert texts(upstream.last["input"]) == ["one", "call1", "two"]
        stream = await client.responses.create(
            model="m", input="three", previous_response_id=first.id, stream=True
        )
        snapshots: list[Any] = [e async for e in stream if hasattr(e, "response")]
        assert {e.response.previous_response_id for e in snapshots} == {first.id}
        assert texts(upstream.last["input"]) == ["one", "call1", "three"]


async def test_instructions_are_those_of_the_request_alone(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        first = await ended(client, "one", instructions="be brief")
        await ended(client, "two", first.id)
        assert "instructions" not in upstream.last
        await ended(client, "three", first.id, instructions="be long")
        assert upstream.last["instructions"] == "be long"


async def test_compact_and_input_tokens_see_the_whole_conversation(
    start: Start, upstream: Scripted
) -> None:
    loose: Any = {"_strict_response_validation": False}
    async with start(**BACKGROUND) as gateway, gateway.client(**loose) as client:
        first = await ended(client, "one [[words=1]]")
        await client.responses.compact(model="m", input="two", previous_response_id=first.id)
        assert texts(upstream.last["input"]) == ["one", "call1", "two"]
        await client.responses.input_tokens.count(
            model="m", input="three", previous_response_id=first.id
        )
        assert texts(upstream.last["input"]) == ["one", "call1", "three"]
        assert "previous_response_id" not in upstream.last
        calls = upstream.seen.calls
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.compact(model="m", previous_response_id="resp_x")
        assert caught.value.code == "previous_response_not_found"
        assert upstream.seen.calls == calls


async def test_a_chain_of_sixty_is_sent_whole(start: Start, upstream: Scripted) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        previous = None
        for number in range(60):
            response = await ended(client, f"{number} [[words=1]]", previous)
            previous = response.id
        said = [text for text in texts(upstream.last["input"]) if not text.startswith("call")]
        assert said == [str(number) for number in range(60)]


async def test_branches_of_one_conversation_do_not_see_each_other(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        root = await ended(client, "root [[words=1]]")
        left, right = await asyncio.gather(
            ended(client, "left [[words=1]]", root.id), ended(client, "right [[words=1]]", root.id)
        )
        await ended(client, "after [[words=1]]", left.id)
        assert "right" not in texts(upstream.last["input"])
        await ended(client, "after [[words=1]]", right.id)
        assert "left" not in texts(upstream.last["input"])


async def test_a_conversation_goes_on_after_a_restart(start: Start, upstream: Scripted) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        first = await ended(client, "one [[words=1]]")
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        await ended(client, "two", first.id)
        assert texts(upstream.last["input"]) == ["one", "call1", "two"]


async def test_only_its_own_input_is_listed_and_references_to_older_items_still_work(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        first = await ended(client, "one [[words=1]]")
        second = await ended(client, "two [[words=1]]", first.id)
        listed = await client.responses.input_items.list(second.id)
        shown: list[Any] = listed.data
        assert [item.content[0].text for item in shown] == ["two [[words=1]]"]
        reference = {"type": "item_reference", "id": first.output[0].id}
        given: Any = [reference, {"role": "user", "content": "x"}]
        for background in (True, False):
            await client.responses.create(
                model="m",
                input=given,
                background=background,
            )
            await eventually(lambda: upstream.seen.open == 0)
        assert upstream.last["input"][0]["content"][0]["text"].startswith("call1")


# --- what cannot be continued --------------------------------------------------------------------


async def refused(client: Any, previous: str, **options: Any) -> Any:
    """The error body of a create that goes on from `previous`."""
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(
            model="m", input="on", previous_response_id=previous, **options
        )
    body: Any = caught.value.body
    assert body["param"] == "previous_response_id"
    return body


@pytest.mark.parametrize("options", [{}, {"background": True}, {"stream": True}])
async def test_unknown_foreign_deleted_and_expired_are_the_same_answer(
    start: Start, upstream: Scripted, options: Any
) -> None:
    toml = TWO_CALLERS["toml"] + 'retention = "1s"\n'
    async with (
        start(**{**TWO_CALLERS, "toml": toml}) as gateway,
        gateway.client() as ann,
        gateway.client(key=OTHER_KEY) as bob,
    ):
        foreign = await ended(ann, "hers")
        deleted = await ended(bob, "his")
        await bob.responses.delete(deleted.id)
        expired = await ended(bob, "his")
        while True:  # its retention is a second
            try:
                await bob.responses.retrieve(expired.id)
            except openai.NotFoundError:
                break
            await asyncio.sleep(0.02)
        calls = upstream.seen.calls
        bodies = [
            await refused(bob, response_id, **options)
            for response_id in ("resp_unknown", foreign.id, deleted.id, expired.id)
        ]
        ids = ("resp_unknown", foreign.id, deleted.id, expired.id)
        texts = {
            body["message"].replace(response_id, "ID")
            for body, response_id in zip(bodies, ids, strict=True)
        }
        assert len(texts) == 1
        assert texts.pop().startswith("Previous response with id 'ID' not found: this gateway ")
        assert {body["code"] for body in bodies} == {"previous_response_not_found"}
        assert upstream.seen.calls == calls


async def test_what_has_not_answered_cannot_be_continued(start: Start, upstream: Scripted) -> None:
    options = {"toml": "[background]\nenabled = true\nmax_running = 1\n"}
    async with start(**options) as gateway, gateway.client() as client:
        failed = await ended(client, "hi [[fail]]")
        running = await client.responses.create(
            model="m", input="[[words=500 delay=0.05]]", background=True
        )
        await eventually(lambda: upstream.seen.open == 1)
        waiting = await client.responses.create(model="m", input="hi", background=True)
        states = {failed.id: "failed", running.id: "in_progress", waiting.id: "queued"}
        for response_id, state in states.items():
            body = await refused(client, response_id)
            assert body["code"] == "response_not_completed"
            assert f"'{response_id}' is {state}." in body["message"]
        cancelled = await client.responses.cancel(running.id)
        assert (await refused(client, cancelled.id))["code"] == "response_not_completed"


async def test_an_answer_that_was_cut_short_can_be_continued(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        first = await ended(client, "one [[incomplete words=1]]")
        assert first.status == "incomplete"
        await ended(client, "two", first.id)
        assert texts(upstream.last["input"]) == ["one", "call1", "two"]


async def test_a_chain_through_a_deleted_response_names_it_and_nothing_of_it_is_left(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        first = await ended(client, "one")
        second = await ended(client, "two", first.id)
        third = await ended(client, "three", second.id)
        await client.responses.delete(second.id)
        body = await refused(client, third.id)
        assert body["code"] == "previous_response_not_found"
        assert f"'{second.id}' not found: it was deleted" in body["message"]
        assert f"'{third.id}' goes on from it" in body["message"]
        assert (await client.responses.retrieve(third.id)).status == "completed"
        await ended(client, "other", first.id)


async def test_a_run_whose_history_is_deleted_before_it_begins_fails_and_says_so(
    start: Start, upstream: Scripted
) -> None:
    options = {"toml": "[background]\nenabled = true\nmax_running = 1\n"}
    async with start(**options) as gateway, gateway.client() as client:
        first = await ended(client, "one")
        blocking = await client.responses.create(
            model="m", input="[[words=500 delay=0.05]]", background=True
        )
        waiting = await client.responses.create(
            model="m", input="two", background=True, previous_response_id=first.id
        )
        await client.responses.delete(first.id)
        await client.responses.cancel(blocking.id)
        response = await finished(client, waiting.id)
        assert (response.status, response.error.code) == ("failed", "server_error")
        assert response.to_dict()["error"]["type"] == "previous_response_gone"
        assert f"'{first.id}' not found" in response.error.message
        events = await events_of(client, waiting.id)
        assert [e.type for e in events][-1] == "response.failed"
        assert upstream.seen.calls == 2


async def test_a_history_beyond_its_bound_is_refused_and_the_bound_is_named(
    start: Start, upstream: Scripted
) -> None:
    options = {"toml": "[background]\nenabled = true\nmax_history_bytes = 1024\n"}
    async with start(**options) as gateway, gateway.client() as client:
        small = await ended(client, "one [[words=1]]")
        await ended(client, "two", small.id)
        large = await ended(client, "x" * 1_024)
        calls = upstream.seen.calls
        body = await refused(client, large.id)
        assert body["code"] == "history_too_large"
        assert "larger than 1024 bytes (background.max_history_bytes)" in body["message"]
        assert upstream.seen.calls == calls


# --- where the upstream keeps responses itself ---------------------------------------------------

STORING: dict[str, Any] = {
    "manners": "storing",
    "profile": "openai",
    "toml": '[background]\nenabled = true\nexecutor = "upstream"\n'
    '[callers.default]\nstore_false = "gateway"\n',
}


async def test_what_the_gateway_keeps_is_found_before_what_the_upstream_keeps(
    start: Start, upstream: Scripted
) -> None:
    async with start(**STORING) as gateway, gateway.client() as client:
        ours = await ended(client, "ours [[words=1]]", store=False)
        for background in (True, False):
            await client.responses.create(
                model="m", input="on", background=background, previous_response_id=ours.id
            )
            assert "previous_response_id" not in upstream.last
            assert texts(upstream.last["input"]) == ["ours", "call1", "on"]
            assert not any("id" in item for item in upstream.last["input"])


async def test_a_conversation_that_begins_at_the_upstream_goes_on_here(
    start: Start, upstream: Scripted
) -> None:
    async with start(**STORING) as gateway, gateway.client() as client:
        theirs = await client.responses.create(model="m", input="theirs", background=True)
        await finished(client, theirs.id)
        ours = await ended(client, "ours [[words=1]]", theirs.id, store=False)
        assert upstream.last["previous_response_id"] == theirs.id
        assert upstream.last["store"] is False
        await client.responses.create(model="m", input="on", previous_response_id=ours.id)
        assert upstream.last["previous_response_id"] == theirs.id
        assert texts(upstream.last["input"])[::2] == ["ours", "on"]


async def test_what_a_conversation_goes_on_from_is_kept_beyond_its_own_retention(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    short = '[background]\nenabled = true\n[callers.default]\nretention = "1s"\n'
    async with start(toml=short) as gateway, gateway.client() as client:
        first = await ended(client, "one [[words=1]]")
        alone = await ended(client, "alone")
        (tmp_path / "data.toml").write_text(short.replace("1s", "1h"))
        await gateway.gateway.reload()
        second = await ended(client, "two [[words=1]]", first.id)
        while True:
            try:
                await client.responses.retrieve(alone.id)
            except openai.NotFoundError:
                break
            await asyncio.sleep(0.02)
        assert (await client.responses.retrieve(first.id)).status == "completed"
        await ended(client, "three", second.id)
        assert texts(upstream.last["input"])[::2] == ["one", "two", "three"]
        await client.responses.delete(first.id)
        assert (await refused(client, second.id))["code"] == "previous_response_not_found"
