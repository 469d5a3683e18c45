"""The credential that an account's call shows: kept in memory, and refreshed when it ends soon."""

import asyncio
from typing import Final

from handrail.core.credentials import OAUTH, SETTINGS, Shown, shown
from handrail.engine.account_upkeep import SKEW_SECONDS, margin
from handrail.engine.clock import Clock
from handrail.engine.refresh import AccountEnded, Refresher, RefreshFailed
from handrail.engine.single import Taken
from handrail.errors import StoreFailed
from handrail.settings.model import Target
from handrail.store.accounts import Account, Accounts, Kept

_PATIENCE: Final = 3.0
"""How long a call waits for a refresh, in seconds, while what it has is still good."""


class AccountCredentials:
    """What calls of a process are made with. Once read, one is had without the store."""

    def __init__(self, store: Accounts, refresher: Refresher, *, clock: Clock) -> None:
        self._store = store
        self._refresher = refresher
        self._clock = clock
        self._kept: dict[str, Kept] = {}

    async def of(self, target: Target, account: Account) -> Taken:
        """What a call with `account` shows. Raises AccountEnded, RefreshFailed and StoreFailed."""
        if account.kind == SETTINGS:
            secret = target.accounts.get(account.name)
            if secret is None:
                raise AccountEnded(account.id)
            return Taken(
                account=account.id,
                name=account.name,
                shown=Shown(secret=secret.reveal()),
                version=account.version,
            )
        kept = self._kept.get(account.id)
        if kept is None or kept.version < account.version:
            kept = await self._store.credential(account.id)
            if kept is None:
                raise AccountEnded(account.id)
        ends = account.expires_at if kept.version == account.version else None
        if account.kind == OAUTH and ends is not None and self._is_soon_over(account, ends):
            kept = await self._renewed(account, kept, ends=ends)
        self._kept[account.id] = kept
        return Taken(
            account=account.id,
            name=account.name,
            shown=shown(account.kind, kept.credential),
            version=kept.version,
        )

    def renewed(self, account: Account) -> bool:
        """Whether what is kept is newer than `account`, so that the store knows more about it."""
        kept = self._kept.get(account.id)
        return kept is not None and kept.version > account.version

    async def renew(self, account: Account, *, version: int) -> None:
        """Have another credential than that of `version`. Raises as `of` does."""
        self._kept[account.id] = await self._refresher.fresh(account.id, version=version)

    def forget(self, account: str) -> None:
        """Read it anew the next time."""
        self._kept.pop(account, None)

    def _is_soon_over(self, account: Account, ends: float) -> bool:
        return ends - margin(account, SKEW_SECONDS) <= self._clock.now()

    async def _renewed(self, account: Account, kept: Kept, *, ends: float) -> Kept:
        left = ends - self._clock.now()
        try:
            # It goes on when we leave; nobody need wait for it while this one can still be shown.
            async with asyncio.timeout(min(left, _PATIENCE) if left > 0 else None):
                return await self._refresher.fresh(account.id, version=kept.version)
        except (RefreshFailed, StoreFailed, TimeoutError):
            if ends > self._clock.now():
                return kept  # it is good for a while yet
            raise
