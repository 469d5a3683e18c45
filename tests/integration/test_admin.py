"""The admin API through the real server: what it shows, does and refuses."""

import hashlib
import json
import stat
from itertools import product
from typing import Any

import pytest

from handrail.errors import ConfigInvalid
from tests.conftest import (
    BACKGROUND,
    CALLER_KEY,
    OTHER_KEY,
    UPSTREAM_KEY,
    Scripted,
    Start,
    eventually,
)
from tests.integration.admin import Admin, admin_key
from tests.integration.test_lifecycle import finished
from tests.raw_http import ask, get, post

GETS = [
    "/admin/accounts",
    "/admin/budgets",
    "/admin/callers",
    "/admin/keys",
    "/admin/limits",
    "/admin/runs",
    "/admin/settings",
    "/admin/usage",
    "/admin/why",
]
POSTS = [
    "/admin/accounts/first/pause",
    "/admin/keys",
    "/admin/keys/key_1/revoke",
    "/admin/runs/r_1/cancel",
    "/admin/reload",
]
ANN: dict[str, Any] = {
    "toml": '[background]\nenabled = true\n[callers.ann]\nkey_env = "OTHER_KEY"\nmodels = ["m"]\n',
    "environment": {"OTHER_KEY": OTHER_KEY},
}


async def test_the_admin_key_is_made_once_for_its_owner_alone_and_opens_nothing_else(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        key = admin_key(gateway)
        assert len(key) > 40
        assert key != gateway.key
        mode = (gateway.gateway.settings.data_dir / "admin.key").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        for request in (post(key=key), get("/v1/models", key=key), get("/v1/unknown", key=key)):
            reply = await ask(gateway.port, request)
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        assert upstream.seen.calls == 0
    async with start() as again:
        assert admin_key(again) == key


async def test_each_route_is_opened_by_the_admin_key_in_any_spelling_and_by_no_other(
    start: Start,
) -> None:
    async with start() as gateway:
        admin = Admin(gateway)
        key = admin_key(gateway).encode()
        right = [b"Authorization: BEARER " + key, b"x-api-key: " + key, b"Api-Key: " + key]
        for path, field in product(GETS, right):
            assert (await admin.ask("GET", path, None, field, key=None)).status == 200
        wrong = [b"Authorization: Basic " + key, b"api-key: " + CALLER_KEY.encode(), b"x: y"]
        wrong += [b"Authorization: Bearer " + each for each in (key[:-1], key + b"x", b"admin")]
        routes = [("GET", path) for path in GETS] + [("POST", path) for path in POSTS]
        for (method, path), field in product(routes, wrong):
            reply = await admin.ask(method, path, None, field, key=None)
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"host": b"evil.example"}, 421, "host_not_allowed"),
        ({"extra": b"Origin: http://127.0.0.1"}, 403, "origin_not_allowed"),
        ({"extra": b"Sec-Fetch-Site: cross-site"}, 403, "origin_not_allowed"),
    ],
)
async def test_the_guards_of_all_routes_hold_here_too(
    start: Start, fields: dict[str, Any], status: int, code: str
) -> None:
    extra = fields.pop("extra", b"X-Nothing: 1")
    async with start() as gateway:
        admin = Admin(gateway)
        for method, path in (("GET", "/admin/keys"), ("POST", "/admin/reload")):
            reply = await admin.ask(method, path, None, extra, **fields)
            assert (reply.status, reply.error["code"]) == (status, code)
            assert "access-control-allow-origin" not in reply.headers


