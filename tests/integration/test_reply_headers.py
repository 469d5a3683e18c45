"""What an upstream's reply headers say to a caller: only what is on the list."""

from collections.abc import Mapping

import pytest

from tests.conftest import BACKGROUND, Scripted, Start
from tests.integration.test_lifecycle import finished
from tests.raw_http import Reply, ask, connected, get, post
from tests.scripted_upstream import PASSED_HEADERS, PRIVATE_HEADERS

CREATE = b"POST /v1/responses HTTP/1.1"
COMPACT = b"POST /v1/responses/compact HTTP/1.1"
INPUT_TOKENS = b"POST /v1/responses/input_tokens HTTP/1.1"

BODY = b'{"model":"m","input":"%b","stream":%b}'
CALLS = {
    "create": post(BODY % (b"hi", b"false"), line=CREATE),
    "create, streamed": post(BODY % (b"hi", b"true"), line=CREATE),
    "create, refused": post(BODY % (b"[[status=400]]", b"false"), line=CREATE),
    "create, limited": post(BODY % (b"[[status=429]]", b"true"), line=CREATE),
    "create, not authorised": post(BODY % (b"[[status=401]]", b"false"), line=CREATE),
    "create, broken off": post(BODY % (b"[[drop=1]]", b"true"), line=CREATE),
    "compact": post(line=COMPACT),
    "compact, refused": post(BODY % (b"[[status=500]]", b"false"), line=COMPACT),
    "input_tokens": post(line=INPUT_TOKENS),
    "models": get("/v1/models"),
    "one model": get("/v1/models/scripted"),
}
# Where the upstream's own words about one call are of use to whoever made it.
TELLING = {"create", "create, streamed", "create, broken off", "compact", "input_tokens"}

# Everything that a reply of ours may carry beside what is passed on.
OURS = {
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "handrail-attempts",
    "handrail-decision",
    "handrail-upstream-request-id",
    "keep-alive",
    "retry-after",
    "transfer-encoding",
    "x-accel-buffering",
    "x-content-type-options",
    "x-request-id",
    "x-should-retry",
}


async def reply_to(port: int, request: bytes) -> Reply:
    """The reply; the body of a stream is read to its end."""
    async with connected(port) as wire:
        reply = await (await wire.send(request)).reply()
        assert reply is not None
        return reply


def private(headers: Mapping[str, str]) -> set[str]:
    """Which headers, or values, of the upstream's private ones are there."""
    values = {value for value in PRIVATE_HEADERS.values() if len(value) > 5}
    named = {name for name in headers if name in PRIVATE_HEADERS}
    return named | {name for name, value in headers.items() if value in values}


@pytest.mark.parametrize("manners", ["openai", "codex"])
async def test_the_model_that_the_upstream_names_in_a_header_never_reaches_a_caller(
    start: Start, manners: str
) -> None:
    # Codex CLI tells its user that the account was flagged when it is not the model it asked for.
    async with start(manners=manners) as gateway:
        for name, request in CALLS.items():
            reply = await reply_to(gateway.port, request)
            assert not {"openai-model", "x-openai-model"} & set(reply.headers), name
            assert b"gpt-rerouted" not in reply.body


@pytest.mark.parametrize("manners", ["openai", "codex"])
async def test_no_account_cookie_organisation_or_quota_of_the_upstream_comes_back(
    start: Start, manners: str
) -> None:
    async with start(manners=manners) as gateway:
        for name, request in CALLS.items():
            reply = await reply_to(gateway.port, request)
            assert private(reply.headers) == set(), name
            assert set(reply.headers) <= OURS | set(PASSED_HEADERS), name


async def test_what_is_of_use_to_the_caller_is_passed_on_with_our_own_request_id(
    start: Start,
) -> None:
    async with start() as gateway:
        for name, request in CALLS.items():
            reply = await reply_to(gateway.port, request)
            passed = {key: reply.headers[key] for key in PASSED_HEADERS if key in reply.headers}
            assert passed == (PASSED_HEADERS if name in TELLING else {}), name
            assert reply.headers["x-request-id"].startswith("req_")
            assert reply.headers["x-request-id"] != "req_upstream"
            theirs = reply.headers.get("handrail-upstream-request-id")
            assert theirs == ("req_upstream" if name in TELLING else None)


async def test_a_background_response_shows_no_header_of_its_upstream_call(
    start: Start, upstream: Scripted
) -> None:
    async with start(**BACKGROUND) as gateway, gateway.client() as client:
        create = await ask(gateway.port, post(b'{"model":"m","input":"hi","background":true}'))
        assert create is not None
        response_id = create.body.partition(b'"id":"')[2].partition(b'"')[0].decode()
        await finished(client, response_id)
        for target in (response_id, f"{response_id}?stream=true", f"{response_id}/input_items"):
            reply = await reply_to(gateway.port, get(f"/v1/responses/{target}"))
            assert reply.status == 200
            assert set(reply.headers) <= OURS
            assert b"canary" not in reply.body
            assert b"rerouted" not in reply.body
        assert set(create.headers) <= OURS
