"""Ids, paths and queries that somebody made up to see what happens: nothing does."""

import json
import socket
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.conftest import BACKGROUND, Running, Scripted, Start
from tests.integration.test_lifecycle import finished
from tests.raw_http import Reply, ask, everything, get, head, post

TRAVERSALS = [
    "..", "../..", "../models", "../../etc/passwd", "..%2f..%2fmodels", "%2e%2e", "%2e%2e%2fmodels",
    "%252e%252e%252fmodels", "....//models", "..;/models", "resp_1/..", "resp_1/../resp_2",
    "resp_1%2f..%2fresp_2", "resp_1/", "/resp_1", "\\..\\..", "%5c..%5c..", "%c0%ae%c0%ae%c0%af",
    "..%00/", "file:///etc/passwd", "http://169.254.169.254/", "@169.254.169.254", "~root",
]  # fmt: skip

INJECTIONS = [
    "'", "%27%20OR%20%271%27=%271", "resp_1'--", '"', "%22", "resp_%", "%25", "_%25", "*", "resp_*",
    "$where", "${jndi:ldap://x/y}", "{{7*7}}", "<script>alert(1)</script>", "%3Cscript%3E", "`id`",
    "$(id)", "|id", "%0d%0aX-Injected:%20yes", "%0a", "%1b[2J", "%00", "resp_1%00", "\x00", "\x7f",
    "resp_1\x01", "\xff", "\xe9", "%ff", "%c3%a9", "%", "%zz", "%u0041", "resp 1", "resp_1;x=y",
    "resp_1.json", "resp_1,resp_2", "resp_1%3Fstream=true", "resp_1%23", "resp_1+1", "resp:1",
    "{id}", "[]", "null", "undefined", "compact", "0", "-1", "-", "_", "x" * 129, "x" * 7_000,
]  # fmt: skip

ROUTES = [
    ("GET", "/v1/responses/{}"),
    ("GET", "/v1/responses/{}?stream=true&starting_after=1"),
    ("POST", "/v1/responses/{}/cancel"),
    ("DELETE", "/v1/responses/{}"),
    ("GET", "/v1/responses/{}/input_items"),
]

PATHS = [
    "/v1/v1/responses", "/v1/responses/", "/v1/responses//", "/v1/%72esponses", "//v1/responses",
    "/v1//responses", "/v1/responses;x", "/v1/responses;x=y", "/V1/responses", "/v1/Responses",
    "/v1/RESPONSES", "/v1/responses%20", "/v1/responses%00", "/v1/responses%0a", "/v1/responses%3f",
    "/v1/responses%23", "/v1/responses.json", "/v1/responses,", "/v1/responses&x=y",
    "/v1/responses\\", "/v1\\responses", "/v1%2fresponses", "/v1%5cresponses", "/%76%31/responses",
    "/v1/./responses", "/v1/../v1/responses", "/v1/x/../responses", "/v1/responses/.",
    "/v1/responses/..", "/./v1/responses", "/../v1/responses", "/v1/%2e/responses",
    "/v1/%2e%2e/v1/responses", "/v1;x/responses", "/responses", "/api/v1/responses",
    "/openai/v1/responses", "/v1/response", "/v1/responses{}", "/v1/responses/{id}",
    "/v1/responses/{id}/cancel", "/v1/responses/compact/", "/v1/responses/input_tokens/",
    "/v1/responses/%63ompact", "/v1/responses%2fcompact", "/v1/responses/Compact",
    "/v1/responses//compact", "/v1/v1/responses/compact", "/responses/compact",
    "/v1/responses/compact.json", "/v1/responses/compact;x", "/v1/responses/x/../compact",
    "/v1/responses/input%5ftokens", "/v1/responses/compact/input_tokens",
    "/v1/responses/resp_1/cancel/", "/v1/responses/resp_1/CANCEL", "/v1/responses/resp_1//cancel",
    "/v1/responses/resp_1/x/cancel", "/v1/responses/resp_1/input_items/1", "/v1/chat/completions",
    "/v1/completions", "/v1/embeddings", "/v1/files", "/v1/conversations", "/", "/v1", "/v1/", "/%",
    "/v1/models/", "/v1/models/../responses", "/v1/models/%2e%2e/responses", "/v1/models/{model}",
    "/v1/models/..", "/v1/models/a%00", "/v1/models/a%0d%0ab", "/v1/models/%ff",
    "/v1/models/a%2f..%2fb", "/v1/models/a%20b", "/v1/models//a", "/v1/models/a/",
    "/v1/models/a//b", "/v1/models/" + "x" * 129, "/v1/models/a/b/c/d/e/f", "/v1/models/a%3Fx=y",
    "/v1/models/http://x/",
]  # fmt: skip

