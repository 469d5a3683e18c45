"""The accounts of this process: which one a call is made with, and what its outcome means for it.

`core.select` decides over a snapshot of the store; beside it stands what only this process knows:
calls under way, failures, and what was learnt a moment ago and is still being written.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from handrail.core import affinity, limits
from handrail.core.credentials import OAUTH
from handrail.core.failover import Consequence, consequence, limit_reached
from handrail.core.limits import Cooldown, Told
from handrail.core.rewrite import UpstreamRequest
from handrail.core.select import (
    Candidate,
    Choice,
    Obstacle,
    Strategy,
    Wants,
    after_wait,
    choose,
    credits_after,
)
from handrail.engine.account_credentials import AccountCredentials
from handrail.engine.account_upkeep import AccountUpkeep
from handrail.engine.clock import Clock
from handrail.engine.endings import Endings
from handrail.engine.exhausted import exhausted, with_wait
from handrail.engine.memory import Memory, Reader
from handrail.engine.meter import CallRecord, Outcome
from handrail.engine.notes import Notes
from handrail.engine.refresh import AccountEnded, Refresher, RefreshFailed
from handrail.engine.single import (
    NoAccount,
    Single,
    Spent,
    Taken,
    barred,
    no_such,
    nothing_spent,
)
from handrail.engine.standing import Standing
from handrail.engine.told import with_told
from handrail.errors import HandrailError, StoreFailed, UpstreamRefused
from handrail.settings.model import Target
from handrail.store.accounts import TARGET, Account, Accounts
from handrail.telemetry import get_logger

_SETTLE_SECONDS: Final = 10.0
_MAX_SEALED: Final = 10_000
_MADE: Final = "made"
_TOO_MANY: Final = 429
_WAITS: Final = frozenset({429, 503})
_WELL: Final = frozenset({Outcome.COMPLETED, Outcome.INCOMPLETE, Outcome.ACCEPTED})
_FAILED_REFRESH: Final = 30.0


class Pool:
    """Gives each call its account. `strategy` and `nearly_used_up` (percent) are asked each time.

    `spread` gives numbers from 0 to 1, for moments that should not be the same in all processes.
    """

    def __init__(
        self,
        store: Accounts,
        refresher: Refresher,
        *,
        clock: Clock,
        strategy: Callable[[], Strategy],
        spread: Callable[[], float],
        nearly_used_up: Callable[[], float] = lambda: limits.NEARLY_USED_UP,
    ) -> None:
        self._store = store
        self._refresher = refresher
        self._clock = clock
        self._strategy = strategy
        self._nearly_used_up = nearly_used_up
        self._upkeep = AccountUpkeep(self, clock=clock, spread=spread)
        self._endings = Endings(store)
        self._single = Single(now=clock.now)
        self._accounts: Sequence[Account] = ()
        self._pinned: str | None = None
        self._credentials = AccountCredentials(store, refresher, clock=clock)
        self._memory = Memory(store, clock=clock)
        self._spent: Spent = nothing_spent
        self._live: defaultdict[str, Standing] = defaultdict(Standing)
        self._seen = -1
        self._notes = Notes()
        self._following: asyncio.Task[None] | None = None
        self._logger = get_logger()

    def heed(self, spent: Spent) -> None:
        """Ask `spent` as well what stands against one more call with an account."""
        self._spent = spent

    # --- the snapshot ----------------------------------------------------------------------

    async def load(self) -> None:
        """Take what the store holds. Raises StoreFailed; the old snapshot then stays."""
        self._seen = await self._store.changes()
        self._pinned = await self._store.pinned()
        self._accounts = self._endings.seen(await self._store.all(now=self._clock.now()))
        await self._memory.look(self._accounts)
        known = {account.id for account in self._accounts}
        for gone in self._live.keys() - known:
            del self._live[gone]
        for account in self._accounts:
            self._live[account.id].seen(account.resumed)

    async def follow(self) -> None:
        """Take in what another process has changed, if it has. Raises StoreFailed."""
        for replaced in await self._refresher.save():
            self._credentials.forget(replaced)
        self._notes.write()
        await self._endings.write(but=self._refresher.unsaved())
        if await self._store.changes() != self._seen:
            await self.load()

    def _follow_soon(self) -> None:
        """The same beside the call: a store that is slow or sick must not hold its answer up."""
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._followed(), name="accounts followed")

    def known(self) -> Sequence[Account]:
        """All accounts, by name."""
        return self._accounts

    def of(self, target: Target) -> Sequence[Account]:
        """The accounts of a target."""
        return [account for account in self._accounts if account.target == target.label]

    # --- choosing --------------------------------------------------------------------------

    def choice(self, target: Target, wants: Wants, *, model: str) -> Choice:
        """Which account a call for `model` would be made with now, and why."""
        now = self._clock.now()
        return choose(
            [self._candidate(account, model=model, now=now) for account in self.of(target)],
            wants,
            strategy=self._strategy(),
            now=now,
            pinned=self._pinned if self._is_here(target, self._pinned) else None,
        )

    def _is_here(self, target: Target, account: str | None) -> bool:
        return any(each.id == account for each in self.of(target))

    def _candidate(self, account: Account, *, model: str, now: float) -> Candidate:
        live = self._live[account.id]
        return Candidate(
            id=account.id,
            name=account.name,
            state=account.state,
            obstacles=tuple(self.obstacles(account, model=model)),
            tags=frozenset(account.tags),
            weight=account.weight,
            left=limits.left(account.quota, model=model, now=now),
            running=live.running,
            calls=live.calls,
            credit=live.credit,
            used_at=live.used_at,
        )

    def obstacles(self, account: Account, *, model: str) -> Iterable[Obstacle]:
        """All that stands against a call for `model` with an account, but for its state."""
        now = self._clock.now()
        live = self._live[account.id]
        cooldowns = (*account.cooldowns, *live.cooldowns.values())
        yield from limits.obstacles(
            cooldowns,
            account.quota,
            model=model,
            now=now,
            nearly_used_up=self._nearly_used_up(),
        )
        yield from self._spent(account.name, model=model, running=live.running)
        held = live.breaker(now=now)
        if held is not None:
            yield held

    def view(self, account: Account) -> tuple[Account, int]:
        """An account with the cool-downs of this process too, and how many calls it has here."""
        live = self._live[account.id]
        cooldowns = live.with_cooldowns(account.cooldowns, now=self._clock.now())
        (seen,) = self._endings.over([account])
        return replace(seen, cooldowns=cooldowns), live.running

    async def take(self, target: Target, wants: Wants, *, model: str) -> Taken:
        """The account for a call and its credential; give it back with `done`.

        Raises NoAccount, RequestRejected for a pin that names no account, StoreFailed, and
        UpstreamFailed when the settings' own credential cannot be had.
        """
        if not self.of(target):
            return await self._single.take(target, wants, model=model)
        sick: StoreFailed | None = None
        while True:
            choice = self.choice(target, wants, model=model)
            account = self._found(choice, wants, sick=sick)
            try:
                with self._live[account.id].reserved():  # the wait may be for a whole refresh
                    taken = await self._credentials.of(target, account)
                if self._credentials.renewed(account):
                    self._follow_soon()
            except (AccountEnded, RefreshFailed) as error:
                await self.refresh_failed(account, error)
                wants = replace(wants, tried=wants.tried | {account.id})
                continue
            except StoreFailed as error:  # the credential of another may be in memory
                sick = error
                wants = replace(wants, tried=wants.tried | {account.id})
                continue
            still = after_wait(choice, self.choice(target, wants, model=model))
            if still is not None:
                return self._used(taken, still, wants, model=model)
            wants = replace(wants, tried=wants.tried | {account.id})

    def _used(self, taken: Taken, choice: Choice, wants: Wants, *, model: str) -> Taken:
        account = str(choice.account)
        if wants.conversation is not None:
            self._memory.used(wants.conversation, account)
        self._live[account].taken(now=self._clock.now())
        for earned, change in credits_after(choice).items():
            self._live[earned].credit += change
        return replace(taken, reason=choice.reason, model=model, question=wants.question)

    def _found(self, choice: Choice, wants: Wants, *, sick: StoreFailed | None) -> Account:
        for account in self._accounts:
            if account.id == choice.account:
                return account
        if sick is not None:
            raise sick
        if choice.barred:
            raise barred(wants)
        if wants.pin is not None and not choice.considered:
            raise no_such()
        raise NoAccount(exhausted(choice, now=self._clock.now()))

    async def bound(
        self, target: Target, wants: Wants, request: UpstreamRequest, *, headers: Mapping[str, str]
    ) -> tuple[Wants, UpstreamRequest]:
        """See the port."""
        if target.only and not self._accounts and not self._memory.any:
            return wants, request
        named = affinity.conversation(headers, request.body)
        maker = None
        sealed = affinity.sealed_in_request(request.body)[:_MAX_SEALED]
        if sealed:
            at = Reader(
                target=target.label,
                names={account.id: account.name for account in self._accounts},
                homes={account.id: account.target for account in self._accounts},
                drops=target.drops_reasoning,
                pin=wants.pin,
            )
            maker, request = await self._memory.readable(request, sealed, at=at)
        last = None if named is None else self._memory.last(named)
        wants = replace(wants, bound=maker or wants.bound, last=last, conversation=named)
        return wants, request

    def noted(self, taken: Taken, sealed: Sequence[str], *, target: Target) -> None:
        """The answer holds what only this account can read, or this target."""
        if taken.account is not None or not target.only:
            maker = taken.account or f"{TARGET}{target.label}"
            if self._memory.made(maker, sealed):
                self._notes.add(self._memory.write, instead=_MADE)

    def other(self, target: Target, wants: Wants, *, model: str) -> bool:
        """Whether there is an account for another call, after those that were tried."""
        return self.choice(target, wants, model=model).account is not None

    def free(self, target: Target, *, model: str, tags: frozenset[str]) -> bool:
        """See the port."""
        if not self.of(target):
            return self._single.free(target, model=model, tags=tags)
        seen = self.choice(target, Wants(tags=tags), model=model).considered
        return any(each.obstacle is None for each in seen)

    async def refresh(self, account: Account) -> None:
        """Refresh an account's login now. Raises AccountEnded, RefreshFailed and StoreFailed."""
        await self._refresher.fresh(account.id, version=account.version)

    async def refresh_failed(self, account: Account, error: AccountEnded | RefreshFailed) -> None:
        """What becomes of an account whose login could not be refreshed, or is over."""
        self._credentials.forget(account.id)
        if isinstance(error, AccountEnded):
            if error.why:
                self._end(account.id, version=error.version, why=error.why)
            return self._follow_soon()
        seconds = error.wait or _FAILED_REFRESH
        means = Consequence(reason="its refresh failed", seconds=seconds)
        return self._cool(account.id, means)

    # --- what becomes of calls -------------------------------------------------------------

    def done(self, taken: Taken, record: CallRecord | None) -> None:
        """The call is over; it is judged by the event that ended its response."""
        if taken.account is None:
            return
        live = self._live[taken.account]
        live.given_back()
        if record is None:
            return
        if record.limit is not None:
            # HTTP said 200 by then, so nothing is called again: it is for the next calls to know.
            means = limit_reached(record.limit, model=taken.model, limited=live.limited)
            live.limited += 1
            self._cool(taken.account, means)
            self._tell(taken, means)
        elif record.outcome in _WELL:
            live.well()
        elif record.outcome is Outcome.LOST:
            live.failed(now=self._clock.now())

    def shown(
        self, error: HandrailError, target: Target, *, model: str, tags: frozenset[str]
    ) -> HandrailError:
        """After a limit, when there are several accounts: when the first of them is free again.

        A 429 or 503 without a wait gets one, of what is known or guessed here: Codex CLI waits
        where it is told how long, and ends its turn where it is not.
        """
        if error.fault.status not in _WAITS or not self.of(target):
            return error
        choice = self.choice(target, Wants(tags=tags), model=model)
        limited = error.fault.status == _TOO_MANY and len(self.of(target)) > 1
        if limited and choice.account is None and choice.until is not None:
            return NoAccount(exhausted(choice, now=self._clock.now()))
        return with_wait(error, choice, now=self._clock.now())

    def answered(self, taken: Taken, headers: Mapping[str, str]) -> None:
        """The upstream has taken the call; its headers may tell how much of a quota is used."""
        if taken.account is not None:
            self.told(taken.account, limits.read_told(headers, now=self._clock.now()))

    def told(self, account: str, told: Told) -> None:
        """An upstream has said this about an account: known here at once, kept beside the call."""
        # Every call uses a little; written down is what would be shown.
        noted: tuple[object, ...] = tuple(
            (each.name, round(each.used_percent), each.resets_at and round(each.resets_at, -2))
            for each in told.windows
        )
        noted += (told.plan, told.credits and told.credits.partition(".")[0])
        live = self._live[account]
        if told == Told() or noted == live.quota_noted:
            return
        live.quota_noted = noted
        self._accounts = [
            with_told(each, told) if each.id == account else each for each in self._accounts
        ]
        write = partial(self._store.saw_quota, account, told, now=self._clock.now())
        says = (told.plan is None, told.credits is None, *(each.name for each in told.windows))
        self._notes.add(write, instead=(account, says))

    async def failed(
        self, taken: Taken, error: HandrailError, *, target: Target, model: str
    ) -> Consequence:
        """What `error` means for the account; it is held back from now on if it says so."""
        if taken.account is None:
            return await self._single.failed(taken, error, target=target, model=model)
        live = self._live[taken.account]
        also = target.also_after
        means = consequence(error, model=model, limited=live.limited, also=also)
        if isinstance(error, UpstreamRefused):
            self.told(taken.account, limits.read_told(error.headers, now=self._clock.now()))
            live.limited = live.limited + 1 if error.fault.status == _TOO_MANY else live.limited
        if means.fails:
            live.failed(now=self._clock.now())
        if means.ended:
            self._end(taken.account, version=taken.version, why=means.reason)
            self._follow_soon()
        elif means.renew and await self._renew(taken):
            return replace(means, seconds=0.0)
        else:
            means = replace(means, renew=False)
            if not taken.question:  # a limit on questions says nothing about calls
                self._cool(taken.account, means)
        self._tell(taken, means)
        return means

    def _end(self, account: str, *, version: int, why: str) -> None:
        for each in self._accounts:
            if each.id == account and each.version <= version:
                self._endings.hold(each, version=version, why=why)
        self._accounts = self._endings.over(self._accounts)

    def _tell(self, taken: Taken, means: Consequence) -> None:
        self._logger.warning(
            "account_failed", account=taken.name, reason=means.reason, seconds=means.seconds
        )

    async def _renew(self, taken: Taken) -> bool:
        """Refresh a credential that was refused; False when it cannot be."""
        account = next((each for each in self._accounts if each.id == taken.account), None)
        if account is None or account.kind != OAUTH:
            return False
        try:
            await self._credentials.renew(account, version=taken.version)
        except (AccountEnded, RefreshFailed) as error:
            await self.refresh_failed(account, error)
            return False
        except StoreFailed as error:
            self._logger.error("refresh_not_begun", account=account.id, why=error.detail)
            return False
        self._follow_soon()
        return True

    def _cool(self, account: str, means: Consequence) -> None:
        if not means.seconds:
            return
        now = self._clock.now()
        cooldown = Cooldown(
            scope=means.scope,
            until=now + means.seconds,
            reason=means.reason,
            guessed=means.guessed,
        )
        self._live[account].cool(cooldown, now=now)
        if means.kept or not means.guessed:  # what we only guess is not worth keeping
            self._notes.add(partial(self._store.cool, account, cooldown))

    async def _followed(self) -> None:
        try:
            await self.follow()
        except StoreFailed as error:
            self._logger.error("accounts_not_followed", why=error.detail)

    # --- upkeep ----------------------------------------------------------------------------

    async def loop(self) -> None:
        """Follow what other processes change, and refresh in good time; ends by cancellation."""
        await self._upkeep.loop()

    async def sweep(self) -> None:
        """Have the store forget what is over. Raises StoreFailed."""
        await self._store.sweep(now=self._clock.now())

    async def settle(self) -> None:
        """Finish refreshes and notes that are under way: a login that is not kept is lost."""
        await self._refresher.settle(seconds=_SETTLE_SECONDS)
        await self._notes.settle(seconds=_SETTLE_SECONDS)
        if self._following is not None:
            await asyncio.wait([self._following], timeout=_SETTLE_SECONDS)
