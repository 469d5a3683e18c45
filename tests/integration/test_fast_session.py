"""Tools and fast sessions through the real server, with the real SDK."""

import json
from typing import Any

import pytest

from tests.conftest import BACKGROUND, Scripted, Start, eventually
from tests.raw_http import ask, connected, post

Json = dict[str, Any]
HYBRID = 'fast_session.strategy = "hybrid"\nfast_session.max_input_items = 8\n'
ASKS = HYBRID + 'fast_session.compact_timeout = "30s"\n'
TALK: list[Any] = [
    {"type": "message", "role": ("user", "assistant")[n % 2], "content": f"part {n}\nof it"}
    for n in range(20)
]
LAST: Any = {"type": "message", "role": "user", "content": "and\nnow"}
RULES: Any = {"type": "message", "role": "developer", "content": "be kind"}
SCHEMA: Json = {"type": "object", "properties": {"path": {"type": "string"}}}


def asked(upstream: Scripted) -> list[str]:
    """Which endpoint every call was for."""
    paths = [call["path"] for call in upstream.seen.requests]
    return ["compact" if path.endswith("/compact") else "create" for path in paths]


async def test_a_tool_of_the_older_shape_reaches_the_upstream_flat(
    start: Start, upstream: Scripted
) -> None:
    nested: Any = {"type": "function", "function": {"name": "run", "parameters": SCHEMA}}
    async with start() as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(model="m", input="hi", tools=[nested])
        flat = {"type": "function", "name": "run", "parameters": SCHEMA, "strict": False}
        assert upstream.last["tools"] == [flat]
        assert "tools: 1 functions made flat" in raw.headers["handrail-decision"]


async def test_the_codex_backend_gets_clean_schemas_and_no_tool_of_another_mode(
    start: Start, upstream: Scripted
) -> None:
    dirty = {**SCHEMA, "title": "T", "additionalProperties": False}
    tools: Any = [
        {"type": "function", "name": "run", "strict": False, "parameters": dirty},
        {"type": "function", "name": "request_user_input", "strict": None, "parameters": SCHEMA},
    ]
    mode: Any = [{"role": "developer", "content": "You are in Default mode."}, LAST]
    async with start(manners="codex") as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="m",
            input=mode,
            tools=tools,
            tool_choice={"type": "function", "name": "request_user_input"},
        )
        assert upstream.last["tools"] == [{**tools[0], "parameters": SCHEMA}]
        assert upstream.last["tool_choice"] == "auto"
        decision = raw.headers["handrail-decision"]
        for told in ("tools[].parameters: cleaned in 1 functions", "tool_choice: set to auto"):
            assert told in decision


@pytest.mark.parametrize("manners", ["openai", "codex"])
async def test_an_element_of_tools_that_is_no_tool_is_a_400_that_names_it(
    start: Start, upstream: Scripted, manners: str
) -> None:
    async with start(manners=manners) as gateway:
        body = json.dumps({"model": "m", "input": "hi", "tools": [{"type": "x"}, None]})
        got = await ask(gateway.port, post(body.encode()))
        assert got is not None
        assert (got.status, got.error["param"]) == (400, "tools[1]")
        assert upstream.seen.requests == []


async def test_by_default_the_longest_talk_arrives_whole(start: Start, upstream: Scripted) -> None:
    async with start() as gateway, gateway.client() as client:
        await client.responses.create(model="m", input=[*TALK * 20, LAST])
        assert len(upstream.last["input"]) == 401


async def test_a_long_talk_is_trimmed_and_the_reply_says_so(
    start: Start, upstream: Scripted
) -> None:
    async with start(toml=HYBRID) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(model="m", input=[RULES, *TALK, LAST])
        assert upstream.last["input"] == [RULES, *TALK[-6:], LAST]
        assert "input: 14 of 22 items left out" in raw.headers["handrail-decision"]
        code: Any = {**LAST, "content": "```code```"}
        raw = await client.responses.with_raw_response.create(model="m", input=[*TALK, code])
        assert len(upstream.last["input"]) == 21
        assert "input: left whole" in raw.headers["handrail-decision"]
    assert asked(upstream) == ["create", "create"]


