"""The accounts that one request is tried with, one after another, under the never-twice rule."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from handrail.core.select import Wants
from handrail.engine.meter import CallRecord
from handrail.engine.single import Accounts, Taken
from handrail.errors import HandrailError
from handrail.settings.model import Target

MAX_FAILOVERS: Final = 8
"""Most calls of one request that follow a refusal at once, with another account."""


class Turn:
    """One request's way through the accounts of a target. `wants` is what it asks of them."""

    def __init__(self, accounts: Accounts, target: Target, wants: Wants, *, model: str) -> None:
        self._accounts = accounts
        self._target = target
        self._wants = wants
        self._model = model
        self._taken: Taken | None = None
        self._renewed: set[str] = set()
        self._failovers = 0

    async def take(self) -> Taken:
        """The account for the next call. Raises HandrailError when there is none."""
        self._taken = await self._accounts.take(self._target, self._wants, model=self._model)
        return self._taken

    def answered(self, headers: Mapping[str, str]) -> None:
        """The upstream has taken the call, and said this beside it."""
        if self._taken is not None:
            self._accounts.answered(self._taken, headers)

    def over(self, record: CallRecord | None = None) -> None:
        """The call that was made with what was taken is over."""
        taken, self._taken = self._taken, None
        if taken is not None:
            self._accounts.done(taken, record)

    async def after(self, error: HandrailError) -> bool:
        """Whether the call that ended with `error` is made again at once, with another account.

        The first time that an account's credential is refused, it may be with the same one and a
        new credential.
        """
        taken = self._taken
        if taken is None:  # there was no account to make it with
            return False
        self.over()
        means = await self._accounts.failed(taken, error, target=self._target, model=self._model)
        account = taken.account
        if account is None or not means.again or self._failovers == MAX_FAILOVERS:
            return False
        self._failovers += 1
        if means.renew and account not in self._renewed:
            self._renewed.add(account)
            return True
        self._wants = replace(self._wants, tried=self._wants.tried | {account})
        return self._accounts.other(self._target, self._wants, model=self._model)

    def anew(self) -> None:
        """Time has passed: all may be tried again."""
        self._wants = replace(self._wants, tried=frozenset())

    def shown(self, error: HandrailError) -> HandrailError:
        """What the caller is to hear after `error`, when nothing else is tried."""
        return self._accounts.shown(error, self._target, model=self._model)
