"""The accounts that one request is tried with, one after another, under the never-twice rule."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from handrail.core.affinity import without_reasoning
from handrail.core.rewrite import UpstreamRequest
from handrail.core.select import Wants
from handrail.engine.meter import CallListener, CallRecord, Outcome
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
        self.did_not_run = False
        """Whether the last call is proven not to have run, or was never made."""

    async def read(self, request: UpstreamRequest, headers: Mapping[str, str]) -> UpstreamRequest:
        """See which account the request belongs to; the request as that one can read it.

        Raises StoreFailed and MadeElsewhere.
        """
        self._wants, readable = await self._accounts.bound(
            self._target, self._wants, request, headers=headers
        )
        return readable

    def without_maker(self, request: UpstreamRequest) -> UpstreamRequest | None:
        """The request as any account can read it, if that is allowed and can be done.

        Only after a failure that proves that the last call did not run.
        """
        bound = self._wants.bound is not None and self.did_not_run
        if not bound or not self._target.drops_reasoning:
            return None
        stripped = without_reasoning(request)
        if stripped is not None:
            self._wants = replace(self._wants, bound=None)
        return stripped

    async def take(self) -> Taken:
        """The account for the next call. Raises HandrailError when there is none."""
        self._taken = await self._accounts.take(self._target, self._wants, model=self._model)
        return self._taken

    def noted(self, sealed: Sequence[str]) -> None:
        """The answer holds what only the account in use can read."""
        if self._taken is not None:
            self._accounts.noted(self._taken, sealed, target=self._target)

    def answered(self, headers: Mapping[str, str]) -> None:
        """The upstream has taken the call, and said this beside it."""
        if self._taken is not None:
            self._accounts.answered(self._taken, headers)

    def heard_by(self, listener: CallListener) -> CallListener:
        """For the meter of a call with what was taken: `listener`, and what it means for that."""

        def over(record: CallRecord) -> None:
            listener(record)
            if record.status is not None and record.outcome is not Outcome.REFUSED:
                self.over(record)  # a call that failed is judged by its error, in the loop

        return over

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
            self.did_not_run = True
            return False
        self.over()
        means = await self._accounts.failed(taken, error, target=self._target, model=self._model)
        account, self.did_not_run = taken.account, means.again
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
        return self._accounts.shown(error, self._target, model=self._model, tags=self._wants.tags)
