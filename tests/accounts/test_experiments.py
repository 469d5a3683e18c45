"""Short runs of the experiments on accounts."""

from pathlib import Path

from tests.accounts.expiries import expiries
from tests.accounts.failover import failover


async def test_nobody_outside_notices_refusals_while_one_account_is_healthy(tmp_path: Path) -> None:
    found = await failover(tmp_path, requests=500, seed=1, settle=False)
    assert found.client_errors == 0
    assert found.calls_to_cooling == 0
    assert found.refused_429 > 0


async def test_one_exchange_an_expiry_with_command_lines_and_kills(tmp_path: Path) -> None:
    found = await expiries(tmp_path, count=1, kills=1, lifetime=12.0)
    assert found.problems() == []
    assert found.expiries >= 2
    assert found.requests > 0
