"""Accounts that are over, for this process at once and for the store as soon as it can be written.

A sick store must not hold up the answer to a request, nor may it bring an account back that an
issuer or upstream has ended: asking with a withdrawn credential again looks like theft.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from handrail.core.select import State
from handrail.errors import StoreFailed
from handrail.store.accounts import Account, Accounts
from handrail.telemetry import get_logger


@dataclass(slots=True, kw_only=True)
class _Ending:
    version: int
    resumed: int
    why: str
    written: bool = False

    def is_of(self, account: Account) -> bool:
        """Whether it is of the account as it is; a new credential or start is another matter."""
        return account.version <= self.version and account.resumed == self.resumed


class Endings:
    """What has ended, until the store shows it."""

    def __init__(self, store: Accounts) -> None:
        self._store = store
        self._held: dict[str, _Ending] = {}
        self._logger = get_logger()

    def hold(self, account: Account, *, version: int, why: str) -> None:
        """The account is over from now on, with the credential of that version."""
        self._held[account.id] = _Ending(version=version, resumed=account.resumed, why=why)

    async def write(self, *, but: Collection[str]) -> None:
        """Have the store know; what it does not take is tried again at the next call.

        `but` are accounts whose latest credential the store does not have yet: it would take the
        end for that of an earlier one.
        """
        for account, ending in list(self._held.items()):
            if ending.written or account in but:
                continue
            try:
                await self._store.end(
                    account, version=ending.version, why=ending.why, resumed=ending.resumed
                )
                ending.written = True
            except StoreFailed as error:
                self._logger.error("end_not_kept", account=account, why=error.detail)

    def seen(self, accounts: Sequence[Account]) -> Sequence[Account]:
        """Accounts as the store has them, and as they are: what it shows itself is let go."""
        known = {account.id: account for account in accounts}
        for account, ending in list(self._held.items()):
            now = known.get(account)
            if now is None or now.state is State.ENDED or not ending.is_of(now):
                del self._held[account]
        return self.over(accounts)

    def over(self, accounts: Sequence[Account]) -> Sequence[Account]:
        """The accounts, those that are over as what they are."""
        return tuple(
            replace(account, state=State.ENDED, why_ended=self._held[account.id].why)
            if account.id in self._held
            else account
            for account in accounts
        )
