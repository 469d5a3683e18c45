"""The client of OAuth issuers over real sockets: one request a call, and what its end means."""

import asyncio
import contextlib
import dataclasses
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from handrail import telemetry
from handrail.core.oauth import Grant, challenge
from handrail.core.oauth_refusals import IssuerRefused
from handrail.errors import ConfigInvalid, IssuerFailed
from handrail.upstream.oauth import MAX_REPLY
from handrail.upstream.oauth import Issuer as Client
from tests.conftest import eventually
from tests.forward_proxy import forward_proxy
from tests.integration.issuers import CANARY, client_of, granted, running, settings_of, told
from tests.issuer import Issuer

BACK = "http://localhost:1455/auth/callback"
VERIFIER = "verifier-canary-" + "v" * 40


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running() as server:
        yield server


@pytest.fixture
async def client(issuer: Issuer) -> AsyncIterator[Client]:
    async with client_of(settings_of(issuer.origin)) as made:
        yield made


def code(issuer: Issuer, *, redirect_uri: str = BACK) -> str:
    login = issuer.book.login("ann.canary@example.com", "acct-canary-1", "plus")
    return issuer.book.code(login, challenge=challenge(VERIFIER), redirect_uri=redirect_uri)


async def refused(client: Client, grant: Grant) -> IssuerRefused:
    with pytest.raises(IssuerRefused) as caught:
        await client.refresh(grant)
    assert CANARY not in told(caught.value)
    return caught.value


async def failed(client: Client, grant: Grant) -> IssuerFailed:
    with pytest.raises(IssuerFailed) as caught:
        await client.refresh(grant)
    assert CANARY not in told(caught.value)
    return caught.value


# --- refresh --------------------------------------------------------------------------------------


async def test_a_refresh_gives_the_next_grant_in_one_request(
    issuer: Issuer, client: Client
) -> None:
    before = granted(issuer)
    after = await client.refresh(before)
    assert after.access != before.access
    assert after.refresh != before.refresh
    assert (after.email, after.account_id, after.plan) == (
        "ann.canary@example.com",
        "acct-canary-1",
        "plus",
    )
    assert issuer.book.is_live(after.access)
    assert after.expires_at is not None
    assert abs(after.expires_at - issuer.book.now() - 3_600) < 60
    assert issuer.counts == {"requests": 1, "exchanges": 1}
    (seen,) = issuer.requests
    assert seen["type"] == "application/json"
    assert seen["body"] == {
        "client_id": "app_EMoamEEZ73f0CkXaXp7hrann",
        "grant_type": "refresh_token",
        "refresh_token": before.refresh,
        "refresh_reason": "proactive_expiry",
    }
    assert seen["headers"]["Connection"] == "close"
    assert CANARY not in repr((before, after))


async def test_a_hundred_refreshes_in_a_row_are_a_hundred_exchanges(
    issuer: Issuer, client: Client
) -> None:
    grant = granted(issuer)
    for _ in range(100):
        grant = await client.refresh(grant)
    assert issuer.counts == {"requests": 100, "exchanges": 100}


async def test_a_credential_that_was_used_ends_the_whole_login(
    issuer: Issuer, client: Client
) -> None:
    before = granted(issuer)
    after = await client.refresh(before)
    error = await refused(client, before)
    assert (error.refusal.code, error.refusal.permanent) == ("refresh_token_reused", True)
    error = await refused(client, after)
    assert (error.refusal.code, error.refusal.permanent) == ("refresh_token_invalidated", True)
    assert issuer.counts["reuses"] == 1
    assert not issuer.book.is_live(after.access)


async def test_an_end_at_the_issuer_is_permanent_and_says_what_to_do(
    issuer: Issuer, client: Client
) -> None:
    grant, other = granted(issuer), granted(issuer)
    issuer.book.logins[1].account_id = "another"
    issuer.book.end("acct-canary-1", "refresh_token_expired")
    error = await refused(client, grant)
    assert error.refusal.permanent
    assert str(error) == (
        "The login has expired (401 refresh_token_expired). Next: sign in again: handrail "
        "accounts login."
    )
    assert issuer.book.is_live((await client.refresh(other)).access)


async def test_what_the_issuer_leaves_out_stays(issuer: Issuer, client: Client) -> None:
    before = granted(issuer)
    issuer.manners.omit = ["refresh_token", "id_token", "expires_in"]
    after = await client.refresh(before)
    assert (after.refresh, after.email) == (before.refresh, before.email)
    assert after.access != before.access
    assert after.expires_at == int(issuer.book.accesses[after.access][1])


