"""What a web page can make a browser send to loopback, and names that we are not served under."""

import gzip
from itertools import product

import pytest

from tests.conftest import CALLER_KEY, Scripted, Start
from tests.raw_http import GOOD, Reply, ask, everything, get, head, post

MALFORMED_HOSTS = {
    "empty": b"",
    "slash": b"127.0.0.1/v1",
    "slash first": b"/127.0.0.1",
    "question mark": b"127.0.0.1?x",
    "number sign": b"127.0.0.1#x",
    "at sign": b"evil.test@127.0.0.1",
    "at sign behind": b"127.0.0.1@evil.test",
    "backslash": b"127.0.0.1\\x",
    "a list": b"127.0.0.1, evil.test",
    "two words": b"127.0.0.1 evil.test",
    "tab": b"127.0.0.1\tx",
    "scheme": b"http://127.0.0.1",
    "port of six digits": b"127.0.0.1:123456",
    "port of letters": b"127.0.0.1:http",
    "no port": b"127.0.0.1:",
    "two ports": b"127.0.0.1:80:80",
    "percent": b"127.0.0.1%00",
    "zone": b"[fe80::1%25lo]",
    "open bracket": b"[::1",
    "no bracket": b"::1",
    "brackets around nothing": b"[]",
    "brackets around a name": b"[localhost]",
    "behind the bracket": b"[::1]x",
    "quotes": b'"127.0.0.1"',
    "byte above 127": b"127.0.0.1\xe9",
    "300 letters": b"a" * 300,
}

FOREIGN_HOSTS = {
    "rebinding": b"attacker.test",
    "rebinding with our port": b"attacker.test:8787",
    "ours as a label": b"127.0.0.1.attacker.test",
    "ours as a prefix": b"localhost.attacker.test",
    "ours as a suffix": b"notlocalhost",
    "trailing dot": b"localhost.",
    "number": b"2130706433",
    "hexadecimal": b"0x7f.0.0.1",
    "short": b"127.1",
    "another loopback address": b"127.0.0.2",
    "any": b"0.0.0.0",
    "any, IPv6": b"[::]",
    "mapped": b"[::ffff:127.0.0.1]",
    "spelt out": b"[0:0:0:0:0:0:0:1]",
    "link local": b"169.254.169.254",
    "allowed elsewhere": b"gateway.internal",
}

OWN_HOSTS = [
    b"127.0.0.1",
    b"127.0.0.1:8787",
    b"localhost",
    b"LOCALHOST:65535",
    b"[::1]",
    b"[::1]:8787",
]

ORIGINS = [
    b"https://attacker.test",
    b"http://localhost",
    b"http://127.0.0.1:8787",
    b"null",
    b"file://",
    b"chrome-extension://abcdefghijklmnop",
    b"http://attacker.test\xe9",
]

KINDS = [
    None,
    b"",
    b"text/plain",
    b"text/plain;charset=UTF-8",
    b"application/x-www-form-urlencoded",
    b"multipart/form-data; boundary=x",
    b"text/json",
    b"application/json-patch+json",
    b"application/jsonx",
    b"application/x-ndjson",
    b"application/csp-report",
    b"text/plain; application/json",
    b"text/plain, application/json",
    b"*/*",
]

ROUTES = ["/v1/responses", "/v1/responses/resp_1/cancel", "/v1/models", "/healthz", "/nowhere"]


def cross_origin(reply: Reply) -> list[str]:
    """The headers that would open the reply to a web page."""
    prefixes = ("access-control-", "timing-allow-", "cross-origin-resource-")
    return [name for name in reply.headers if name.startswith(prefixes)]


@pytest.mark.parametrize("target", ["/v1/responses", "/v1/models", "/healthz"])
async def test_a_host_that_is_no_host_or_not_ours_is_refused_with_a_valid_key_too(
    start: Start, upstream: Scripted, target: str
) -> None:
    expected = {**dict.fromkeys(MALFORMED_HOSTS, 400), **dict.fromkeys(FOREIGN_HOSTS, 421)}
    line = b"POST /v1/responses HTTP/1.1" if target == "/v1/responses" else None
    async with start() as gateway:
        seen: dict[str, int] = {}
        for name, host in {**MALFORMED_HOSTS, **FOREIGN_HOSTS}.items():
            request = post(line=line, host=host) if line else get(target, host=host)
            [reply] = await everything(gateway.port, request)
            seen[name] = reply.status
            assert reply.error["type"] == "invalid_request_error"
            assert cross_origin(reply) == []
        assert seen == expected
        assert upstream.seen.calls == 0


async def test_exactly_one_host_is_required(start: Start, upstream: Scripted) -> None:
    two = [b"Host: 127.0.0.1", b"Host: attacker.test", b"HOST: localhost"]
    async with start() as gateway:
        for request in (
            post(host=None),
            get("/healthz", host=None),
            head(b"POST /v1/responses HTTP/1.0", host=None),
            *(post(GOOD, second) for second in two),
        ):
            [reply] = await everything(gateway.port, request)
            assert (reply.status, reply.error["code"]) == (400, "malformed_request")
        assert upstream.seen.calls == 0


