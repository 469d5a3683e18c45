"""Keys of callers through the real server and the real SDK, and the rules of their callers."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from handrail import telemetry
from handrail.bootstrap.keys import opened
from handrail.core.caller_keys import Wish
from handrail.engine.caller_keys import CallerKeys
from tests.clocks import JumpingClock
from tests.conftest import OTHER_KEY, Running, Scripted, Start, eventually
from tests.integration.admin import Admin, admin_key
from tests.integration.test_lifecycle import finished
from tests.raw_http import GOOD, Reply, ask, post

TOML = "[background]\nenabled = true\n[callers.ann]\n[callers.bob]\n"


@asynccontextmanager
async def elsewhere(gateway: Running) -> AsyncIterator[CallerKeys]:
    """The keys as a command line has them open."""
    with opened(gateway.gateway.settings) as keys:
        yield keys


async def made(gateway: Running, caller: str, **fields: Any) -> tuple[str, str]:
    """A key that a command line makes: its id and itself."""
    async with elsewhere(gateway) as keys:
        wish = Wish(caller=caller, **fields)
        issued = await keys.create(wish, callers=gateway.gateway.settings.callers)
        return issued.key.id, issued.secret.reveal()


async def offered(gateway: Running, key: str) -> Reply:
    reply = await ask(gateway.port, post(key=key))
    assert reply is not None
    return reply


async def opens(gateway: Running, key: str) -> None:
    """Wait until a key opens the door."""
    await _until(gateway, key, status=200)


async def shut(gateway: Running, key: str) -> None:
    """Wait until it does not."""
    await _until(gateway, key, status=401)


async def _until(gateway: Running, key: str, *, status: int) -> None:
    # That a look comes once a second is shown by tests/unit/test_caller_keys.py, with its clock.
    async with asyncio.timeout(20):
        while (await offered(gateway, key)).status != status:
            await asyncio.sleep(0.01)


async def test_a_key_that_a_command_line_makes_works_beside_those_of_the_settings(
    start: Start, upstream: Scripted
) -> None:
    options = {"toml": TOML + 'key_env = "BOB"\n', "environment": {"BOB": OTHER_KEY}}
    async with start(**options) as gateway:
        keys = [(await made(gateway, name))[1] for name in ("ann", "ann", "bob", "default")]
        for key in keys:
            await opens(gateway, key)
        for key in (*keys, OTHER_KEY, gateway.key):
            async with gateway.client(key=key) as client:
                assert (await client.responses.create(model="m", input="hi")).status == "completed"
        assert len(set(keys)) == 4
        assert all(key.startswith("hr_") and len(key) == 46 for key in keys)


async def test_every_spelling_of_a_header_gives_the_same_answer_for_every_kind_of_key(
    start: Start,
) -> None:
    async with start(toml=TOML) as gateway:
        admin = Admin(gateway)
        active = await admin.key("ann")
        revoked = await admin.key("ann")
        await admin.done("POST", f"/admin/keys/{revoked['id']}/revoke")
        for key, status in ((active["key"], 200), (revoked["key"], 401), ("hr_" + "x" * 43, 401)):
            raw = key.encode()
            for field in (
                b"Authorization: Bearer " + raw,
                b"authorization: bEARER " + raw,
                b"x-api-key: " + raw,
                b"API-Key: " + raw,
            ):
                reply = await ask(gateway.port, post(GOOD, field, key=None))
                assert reply is not None
                assert reply.status == status, field
        azure = openai.AsyncAzureOpenAI(
            base_url=gateway.url, api_key=active["key"], api_version="v1", max_retries=0
        )
        async with azure as client:
            assert (await client.responses.create(model="m", input="hi")).status == "completed"


async def test_the_words_of_a_401_never_say_what_became_of_a_key_and_the_log_does(
    start: Start,
) -> None:
    clock = JumpingClock()
    stream = io.StringIO()
    telemetry.configure("info", stream=stream)
    async with start(toml=TOML, clock=clock) as gateway:
        admin = Admin(gateway)
        revoked, expired, lost = [
            await admin.key(name, expires="1h") for name in ("ann", "ann", "bob")
        ]
        await admin.done("POST", f"/admin/keys/{revoked['id']}/revoke")
        file = gateway.gateway.settings.file
        assert file is not None
        file.write_text(TOML.replace("[callers.bob]\n", ""))
        await admin.done("POST", "/admin/reload")
        assert (await offered(gateway, expired["key"])).status == 200
        bodies = {(await offered(gateway, key["key"])).body for key in (revoked, lost)}
        clock.wrong_by = 3_600.0
        bodies.add((await offered(gateway, expired["key"])).body)
        bodies.add((await offered(gateway, "hr_" + "x" * 43)).body)
        assert len(bodies) == 1
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        refused = {line["key_id"]: line["why"] for line in lines if line["event"] == "key_refused"}
        assert refused == {
            revoked["id"]: "revoked",
            lost["id"]: "caller_gone",
            expired["id"]: "expired",
        }
        for secret in (revoked["key"], expired["key"], lost["key"], admin_key(gateway)):
            assert secret not in stream.getvalue()
    telemetry.configure("error")


async def test_a_key_that_a_command_line_revokes_is_refused_soon_after(
    start: Start,
) -> None:
    async with start(toml=TOML) as gateway:
        key_id, key = await made(gateway, "ann")
        await opens(gateway, key)
        async with elsewhere(gateway) as keys:
            await keys.revoke(key_id)
        await shut(gateway, key)


async def test_a_key_that_expires_is_refused_from_that_moment_on(start: Start) -> None:
    clock = JumpingClock()
    async with start(toml=TOML, clock=clock) as gateway:
        _, key = await made(gateway, "ann", lifetime=3_600)
        await opens(gateway, key)
        clock.wrong_by = 3_590.0
        assert (await offered(gateway, key)).status == 200
        clock.wrong_by = 3_600.0
        assert (await offered(gateway, key)).status == 401


async def test_what_the_admin_api_changes_holds_from_its_reply_on(start: Start) -> None:
    async with start(toml=TOML) as gateway:
        admin = Admin(gateway)
        for _ in range(5):
            key = await admin.key("ann")
            assert (await offered(gateway, key["key"])).status == 200
            await admin.done("POST", f"/admin/keys/{key['id']}/revoke")
            assert (await offered(gateway, key["key"])).status == 401


async def test_a_caller_without_any_key_is_named_in_the_log_at_the_start_and_at_a_reload(
    start: Start,
) -> None:
    stream = io.StringIO()
    telemetry.configure("warning", stream=stream)
    async with start(toml=TOML) as gateway:
        admin = Admin(gateway)
        await admin.key("ann")
        await admin.done("POST", "/admin/reload")
        await admin.key("bob")
        await admin.done("POST", "/admin/reload")
    telemetry.configure("error")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [line["callers"] for line in lines if line["event"] == "callers_without_key"]
    assert told == [["ann", "bob"], ["bob"]]


async def test_a_reload_reads_the_keys_at_once(start: Start) -> None:
    async with start(toml=TOML) as gateway:
        for _ in range(5):
            _, key = await made(gateway, "ann")
            await Admin(gateway).done("POST", "/admin/reload")
            assert (await offered(gateway, key)).status == 200


async def test_a_rotated_key_sees_the_same_responses_and_the_old_one_until_its_end(
    start: Start,
) -> None:
    clock = JumpingClock()
    async with start(toml=TOML, clock=clock) as gateway:
        key_id, old = await made(gateway, "ann")
        await opens(gateway, old)
        async with gateway.client(key=old) as client:
            run = await client.responses.create(model="m", input="hi", background=True)
            await finished(client, run.id)
        async with elsewhere(gateway) as keys:
            issued = await keys.rotate(
                key_id, callers=gateway.gateway.settings.callers, overlap=3_600
            )
        new = issued.secret.reveal()
        await opens(gateway, new)
        for key in (old, new):
            async with gateway.client(key=key) as client:
                assert (await client.responses.retrieve(run.id)).status == "completed"
        clock.wrong_by = 3_600.0
        assert (await offered(gateway, old)).status == 401
        async with gateway.client(key=new) as client:
            again = await client.responses.create(
                model="m", input="and then?", previous_response_id=run.id, background=True
            )
            assert (await finished(client, again.id)).status == "completed"
        _, bobs = await made(gateway, "bob")
        await opens(gateway, bobs)
        async with gateway.client(key=bobs) as client:
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(run.id)


async def test_the_runs_of_a_caller_go_on_when_one_of_its_keys_is_revoked(
    start: Start, upstream: Scripted
) -> None:
    async with start(toml=TOML) as gateway:
        admin = Admin(gateway)
        first, second = [await admin.key("ann") for _ in range(2)]
        async with gateway.client(key=first["key"]) as client:
            run = await client.responses.create(
                model="m", input="[[words=20 delay=0.02]]", background=True
            )
        await eventually(lambda: upstream.seen.open == 1)
        await admin.done("POST", f"/admin/keys/{first['id']}/revoke")
        async with gateway.client(key=second["key"]) as client:
            assert (await finished(client, run.id)).status == "completed"


async def test_keys_are_kept_over_a_restart_with_when_they_were_used(start: Start) -> None:
    async with start(toml=TOML) as gateway:
        key_id, key = await made(gateway, "ann", label="laptop")
        await opens(gateway, key)
    async with start(toml=TOML) as gateway:
        assert (await offered(gateway, key)).status == 200  # with the very first request
        [shown] = (await Admin(gateway).done("GET", "/admin/keys"))["data"]
        assert (shown["id"], shown["label"], shown["state"]) == (key_id, "laptop", "active")
        assert shown["last_used_at"] >= shown["created_at"]
        assert key not in json.dumps(shown)
        assert set(shown) == {
            "object", "id", "caller", "caller_known", "label", "state", "created_at", "expires_at",
            "revoked_at", "last_used_at",
        }  # fmt: skip


async def test_the_files_of_the_data_directory_hold_no_key_but_the_generated_ones(
    start: Start, tmp_path: Path
) -> None:
    async with start(toml=TOML) as gateway:
        issued = await Admin(gateway).key("ann")
        assert (await offered(gateway, issued["key"])).status == 200
        for path in (tmp_path / "data").iterdir():
            assert issued["key"].encode() not in path.read_bytes(), path.name
            if path.name.startswith("accounts.db") or path.suffix == ".key":
                assert path.stat().st_mode & 0o077 == 0, path.name


# --- rules of a caller ---------------------------------------------------------------------------

RULES = """
[background]
enabled = true
[callers.ann]
models = ["m", "scr*"]
executor = "upstream"
[callers.bob]
priority = "low"
max_priority = "normal"
models = []
"""


async def test_a_caller_uses_its_own_models_and_any_other_does_not_exist(
    start: Start, upstream: Scripted
) -> None:
    async with start(toml=RULES) as gateway:
        admin = Admin(gateway)
        ann, bob = [(await admin.key(name))["key"] for name in ("ann", "bob")]
        async with gateway.client(key=ann) as client:
            assert (await client.responses.create(model="m", input="hi")).status == "completed"
            calls = upstream.seen.calls
            every: list[dict[str, Any]] = [{}, {"stream": True}, {"background": True}]
            for options in every:
                with pytest.raises(openai.NotFoundError) as error:
                    await client.responses.create(model="gpt-5.5", input="hi", **options)
                assert (error.value.code, error.value.param) == ("model_not_found", "model")
            with pytest.raises(openai.NotFoundError):
                await client.post(
                    "/responses/input_tokens", body={"model": "gpt-5.5"}, cast_to=object
                )
            assert [model.id async for model in client.models.list()] == ["scripted"]
            assert (await client.models.retrieve("scripted")).id == "scripted"
            with pytest.raises(openai.NotFoundError) as refused:
                await client.models.retrieve("gpt-5.5")
            assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
            assert upstream.seen.calls == calls
        async with gateway.client(key=bob) as client:
            assert [model.id async for model in client.models.list()] == []
            with pytest.raises(openai.NotFoundError):
                await client.responses.create(model="m", input="hi")
            assert upstream.seen.calls == calls


async def test_a_callers_own_executor_runs_its_background_responses(
    start: Start, upstream: Scripted
) -> None:
    async with start(manners="storing", profile="openai", toml=RULES) as gateway:
        key = (await Admin(gateway).key("ann"))["key"]
        async with gateway.client(key=key) as client:
            raw = await client.responses.with_raw_response.create(
                model="m", input="hi", background=True
            )
            assert raw.headers["handrail-decision"].startswith("mode=background-upstream")
            assert (upstream.last["background"], upstream.last["store"]) == (True, True)
        async with gateway.client() as client:
            run = await client.responses.create(model="m", input="hi", background=True)
            await finished(client, run.id)
            assert (upstream.last.get("background"), upstream.last["store"]) == (None, False)


async def test_a_callers_priority_is_its_default_and_its_highest_is_held_to(start: Start) -> None:
    toml = RULES.replace("models = []\n", "")
    async with start(toml=toml) as gateway:
        key = (await Admin(gateway).key("bob"))["key"]
        async with gateway.client(key=key) as client:

            async def decision(**headers: str) -> str:
                raw = await client.responses.with_raw_response.create(
                    model="m", input="hi", background=True, extra_headers=headers
                )
                return str(raw.headers["handrail-decision"])

            assert "priority=low" in await decision()
            assert "priority" not in await decision(**{"handrail-priority": "normal"})
            with pytest.raises(openai.BadRequestError) as error:
                await decision(**{"handrail-priority": "high"})
            assert (error.value.code, error.value.param) == ("invalid_value", "handrail-priority")