async def test_what_is_no_route_or_no_method_is_refused(start: Start) -> None:
    async with start() as gateway:
        admin = Admin(gateway)
        for path in (
            "/admin",
            "/admin/",
            "/admin/unknown",
            "/admin/keys/",
            "/admin/keys/a%20b/revoke",
        ):
            reply = await admin.ask("GET", path)
            assert (reply.status, reply.error["code"]) == (404, "not_found")
        for method, path in [("POST", "/admin/callers"), ("DELETE", "/admin/keys")]:
            reply = await admin.ask(method, path)
            assert (reply.status, reply.error["code"]) == (405, "method_not_allowed")
        upgrade = await admin.ask("GET", "/admin/keys", None, b"Upgrade: websocket")
        assert upgrade.status == 426


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "param"),
    [
        ("POST", "/admin/keys", b"{", "invalid_json", None),
        ("POST", "/admin/keys", {}, "missing_required_parameter", "caller"),
        ("POST", "/admin/keys", {"caller": 1}, "invalid_type", "caller"),
        ("POST", "/admin/keys", {"caller": "eve"}, "invalid_value", "caller"),
        ("POST", "/admin/keys", {"caller": "default", "x": 1}, "unsupported_parameter", "x"),
        ("POST", "/admin/keys", {"caller": "default", "expires": "x"}, "invalid_value", "expires"),
        ("POST", "/admin/keys?dry=1", {"caller": "default"}, "unsupported_parameter", "dry"),
        ("POST", "/admin/keys/key_1/revoke", {"x": 1}, "unsupported_parameter", "x"),
        ("POST", "/admin/runs/r_1/cancel", b"5", "invalid_type", None),
        ("POST", "/admin/reload?now=1", None, "unsupported_parameter", "now"),
        ("GET", "/admin/callers?limit=1", None, "unsupported_parameter", "limit"),
        ("GET", "/admin/keys?x=", None, "unsupported_parameter", "x"),
        ("GET", "/admin/settings?x=1", None, "unsupported_parameter", "x"),
        ("GET", "/admin/runs?order=asc", None, "unsupported_parameter", "order"),
        ("GET", "/admin/runs?limit=0", None, "invalid_value", "limit"),
        ("GET", "/admin/runs?limit=5&limit=6", None, "duplicate_parameter", "limit"),
        ("GET", "/admin/runs?after=resp_1", None, "invalid_value", "after"),
    ],
)
async def test_what_a_route_does_not_know_is_a_400_that_names_it(
    start: Start, method: str, path: str, body: Any, code: str, param: str | None
) -> None:
    async with start() as gateway:
        reply = await Admin(gateway).ask(method, path, body)
        assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, param)


async def test_a_body_must_be_said_to_be_json_and_be_small(start: Start) -> None:
    async with start() as gateway:
        admin = Admin(gateway)
        for path in ("/admin/keys", "/admin/reload"):
            reply = await admin.ask("POST", path, b"{}", kind=b"text/plain")
            assert (reply.status, reply.error["param"]) == (415, "content-type")
        reply = await admin.ask("POST", "/admin/keys", {"caller": "x" * 70_000})
        assert (reply.status, reply.error["code"]) == (413, "payload_too_large")


async def test_an_unknown_key_or_run_is_a_404_that_names_the_id(start: Start) -> None:
    async with start() as gateway:
        admin = Admin(gateway)
        for path, param in (
            ("/admin/keys/key_1/revoke", "id"),
            ("/admin/runs/resp_1/cancel", "response_id"),
        ):
            reply = await admin.ask("POST", path)
            assert (reply.status, reply.error["param"]) == (404, param)


async def test_callers_are_shown_with_their_rules_their_keys_and_what_they_have_here(
    start: Start,
) -> None:
    async with start(**ANN) as gateway, gateway.client(key=OTHER_KEY) as client:
        admin = Admin(gateway)
        queued = await client.responses.create(model="m", input="hi", background=True)
        await finished(client, queued.id)
        made = [await admin.key("ann") for _ in range(2)]
        await admin.done("POST", f"/admin/keys/{made[0]['id']}/revoke")
        listed = await admin.done("GET", "/admin/callers")
        assert listed["object"] == "list"
        ann, default = listed["data"]
        assert [ann["name"], default["name"]] == ["ann", "default"]
        assert (ann["policy"]["models"], ann["policy"]["background"]) == (["m"], "inherit")
        assert (ann["keys"], default["keys"]) == (1, 0)
        assert ann["key"].startswith("sha256 …")
        assert (ann["kept"], ann["waiting"], ann["running"], default["kept"]) == (1, 0, 0, 0)
        assert ann["bytes"] > 0
        text = json.dumps(listed)
        for secret in (OTHER_KEY, CALLER_KEY, *(key["key"] for key in made)):
            assert secret not in text