async def test_own_names_are_served_in_any_spelling_and_with_any_port(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        for host in OWN_HOSTS:
            reply = await ask(gateway.port, post(host=host))
            assert reply is not None
            assert reply.status == 200, host
        assert upstream.seen.calls == len(OWN_HOSTS)


async def test_further_names_are_served_when_the_settings_say_so(
    start: Start, upstream: Scripted
) -> None:
    options = {"toml": '[server]\nallowed_hosts = ["Gateway.Internal", "10.0.0.5"]\n'}
    async with start(**options) as gateway:
        for host in (b"gateway.internal", b"GATEWAY.internal:8787", b"10.0.0.5:80"):
            reply = await ask(gateway.port, post(host=host))
            assert reply is not None
            assert reply.status == 200, host
        for host in (b"other.internal", b"x.gateway.internal", b"10.0.0.50"):
            reply = await ask(gateway.port, post(host=host))
            assert reply is not None
            assert reply.status == 421, host
        assert upstream.seen.calls == 3


async def test_a_web_page_is_refused_whatever_its_origin(start: Start, upstream: Scripted) -> None:
    sites = [b"cross-site", b"same-site", b"CROSS-SITE", b"none, cross-site"]
    fields = [b"Origin: " + origin for origin in ORIGINS]
    fields += [b"Sec-Fetch-Site: " + site for site in sites]
    async with start() as gateway:
        for field, target in product(fields, ROUTES):
            line = f"POST {target} HTTP/1.1".encode()
            for request in (post(GOOD, field, line=line), get(target, field)):
                reply = await ask(gateway.port, request)
                assert reply is not None
                assert (reply.status, reply.error["code"]) == (403, "origin_not_allowed")
                assert cross_origin(reply) == []
        assert upstream.seen.calls == 0


async def test_what_a_browsers_address_bar_or_a_program_sends_is_no_web_page(start: Start) -> None:
    async with start() as gateway:
        for field in (b"Sec-Fetch-Site: none", b"Sec-Fetch-Site: same-origin"):
            reply = await ask(gateway.port, get("/healthz", field))
            assert reply is not None
            assert reply.status == 200


async def test_a_second_sec_fetch_site_does_not_hide_the_first(
    start: Start, upstream: Scripted
) -> None:
    fields = (b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Site: none")
    async with start() as gateway:
        reply = await ask(gateway.port, post(GOOD, *fields))
        assert reply is not None
        assert reply.status in (400, 403)
        assert upstream.seen.calls == 0


async def test_a_preflight_is_a_405_without_any_permission(
    start: Start, upstream: Scripted
) -> None:
    asked = (
        b"Access-Control-Request-Method: POST",
        b"Access-Control-Request-Headers: authorization, content-type",
        b"Access-Control-Request-Private-Network: true",
        b"Sec-Fetch-Mode: cors",
    )
    async with start() as gateway:
        for origin, target in product(ORIGINS, ROUTES):
            fields = (b"Origin: " + origin, *asked)
            reply = await ask(gateway.port, get(target, *fields, method="OPTIONS", key=None))
            assert reply is not None
            assert (reply.status, reply.error["code"]) == (405, "method_not_allowed")
            assert cross_origin(reply) == []
        assert upstream.seen.calls == 0


async def test_a_type_that_a_form_could_send_is_refused(start: Start, upstream: Scripted) -> None:
    async with start() as gateway:
        for kind in KINDS:
            packed = post(gzip.compress(GOOD), b"Content-Encoding: gzip", kind=kind)
            for request in (post(kind=kind), packed):
                reply = await ask(gateway.port, request)
                assert reply is not None
                assert (reply.status, reply.error["param"]) == (415, "content-type"), kind
                assert cross_origin(reply) == []
        assert upstream.seen.calls == 0


async def test_a_websocket_of_a_web_page_is_never_opened(start: Start, upstream: Scripted) -> None:
    upgrade = (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Protocol: openai-insecure-api-key." + CALLER_KEY.encode(),
    )
    async with start() as gateway:
        for origin, key, target in product(ORIGINS, (None, gateway.key), ROUTES):
            request = get(target, b"Origin: " + origin, *upgrade, key=key)
            reply = await ask(gateway.port, request)
            assert reply is not None
            assert reply.status == 403
        for target in ROUTES:
            reply = await ask(gateway.port, get(target, *upgrade, key=None))
            assert reply is not None
            assert reply.status == (200 if target == "/healthz" else 401)
        assert upstream.seen.calls == 0


async def test_good_replies_open_nothing_to_web_pages_and_are_not_sniffed(start: Start) -> None:
    stream = b'{"model":"m","input":"hi","stream":true}'
    async with start() as gateway:
        for request in (post(), post(stream), get("/v1/models"), get("/healthz"), get("/readyz")):
            reply = await ask(gateway.port, request)
            assert reply is not None
            assert reply.status == 200
            assert cross_origin(reply) == []
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["cache-control"] in ("no-store", "no-cache")
            assert "set-cookie" not in reply.headers


async def test_a_method_cannot_be_overridden(start: Start, upstream: Scripted) -> None:
    names = [b"X-HTTP-Method-Override", b"X-HTTP-Method", b"X-Method-Override"]
    async with start() as gateway:
        for name in names:
            request = post(GOOD, name + b": POST", line=b"GET /v1/responses?_method=POST HTTP/1.1")
            reply = await ask(gateway.port, request)
            assert reply is not None
            assert reply.status == 405
        assert upstream.seen.calls == 0
