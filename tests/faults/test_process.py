"""Rows 5, 18 and 20: a process that is told to stop, is stopped, or may open no more files."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil  # type: ignore[import-untyped]

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, UPSTREAM_KEY, Child, monotonic
from tests.faults.api import ENDS, Api, logged, until, upstream_calls

HEADERS = {"authorization": f"Bearer {CALLER_KEY}"}


def base(upstream: Child) -> str:
    return f"{upstream.url}/openai/v1"


def configured(tmp_path: Path, toml: str) -> tuple[str, ...]:
    file = tmp_path / "handrail.toml"
    file.write_text(f"background.enabled = true\n{toml}")
    return ("--port", "0", "--config", str(file))


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(
        headers=HEADERS, connector=connector, timeout=timeout
    ) as session:
        yield session


# --- row 5: SIGTERM -------------------------------------------------------------------------------


class Streams:
    """Streams of all kinds, read to their ends."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url
        self.begun = 0

    async def read(self, number: int) -> str:
        """The type of the last event of one stream, "" for one that was cut."""
        body = {
            "model": "m",
            "input": f"[[tag=s{number} words=5000 delay=0.02]]",
            "stream": True,
            "background": number % 2 == 0,
        }
        last = ""
        async with self.http.post(f"{self.url}/responses", json=body) as reply:
            assert reply.status == 200
            async for line in reply.content:
                if line.startswith(b"event: "):
                    self.begun += last == "response.output_item.added"  # one of each stream
                    last = line.split()[1].decode()
        return last


async def drained(tmp_path: Path, upstream: Child, *, streams: int) -> tuple[list[str], float]:
    arguments = configured(
        tmp_path,
        'server.drain = "1s"\nbackground.max_running = 200\ncallers.default.max_running = 200\n',
    )
    with processes.gateway(tmp_path, *arguments, upstream=base(upstream)) as gateway:
        async with client() as http:
            reading = Streams(http, gateway.url)
            tasks = [asyncio.create_task(reading.read(number)) for number in range(streams)]
            async with asyncio.timeout(90):
                while reading.begun < streams:
                    await asyncio.sleep(0.02)
            began = monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            ends = await asyncio.gather(*tasks)
        assert gateway.stop() == 0
        return ends, monotonic() - began


async def test_row_5_a_drain_cuts_no_stream_without_a_terminal_event(
    upstream: Child, tmp_path: Path
) -> None:
    ends, seconds = await drained(tmp_path, upstream, streams=200)
    assert [end for end in ends if end not in ENDS] == []
    assert seconds < 20  # 1 s of drain and an end for each; measured in docs/explanation/faults.md


# --- row 18: two processes, one data directory ----------------------------------------------------


def refused_start(tmp_path: Path, upstream: Child) -> "subprocess.CompletedProcess[str]":
    command = [*processes.HANDRAIL, "serve", "--data-dir", str(tmp_path / "data"), "--port", "0"]
    return subprocess.run(
        [*command, "--upstream", base(upstream)],
        env={
            "PATH": os.environ["PATH"],
            "HANDRAIL_CALLER_KEY": CALLER_KEY,
            "HANDRAIL_UPSTREAM_API_KEY": UPSTREAM_KEY,
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_row_18_a_stopped_process_keeps_its_directory_and_goes_on_unharmed(
    upstream: Child, tmp_path: Path
) -> None:
    with processes.gateway(tmp_path, upstream=base(upstream)) as gateway:
        api = Api(gateway)
        accepted = [api.accepted(f"[[tag=r{number} words=300 delay=0.005]]") for number in range(4)]
        for _ in range(5):
            until(lambda: api.get(accepted[0])["status"] != "queued")
            gateway.process.send_signal(signal.SIGSTOP)
            try:
                refused = refused_start(tmp_path, upstream)
            finally:
                gateway.process.send_signal(signal.SIGCONT)
            assert refused.returncode == 2
            assert "another gateway is using this data directory" in refused.stderr
        for response_id in accepted:
            assert api.check(response_id)["status"] == "completed"
        assert gateway.stop() == 0
    assert upstream_calls(upstream) == {f"r{number}": 1 for number in range(4)}


def test_row_18_time_that_passed_while_it_was_stopped_counts_against_an_upstream_that_is_silent(
    upstream: Child, tmp_path: Path
) -> None:
    arguments = configured(tmp_path, 'upstream.idle_timeout = "1s"\n')
    with processes.gateway(tmp_path, *arguments, upstream=base(upstream)) as gateway:
        api = Api(gateway)
        stalled = api.accepted("[[tag=stalled stall=2]]")
        until(lambda: api.get(stalled)["status"] == "in_progress")
        gateway.process.send_signal(signal.SIGSTOP)
        refused_start(tmp_path, upstream)
        gateway.process.send_signal(signal.SIGCONT)
        assert api.check(stalled)["error"]["type"] == "upstream_stalled"


# --- row 20: file descriptors ---------------------------------------------------------------------

FEW_FILES = ("sh", "-c", 'ulimit -n 256 && exec "$@"', "sh")


async def follow(http: aiohttp.ClientSession, url: str, read: asyncio.Event) -> str:
    """What becomes of one reader: its status, or "refused"."""
    try:
        async with http.get(url) as reply:
            if reply.status == 200:
                await reply.content.readany()
                await read.wait()
            return str(reply.status)
    except (aiohttp.ClientError, OSError):
        return "refused"


async def test_row_20_a_thousand_readers_on_256_descriptors_do_no_harm(
    upstream: Child, tmp_path: Path
) -> None:
    with processes.gateway(tmp_path, upstream=base(upstream), within=FEW_FILES) as gateway:
        api = Api(gateway)
        run = await asyncio.to_thread(api.accepted, "[[tag=long words=100000 delay=0.05]]")
        process = psutil.Process(gateway.process.pid)
        leave = asyncio.Event()
        async with client() as http:
            url = f"{gateway.url}/responses/{run}?stream=true"
            readers = [asyncio.create_task(follow(http, url, leave)) for _ in range(1_000)]
            async with asyncio.timeout(90):  # all but those that it let in have had an answer
                while sum(task.done() for task in readers) < 900:
                    await asyncio.sleep(0.05)
            spent = process.cpu_times()
            began = monotonic()
            await asyncio.sleep(2)  # what it uses while it is full
            after = process.cpu_times()
            used = after.user + after.system - spent.user - spent.system
            assert used / (monotonic() - began) < 0.5
            assert process.num_fds() < 256
            let_in = sum(not task.done() for task in readers)
            assert let_in > 50
            leave.set()
            ends = await asyncio.gather(*readers)
        assert set(ends) <= {"200", "503", "refused"}
        assert ends.count("200") >= let_in
        kept = await asyncio.to_thread(api.accepted, "[[tag=after]]")
        assert (await asyncio.to_thread(api.ended, kept))["status"] == "completed"
        events = [line["event"] for line in logged(gateway)]
        assert "too_few_descriptors" in events
        assert "loop_broke" not in events
        assert not any("Traceback" in json.dumps(line) for line in logged(gateway))