METHODS = [
    ("GET", "/v1/responses", "POST"),
    ("DELETE", "/v1/responses", "POST"),
    ("POST", "/v1/responses/resp_1", "GET, DELETE"),
    ("GET", "/v1/responses/resp_1/cancel", "POST"),
    ("DELETE", "/v1/responses/resp_1/cancel", "POST"),
    ("POST", "/v1/responses/resp_1/input_items", "GET"),
    ("DELETE", "/v1/responses/resp_1/input_items", "GET"),
    ("GET", "/v1/responses/compact", "POST"),
    ("DELETE", "/v1/responses/compact", "POST"),
    ("GET", "/v1/responses/input_tokens", "POST"),
    ("POST", "/v1/models", "GET"),
    ("DELETE", "/v1/models", "GET"),
    ("POST", "/v1/models/m", "GET"),
    ("DELETE", "/v1/models/m", "GET"),
]

NUMBERS = [
    "-1", "1.5", "x", "", "0x1", "1e3", "%201", "%2B1", "1%20", "%D9%A3", "%EF%BC%91", "1_0",
    "null", "true", "[1]", "1,2", "NaN", "9" * 19, "9" * 40, "9" * 5_000,
]  # fmt: skip

# The query of a GET, and the parameter that its answer names.
STREAM_QUERIES = [
    *((f"stream={value}", "stream") for value in ("1", "0", "yes", "on", "True", "null", "")),
    *((f"stream=true&starting_after={number}", "starting_after") for number in NUMBERS),
    (f"stream=true&starting_after={2**53}", "starting_after"),
    (f"stream=true&starting_after={2**63}", "starting_after"),
    ("starting_after=1", "starting_after"),
    ("stream=false&starting_after=1", "starting_after"),
    ("stream=true&include_obfuscation=maybe", "include_obfuscation"),
    ("stream=true&include_obfuscation=1", "include_obfuscation"),
    ("stream=true&stream=true", "stream"),
    ("stream=true&stream=false", "stream"),
    ("stream=true&starting_after=1&starting_after=2", "starting_after"),
    ("stream=true&%73tream=true", "stream"),
    ("x=1&x=2", "x"),
    ("stream=%ff", "query"),
    ("%ff=1", "query"),
    ("stream=%ed%a0%80", "query"),
    ("&".join(f"a{number}=1" for number in range(33)), "query"),
    ("&".join(f"a{number}=1" for number in range(800)), "query"),
]

ITEM_QUERIES = [
    *((f"limit={number}", "limit") for number in NUMBERS),
    *((f"limit={number}", "limit") for number in ("0", "101", "1000", "00000", "4294967297")),
    *((f"order={order}", "order") for order in ("up", "ASC", "", "asc%00", "asc;drop", "-1")),
    *(
        (f"after={item}", "after")
        for item in (
            "x",
            "%27%20OR%201=1",
            "..%2f",
            "%00",
            "msg_%25",
            "%0d%0ax:y",
            "0",
            "x" * 5_000,
        )
    ),
    ("limit=1&limit=2", "limit"),
    ("order=asc&order=desc", "order"),
    ("after=%ff", "query"),
    ("&".join(f"a{number}=1" for number in range(33)), "query"),
]