async def test_a_background_response_is_neither_trimmed_nor_compacted(
    start: Start, upstream: Scripted
) -> None:
    async with start(toml=ASKS, **BACKGROUND) as gateway, gateway.client() as client:
        made = await client.responses.create(model="m", input=[*TALK, LAST], background=True)
        await eventually(lambda: len(upstream.seen.requests) == 1)
        assert len(upstream.last["input"]) == 21
        assert asked(upstream) == ["create"]
        listed = await client.responses.input_items.list(made.id, limit=100)
        assert len(listed.data) == 21


async def test_what_is_kept_or_continued_is_neither_trimmed_nor_compacted(
    start: Start, upstream: Scripted
) -> None:
    keeps = f'{ASKS}[callers.default]\nstore = "keep"\n'
    async with start(toml=keeps) as gateway, gateway.client() as client:
        made = await client.responses.create(model="m", input=[*TALK, LAST], store=True)
        assert upstream.last["input"] == [*TALK, LAST]
        listed = await client.responses.input_items.list(made.id, limit=100)
        assert len(listed.data) == 21
        raw = await client.responses.with_raw_response.create(
            model="m", input=[LAST], previous_response_id=made.id
        )
        assert raw.headers["handrail-decision"].startswith("mode=stateless; ")
        assert upstream.last["input"][:21] == [*TALK, LAST]
        assert len(upstream.last["input"]) == 23
    assert asked(upstream) == ["create", "create"]


@pytest.mark.parametrize("manners", ["openai", "codex"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_would_be_left_out_is_put_in_short_by_the_upstream(
    start: Start, upstream: Scripted, manners: str, stream: bool
) -> None:
    async with start(toml=ASKS, manners=manners) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="m", input=[RULES, *TALK, LAST], instructions="i", stream=stream
        )
        assert raw.headers["handrail-decision"].endswith("input: compacted by the upstream instead")
        if stream:
            events: Any = raw.parse()
            assert [event.type async for event in events][-1] == "response.completed"
    assert asked(upstream) == ["compact", "create"]
    compact, create = (call["body"] for call in upstream.seen.requests)
    assert compact == {"model": "m", "instructions": "i", "input": TALK}
    kinds = [(item["type"], item.get("role")) for item in create["input"]]
    said = [("message", "user")] * 10
    ends = ("message", "developer"), ("message", "user")
    assert kinds == [ends[0], *said, ("compaction", None), ends[1]]
    assert (create["input"][0], create["input"][-1]) == (RULES, LAST)


def talk(directive: str) -> list[Any]:
    """The same talk, which asks the scripted `compact` to do something."""
    return [*TALK[:-2], {**TALK[-2], "content": f"[[{directive}]]\nso"}, TALK[-1], LAST]


@pytest.mark.parametrize("directive", ["status=500", "status=429", "status=400", "html"])
async def test_a_compaction_that_fails_is_not_repeated_and_the_input_is_trimmed(
    start: Start, upstream: Scripted, directive: str
) -> None:
    given = talk(directive)
    async with start(toml=ASKS) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(model="m", input=given)
        assert raw.headers["handrail-decision"].endswith("input: not compacted")
    assert asked(upstream) == ["compact", "create"]
    assert upstream.last["input"] == given[-8:]


async def test_whoever_leaves_during_a_compaction_ends_it_and_no_create_follows(
    start: Start, upstream: Scripted
) -> None:
    body = json.dumps({"model": "m", "input": talk("before=60")}).encode()
    async with start(toml=ASKS) as gateway:
        async with connected(gateway.port) as wire:
            await wire.send(post(body))
            await eventually(lambda: upstream.seen.open == 1)
        await eventually(lambda: upstream.seen.open == 0)
    assert asked(upstream) == ["compact"]


async def test_a_caller_may_be_exempted(start: Start, upstream: Scripted) -> None:
    exempt = f'{ASKS}[callers.default]\nfast_session = "off"\n'
    async with start(toml=exempt) as gateway, gateway.client() as client:
        await client.responses.create(model="m", input=[*TALK, LAST])
    assert len(upstream.last["input"]) == 21
    assert asked(upstream) == ["create"]
