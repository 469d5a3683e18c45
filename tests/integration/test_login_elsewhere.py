"""Signing in where no browser can come back: by pasting, by a device code; and keeping a login."""

from collections.abc import AsyncIterator

import pytest

from handrail.cli.login import Way
from handrail.core.oauth import Grant
from handrail.core.oauth_refusals import IssuerRefused
from handrail.errors import IssuerFailed
from handrail.upstream.oauth import Issuer as Client
from tests.integration.issuers import CANARY, client_of, running, settings_of, told
from tests.integration.sign_ins import Stage, check_said, refusal
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


# --- paste ----------------------------------------------------------------------------------------


def pasting(stage: Stage, *answers: str) -> None:
    """Have these pasted in turn; {} in one is where the browser has ended."""
    stage.answers = list(answers)


@pytest.mark.parametrize("before", [[], ["", "http://localhost:1455/auth/callback?code=x"]])
async def test_a_sign_in_by_pasting(stage: Stage, issuer: Issuer, before: list[str]) -> None:
    pasting(stage, *before, "  {}\n")
    await stage.run(Way.PASTE)
    (grant,) = stage.kept
    assert issuer.book.is_live(grant.access)
    assert stage.back == "http://127.0.0.1:1455/auth/callback"
    assert stage.said[0] == "Sign in at"
    assert len([line for line in stage.said if line.startswith("Paste")]) == len(before) + 1
    assert stage.pages == []
    check_said(stage)


async def test_the_third_wrong_address_ends_it_with_what_is_wrong(stage: Stage) -> None:
    pasting(stage, "code-canary", "{}&state=2", "?code=canary&state=b")
    said = await refusal(stage, Way.PASTE)
    assert said.startswith("The state in that address belongs to another sign-in")
    assert "has neither a code nor an error" in "\n".join(stage.said)


async def test_an_address_with_an_error_ends_it_at_once(stage: Stage, issuer: Issuer) -> None:
    issuer.manners.deny = True
    pasting(stage, "{}")
    said = await refusal(stage, Way.PASTE)
    assert said == "The issuer ended the sign-in: access_denied (The user said no)."


async def test_pasting_names_the_port_of_the_settings(client: Client, issuer: Issuer) -> None:
    settings = settings_of(issuer.origin, redirect_port=4711, redirect_host="localhost")
    stage = Stage(client, issuer, settings=settings)
    pasting(stage, "{}")
    await stage.run(Way.PASTE)
    assert stage.back == "http://localhost:4711/auth/callback"


# --- device code ----------------------------------------------------------------------------------


async def test_a_sign_in_by_a_device_code(stage: Stage, issuer: Issuer) -> None:
    issuer.manners.pending = 3
    await stage.run(Way.DEVICE_CODE)
    (grant,) = stage.kept
    assert issuer.book.is_live(grant.access)
    assert stage.pauses == [1.0] * 4
    (device,) = issuer.devices.values()
    assert stage.said[:2] == [
        f"Open   {issuer.origin}/codex/device",
        f"Enter  {device.user_code}",
    ]
    check_said(stage)


@pytest.mark.parametrize("manner", ["fail", "drop", "busy"])
async def test_polls_that_go_wrong_are_repeated(stage: Stage, issuer: Issuer, manner: str) -> None:
    setattr(issuer.manners, manner, 4)
    await stage.run(Way.DEVICE_CODE)
    assert len(stage.kept) == 1
    assert len(stage.pauses) == 5


async def test_polls_that_go_on_going_wrong_end_it(stage: Stage, issuer: Issuer) -> None:
    issuer.manners.fail = 5
    with pytest.raises(IssuerRefused, match="is ill"):
        await stage.run(Way.DEVICE_CODE)
    assert len(stage.pauses) == 5
    assert stage.kept == []


async def test_a_device_code_that_is_declined_ends_it_at_once(stage: Stage, issuer: Issuer) -> None:
    issuer.manners.deny = True
    with pytest.raises(IssuerRefused, match="was declined"):
        await stage.run(Way.DEVICE_CODE)
    assert stage.pauses == [1.0]


async def test_a_device_code_that_nobody_enters_ends_with_the_way_to_begin_again(
    client: Client, issuer: Issuer
) -> None:
    issuer.manners.pending = 1_000_000
    said = await refusal(Stage(client, issuer, device_seconds=0.5), Way.DEVICE_CODE)
    assert said.endswith("handrail accounts login --device-code.")


# --- keeping --------------------------------------------------------------------------------------


async def test_a_login_that_cannot_be_kept_is_ended_at_the_issuer(
    stage: Stage, issuer: Issuer
) -> None:
    def keep(_: Grant) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        await stage.run(Way.DEVICE_CODE, keep=keep)
    assert issuer.counts["revocations"] == 1
    assert [login.ended for login in issuer.book.logins] == ["refresh_token_invalidated"]


async def test_a_login_that_can_be_neither_kept_nor_ended_is_told(
    stage: Stage, issuer: Issuer
) -> None:
    def keep(_: Grant) -> None:
        issuer.manners.fail = 1
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        await stage.run(Way.DEVICE_CODE, keep=keep)
    assert stage.said[-1].startswith("The login could not be kept, and is still valid: ")
    check_said(stage)


async def test_an_exchange_whose_answer_is_lost_is_told_and_not_repeated(
    stage: Stage, issuer: Issuer
) -> None:
    issuer.manners.lose = 1
    with pytest.raises(IssuerFailed) as caught:
        await stage.run(Way.BROWSER)
    assert caught.value.sent
    assert CANARY not in told(caught.value)
    assert issuer.counts["requests"] == 1