@pytest.mark.parametrize(("manner", "status"), [("fail", 500), ("busy", 429), ("redirect", 307)])
async def test_a_refusal_that_passes_has_used_nothing_up(
    issuer: Issuer, client: Client, manner: str, status: int
) -> None:
    grant = granted(issuer)
    setattr(issuer.manners, manner, 1)
    error = await refused(client, grant)
    assert (error.refusal.status, error.refusal.permanent) == (status, False)
    assert error.refusal.retry_after == (7.0 if manner == "busy" else None)
    assert (await client.refresh(grant)).refresh != grant.refresh
    assert issuer.counts["requests"] == 2
    assert issuer.counts["reuses"] == 0


async def test_a_client_that_the_issuer_does_not_know_is_told_to_look_at_the_settings(
    issuer: Issuer,
) -> None:
    async with client_of(settings_of(issuer.origin, client_id="app_wrong")) as client:
        error = await refused(client, granted(issuer))
    assert "oauth.client_id" in error.refusal.next_step


# --- no answer that is of use ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manner", "words", "exchanges"),
    [
        ("lose", "The issuer closed the connection before it answered (ServerDisconnected", 1),
        ("drop", "The issuer closed the connection before it answered (ServerDisconnected", 0),
        ("garbage", "The issuer's answer cannot be used: it is no JSON.", 1),
        ("huge", f"The issuer's reply is larger than {MAX_REPLY} bytes.", 1),
        ("compressed", "The issuer compressed its reply although it was asked not to.", 1),
    ],
)
async def test_a_request_whose_answer_is_lost_may_have_been_handled(
    issuer: Issuer, client: Client, manner: str, words: str, exchanges: int
) -> None:
    grant = granted(issuer)
    setattr(issuer.manners, manner, 1)
    error = await failed(client, grant)
    assert str(error).startswith(words)
    assert error.sent
    assert issuer.counts["exchanges"] == exchanges
    assert issuer.counts["requests"] == 1


async def test_the_old_credential_after_a_lost_answer_is_reuse_unless_the_issuer_is_lenient(
    issuer: Issuer, client: Client
) -> None:
    strict, lenient = granted(issuer), granted(issuer)
    issuer.manners.lose = 2
    await failed(client, strict)
    await failed(client, lenient)
    assert (await refused(client, strict)).refusal.code == "refresh_token_reused"
    issuer.book.leeway = 60.0
    after = await client.refresh(lenient)
    assert issuer.book.is_live((await client.refresh(after)).access)
    assert (issuer.counts["repeats"], issuer.counts["reuses"]) == (1, 1)
    # What came after has been used: from here on the first one is stolen goods.
    assert (await refused(client, lenient)).refusal.code == "refresh_token_reused"


async def test_an_issuer_that_cannot_be_reached_has_been_sent_nothing(issuer: Issuer) -> None:
    grant = granted(issuer)
    async with client_of(settings_of("http://127.0.0.1:1")) as client:
        error = await failed(client, grant)
    assert not error.sent
    assert str(error).startswith("The issuer http://127.0.0.1:1 cannot be reached")


async def test_an_issuer_that_stalls_is_given_up_and_may_have_handled_it(issuer: Issuer) -> None:
    grant = granted(issuer)
    issuer.manners.slow_after = 30.0
    async with client_of(settings_of(issuer.origin), reply_seconds=0.3) as client:
        error = await failed(client, grant)
    assert error.sent
    assert "did not answer within" in str(error)
    assert issuer.counts["exchanges"] == 1