async def test_runs_of_all_callers_are_shown_in_pages_and_without_content(start: Start) -> None:
    async with start(**ANN) as gateway, gateway.client(key=OTHER_KEY) as ann:
        admin = Admin(gateway)
        async with gateway.client() as somebody:
            ids = []
            for client in (ann, somebody, ann):
                run = await client.responses.create(
                    model="m", input="prompt-canary", instructions="canary-too", background=True
                )
                await finished(client, run.id)
                ids.append(run.id)
        whole = await admin.done("GET", "/admin/runs")
        assert [run["id"] for run in whole["data"]] == ids[::-1]
        assert [run["caller"] for run in whole["data"]] == ["ann", "default", "ann"]
        assert (whole["has_more"], whole["first_id"], whole["last_id"]) == (False, ids[2], ids[0])
        counts = whole["counts"]
        assert (counts["waiting"], counts["running"], counts["kept"]) == (0, 0, 3)
        first = await admin.done("GET", "/admin/runs?limit=2")
        assert (len(first["data"]), first["has_more"]) == (2, True)
        rest = await admin.done("GET", f"/admin/runs?limit=2&after={first['last_id']}")
        assert ([run["id"] for run in rest["data"]], rest["has_more"]) == ([ids[0]], False)
        for run in whole["data"]:
            assert set(run) == {
                "object", "id", "caller", "state", "created_at", "sent_at", "finished_at", "target",
                "attempts", "calls",
            }  # fmt: skip
            assert (run["state"], run["attempts"], run["calls"]) == ("completed", 1, 1)
            assert run["created_at"] <= run["sent_at"] <= run["finished_at"]
            assert run["target"].startswith("openai http://127.0.0.1:")
        assert "canary" not in json.dumps(whole)


async def test_an_empty_store_is_an_empty_page(start: Start) -> None:
    async with start() as gateway:
        assert await Admin(gateway).done("GET", "/admin/runs") == {
            "object": "list",
            "data": [],
            "has_more": False,
            "first_id": None,
            "last_id": None,
            "counts": {"waiting": 0, "running": 0, "kept": 0, "bytes": 0},
        }


async def test_a_run_of_any_caller_can_be_cancelled_and_that_is_idempotent(
    start: Start, upstream: Scripted
) -> None:
    async with start(**ANN) as gateway, gateway.client(key=OTHER_KEY) as client:
        admin = Admin(gateway)
        run = await client.responses.create(
            model="m", input="[[words=500 delay=0.05]]", background=True
        )
        await eventually(lambda: upstream.seen.open == 1)
        path = f"/admin/runs/{run.id}/cancel"
        cancelled = await admin.done("POST", path)
        assert upstream.seen.open == 0
        assert (cancelled["object"], cancelled["state"]) == ("run", "cancelled")
        assert "output" not in cancelled
        assert await admin.done("POST", path) == cancelled
        assert (await client.responses.retrieve(run.id)).status == "cancelled"


