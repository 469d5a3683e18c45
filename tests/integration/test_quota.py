"""Disk quotas as callers meet them."""

import openai
import pytest

from tests.conftest import OTHER_KEY, Scripted, Start
from tests.integration.test_lifecycle import events_of, finished

TOML = """
[background]
enabled = true
max_stored_bytes = {all}
[callers.default]
max_stored_bytes = {own}
[callers.other]
key_env = "OTHER"
"""


def options(*, own: int = 0, of_all: int = 0) -> dict[str, object]:
    toml = TOML.format(own=own, all=of_all)
    return {"toml": toml, "environment": {"OTHER": OTHER_KEY}}


async def test_a_caller_over_its_quota_is_told_how_to_free_room_and_others_notice_nothing(
    start: Start,
) -> None:
    async with start(**options(own=20_000)) as gateway, gateway.client(max_retries=3) as client:
        kept = await client.responses.create(model="m", input="x" * 10_000, background=True)
        await finished(client, kept.id)
        with pytest.raises(openai.RateLimitError) as error:
            await client.responses.create(model="m", input="y" * 10_000, background=True)
        assert error.value.code == "storage_quota_exceeded"
        assert error.value.param == "background"
        assert "DELETE" in error.value.message
        assert error.value.response.headers["retry-after"] == "60"
        assert (await client.responses.create(model="m", input="hi")).status == "completed"
        async with gateway.client(key=OTHER_KEY) as other:
            theirs = await other.responses.create(model="m", input="y" * 50_000, background=True)
            assert (await finished(other, theirs.id)).status == "completed"
        assert (await client.responses.retrieve(kept.id)).status == "completed"
        await client.responses.delete(kept.id)
        again = await client.responses.create(model="m", input="y" * 10_000, background=True)
        assert (await finished(client, again.id)).status == "completed"


async def test_a_full_gateway_refuses_with_503_and_throws_nothing_out(start: Start) -> None:
    async with start(**options(of_all=20_000)) as gateway, gateway.client() as client:
        kept = await client.responses.create(model="m", input="x" * 10_000, background=True)
        await finished(client, kept.id)
        with pytest.raises(openai.InternalServerError) as error:
            await client.responses.create(model="m", input="y" * 10_000, background=True)
        assert (error.value.status_code, error.value.code) == (503, "storage_full")
        assert "retry-after" in error.value.response.headers
        assert (await client.responses.retrieve(kept.id)).status == "completed"


async def test_a_run_that_outgrows_the_quota_ends_as_failed_with_what_there_was(
    start: Start, upstream: Scripted
) -> None:
    async with start(**options(own=200_000)) as gateway, gateway.client() as client:
        big = await client.responses.create(
            model="m", input="[[words=4000 delay=0.001 size=2000]]", background=True
        )
        response = await finished(client, big.id)
        assert (response.status, response.error.type) == ("failed", "storage_full")
        assert response.output_text
        events = await events_of(client, big.id)
        assert events[-1].type == "response.failed"
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert upstream.seen.open == 0


async def test_a_run_that_waited_while_the_room_went_is_not_sent_upstream(
    start: Start, upstream: Scripted
) -> None:
    toml = TOML.format(own=25_000, all=0).replace("[background]", "[background]\nmax_running = 1")
    async with (
        start(toml=toml, environment={"OTHER": OTHER_KEY}) as gateway,
        gateway.client() as client,
    ):
        first = await client.responses.create(
            model="m", input="[[words=400 delay=0.01 size=200]]", background=True
        )
        waiting = await client.responses.create(model="m", input="x" * 15_000, background=True)
        assert (await finished(client, first.id)).error.type == "storage_full"
        response = await finished(client, waiting.id)
        assert (response.status, response.error.type) == ("failed", "storage_full")
        assert upstream.seen.calls == 1
