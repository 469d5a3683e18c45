"""Who may call: a key, checked before anything else is looked at."""

from itertools import product

import pytest

from tests.conftest import CALLER_KEY, OTHER_KEY, UPSTREAM_KEY, Scripted, Start, eventually
from tests.integration.test_lifecycle import finished
from tests.raw_http import CREATE, GOOD, ask, chunked, get, head, post

RIGHT = CALLER_KEY.encode()

WRONG: dict[str, tuple[bytes, ...]] = {
    "nothing": (),
    "another key": (b"Authorization: Bearer hr_test-caller-key-9999999999",),
    "a key of somebody else's gateway": (b"Authorization: Bearer " + OTHER_KEY.encode(),),
    "the upstream's credential": (b"Authorization: Bearer " + UPSTREAM_KEY.encode(),),
    "a prefix of the key": (b"Authorization: Bearer " + RIGHT[:-1],),
    "the key and more": (b"Authorization: Bearer " + RIGHT + b"x",),
    "the key twice": (b"Authorization: Bearer " + RIGHT + b" " + RIGHT,),
    "the key in a list": (b"Authorization: Bearer " + RIGHT + b", Bearer x",),
    "the key in other letters": (b"Authorization: Bearer " + RIGHT.upper(),),
    "the key in quotes": (b'Authorization: Bearer "' + RIGHT + b'"',),
    "the key's digest": (b"Authorization: Bearer " + b"0" * 64,),
    "empty": (b"Authorization: Bearer ",),
    "the scheme alone": (b"Authorization: Bearer",),
    "no scheme": (b"Authorization: " + RIGHT,),
    "an empty header": (b"Authorization:",),
    "Basic": (b"Authorization: Basic " + RIGHT,),
    "Basic, encoded": (b"Authorization: Basic aHJfdGVzdC1jYWxsZXIta2V5LTAxMjM0NTY3ODk6",),
    "Digest": (b'Authorization: Digest username="a"',),
    "Token": (b"Authorization: Token " + RIGHT,),
    "null": (b"Authorization: Bearer null",),
    "undefined": (b"Authorization: Bearer undefined",),
    "a quote": (b"Authorization: Bearer ' OR '1'='1' --",),
    "a wildcard": (b"Authorization: Bearer %",),
    "bytes above 127": (b"Authorization: Bearer \xff\xfe",),
    "a very long key": (b"Authorization: Bearer " + b"x" * 20_000,),
    "x-api-key: another key": (b"x-api-key: hr_test-caller-key-9999999999",),
    "x-api-key: empty": (b"x-api-key:",),
    "x-api-key: with a scheme": (b"x-api-key: Bearer " + RIGHT,),
    "two that differ": (b"Authorization: Bearer " + RIGHT, b"x-api-key: " + OTHER_KEY.encode()),
    "two that differ, the other way": (b"Authorization: Bearer other", b"x-api-key: " + RIGHT),
    "Basic beside a right x-api-key": (b"Authorization: Basic eDp5", b"x-api-key: " + RIGHT),
    "a cookie": (b"Cookie: key=" + RIGHT + b"; Authorization=Bearer " + RIGHT,),
    "api-key: another key": (b"api-key: hr_test-caller-key-9999999999",),
    "api-key: with a scheme": (b"api-key: Bearer " + RIGHT,),
    "two plain ones that differ": (b"x-api-key: " + RIGHT, b"api-key: " + OTHER_KEY.encode()),
    "Basic beside a right api-key": (b"Authorization: Basic eDp5", b"api-key: " + RIGHT),
    "another header": (b"apikey: " + RIGHT, b"X-Auth-Token: " + RIGHT),
    "underscores": (
        b"x_api_key: " + RIGHT,
        b"api_key: " + RIGHT,
        b"http_authorization: Bearer " + RIGHT,
    ),
    "a proxy's header": (b"Proxy-Authorization: Bearer " + RIGHT,),
    "WebSocket protocol": (b"Sec-WebSocket-Protocol: openai-insecure-api-key." + RIGHT,),
}

PLACEHOLDERS = ["sk-1234", "changeme", "your-api-key", "test", "EMPTY", "none", "dummy", "local"]

PROXY_SAYS = [
    b"X-Forwarded-For: 127.0.0.1",
    b"X-Real-IP: 127.0.0.1",
    b"Forwarded: for=127.0.0.1;host=localhost;proto=https",
    b"X-Forwarded-Host: localhost",
    b"X-Forwarded-User: admin",
    b"X_Forwarded_User: admin",
    b"X-Remote-User: admin",
    b"X-Original-URL: /healthz",
    b"X-Rewrite-URL: /healthz",
    b"X-Forwarded-Uri: /healthz",
    b"X-Forwarded-Prefix: /healthz",
    b"X-Forwarded-Proto: https",
    b"Connection: Authorization",
    b"Via: 1.1 trusted",
]