async def test_a_run_that_has_ended_otherwise_is_not_cancelled(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        run = await client.responses.create(model="m", input="hi", background=True)
        await finished(client, run.id)
        reply = await Admin(gateway).ask("POST", f"/admin/runs/{run.id}/cancel")
        assert (reply.status, reply.error["param"]) == (400, "response_id")
        assert reply.error["message"] == "The run has ended: it is completed."


async def test_settings_are_shown_with_their_sources_and_without_secrets(start: Start) -> None:
    async with start(**ANN) as gateway:
        shown = await Admin(gateway).done("GET", "/admin/settings")
        assert (shown["state"], shown["problem"]) == ("current", None)
        assert shown["file"].endswith("data.toml")
        settings = shown["settings"]
        assert settings["background.enabled"] == {
            "value": "True",
            "source": "file [background] enabled",
        }
        assert settings["server.port"]["source"] == "flag --port"
        assert settings["callers.ann.models"]["value"] == "m"
        assert settings["callers.ann.executor"]["value"] == "inherit"
        assert settings["upstream.api_key"]["value"] == f"…{UPSTREAM_KEY[-4:]}"
        text = json.dumps(shown)
        for secret in (UPSTREAM_KEY, OTHER_KEY, CALLER_KEY):
            assert secret not in text


async def test_a_reload_takes_the_new_settings_or_says_what_is_wrong_with_them(
    start: Start,
) -> None:
    async with start(**ANN) as gateway:
        admin = Admin(gateway)
        file = gateway.gateway.settings.file
        assert file is not None
        file.write_text(file.read_text() + "[callers.bob]\n[server]\nheartbeat = 9\n")
        assert await admin.done("POST", "/admin/reload") == {
            "object": "reload",
            "callers": 3,
            "runs_revoked": 0,
            "needs_restart": ["server.heartbeat"],
        }
        assert (await admin.key("bob"))["caller"] == "bob"
        file.write_text("[callers.ann]\nmodels = 5\n")
        reply = await admin.ask("POST", "/admin/reload", b"{}")
        assert (reply.status, reply.error["code"]) == (400, "settings_invalid")
        assert reply.error["message"] == (
            f"The settings in force stay as they are. {file}: callers.ann.models: must be a list "
            "of texts that are not empty."
        )
        shown = await admin.done("GET", "/admin/settings")
        assert (shown["state"], "callers.ann.models" in shown["problem"]) == ("stale", True)
        assert (await admin.key("bob"))["caller"] == "bob"


async def test_a_reload_cancels_what_callers_who_are_gone_have_running(
    start: Start, upstream: Scripted
) -> None:
    async with start(**ANN) as gateway, gateway.client(key=OTHER_KEY) as client:
        await client.responses.create(model="m", input="[[words=500 delay=0.05]]", background=True)
        await eventually(lambda: upstream.seen.open == 1)
        file = gateway.gateway.settings.file
        assert file is not None
        file.write_text("[background]\nenabled = true\n")
        done = await Admin(gateway).done("POST", "/admin/reload")
        assert (done["callers"], done["runs_revoked"]) == (1, 1)
        await eventually(lambda: upstream.seen.open == 0)


async def test_the_admin_key_is_changed_by_deleting_its_file_and_reloading(start: Start) -> None:
    async with start() as gateway:
        admin, old = Admin(gateway), admin_key(gateway)
        (gateway.gateway.settings.data_dir / "admin.key").unlink()
        reply = await admin.ask("POST", "/admin/reload", key=old)
        assert reply.status == 200
        assert admin_key(gateway) != old
        assert (await admin.ask("GET", "/admin/keys", key=old)).status == 401
        assert (await admin.ask("GET", "/admin/keys")).status == 200


async def test_a_caller_may_not_have_the_admin_key(start: Start) -> None:
    async with start(toml="") as gateway:
        admin, key, file = Admin(gateway), admin_key(gateway), gateway.gateway.settings.file
        assert file is not None
        digest = hashlib.sha256(key.encode()).hexdigest()
        file.write_text(f'[callers.ann]\nkey_sha256 = "{digest}"\n')
        words = "admin.key: is also the key of the caller"
        reply = await admin.ask("POST", "/admin/reload")
        assert f"{words} 'ann'" in reply.error["message"]
        assert key not in reply.error["message"]
    with pytest.raises(ConfigInvalid, match=f"{words} 'ann'"):
        async with start():
            pass
    file.write_text("")
    with pytest.raises(ConfigInvalid, match=f"{words} 'default'"):
        async with start(environment={"HANDRAIL_CALLER_KEY": key}):
            pass
