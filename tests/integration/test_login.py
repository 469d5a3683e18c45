"""Signing in with a browser: a real HTTP client plays it, and the mock issuer the issuer."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from handrail.cli.login import Person, SignIn, Way, has_browser
from handrail.core.oauth_refusals import IssuerRefused
from handrail.upstream.oauth import Issuer as Client
from tests.integration.issuers import client_of, running, settings_of
from tests.integration.sign_ins import Page, Stage, check_said, page, refusal
from tests.issuer import Issuer


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running() as server:
        yield server


@pytest.fixture
async def client(issuer: Issuer) -> AsyncIterator[Client]:
    async with client_of(settings_of(issuer.origin)) as made:
        yield made


@pytest.fixture
def stage(client: Client, issuer: Issuer) -> Stage:
    return Stage(client, issuer)


# --- browser --------------------------------------------------------------------------------------


async def test_a_sign_in_with_a_browser(stage: Stage, issuer: Issuer) -> None:
    await stage.run(Way.BROWSER)
    (grant,) = stage.kept
    assert issuer.book.is_live(grant.access)
    assert (grant.email, grant.plan) == ("ann.canary@example.com", "plus")
    ((status, headers, text),) = stage.pages
    assert status == 200
    assert "Look at the terminal" in text
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert issuer.counts == {"requests": 1, "codes": 1}
    assert stage.said[0] == "Sign in, in the browser that opens, or at"
    check_said(stage)
    # It is over: nothing listens there any more.
    with pytest.raises(aiohttp.ClientConnectorError):
        await page(stage.back)


async def test_every_sign_in_has_its_own_state_verifier_and_port(
    client: Client, issuer: Issuer
) -> None:
    seen = []
    for _ in range(2):
        stage = Stage(client, issuer)
        await stage.run(Way.BROWSER)
        query = parse_qs(urlsplit(stage.url).query)
        seen.append((query["state"][0], query["code_challenge"][0]))
        assert len(query["state"][0]) == 43
        assert query["code_challenge_method"] == ["S256"]
        assert urlsplit(stage.back).hostname == "127.0.0.1"
    assert len({*seen[0], *seen[1]}) == 4


async def test_only_the_request_with_the_state_counts(stage: Stage) -> None:
    tried: list[Page] = []

    async def browse(url: str) -> None:
        back = stage.back
        port = urlsplit(back).port
        tried.append(await page(f"http://localhost:{port}/favicon.ico"))
        tried.append(await page(back, method="POST"))
        tried.append(await page(f"{back}?code=guess&state=guess"))
        tried.append(await page(f"{back}?error=access_denied"))
        tried.append(await page(f"{back}?code=guess&state=guess", host="evil.example"))
        tried.append(await page(f"{back}?{'x' * 40}=<script>"))
        await stage.follow(url)

    stage.browse = browse
    await stage.run(Way.BROWSER)
    assert [status for status, _, _ in tried] == [404, 405, 400, 400, 421, 400]
    assert all("<script>" not in text for _, _, text in tried)
    assert len(stage.kept) == 1
    assert [line for line in stage.said if "belongs to another sign-in" in line]
    check_said(stage)


async def test_a_socket_that_is_opened_in_advance_is_no_obstacle(stage: Stage) -> None:
    async def browse(url: str) -> None:
        port = urlsplit(stage.back).port
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        idle[0][1].write(b"GET /auth/callback?code=half")
        await stage.follow(url)
        for _, writer in idle:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    stage.browse = browse
    await stage.run(Way.BROWSER)
    assert len(stage.kept) == 1


async def test_more_connections_than_a_browser_makes_are_closed_at_once(stage: Stage) -> None:
    async def browse(url: str) -> None:
        port = urlsplit(stage.back).port
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(17)]
        assert await idle[16][0].read() == b""
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        await stage.follow(url)

    stage.browse = browse
    await stage.run(Way.BROWSER)
    assert len(stage.kept) == 1


async def test_a_head_without_end_changes_nothing(stage: Stage) -> None:
    async def browse(url: str) -> None:
        port = urlsplit(stage.back).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /" + b"x" * 100_000)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        await stage.follow(url)

    stage.browse = browse
    await stage.run(Way.BROWSER)
    assert len(stage.kept) == 1


async def test_a_second_request_with_the_state_finds_the_sign_in_over(
    stage: Stage, issuer: Issuer
) -> None:
    async def browse(url: str) -> None:
        # Both are on their way before the sign-in can have gone on.
        state = parse_qs(urlsplit(url).query)["state"][0]
        port = urlsplit(stage.back).port
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in streams:
            request = f"GET /auth/callback?code=made-up&state={state} HTTP/1.1\r\n"
            writer.write(f"{request}host: 127.0.0.1:{port}\r\n\r\n".encode())
        for reader, writer in streams:
            answers.append((await reader.read()).split(b"\r\n")[0])
            writer.close()

    answers: list[bytes] = []
    stage.browse = browse
    with pytest.raises(IssuerRefused, match="invalid_grant"):
        await stage.run(Way.BROWSER)
    assert sorted(answers) == [b"HTTP/1.1 200 OK", b"HTTP/1.1 410 Gone"]
    assert issuer.counts["requests"] == 1


async def test_a_sign_in_that_is_declined_says_so(stage: Stage, issuer: Issuer) -> None:
    issuer.manners.deny = True
    said = await refusal(stage, Way.BROWSER)
    assert said == "The issuer ended the sign-in: access_denied (The user said no)."
    ((status, _, text),) = stage.pages
    assert status == 400
    assert "The user said no" in text


async def test_a_state_of_another_sign_in_is_told_and_not_taken(
    client: Client, issuer: Issuer
) -> None:
    issuer.manners.bad_state = True
    stage = Stage(client, issuer, browser_seconds=1.0)
    said = await refusal(stage, Way.BROWSER)
    assert said.startswith("No browser came back within 1 s. ")
    assert "--device-code" in said
    assert [status for status, _, _ in stage.pages] == [400]
    assert any("belongs to another sign-in" in line for line in stage.said)
    assert issuer.counts["requests"] == 0


async def test_a_port_that_is_taken_is_named_with_other_ways(
    client: Client, issuer: Issuer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = settings_of(issuer.origin, redirect_port=port)
        said = await refusal(Stage(client, issuer, settings=settings), Way.BROWSER)
    assert f"port {port} of 127.0.0.1" in said
    assert "--paste or --device-code" in said


async def test_the_port_of_the_settings_is_used(client: Client, issuer: Issuer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    stage = Stage(client, issuer, settings=settings_of(issuer.origin, redirect_port=port))
    await stage.run(Way.BROWSER)
    assert stage.back == f"http://127.0.0.1:{port}/auth/callback"


async def test_where_no_browser_opens_the_address_is_said_with_another_way(
    client: Client, issuer: Issuer
) -> None:
    stage = Stage(client, issuer)
    opened = stage.open_page

    def open_page(url: str) -> bool:
        return not opened(url)

    person = Person(say=stage.said.append, ask=stage.ask, open_page=open_page)
    sign_in = SignIn(issuer=client, settings=stage.settings, person=person)
    await sign_in.run(Way.BROWSER, keep=stage.kept.append)
    assert stage.said[0] == "Sign in at"
    assert "--device-code" in stage.said[-1]


@pytest.mark.parametrize(
    ("environment", "platform", "opens"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ""}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "a b"}, "linux", False),
        ({"DISPLAY": ":10", "SSH_TTY": "/dev/pts/1"}, "linux", False),
        ({}, "darwin", True),
        ({"SSH_TTY": "x"}, "darwin", False),
        ({}, "win32", True),
    ],
)
def test_a_browser_is_opened_only_where_there_is_a_screen(
    environment: dict[str, str], platform: str, opens: bool
) -> None:
    assert has_browser(environment, platform) is opens