@asynccontextmanager
async def serving(answer: bytes, *, then: float) -> AsyncIterator[str]:
    """A server that answers anything with these bytes, and one more every `then` seconds."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            while then:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(then)
        writer.close()
        over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await over.wait()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    ("then", "words"),
    [(0.01, "The issuer took longer than"), (0.0, "The issuer broke off its reply")],
)
async def test_an_answer_that_drips_or_breaks_off_is_given_up(
    issuer: Issuer, then: float, words: str
) -> None:
    async with (
        serving(HEAD, then=then) as origin,
        client_of(settings_of(origin), whole_seconds=0.5) as client,
    ):
        error = await failed(client, granted(issuer))
    assert error.sent
    assert str(error).startswith(words)


async def test_a_refresh_that_is_cancelled_may_have_been_handled(
    issuer: Issuer, client: Client
) -> None:
    issuer.manners.slow_after = 30.0
    task = asyncio.create_task(client.refresh(granted(issuer)))
    await eventually(lambda: issuer.counts["exchanges"] == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_two_at_once_for_one_login_are_seen_by_the_mock(
    issuer: Issuer, client: Client
) -> None:
    grant = granted(issuer)
    issuer.manners.slow_before = 0.2
    answers = await asyncio.gather(
        client.refresh(grant), client.refresh(grant), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["Grant", "IssuerRefused"]
    assert (issuer.counts["overlaps"], issuer.counts["reuses"]) == (1, 1)


# --- codes, device codes, revocation --------------------------------------------------------------


async def test_a_code_is_exchanged_as_a_form_and_once(issuer: Issuer, client: Client) -> None:
    given = code(issuer)
    grant = await client.exchange(given, verifier=VERIFIER, redirect_uri=BACK)
    assert issuer.book.is_live(grant.access)
    assert issuer.requests[-1]["type"] == "application/x-www-form-urlencoded"
    with pytest.raises(IssuerRefused, match="invalid_grant") as caught:
        await client.exchange(given, verifier=VERIFIER, redirect_uri=BACK)
    assert CANARY not in told(caught.value)


@pytest.mark.parametrize("wrong", [{"verifier": "other"}, {"redirect_uri": "http://localhost:1"}])
async def test_a_code_needs_its_verifier_and_its_redirect(
    issuer: Issuer, client: Client, wrong: dict[str, str]
) -> None:
    with pytest.raises(IssuerRefused) as caught:
        await client.exchange(code(issuer), **{"verifier": VERIFIER, "redirect_uri": BACK, **wrong})
    assert caught.value.refusal.code == "invalid_grant"


async def test_a_first_grant_without_a_refresh_credential_is_of_no_use(
    issuer: Issuer, client: Client
) -> None:
    issuer.manners.omit = ["refresh_token"]
    with pytest.raises(IssuerFailed, match="no refresh credential") as caught:
        await client.exchange(code(issuer), verifier=VERIFIER, redirect_uri=BACK)
    assert CANARY not in told(caught.value)


async def test_a_device_code_is_polled_until_somebody_has_typed_it_in(
    issuer: Issuer, client: Client
) -> None:
    issuer.manners.pending = 3
    device = await client.start_device()
    assert device.interval == 1.0
    assert [await client.poll_device(device) for _ in range(3)] == [None, None, None]
    approval = await client.poll_device(device)
    assert approval is not None
    grant = await client.approved(approval)
    assert issuer.book.is_live(grant.access)
    assert CANARY not in repr((device, approval, grant))


async def test_a_device_code_that_is_declined_is_a_refusal(issuer: Issuer, client: Client) -> None:
    device = await client.start_device()
    issuer.manners.deny = True
    with pytest.raises(IssuerRefused, match="was declined") as caught:
        await client.poll_device(device)
    assert CANARY not in told(caught.value)


async def test_a_revoked_grant_is_over(issuer: Issuer, client: Client) -> None:
    grant = granted(issuer)
    await client.revoke(grant)
    assert issuer.counts["revocations"] == 1
    assert not issuer.book.is_live(grant.access)
    assert (await refused(client, grant)).refusal.permanent
    await client.revoke(Grant(access="", refresh="unknown"))


# --- proxies --------------------------------------------------------------------------------------


def through(origin: str, proxy: str) -> Any:
    """Settings of an issuer that only a proxy finds: http there is for this test alone."""
    settings = settings_of(origin, {"http_proxy": proxy})
    return dataclasses.replace(settings, token_url="http://issuer.test/oauth/token")


async def test_an_issuer_is_called_through_the_proxy_of_its_address(issuer: Issuer) -> None:
    port = int(issuer.origin.rpartition(":")[2])
    async with forward_proxy(port, login="Basic YW5uOnMzY3JldA==") as proxy:
        settings = through(issuer.origin, f"http://ann:s3cret@127.0.0.1:{proxy.port}")
        async with client_of(settings) as client:
            await client.refresh(granted(issuer))
        assert proxy.asked == ["POST http://issuer.test/oauth/token HTTP/1.1"]
        proxy.login = "another"
        async with client_of(settings) as client:
            error = await failed(client, granted(issuer))
        assert not error.sent
        assert "s3cret" not in told(error)
        assert "issuer http://issuer.test answered 407" in str(error)


async def test_a_proxy_that_cannot_be_used_is_named_when_the_issuer_is_needed() -> None:
    settings = settings_of("https://issuer.test", {"ALL_PROXY": "socks5://ann:canary@p.test"})
    with pytest.raises(ConfigInvalid, match="ALL_PROXY: socks5 proxies") as caught:
        client_of(settings)
    assert CANARY not in told(caught.value)


# --- canaries -------------------------------------------------------------------------------------


async def test_nothing_that_is_logged_meanwhile_holds_a_secret(
    issuer: Issuer, client: Client
) -> None:
    stream = io.StringIO()
    telemetry.configure("debug", stream=stream)
    grant = await client.refresh(granted(issuer))
    telemetry.get_logger().info("kept", grant=repr(grant), access=str(grant))
    for manner in ("lose", "drop", "fail", "garbage", "huge", "redirect"):
        setattr(issuer.manners, manner, 1)
        with pytest.raises((IssuerFailed, IssuerRefused)) as caught:
            await client.refresh(granted(issuer))
        telemetry.get_logger().error("refresh_failed", exc_info=caught.value)
    logged = stream.getvalue()
    assert logged.count("refresh_failed") == 6
    assert CANARY not in logged