ROUTES = [
    ("POST", "/v1/responses"),
    ("GET", "/v1/responses/resp_1"),
    ("GET", "/v1/responses/resp_1?stream=true"),
    ("POST", "/v1/responses/resp_1/cancel"),
    ("DELETE", "/v1/responses/resp_1"),
    ("GET", "/v1/responses/resp_1/input_items"),
    ("POST", "/v1/responses/compact"),
    ("POST", "/v1/responses/input_tokens"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/m"),
]

ELSEWHERE = [
    "/", "/v1", "/v1/", "/v2/responses", "/v1/unknown", "/administration", "/Admin/keys",
    "/%61dmin/keys", "/v1/../admin/keys", "/metrics",
    "/dashboard", "/docs", "/openapi.json", "/debug", "/.env", "/.git/config",
    "/v1/keys", "/key/generate", "/config", "/health", "/healthz/", "/HEALTHZ", "/healthz/../v1",
    "/healthz/../v1/models", "/healthz;/v1/models", "/healthz%2f..%2fv1/models", "/%68ealthz",
    "/readyz/x", "/v1/healthz", "/healthz/v1/responses", "/static/..%2f..%2fetc/passwd",
]  # fmt: skip


ADMIN = [
    "/admin", "/admin/", "/admin/callers", "/admin/keys", "/admin/keys/key_1/revoke", "/admin/runs",
    "/admin/runs/resp_1/cancel", "/admin/settings", "/admin/reload", "/admin/unknown",
    "/admin/..%2fv1/models", "/admin/../v1/models", "/admin//keys", "/admin?key=1",
]  # fmt: skip


async def test_only_the_right_key_in_the_right_place_opens_any_route(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        for (name, fields), (method, target) in product(WRONG.items(), ROUTES):
            line = f"{method} {target} HTTP/1.1".encode()
            reply = await ask(gateway.port, post(GOOD, *fields, line=line, key=None))
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key"), name
            assert reply.error["type"] == "invalid_request_error"
            assert RIGHT not in reply.body
        assert upstream.seen.calls == 0


async def test_a_key_is_taken_from_any_of_its_headers_and_from_several_when_they_agree(
    start: Start, upstream: Scripted
) -> None:
    right: list[tuple[bytes, ...]] = [
        (b"Authorization: Bearer " + RIGHT,),
        (b"authorization: bearer   " + RIGHT,),
        (b"AUTHORIZATION: BEARER " + RIGHT,),
        (b"api-key: " + RIGHT,),
        (b"API-KEY:  " + RIGHT + b" ",),
        (b"api-key: " + RIGHT, b"x-api-key: " + RIGHT, b"Authorization: Bearer " + RIGHT),
        (b"x-api-key: " + RIGHT,),
        (b"X-Api-Key: " + RIGHT, b"Authorization: Bearer " + RIGHT),
        (b"X-Api-Key: " + RIGHT, b"Authorization: Bearer "),
    ]
    async with start() as gateway:
        for fields in right:
            reply = await ask(gateway.port, post(GOOD, *fields, key=None))
            assert reply is not None
            assert reply.status == 200, fields
        assert upstream.seen.calls == len(right)


async def test_a_placeholder_is_never_a_key(start: Start, upstream: Scripted) -> None:
    async with start() as gateway:
        for key in PLACEHOLDERS:
            for request in (post(key=key), post(GOOD, b"x-api-key: " + key.encode(), key=None)):
                reply = await ask(gateway.port, request)
                assert reply is not None
                assert reply.status == 401, key
        assert upstream.seen.calls == 0


async def test_a_key_in_the_address_is_no_key(start: Start, upstream: Scripted) -> None:
    names = ["key", "api_key", "api-key", "x-api-key", "access_token", "token", "authorization"]
    async with start() as gateway:
        for name in names:
            for value in (gateway.key, f"Bearer%20{gateway.key}"):
                line = f"POST /v1/responses?{name}={value} HTTP/1.1".encode()
                reply = await ask(gateway.port, post(line=line, key=None))
                assert reply is not None
                assert reply.status == 401, name
                reply = await ask(gateway.port, get(f"/v1/models?{name}={value}", key=None))
                assert reply is not None
                assert reply.status == 401, name
        assert upstream.seen.calls == 0


async def test_a_key_in_the_body_is_no_key(start: Start, upstream: Scripted) -> None:
    body = b'{"model":"m","input":"hi","api_key":"%b","authorization":"Bearer %b"}' % (RIGHT, RIGHT)
    async with start() as gateway:
        reply = await ask(gateway.port, post(body, key=None))
        assert reply is not None
        assert reply.status == 401
        assert upstream.seen.calls == 0


@pytest.mark.parametrize("upgrade", [False, True])
async def test_without_a_key_no_path_tells_whether_it_exists(
    start: Start, upstream: Scripted, *, upgrade: bool
) -> None:
    fields = (b"Connection: Upgrade", b"Upgrade: websocket") if upgrade else ()
    async with start() as gateway:
        bodies = set()
        for target, method in product(ELSEWHERE + ADMIN, ("GET", "POST", "DELETE")):
            request = get(target, *fields, method=method, key=None)
            reply = await ask(gateway.port, request)
            assert reply is not None
            assert reply.status == 401, target
            bodies.add(reply.body)
        assert len(bodies) == 1
        assert upstream.seen.calls == 0


async def test_with_a_key_an_unknown_path_is_a_404_in_the_envelope(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        for target, method in product(ELSEWHERE, ("GET", "POST", "DELETE")):
            reply = await ask(gateway.port, get(target, method=method))
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (404, "not_found"), target
        assert upstream.seen.calls == 0


async def test_a_callers_key_opens_nothing_under_admin_and_learns_nothing_of_it(
    start: Start,
) -> None:
    async with start() as gateway:
        bodies = set()
        for target, method in product(ADMIN, ("GET", "POST", "DELETE")):
            for fields in ((b"Authorization: Bearer " + RIGHT,), (b"api-key: " + RIGHT,)):
                reply = await ask(gateway.port, get(target, *fields, method=method, key=None))
                assert reply is not None
                assert (reply.status, reply.error["code"]) == (401, "invalid_api_key"), target
                bodies.add(reply.body)
        assert len(bodies) == 1


async def test_what_a_proxy_would_say_opens_nothing(start: Start, upstream: Scripted) -> None:
    async with start() as gateway:
        for field in PROXY_SAYS:
            reply = await ask(gateway.port, post(GOOD, field, key=None))
            assert reply is not None
            assert reply.status == 401, field
        reply = await ask(gateway.port, post(GOOD, *PROXY_SAYS, key=None))
        assert reply is not None
        assert reply.status == 401
        assert upstream.seen.calls == 0


async def test_health_needs_no_key_and_takes_only_get(start: Start) -> None:
    async with start() as gateway:
        for target in ("/healthz", "/readyz"):
            for key in (None, "wrong", gateway.key):
                reply = await ask(gateway.port, get(target, key=key))
                assert reply is not None
                assert reply.status == 200
            for method in ("POST", "DELETE"):
                reply = await ask(gateway.port, get(target, method=method, key=None))
                assert reply is not None
                assert (reply.status, reply.error["code"]) == (405, "method_not_allowed")


async def test_the_key_is_asked_for_before_body_type_and_method(
    start: Start, upstream: Scripted
) -> None:
    requests = [
        post(b"{", key=None),
        post(GOOD, kind=b"text/plain", key=None),
        post(GOOD, b"Content-Encoding: br", key=None),
        post(GOOD, line=b"DELETE /v1/responses HTTP/1.1", key=None),
        head(CREATE, b"Transfer-Encoding: chunked", key=None) + chunked(GOOD),
    ]
    async with start() as gateway:
        for request in requests:
            reply = await ask(gateway.port, request)
            assert reply is not None
            assert reply.status == 401
        assert upstream.seen.calls == 0


@pytest.mark.parametrize(("method", "suffix"), [("POST", "/cancel"), ("DELETE", "")])
async def test_another_callers_run_goes_on_whatever_one_asks_for(
    start: Start, upstream: Scripted, method: str, suffix: str
) -> None:
    options = {
        "toml": '[background]\nenabled = true\n[callers.other]\nkey_env = "OTHER_KEY"\n',
        "environment": {"OTHER_KEY": OTHER_KEY},
    }
    async with start(**options) as gateway, gateway.client() as client:
        run = await client.responses.create(
            model="m", input="[[words=20 delay=0.02]]", background=True
        )
        await eventually(lambda: upstream.seen.open == 1)
        target = f"/v1/responses/{run.id}{suffix}"
        reply = await ask(gateway.port, get(target, method=method, key=OTHER_KEY))
        assert reply is not None
        assert (reply.status, reply.error["param"]) == (404, "response_id")
        await eventually(lambda: upstream.seen.open == 0)
        assert (await finished(client, run.id)).status == "completed"
