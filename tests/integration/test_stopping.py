"""Stopping and starting again: drains, takeovers, and a disk that is full."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from handrail.errors import ConfigInvalid
from tests.conftest import BACKGROUND, Scripted, Start, eventually
from tests.integration.test_lifecycle import events_of, finished

DRAIN = '[background]\nenabled = true\n[server]\ndrain = "{}s"\n'


async def test_a_drain_lets_streams_and_runs_finish_and_takes_nothing_new(
    start: Start, upstream: Scripted
) -> None:
    async with start(toml=DRAIN.format(10)) as gateway, gateway.client() as client:
        stream = await client.responses.create(
            model="m", input="[[words=10 delay=0.05]]", stream=True
        )
        follower = await client.responses.create(
            model="m", input="[[words=10 delay=0.05]]", stream=True, background=True
        )
        await eventually(lambda: upstream.seen.open == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        foreground: list[Any] = [event async for event in stream]
        background: list[Any] = [event async for event in follower]
        assert foreground[-1].type == background[-1].type == "response.completed"
        with pytest.raises(openai.APIConnectionError):
            await client.responses.create(model="m", input="hi", background=True)


async def test_a_drain_that_is_over_ends_every_stream_with_a_terminal_event(
    start: Start, upstream: Scripted
) -> None:
    async with start(toml=DRAIN.format(0)) as gateway, gateway.client() as client:
        stream = await client.responses.create(model="m", input="[[stall=2]]", stream=True)
        follower = await client.responses.create(
            model="m", input="[[stall=2]]", stream=True, background=True
        )
        await eventually(lambda: upstream.seen.open == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            foreground: list[Any] = [event async for event in stream]
            background: list[Any] = [event async for event in follower]
        assert foreground[-1].response.error.type == "shutting_down"
        assert background[-1].response.error.type == "worker_lost"
        assert [event.sequence_number for event in foreground] == list(range(len(foreground)))
        response_id = background[0].response.id
    async with start(toml=DRAIN.format(0)) as gateway, gateway.client() as client:
        response = await client.responses.retrieve(response_id)
        assert (response.status, response.error.type) == ("failed", "worker_lost")  # type: ignore[union-attr]
        assert len(response.output_text.split()) == 2


async def test_what_waited_at_the_stop_runs_after_the_start(
    start: Start, upstream: Scripted
) -> None:
    toml = '[background]\nenabled = true\nmax_running = 1\n[server]\ndrain = "0s"\n'
    async with start(toml=toml) as gateway, gateway.client() as client:
        await client.responses.create(model="m", input="[[stall=1]]", background=True)
        waiting = await client.responses.create(model="m", input="later", background=True)
        await eventually(lambda: upstream.seen.open == 1)
    async with start(toml=toml) as gateway, gateway.client() as client:
        assert (await finished(client, waiting.id)).status == "completed"
        events = await events_of(client, waiting.id)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert upstream.seen.calls == 2


async def test_a_run_for_an_upstream_that_is_gone_says_so(start: Start, upstream: Scripted) -> None:
    toml = '[background]\nenabled = true\nmax_running = 1\n[server]\ndrain = "0s"\n'
    async with start(toml=toml) as gateway, gateway.client() as client:
        await client.responses.create(model="m", input="[[stall=1]]", background=True)
        waiting = await client.responses.create(model="m", input="later", background=True)
        await eventually(lambda: upstream.seen.open == 1)
    async with start(manners="codex", toml=toml) as gateway, gateway.client() as client:
        response = await finished(client, waiting.id)
        assert (response.status, response.error.type) == ("failed", "target_gone")


async def test_a_second_gateway_on_one_data_directory_is_refused_in_a_sentence(
    start: Start,
) -> None:
    async with start():
        with pytest.raises(ConfigInvalid, match="another gateway is using this data directory"):
            async with start():
                pass


async def test_a_store_key_that_does_not_fit_is_refused(start: Start, tmp_path: Path) -> None:
    async with start():
        pass
    key = tmp_path / "data" / "store.key"
    key.write_bytes(bytes(32))
    with pytest.raises(ConfigInvalid, match="another store key"):
        async with start():
            pass
    key.unlink()
    with pytest.raises(ConfigInvalid, match=r"store key is missing but handrail\.db exists"):
        async with start():
            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB. Needs the right to mount, which CI and containers' root have."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk_refuses_new_runs_ends_running_ones_honestly_and_stops_nothing_else(
    start: Start, upstream: Scripted, small_disk: Path
) -> None:
    options = {**BACKGROUND, "name": "disk/data"}
    async with start(**options) as gateway, gateway.client() as client:
        kept = await client.responses.create(model="m", input="before", background=True)
        assert (await finished(client, kept.id)).status == "completed"
        running = await client.responses.create(
            model="m", input="[[words=4000 delay=0.002 size=2000]]", background=True
        )
        await eventually(lambda: upstream.seen.open == 1)
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        response = await finished(client, running.id, seconds=20)
        assert (response.status, response.error.type) == ("failed", "storage_full")
        events = await events_of(client, running.id)
        assert events[-1].type == "response.failed"
        assert [event.sequence_number for event in events] == list(range(len(events)))

        async def create_many() -> None:
            for _ in range(50):  # what the reserve freed is used up by the first few
                await client.responses.create(model="m", input="x" * 200_000, background=True)

        with pytest.raises(openai.InternalServerError) as error:
            await create_many()
        assert (error.value.status_code, error.value.code) == (503, "storage_full")
        assert (await client.responses.retrieve(kept.id)).status == "completed"
        assert (await client.responses.create(model="m", input="hi")).status == "completed"
        filler.unlink()
        again = await client.responses.create(model="m", input="after", background=True)
        assert (await finished(client, again.id)).status == "completed"


async def test_what_cannot_be_remembered_is_not_left_running_at_the_upstream(
    start: Start, upstream: Scripted, small_disk: Path
) -> None:
    toml = 'background.enabled = true\nbackground.executor = "upstream"\n'
    async with (
        start(manners="storing", profile="openai", name="disk/data", toml=toml) as gateway,
        gateway.client() as client,
    ):
        kept = await client.responses.create(model="m", input="[[first=60]]", background=True)
        with (small_disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

        async def create_many() -> None:
            for _ in range(2_000):  # what room there is inside the files is used up by some
                await client.responses.create(model="m", input="hi [[first=60]]", background=True)

        with pytest.raises(openai.InternalServerError) as error:
            await create_many()
        assert (error.value.status_code, error.value.code) == (503, "storage_full")
        *before, last = upstream.server.storing.kept.values()
        assert last.snapshot["status"] == "cancelled"
        assert all(other.snapshot["status"] == "queued" for other in before)
        assert (await client.responses.retrieve(kept.id)).status == "queued"
