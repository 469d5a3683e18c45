"""The real Codex CLI signs in at the mock issuer: that it speaks as the real one does, and more.

What Codex writes down is read as `accounts import` reads it, and two who share that login lose it.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handrail.core.account_files import Kind, read_account_file
from handrail.core.oauth_refusals import IssuerRefused
from tests.acceptance import npm
from tests.acceptance.processes import ROOT
from tests.integration.issuers import CANARY, client_of, running, settings_of, told
from tests.issuer import Issuer

CODEX = npm.modules("codex") / ".bin" / "codex"

pytestmark = npm.needs(CODEX, called="the Codex CLI")


@pytest.fixture
def home() -> Iterator[Path]:
    # Outside the system's temporary folder: Codex warns of a home in there.
    place = ROOT / ".cache" / "codex-login-home"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    yield place
    shutil.rmtree(place)


async def codex(home: Path, *arguments: str, **variables: str) -> str:
    """Run it to its end; all that it says."""
    process = await asyncio.create_subprocess_exec(
        str(CODEX),
        *arguments,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(120):
        said, _ = await process.communicate()
    return said.decode()


async def signed_in(home: Path, issuer: Issuer) -> dict[str, Any]:
    """What Codex keeps after a sign-in by device code."""
    issuer.manners.pending = 1
    said = await codex(home, "login", "--device-auth", "--experimental_issuer", issuer.origin)
    assert "Successfully logged in" in said
    kept: dict[str, Any] = json.loads((home / "auth.json").read_text())
    return kept


async def test_a_login_of_codex_is_read_from_its_auth_json_and_refreshed(home: Path) -> None:
    async with running() as issuer:
        kept = await signed_in(home, issuer)
        file = read_account_file((home / "auth.json").read_bytes())
        (found,) = file.accounts
        assert file.kind is Kind.CODEX
        assert found.issuer == issuer.origin
        grant = found.grant
        assert grant is not None
        assert grant.refresh == kept["tokens"]["refresh_token"]
        assert (grant.email, grant.plan) == ("ann.canary@example.com", "plus")
        assert CANARY not in repr(file)
        async with client_of(settings_of(issuer.origin)) as client:
            after = await client.refresh(grant)
            assert issuer.book.is_live(after.access)
            # Codex still has the credential that was used up here. Whoever shows it ends both.
            with pytest.raises(IssuerRefused) as caught:
                await client.refresh(grant)
            assert caught.value.refusal.code == "refresh_token_reused"
            assert CANARY not in told(caught.value)
        assert not issuer.book.is_live(after.access)


async def test_what_is_sent_at_a_sign_in_is_what_codex_sends(home: Path) -> None:
    async with running() as issuer:
        await signed_in(home, issuer)
        theirs = [(seen["path"], seen["type"], shape(seen)) for seen in issuer.requests]
        issuer.requests.clear()
        async with client_of(settings_of(issuer.origin)) as client:
            device = await client.start_device()
            approval = None
            while approval is None:
                approval = await client.poll_device(device)
            await client.approved(approval)
        ours = [(seen["path"], seen["type"], shape(seen)) for seen in issuer.requests]
    assert ours == theirs


async def test_what_is_sent_to_end_a_login_is_what_codex_sends(home: Path) -> None:
    async with running() as issuer:
        await signed_in(home, issuer)
        grant = read_account_file((home / "auth.json").read_bytes()).accounts[0].grant
        assert grant is not None
        issuer.requests.clear()
        address = f"{issuer.origin}/oauth/revoke"
        assert "logged out" in await codex(home, "logout", CODEX_REVOKE_TOKEN_URL_OVERRIDE=address)
        async with client_of(settings_of(issuer.origin)) as client:
            await client.revoke(grant)
        theirs, ours = issuer.requests
    assert (ours["path"], ours["type"], ours["body"]) == (
        theirs["path"],
        theirs["type"],
        theirs["body"],
    )


def shape(seen: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request, and the values of those that say what is wanted."""
    body = seen["body"]
    told = ("client_id", "grant_type", "redirect_uri")
    return {name: body[name] if name in told else "…" for name in sorted(body)}
