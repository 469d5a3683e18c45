"""The opt-in to background, through the real server: both store paths, reloads, races."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import BACKGROUND, OTHER_KEY, Scripted, Start, eventually
from tests.integration.test_lifecycle import finished

OFF: list[dict[str, Any]] = [
    {},
    {"flags": {"background.enabled": False}, "toml": "[background]\nenabled = true\n"},
    {"environment": {"HANDRAIL_BACKGROUND_RESPONSES": "0"}, "toml": "backgroundResponses = true\n"},
    {"environment": {"CODEX_AUTH_BACKGROUND_RESPONSES": "off"}},
    {"toml": "[background]\nenabled = false\n"},
    {
        "environment": {"HANDRAIL_BACKGROUND_RESPONSES": "1"},
        "toml": '[callers.default]\nbackground = "deny"\n',
    },
    {
        "environment": {"HANDRAIL_BACKGROUND_RESPONSES": "no"},
        "toml": '[callers.default]\nbackground = "allow"\n',
    },
]

ON: list[dict[str, Any]] = [
    {"flags": {"background.enabled": True}},
    {"environment": {"HANDRAIL_BACKGROUND_RESPONSES": " YES "}},
    {"environment": {"CODEX_AUTH_BACKGROUND_RESPONSES": "true"}},
    {"toml": "backgroundResponses = true\n"},
    {"toml": '[callers.default]\nbackground = "allow"\n'},
]


@pytest.mark.parametrize("options", OFF)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("store", [openai.omit, True, False])
async def test_background_is_refused_until_enabled_and_the_upstream_sees_nothing(
    start: Start, upstream: Scripted, *, options: dict[str, Any], stream: bool, store: Any
) -> None:
    async with start(**options) as gateway, gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as error:
            await client.responses.create(
                model="m", input="hi", background=True, stream=stream, store=store
            )
        assert error.value.code == "background_not_enabled"
        assert error.value.param == "background"
        message: Any = error.value.body
        assert message["message"].startswith("Responses background mode is disabled.")
        assert "HANDRAIL_BACKGROUND_RESPONSES" in message["message"]
        assert upstream.seen.calls == 0
        assert (await client.responses.create(model="m", input="hi")).status == "completed"


@pytest.mark.parametrize("options", ON)
async def test_each_way_of_opting_in_works(start: Start, options: dict[str, Any]) -> None:
    async with start(**options) as gateway, gateway.client() as client:
        queued = await client.responses.create(model="m", input="hi", background=True)
        assert (await finished(client, queued.id)).status == "completed"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"store": False}, "store"),
        (
            {"extra_body": {"providerOptions": {"openai": {"store": False}}}},
            "providerOptions.openai.store",
        ),
        (
            {"store": True, "extra_body": {"providerOptions": {"openai": {"store": False}}}},
            "providerOptions.openai.store",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_background_contradicting_store_is_refused(
    start: Start, upstream: Scripted, *, options: dict[str, Any], param: str, stream: bool
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as error:
            await client.responses.create(
                model="m", input="hi", background=True, stream=stream, **options
            )
        assert (error.value.code, error.value.param) == ("background_requires_store", param)
        message: Any = error.value.body
        assert message["message"].startswith("Responses background mode requires store=true")
        assert upstream.seen.calls == 0


async def test_store_false_runs_on_the_gateway_for_callers_who_may(
    start: Start, upstream: Scripted
) -> None:
    options = {**BACKGROUND, "toml": '[callers.default]\nstore_false = "gateway"\n'}
    async with start(**options) as gateway, gateway.client() as client:
        queued = await client.responses.create(model="m", input="hi", background=True, store=False)
        response = await finished(client, queued.id)
        assert response.status == "completed"
        assert response.to_dict()["store"] is False
        assert upstream.last["store"] is False


async def test_store_true_without_background_is_lowered_or_refused_by_the_callers_policy(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(model="m", input="hi", store=True)
        assert raw.parse().to_dict()["store"] is False
        assert raw.headers["handrail-decision"].startswith("mode=stateless; store=lowered; ")
        assert upstream.last["store"] is False
    options = {"toml": '[callers.default]\nstore = "refuse"\n'}
    async with start(name="second", **options) as gateway, gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as error:
            await client.responses.create(model="m", input="hi", store=True)
        assert (error.value.code, error.value.param) == ("store_not_allowed", "store")
        assert upstream.seen.calls == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"background": "true"}, "background"),
        ({"background": 1}, "background"),
        ({"background": []}, "background"),
        ({"store": "false", "background": True}, "store"),
        ({"stream": "yes"}, "stream"),
        ({"providerOptions": {"openai": {"store": "no"}}}, "providerOptions.openai.store"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background_options": {"completion_window": "2h"}}, "background_options"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ],
)
async def test_what_cannot_be_meant_is_an_error_that_names_it(
    start: Start, upstream: Scripted, body: dict[str, Any], param: str
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as error:
            await client.responses.create(model="m", input="hi", extra_body=body)
        assert error.value.param == param
        assert upstream.seen.calls == 0


async def test_a_reload_changes_new_requests_only(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    file = tmp_path / "data.toml"
    async with (
        start(toml="[background]\nenabled = true\nmax_running = 1\n") as gateway,
        gateway.client() as client,
    ):
        running = await client.responses.create(
            model="m", input="[[words=20 delay=0.05]]", background=True
        )
        waiting = await client.responses.create(model="m", input="waiting", background=True)
        await eventually(lambda: upstream.seen.open == 1)
        file.write_text("[background]\nenabled = false\nmax_running = 1\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: not gateway.gateway.settings.switch.enabled)
        with pytest.raises(openai.BadRequestError, match="disabled"):
            await client.responses.create(model="m", input="hi", background=True)
        assert (await finished(client, running.id)).status == "completed"
        assert (await finished(client, waiting.id)).status == "completed"


async def test_a_waiting_response_is_sent_by_the_rules_that_it_was_accepted_under(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    before = '[background]\nenabled = true\nmax_running = 1\n[models.m.upstream]\nopenai = "one"\n'
    async with start(toml=before) as gateway, gateway.client() as client:
        running = await client.responses.create(
            model="m", input="[[words=20 delay=0.05]]", background=True
        )
        waiting = await client.responses.create(model="m", input="waiting", background=True)
        await eventually(lambda: upstream.seen.open == 1)
        (tmp_path / "data.toml").write_text(before.replace('"one"', '"two"'))
        await gateway.gateway.reload()
        later = await client.responses.create(model="m", input="later", background=True)
        for response in (running, waiting, later):
            assert (await finished(client, response.id)).status == "completed"
        assert [each["body"]["model"] for each in upstream.seen.requests] == ["one", "one", "two"]


async def test_a_create_that_spans_a_reload_keeps_the_settings_that_it_began_with(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    file = tmp_path / "data.toml"
    async with start(toml="[background]\nenabled = true\n") as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        body = b'{"model":"m","input":"hi","background":true}'
        writer.write(
            b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer "
            + gateway.key.encode()
            + b"\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        writer.write(body[:10])
        await writer.drain()
        # Another request after it proves that the head of the first has been taken.
        async with gateway.client() as client:
            await client.models.list()
            file.write_text("[background]\nenabled = false\n")
            os.kill(os.getpid(), signal.SIGHUP)
            await eventually(lambda: not gateway.gateway.settings.switch.enabled)
            writer.write(body[10:])
            assert b"200 OK" in await reader.readline()
            with pytest.raises(openai.BadRequestError, match="disabled"):
                await client.responses.create(model="m", input="hi", background=True)
        writer.close()


async def test_invalid_settings_on_reload_leave_the_old_ones_in_force(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "data.toml"
    async with start(toml="[background]\nenabled = true\n") as gateway, gateway.client() as client:
        file.write_text("[background]\nenabled = maybe\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: gateway.gateway.reload_problem is not None)
        assert "data.toml" in str(gateway.gateway.reload_problem)
        ready = await client._client.get(f"{gateway.url[:-3]}/readyz")
        assert (ready.status_code, ready.json()["settings"]) == (200, "stale")
        queued = await client.responses.create(model="m", input="hi", background=True)
        assert (await finished(client, queued.id)).status == "completed"
        file.write_text("[background]\nenabled = true\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: gateway.gateway.reload_problem is None)


async def test_revoking_a_caller_cancels_what_it_has_under_way_and_waiting(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    file = tmp_path / "data.toml"
    options = {
        "toml": '[background]\nenabled = true\nmax_running = 1\n[callers.o]\nkey_env = "OTHER"\n',
        "environment": {"OTHER": OTHER_KEY},
    }
    async with start(**options) as gateway, gateway.client(key=OTHER_KEY) as other:
        running = await other.responses.create(
            model="m", input="[[words=200 delay=0.05]]", background=True
        )
        await other.responses.create(model="m", input="waiting", background=True)
        await eventually(lambda: upstream.seen.open == 1)
        file.write_text("[background]\nenabled = true\nmax_running = 1\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: upstream.seen.open == 0)
        with pytest.raises(openai.AuthenticationError):
            await other.responses.retrieve(running.id)
        assert upstream.seen.calls == 1


async def test_polls_racing_creates_see_every_accepted_response(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        ids: list[str] = []
        done = asyncio.Event()

        async def create(number: int) -> None:
            queued = await client.responses.create(
                model="m", input=f"{number} [[words=3]]", background=True
            )
            ids.append(queued.id)
            await client.responses.retrieve(queued.id)

        async def poll() -> None:
            while not done.is_set():
                for response_id in list(ids)[-10:]:
                    await client.responses.retrieve(response_id)
                await asyncio.sleep(0)

        poller = asyncio.create_task(poll())
        await asyncio.gather(*(create(number) for number in range(60)))
        done.set()
        await poller
        ends = [await finished(client, response_id) for response_id in ids]
        assert {response.status for response in ends} == {"completed"}


async def test_limits_on_running_responses_are_exact(start: Start, upstream: Scripted) -> None:
    options = {
        "toml": "[background]\nenabled = true\nmax_running = 4\n"
        '[callers.default]\nmax_running = 3\n[callers.o]\nkey_env = "OTHER"\nmax_running = 2\n',
        "environment": {"OTHER": OTHER_KEY},
    }
    async with (
        start(**options) as gateway,
        gateway.client() as client,
        gateway.client(key=OTHER_KEY) as other,
    ):
        most = 0
        runs = [
            (who, await who.responses.create(model="m", input="[[delay=0.01]]", background=True))
            for _ in range(8)
            for who in (client, other)
        ]

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, upstream.seen.open)
                await asyncio.sleep(0.001)

        watcher = asyncio.create_task(watch())
        for who, run in runs:
            assert (await finished(who, run.id)).status == "completed"
        watcher.cancel()
        assert most == 4
