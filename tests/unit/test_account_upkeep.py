"""Looking after accounts while an issuer takes its time."""

import asyncio
from collections.abc import Sequence

from handrail.core.credentials import OAUTH
from handrail.engine.account_upkeep import AT_ONCE, AccountUpkeep
from handrail.engine.refresh import AccountEnded, RefreshFailed
from handrail.errors import Code, StoreFailed
from handrail.store.accounts import Account
from tests.clocks import HandClock
from tests.conftest import eventually


class Turning(HandClock):
    """Time that passes when somebody waits for it."""

    async def sleep(self, seconds: float) -> None:
        self.passes(seconds)
        await asyncio.sleep(0)


class Slow:
    """Ten logins that end soon, of an issuer that answers when it is let; a `Followed`."""

    def __init__(self, clock: HandClock) -> None:
        self.may = asyncio.Event()
        self.follows = 0
        self.asked: list[str] = []
        self.failed: list[str] = []
        self._ends = clock.now() + 10.0

    async def follow(self) -> None:
        self.follows += 1

    async def sweep(self) -> None:
        """Nothing is over."""

    def known(self) -> Sequence[Account]:
        return [
            Account(
                id=f"a{n}", name=f"a{n}", target="t", kind=OAUTH, version=1, expires_at=self._ends
            )
            for n in range(10)
        ]

    async def refresh(self, account: Account) -> None:
        self.asked.append(account.id)
        await self.may.wait()
        if account.id == "a0":
            raise StoreFailed(Code.STORE_UNAVAILABLE, "no", detail="disk")
        raise RefreshFailed("no")

    async def refresh_failed(self, account: Account, error: AccountEnded | RefreshFailed) -> None:
        assert str(error) == "no"
        self.failed.append(account.id)


async def test_what_others_change_is_followed_while_an_issuer_is_slow() -> None:
    clock = Turning()
    slow = Slow(clock)
    loop = asyncio.create_task(AccountUpkeep(slow, clock=clock, spread=lambda: 0.5).loop())
    await eventually(lambda: slow.follows > 100)
    assert slow.asked == [f"a{n}" for n in range(AT_ONCE)]  # and no second time
    slow.may.set()
    await eventually(lambda: {f"a{n}" for n in range(1, 10)} <= set(slow.failed))
    loop.cancel()
    await asyncio.wait([loop])
    assert len(set(slow.asked)) == 10
    assert "a0" not in slow.failed


async def test_the_end_of_the_loop_is_the_end_of_what_is_refreshed_early() -> None:
    clock = Turning()
    slow = Slow(clock)
    loop = asyncio.create_task(AccountUpkeep(slow, clock=clock, spread=lambda: 0.5).loop())
    await eventually(lambda: len(slow.asked) == AT_ONCE)
    loop.cancel()
    await asyncio.wait([loop])
    slow.may.set()
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    assert slow.failed == []
