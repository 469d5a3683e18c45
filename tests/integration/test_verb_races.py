"""Verbs on runs that meet something else halfway: the client leaves, the run is deleted."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from handrail.store.sqlite import SqliteStore
from tests.conftest import BACKGROUND, CALLER_KEY, Scripted, Start, eventually
from tests.raw_http import connected, post


class HeldStore(SqliteStore):
    """A store that tells when an end from outside is committed, and answers when it may."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.concluded = asyncio.Event()
        self.go_on = asyncio.Event()

    async def conclude(self, *arguments: Any, **named: Any) -> Any:
        run = await super().conclude(*arguments, **named)
        self.concluded.set()
        await self.go_on.wait()
        return run


class ForgetfulStore(SqliteStore):
    """A store in which a run is deleted just after a repeated create has found it."""

    async def accept(self, run: Any, **named: Any) -> str:
        stands = await super().accept(run, **named)
        if stands != run.id:
            await self.delete(stands, caller=run.caller)
        return stands


def opening(kind: type[SqliteStore], opened: list[Any]) -> Callable[..., SqliteStore]:
    """What opens a store of a kind, and puts it on the list."""

    def open_store(path: Path, **named: Any) -> SqliteStore:
        store = kind(path, **named)
        store.open()
        opened.append(store)
        return store

    return open_store


@pytest.mark.parametrize("verb", ["POST /v1/responses/{}/cancel", "DELETE /v1/responses/{}"])
async def test_a_client_that_leaves_during_its_cancel_or_delete_has_stopped_the_run_all_the_same(
    start: Start, upstream: Scripted, verb: str
) -> None:
    opened: list[HeldStore] = []
    ports = {"open_store": opening(HeldStore, opened)}
    async with start(**BACKGROUND, ports=ports) as gateway, gateway.client() as client:
        run = await client.responses.create(model="m", input="[[stall=1]]", background=True)
        async for event in await client.responses.retrieve(run.id, stream=True):
            if event.type == "response.output_text.delta":
                break  # from now on the upstream is silent
        line = f"{verb.format(run.id)} HTTP/1.1\r\nhost: localhost\r\n"
        async with connected(gateway.port) as wire:
            await wire.send(f"{line}authorization: Bearer {CALLER_KEY}\r\n\r\n".encode())
            await opened[0].concluded.wait()
            wire.reset()
        # A whole round trip later the gateway has noticed.
        assert (await client.responses.retrieve(run.id)).status == "cancelled"
        opened[0].go_on.set()
        await eventually(lambda: upstream.seen.open == 0)
        if verb.startswith("DELETE"):
            await eventually_gone(client, run.id)
        else:
            assert (await client.responses.retrieve(run.id)).status == "cancelled"


async def eventually_gone(client: openai.AsyncOpenAI, response_id: str) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                await client.responses.retrieve(response_id)
            except openai.NotFoundError:
                return


Create = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_whose_run_goes_while_the_create_is_repeated_is_answered_as_expired(
    start: Start, *, stream: bool
) -> None:
    opened: list[ForgetfulStore] = []
    ports = {"open_store": opening(ForgetfulStore, opened)}
    async with start(**BACKGROUND, ports=ports) as gateway, gateway.client() as client:
        create: Create = client.responses.create
        key = {"Idempotency-Key": "key-1"}
        await create(model="m", input="hi", background=True, stream=stream, extra_headers=key)
        with pytest.raises(openai.BadRequestError) as refused:
            await create(model="m", input="hi", background=True, stream=stream, extra_headers=key)
        assert refused.value.code == "idempotency_key_expired"


class AnsweredTooLate(SqliteStore):
    """A store whose first accept is done in the very moment in which its client closes."""

    client: socket.socket

    async def accept(self, run: Any, **named: Any) -> str:
        stands = await super().accept(run, **named)
        # From here to the reply nothing waits: the gateway cannot have seen that the client went.
        self.client.close()
        return stands


async def test_a_reply_to_a_client_that_has_just_closed_counts_as_lost(
    start: Start, upstream: Scripted
) -> None:
    opened: list[AnsweredTooLate] = []
    ports = {"open_store": opening(AnsweredTooLate, opened)}
    async with start(**BACKGROUND, ports=ports) as gateway, gateway.client() as client:
        body = b'{"model":"m","input":"hi [[tag=t]]","background":true}'
        with socket.create_connection(("127.0.0.1", gateway.port)) as raw:
            opened[0].client = raw
            raw.sendall(post(body, b"x-stainless-retry-count: 0"))
            await eventually(lambda: raw.fileno() < 0)
        made = await client.responses.with_raw_response.create(
            **json.loads(body), extra_headers={"x-stainless-retry-count": "1"}
        )
        assert made.headers.get("idempotent-replayed") == "true"
        await eventually(lambda: upstream.seen.finished == 1)
        assert upstream.seen.tags["t"] == 1