class NobodyThere:
    """An upstream that nobody may call: it listens, and tells whether somebody has connected."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"

    def was_called(self) -> bool:
        """Whether a connection is waiting."""
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def nobody() -> Iterator[NobodyThere]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield NobodyThere(sock)


def options(nobody: NobodyThere) -> dict[str, Any]:
    """Start options: background on, and an upstream that nobody may call."""
    return {"flags": {"background.enabled": True, "upstream.url": nobody.url}}


async def refused(gateway: Running, request: bytes) -> Reply:
    """The answer: a 4xx in the envelope."""
    reply = await ask(gateway.port, request)
    assert reply is not None
    assert 400 <= reply.status < 500, (reply.status, request[:200])
    assert reply.error["type"] == "invalid_request_error"
    assert "x-injected" not in reply.headers
    return reply


async def test_an_id_that_nobody_gave_out_is_a_4xx_on_every_route(
    start: Start, nobody: NobodyThere
) -> None:
    async with start(**options(nobody)) as gateway:
        for (method, route), hostile in product(ROUTES, (*TRAVERSALS, *INJECTIONS)):
            target = route.format(hostile)
            reply = await refused(gateway, get(target, method=method))
            assert reply.status in (400, 404, 405, 414), target
        assert not nobody.was_called()


async def test_an_unknown_id_is_a_404_that_names_the_parameter(
    start: Start, nobody: NobodyThere
) -> None:
    async with start(**options(nobody)) as gateway:
        for (method, route), unknown in product(ROUTES, ("resp_1", "resp_" + "0" * 48, "compac")):
            reply = await refused(gateway, get(route.format(unknown), method=method))
            assert (reply.status, reply.error["param"]) == (404, "response_id")
            assert unknown in reply.error["message"]
        assert not nobody.was_called()


async def test_a_path_that_only_resembles_a_route_is_no_route(
    start: Start, nobody: NobodyThere
) -> None:
    async with start(**options(nobody)) as gateway:
        for path in PATHS:
            create = head(f"POST {path} HTTP/1.1".encode("latin-1"), b"Content-Length: 0")
            for request in (create, get(path), get(path, method="DELETE")):
                reply = await refused(gateway, request)
                assert reply.status in (400, 404, 405), path
        assert not nobody.was_called()


async def test_a_create_under_another_path_goes_nowhere(start: Start, nobody: NobodyThere) -> None:
    async with start(**options(nobody)) as gateway:
        for path in PATHS:
            line = f"POST {path} HTTP/1.1".encode("latin-1")
            reply = await refused(gateway, post(line=line))
            assert reply.status in (400, 404, 405), path
        assert not nobody.was_called()


async def test_a_method_that_a_route_does_not_have_is_a_405_that_names_those_it_has(
    start: Start, nobody: NobodyThere
) -> None:
    async with start(**options(nobody)) as gateway:
        for method, path, allowed in METHODS:
            reply = await refused(gateway, get(path, method=method))
            assert (reply.status, reply.error["code"]) == (405, "method_not_allowed"), path
            assert reply.headers["allow"] == allowed
        assert not nobody.was_called()


async def test_a_model_of_dots_does_not_climb_in_the_upstreams_address(
    start: Start, nobody: NobodyThere
) -> None:
    async with start(**options(nobody)) as gateway:
        for model in (".", "./a", "a/.", "a/./b", "%2e", "a%2f.%2fb"):
            [reply] = await everything(gateway.port, get(f"/v1/models/{model}"), seconds=1)
            assert (reply.status, reply.error["param"]) == (404, "model")
        assert not nobody.was_called()


@pytest.mark.parametrize("exists", [False, True])
async def test_a_hostile_query_is_a_400_that_names_the_parameter(
    start: Start, upstream: Scripted, *, exists: bool
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        response_id = "resp_1"
        if exists:
            response_id = (await client.responses.create(model="m", input="hi", background=True)).id
            await finished(client, response_id)
        expected = [(f"/v1/responses/{response_id}", *case) for case in STREAM_QUERIES]
        expected += [(f"/v1/responses/{response_id}/input_items", *case) for case in ITEM_QUERIES]
        for path, query, param in expected:
            reply = await refused(gateway, get(f"{path}?{query}"))
            wanted = (400, param)
            if not exists and param == "after":
                wanted = (404, "response_id")
            assert (reply.status, reply.error["param"]) == wanted, query[:100]
            assert len(reply.body) < 1_000
        assert upstream.seen.calls == int(exists)


async def test_a_limit_with_leading_zeros_is_still_bounded(start: Start) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        queued = await client.responses.create(model="m", input="hi", background=True)
        path = f"/v1/responses/{queued.id}/input_items"
        for limit in ("0100999", "0001" + "0" * 20, "0001" + "1" * 5_000):
            reply = await refused(gateway, get(f"{path}?limit={limit}"))
            assert (reply.status, reply.error["param"]) == (400, "limit")


async def test_a_query_where_none_belongs_changes_nothing(start: Start, upstream: Scripted) -> None:
    queries = ["stream=true", "background=true", "%ff", "store=true&store=false", "x" * 5_000]
    async with start(**BACKGROUND) as gateway:
        for number, query in enumerate(queries, start=1):
            reply = await ask(
                gateway.port, post(line=f"POST /v1/responses?{query} HTTP/1.1".encode())
            )
            assert reply is not None
            assert (reply.status, upstream.seen.calls) == (200, number)
            body = json.loads(reply.body)
            assert (body["status"], body["store"]) == ("completed", False)
            assert upstream.last["stream"] is False
