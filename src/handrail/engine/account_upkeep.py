"""Follows what other processes do with accounts, and refreshes logins in good time."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from handrail.core.credentials import OAUTH
from handrail.core.select import State
from handrail.engine.clock import Clock
from handrail.engine.refresh import AccountEnded, RefreshFailed
from handrail.errors import StoreFailed
from handrail.store.accounts import Account
from handrail.telemetry import get_logger

SKEW_SECONDS: Final = 60.0
"""How long before its end an access credential is refreshed: the call takes a while, and the
issuer's clock may be ahead of ours."""

EARLY_SECONDS: Final = 300.0
"""How long before its end it is refreshed although nobody needs it."""

FOLLOW_SECONDS: Final = 1.0
"""How soon what another process has changed is known here."""

AT_ONCE: Final = 4
"""How many logins are refreshed early at the same time; an issuer may take a minute for each."""

_EARLY_ROUNDS: Final = 30
_SWEEP_ROUNDS: Final = 600


class Followed(Protocol):
    """The accounts that are looked after."""

    async def follow(self) -> None:
        """Take in what another process has changed, and write what could not be. StoreFailed."""

    async def sweep(self) -> None:
        """Forget what is over. Raises StoreFailed."""

    def known(self) -> Sequence[Account]:
        """All of them."""

    async def refresh(self, account: Account) -> None:
        """Refresh one. Raises AccountEnded, RefreshFailed and StoreFailed."""

    async def refresh_failed(self, account: Account, error: AccountEnded | RefreshFailed) -> None:
        """What becomes of it after that."""


class AccountUpkeep:
    """One loop; nothing that goes wrong with one account in a round ends it, or the gateway.

    Refreshing goes on beside it: what the operator wants meanwhile is followed all the same.
    """

    def __init__(self, accounts: Followed, *, clock: Clock, spread: Callable[[], float]) -> None:
        self._accounts = accounts
        self._clock = clock
        self._spread = spread
        self._early: asyncio.Task[None] | None = None
        self._logger = get_logger()

    async def loop(self) -> None:
        """Go on; ends by cancellation. An exchange with an issuer that has begun goes on then."""
        rounds = 0
        try:
            while True:
                await self._round(rounds)
                rounds += 1
                await self._clock.sleep(FOLLOW_SECONDS)
        finally:
            if self._early is not None:
                self._early.cancel()

    async def _round(self, number: int) -> None:
        try:
            await self._accounts.follow()
            if number % _EARLY_ROUNDS == 0 and (self._early is None or self._early.done()):
                self._early = asyncio.create_task(self.refresh_early(), name="early refreshes")
            if number % _SWEEP_ROUNDS == 0:
                await self._accounts.sweep()
        except StoreFailed as error:
            self._logger.error("accounts_not_followed", why=error.detail)
        except Exception as error:  # a defect: calls go on with what is known
            self._logger.error("accounts_loop_broke", exc_info=error)

    async def refresh_early(self) -> None:
        """Refresh what ends soon; the spread keeps processes from doing so all at once."""
        places = asyncio.Semaphore(AT_ONCE)
        soon = self._soon_over(share=0.5 + 0.5 * self._spread())
        await asyncio.gather(*(self._in_turn(account, places) for account in soon))

    async def _in_turn(self, account: Account, places: asyncio.Semaphore) -> None:
        async with places:
            try:
                await self._refreshed(account)
            except StoreFailed as error:
                self._logger.error("refresh_not_begun", account=account.id, why=error.detail)
            except Exception as error:  # a defect, which must not cost the other accounts
                self._logger.error("refresh_broke", account=account.id, exc_info=error)

    async def _refreshed(self, account: Account) -> None:
        try:
            await self._accounts.refresh(account)
        except (AccountEnded, RefreshFailed) as error:
            await self._accounts.refresh_failed(account, error)

    def _soon_over(self, *, share: float) -> Iterable[Account]:
        now = self._clock.now()
        return [
            account
            for account in self._accounts.known()
            if account.kind == OAUTH
            and account.state is not State.ENDED
            and account.expires_at is not None
            and account.expires_at <= now + margin(account, EARLY_SECONDS) * share
        ]


def margin(account: Account, most: float) -> float:
    """How long before its end a credential is refreshed: less for one that is short-lived."""
    begun = account.refreshed_at or account.added_at
    return most if account.expires_at is None else min(most, (account.expires_at - begun) / 2)
