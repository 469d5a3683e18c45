"""Calls through a forward proxy, over real sockets; only the proxy can resolve the upstream."""

import base64
import io
import json
from typing import Any

import openai
import pytest

from handrail import telemetry
from tests.conftest import UPSTREAM_KEY, Scripted, Start, eventually
from tests.forward_proxy import ForwardProxy, forward_proxy

NOWHERE = "http://upstream.test"  # .test is never given to anybody, so no resolver knows it
PASSWORD = "s3cr3t-of-the-proxy"


@pytest.fixture
def log(start: Start) -> io.StringIO:
    """All that is logged, from debug upwards."""
    stream = io.StringIO()
    telemetry.configure("debug", stream=stream)
    return stream


def options(url: str = f"{NOWHERE}/openai/v1", **variables: str) -> dict[str, Any]:
    """Start options: an upstream that only a proxy finds, and these variables."""
    return {"flags": {"upstream.url": url}, "environment": variables}


def at(proxy: ForwardProxy, login: str = "") -> str:
    """The proxy's URL."""
    return f"http://{login}127.0.0.1:{proxy.port}"


async def test_an_http_upstream_is_called_through_the_proxy_by_its_whole_url(
    start: Start, upstream: Scripted
) -> None:
    async with (
        forward_proxy(upstream.port) as proxy,
        start(**options(f"{NOWHERE}:8080/openai/v1", http_proxy=at(proxy))) as gateway,
        gateway.client() as client,
    ):
        response = await client.responses.create(model="m", input="hi [[words=3]]")
        assert len(response.output_text.split()) == 3
        stream = await client.responses.create(model="m", input="hi", stream=True)
        assert [event.type async for event in stream][-1] == "response.completed"
        assert [model.id async for model in client.models.list()] == ["scripted"]
        assert proxy.asked == [
            f"POST {NOWHERE}:8080/openai/v1/responses HTTP/1.1",
            f"POST {NOWHERE}:8080/openai/v1/responses HTTP/1.1",
            f"GET {NOWHERE}:8080/openai/v1/models HTTP/1.1",
        ]
        assert proxy.headers[0]["host"] == "upstream.test:8080"
        sent = upstream.seen.requests[-1]["headers"]
        assert sent["Authorization"] == f"Bearer {UPSTREAM_KEY}"


async def test_the_proxys_login_goes_to_the_proxy_and_nowhere_else(
    start: Start, upstream: Scripted, log: io.StringIO
) -> None:
    wanted = "Basic " + base64.b64encode(f"ann:{PASSWORD}/ü".encode()).decode()
    login = f"ann:{PASSWORD}%2F%C3%BC@"
    async with (
        forward_proxy(upstream.port, login=wanted) as proxy,
        start(**options(all_proxy=at(proxy, login))) as gateway,
        gateway.client() as client,
    ):
        assert (await client.responses.create(model="m", input="hi")).status == "completed"
        assert proxy.headers[0]["proxy-authorization"] == wanted
        assert PASSWORD not in json.dumps(upstream.seen.requests)
        assert PASSWORD not in repr(gateway.gateway.settings)
        proxy.login = "another from now on"
        with pytest.raises(openai.APIStatusError) as error:
            await client.responses.create(model="m", input="hi")
        assert PASSWORD not in error.value.response.text
    said = log.getvalue()
    assert "upstream_unreachable" in said
    assert PASSWORD not in said
    assert wanted not in said


async def test_a_proxy_that_wants_another_login_is_our_problem_and_not_the_callers(
    start: Start, upstream: Scripted
) -> None:
    async with (
        forward_proxy(upstream.port, login="Basic x") as proxy,
        start(**options(HTTP_PROXY=at(proxy))) as gateway,
        gateway.client() as client,
    ):
        with pytest.raises(openai.APIStatusError, match="answered 407") as error:
            await client.responses.create(model="m", input="hi")
        assert (error.value.status_code, error.value.code) == (502, "upstream_unreachable")
        assert upstream.seen.calls == 0


@pytest.mark.parametrize("status", ["403 Forbidden", "407 Proxy Authentication Required"])
async def test_a_tunnel_that_the_proxy_refuses_is_a_502_and_nothing_was_sent(
    start: Start, upstream: Scripted, log: io.StringIO, status: str
) -> None:
    async with (
        forward_proxy(upstream.port, refuses=status) as proxy,
        start(
            **options("https://upstream.test/v1", HTTPS_PROXY=at(proxy, f"ann:{PASSWORD}@"))
        ) as gateway,
        gateway.client() as client,
    ):
        with pytest.raises(openai.APIStatusError, match=f"answered {status[:3]}") as error:
            await client.responses.create(model="m", input="hi")
        assert (error.value.status_code, error.value.code) == (502, "upstream_unreachable")
        assert proxy.asked == ["CONNECT upstream.test:443 HTTP/1.1"]
        assert UPSTREAM_KEY not in str(proxy.headers)
    said = log.getvalue()
    assert "ClientHttpProxyError" in said
    assert PASSWORD not in said


async def test_a_proxy_that_is_down_is_a_502_that_names_no_secret(start: Start) -> None:
    dead = f"http://ann:{PASSWORD}@127.0.0.1:1"
    async with start(**options(http_proxy=dead)) as gateway, gateway.client() as client:
        with pytest.raises(openai.APIStatusError, match="through its proxy") as error:
            await client.responses.create(model="m", input="hi")
        assert (error.value.status_code, error.value.code) == (502, "upstream_unreachable")
        assert PASSWORD not in error.value.response.text


async def test_an_upstream_on_this_machine_is_called_directly(
    start: Start, upstream: Scripted
) -> None:
    dead = "http://127.0.0.1:1"
    variables = {"http_proxy": dead, "HTTPS_PROXY": dead, "ALL_PROXY": "socks5://127.0.0.1:1"}
    async with start(environment=variables) as gateway, gateway.client() as client:
        assert (await client.responses.create(model="m", input="hi")).status == "completed"


async def test_an_upstream_in_no_proxy_is_called_directly(start: Start, upstream: Scripted) -> None:
    async with (
        forward_proxy(upstream.port) as proxy,
        start(**options(http_proxy=at(proxy), no_proxy=".test, example.org")) as gateway,
        gateway.client() as client,
    ):
        with pytest.raises(openai.APIStatusError, match="cannot be reached"):
            await client.responses.create(model="m", input="hi")
        assert proxy.asked == []


async def test_a_background_response_goes_through_the_proxy_too(
    start: Start, upstream: Scripted
) -> None:
    async with forward_proxy(upstream.port) as proxy:
        settings = options(http_proxy=at(proxy))
        settings["flags"]["background.enabled"] = True
        async with start(**settings) as gateway, gateway.client() as client:
            queued = await client.responses.create(model="m", input="hi", background=True)
            await eventually(lambda: upstream.seen.finished == 1)
            events = [e.type async for e in await client.responses.retrieve(queued.id, stream=True)]
            assert events[-1] == "response.completed"
            assert len(proxy.asked) == 1


async def test_the_upstream_call_is_closed_through_the_proxy_when_its_caller_leaves(
    start: Start, upstream: Scripted
) -> None:
    async with (
        forward_proxy(upstream.port) as proxy,
        start(**options(http_proxy=at(proxy))) as gateway,
        gateway.client() as client,
    ):
        stream = await client.responses.create(
            model="m", input="[[words=500 delay=0.05]]", stream=True
        )
        await eventually(lambda: upstream.seen.open == 1)
        await stream.close()
        await eventually(lambda: upstream.seen.open == 0, seconds=2.0)
