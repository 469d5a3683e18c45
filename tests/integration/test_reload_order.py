"""Reloads are whole, and come one after another, whatever holds one of them up."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from handrail.settings.load import ACCOUNTS_FILE
from tests.conftest import Start, eventually
from tests.integration.test_accounts import ENVIRONMENT, THREE

TWO = THREE.rpartition("c = ")[0]
ONE = THREE.rpartition("b = ")[0]


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """Another program has the file of the accounts to itself."""
    with contextlib.closing(sqlite3.connect(data / ACCOUNTS_FILE, isolation_level=None)) as file:
        file.execute("begin immediate")
        yield
        file.execute("rollback")


def known(gateway: Any) -> tuple[list[str], list[str]]:
    """The accounts of the settings in force, and those of the store."""
    return (
        sorted(gateway.settings.target.accounts),
        [row.name for row in gateway._accounts.listed(now=0.0)],
    )


async def test_a_reload_goes_on_when_whoever_asked_for_it_leaves(
    start: Start, tmp_path: Path
) -> None:
    async with start(toml=THREE, environment=ENVIRONMENT) as running:
        gateway: Any = running.gateway
        (tmp_path / "data.toml").write_text(TWO)
        with locked(tmp_path / "data"):
            asking = asyncio.create_task(gateway.reload())
            await eventually(gateway._reloads.locked)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            assert gateway._reloads.locked()
        await eventually(lambda: known(gateway) == (["a", "b"], ["a", "b"]))


async def test_of_two_reloads_the_later_one_holds(start: Start, tmp_path: Path) -> None:
    async with start(toml=THREE, environment=ENVIRONMENT) as running:
        gateway: Any = running.gateway
        (tmp_path / "data.toml").write_text(TWO)
        with locked(tmp_path / "data"):
            first = asyncio.create_task(gateway.reload())
            await eventually(gateway._reloads.locked)
            (tmp_path / "data.toml").write_text(ONE)
            second = asyncio.create_task(gateway.reload())
        for reloaded in await asyncio.gather(first, second):
            assert reloaded.problem is None
        assert known(gateway) == (["a"], ["a"])
