"""The stores that the contract suite holds to the port."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handrail.store.base import Store
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.contract.runs import Allowed, Now


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def allowed() -> Allowed:
    return Allowed()


@pytest.fixture(params=["sqlite"])
async def store(tmp_path: Path, now: Now, allowed: Allowed) -> AsyncIterator[Store]:
    opened = SqliteStore(
        tmp_path / "runs.db", vault=Vault(bytes(range(32))), now=now, quota=lambda: allowed.quota
    )
    opened.open()
    yield opened
    await opened.close()
