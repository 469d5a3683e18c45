"""Accounts whose issuer or disk is not as it should be, behind a whole gateway."""

import io
import json
import sqlite3
from typing import Any

import openai
import pytest

from handrail import telemetry
from tests.conftest import Scripted, Start, eventually
from tests.integration.admin import Admin
from tests.integration.test_account_refresh import SOON, House, ask, house, issuer
from tests.integration.test_accounts import ENVIRONMENT, THREE, Gate

__all__ = ["house", "issuer"]  # fixtures


async def test_a_wrong_client_id_ends_no_login_and_the_log_names_the_setting(
    house: House,
) -> None:
    logged = io.StringIO()
    telemetry.configure("error", stream=logged)
    file = house.directory.parent / "data.toml"
    right = file.read_text()
    file.write_text(f'{right}client_id = "app_typing_error"\n')
    house.login("plus", lifetime=-5.0)
    house.issuer.book.lifetime = 3_600
    async with house.gateway() as (gateway, client):
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client)
        assert caught.value.code == "upstream_credentials_rejected"
        (plus,) = await gateway.gateway._accounts.all(now=0.0)
        assert plus.state == "active"
        lines = [json.loads(line) for line in logged.getvalue().splitlines()]
        (why, *_) = [line["why"] for line in lines if line["event"] == "refresh_failed"]
        assert "oauth.client_id" in why
        assert "invalid_client" in why
        file.write_text(right)
        await gateway.gateway.reload()
        assert (await ask(client)).status == "completed"


async def test_a_login_that_is_good_for_a_while_serves_although_the_client_id_is_wrong(
    house: House,
) -> None:
    file = house.directory.parent / "data.toml"
    file.write_text(f'{file.read_text()}client_id = "app_typing_error"\n')
    house.login("plus", lifetime=SOON)
    async with house.gateway() as (_, client):
        assert (await ask(client)).status == "completed"


async def test_while_the_disk_cannot_be_written_a_withdrawal_is_told_as_what_it_is(
    start: Start, upstream: Scripted
) -> None:
    """The file is locked by somebody else, for longer than anybody waits."""
    gate = Gate(upstream)
    async with start(toml=THREE, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        path = gateway.gateway.settings.data_dir / "accounts.db"
        gate.refuse("a", status=401, error={"message": "no", "code": "token_revoked"})
        pool: Any = gateway.gateway._parts.accounts
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        try:
            with pytest.raises(openai.InternalServerError) as caught:
                await ask(client)
            assert caught.value.code == "upstream_credentials_rejected"
            for _ in range(3):
                assert (await ask(client)).status == "completed"
            assert gate.asked["a"] == 1
        finally:
            other.execute("rollback")
            other.close()
        # What waits for the disk is written once it can be, in any order.
        await eventually(lambda: not pool._endings._held, seconds=40)
        assert (await gateway.gateway._accounts.all(now=0.0))[0].state == "ended"
        assert (await ask(client)).status == "completed"
    assert gate.asked["a"] == 1


async def test_a_key_of_the_settings_that_was_withdrawn_is_used_again_when_the_operator_says_so(
    start: Start, upstream: Scripted
) -> None:
    gate = Gate(upstream)
    async with start(toml=THREE, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        gate.refuse("a", status=401, error={"message": "no", "code": "token_revoked"})
        with pytest.raises(openai.InternalServerError):
            await ask(client)
        for _ in range(4):
            await ask(client)
        assert gate.asked["a"] == 1
        (row, *_) = (await Admin(gateway).done("GET", "/admin/accounts"))["data"]
        assert (row["state"], row["why_ended"]) == (
            "ended",
            "its credential was withdrawn; sign in again",
        )
        assert (await Admin(gateway).ask("POST", "/admin/accounts/a/pause")).status == 400
        gate.answers.clear()
        await Admin(gateway).done("POST", "/admin/accounts/a/resume")
        pool: Any = gateway.gateway._parts.accounts
        await eventually(lambda: pool.known()[0].state == "active")
        for _ in range(6):
            await ask(client)
    assert gate.asked["a"] > 1
