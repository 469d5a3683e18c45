"""The accounts of this process: which one a call is made with, and what its outcome means for it.

`core.select` decides over a snapshot of the store; beside it stands what only this process knows:
calls under way, failures, and what was learnt a moment ago and is still being written.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from handrail.core import affinity, limits
from handrail.core.credentials import OAUTH, SETTINGS, Shown, shown
from handrail.core.failover import Consequence, consequence, is_open
from handrail.core.limits import Cooldown
from handrail.core.rewrite import UpstreamRequest
from handrail.core.select import (
    Candidate,
    Choice,
    Obstacle,
    State,
    Strategy,
    Wants,
    choose,
    credits_after,
)
from handrail.engine.clock import Clock
from handrail.engine.memory import Memory
from handrail.engine.meter import CallRecord, Outcome
from handrail.engine.refresh import AccountEnded, Refresher, RefreshFailed
from handrail.engine.single import (
    NoAccount,
    Single,
    Spent,
    Taken,
    barred,
    no_credential,
    no_such,
    nothing_spent,
)
from handrail.errors import Code, Fault, HandrailError, StoreFailed, UpstreamRefused, fault
from handrail.settings.model import Target
from handrail.store.accounts import TARGET, Account, Accounts, Kept
from handrail.telemetry import get_logger

SKEW_SECONDS: Final = 60.0
"""How long before its end an access credential is refreshed: the call takes a while, and the
issuer's clock may be ahead of ours."""

EARLY_SECONDS: Final = 300.0
"""How long before its end it is refreshed although nobody needs it."""

FOLLOW_SECONDS: Final = 1.0
"""How soon what another process has changed is known here."""

_SETTLE_SECONDS: Final = 10.0
_MAX_SEALED: Final = 64
_EARLY_ROUNDS: Final = 30
_TOO_MANY: Final = 429
_WELL: Final = frozenset({Outcome.COMPLETED, Outcome.INCOMPLETE, Outcome.ACCEPTED})
_FAILED_REFRESH: Final = 30.0
_FAILURES: Final = 16


@dataclass(slots=True)
class _Live:
    """What only this process knows about an account."""

    running: int = 0
    calls: int = 0
    credit: float = 0.0
    used_at: float = 0.0
    limited: int = 0
    failures: tuple[float, ...] = ()
    cooldowns: dict[str, Cooldown] = field(default_factory=dict)
    quota_noted: tuple[tuple[str, float], ...] = ()


class Pool:
    """Gives each call its account. `strategy` is asked at each choice.

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
    ) -> None:
        self._store = store
        self._refresher = refresher
        self._clock = clock
        self._strategy = strategy
        self._spread = spread
        self._single = Single(now=clock.now)
        self._accounts: Sequence[Account] = ()
        self._pinned: str | None = None
        self._kept: dict[str, Kept] = {}
        self._memory = Memory(store, clock=clock)
        self._spent: Spent = nothing_spent
        self._live: defaultdict[str, _Live] = defaultdict(_Live)
        self._seen = -1
        self._writing: set[asyncio.Task[None]] = set()
        self._logger = get_logger()

    def heed(self, spent: Spent) -> None:
        """Ask `spent` as well what stands against one more call with an account."""
        self._spent = spent

    # --- the snapshot ----------------------------------------------------------------------

    async def load(self) -> None:
        """Take what the store holds. Raises StoreFailed; the old snapshot then stays."""
        self._seen = await self._store.changes()
        self._pinned = await self._store.pinned()
        self._accounts = await self._store.all(now=self._clock.now())
        known = {account.id for account in self._accounts}
        for gone in self._live.keys() - known:
            del self._live[gone]

    async def follow(self) -> None:
        """Take in what another process has changed, if it has. Raises StoreFailed."""
        if await self._store.changes() != self._seen:
            await self.load()

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
        cooldowns = (*account.cooldowns, *live.cooldowns.values())
        standing = list(limits.obstacles(cooldowns, account.quota, model=model, now=now))
        standing += self._spent(account.name, model=model, running=live.running)
        held = is_open(live.failures, now=now)
        if held is not None:
            reason = "its last calls have failed"
            standing.append(Obstacle(reason=reason, until=held, guessed=True))
        return Candidate(
            id=account.id,
            name=account.name,
            state=account.state,
            obstacles=tuple(standing),
            tags=frozenset(account.tags),
            weight=account.weight,
            left=limits.left(account.quota, now=now),
            running=live.running,
            calls=live.calls,
            credit=live.credit,
            used_at=live.used_at,
        )

    async def take(self, target: Target, wants: Wants, *, model: str) -> Taken:
        """The account for a call and its credential; give it back with `done`.

        Raises NoAccount, RequestRejected for a pin that names no account, StoreFailed, and
        UpstreamFailed when the settings' own credential cannot be had.
        """
        if not self.of(target):
            return await self._single.take(target, wants, model=model)
        while True:
            choice = self.choice(target, wants, model=model)
            account = self._found(choice, wants)
            try:
                taken = await self._credential(target, account)
            except (AccountEnded, RefreshFailed) as error:
                await self._refresh_failed(account, error)
                wants = replace(wants, tried=wants.tried | {account.id})
                continue
            if wants.conversation is not None:
                self._memory.used(wants.conversation, account.id)
            live = self._live[account.id]
            live.running += 1
            live.calls += 1
            live.used_at = self._clock.now()
            for earned, change in credits_after(choice).items():
                self._live[earned].credit += change
            return replace(taken, reason=choice.reason)

    def _found(self, choice: Choice, wants: Wants) -> Account:
        for account in self._accounts:
            if account.id == choice.account:
                return account
        if choice.barred:
            raise barred(wants)
        if wants.pin is not None and not choice.considered:
            raise no_such()
        raise NoAccount(_exhausted(choice, now=self._clock.now()))

    async def bound(
        self, target: Target, wants: Wants, request: UpstreamRequest, *, headers: Mapping[str, str]
    ) -> Wants:
        """See the port."""
        if target.only and len(self.of(target)) < 2:
            return wants
        named = affinity.conversation(headers, request.body)
        bound = wants.bound
        sealed = affinity.sealed_in_request(request.body)[:_MAX_SEALED]
        if sealed and wants.pin is None:
            homes = {account.id: account.target for account in self._accounts}
            bound = await self._memory.maker_at(target.label, sealed, homes=homes) or bound
        last = None if named is None else self._memory.last(named)
        return replace(wants, bound=bound, last=last, conversation=named)

    def noted(self, taken: Taken, sealed: Sequence[str], *, target: Target) -> None:
        """The answer holds what only this account can read, or this target."""
        if taken.account is not None or not target.only:
            maker = taken.account or f"{TARGET}{target.label}"
            self._write(self._memory.made(maker, sealed))

    def other(self, target: Target, wants: Wants, *, model: str) -> bool:
        """Whether there is an account for another call, after those that were tried."""
        return self.choice(target, wants, model=model).account is not None

    def free(self, target: Target, *, model: str) -> bool:
        """Whether nothing at all stands against a call to the target now."""
        if not self.of(target):
            return self._single.free(target, model=model)
        seen = self.choice(target, Wants(), model=model).considered
        return any(each.obstacle is None for each in seen)

    async def _credential(self, target: Target, account: Account) -> Taken:
        if account.kind == SETTINGS:
            secret = target.accounts.get(account.name)
            if secret is None:
                raise AccountEnded(account.id)
            return Taken(account=account.id, name=account.name, shown=Shown(secret=secret.reveal()))
        kept = self._kept.get(account.id)
        if kept is None or kept.version < account.version:
            kept = await self._store.credential(account.id)
            if kept is None:
                raise AccountEnded(account.id)
        ends = account.expires_at if kept.version == account.version else None
        margin = _margin(account, SKEW_SECONDS)
        if account.kind == OAUTH and ends is not None and ends - margin <= self._clock.now():
            kept = await self._renewed(account, kept, ends=ends)
        self._kept[account.id] = kept
        return Taken(
            account=account.id,
            name=account.name,
            shown=shown(account.kind, kept.credential),
            version=kept.version,
        )

    async def _renewed(self, account: Account, kept: Kept, *, ends: float) -> Kept:
        try:
            renewed = await self._refresher.fresh(account.id, version=kept.version)
        except RefreshFailed:
            if ends > self._clock.now():
                return kept  # it is good for a while yet
            raise
        await self.load()
        return renewed

    async def _refresh_failed(self, account: Account, error: AccountEnded | RefreshFailed) -> None:
        self._kept.pop(account.id, None)
        if isinstance(error, AccountEnded):
            return await self.load()
        seconds = error.wait or _FAILED_REFRESH
        means = Consequence(reason="its refresh failed", seconds=seconds)
        return self._cool(account.id, means)

    # --- what becomes of calls -------------------------------------------------------------

    def done(self, taken: Taken, record: CallRecord | None) -> None:
        """The call is over; it is judged by the event that ended its response."""
        if taken.account is None:
            return
        live = self._live[taken.account]
        live.running = max(0, live.running - 1)
        if record is None:
            return
        if record.outcome in _WELL:
            live.failures = ()
        elif record.outcome is Outcome.LOST:
            live.failures = (*live.failures, self._clock.now())[-_FAILURES:]

    def shown(
        self, error: HandrailError, target: Target, *, model: str, tags: frozenset[str]
    ) -> HandrailError:
        """After a limit, when there are several accounts: when the first of them is free again."""
        if error.fault.status != _TOO_MANY or len(self.of(target)) < 2:
            return error
        choice = self.choice(target, Wants(tags=tags), model=model)
        if choice.account is not None or choice.until is None:
            return error
        return NoAccount(_exhausted(choice, now=self._clock.now()))

    def answered(self, taken: Taken, headers: Mapping[str, str]) -> None:
        """The upstream has taken the call; its headers may tell how much of a quota is used."""
        if taken.account is None:
            return
        live = self._live[taken.account]
        live.limited = 0
        windows = limits.read_windows(headers, now=self._clock.now())
        # Every call uses a little; written down is what would be shown.
        noted = tuple((window.name, round(window.used_percent)) for window in windows)
        if windows and noted != live.quota_noted:
            live.quota_noted = noted
            self._accounts = [
                replace(each, quota=windows) if each.id == taken.account else each
                for each in self._accounts
            ]
            now = self._clock.now()
            self._write(self._store.saw_quota(taken.account, windows, now=now))

    async def failed(
        self, taken: Taken, error: HandrailError, *, target: Target, model: str
    ) -> Consequence:
        """What `error` means for the account; it is held back from now on if it says so."""
        if taken.account is None:
            return await self._single.failed(taken, error, target=target, model=model)
        live = self._live[taken.account]
        means = consequence(error, model=model, limited=live.limited)
        if isinstance(error, UpstreamRefused):
            self.answered_limits(taken, error)
            live.limited = live.limited + 1 if error.fault.status == 429 else live.limited
        if means.fails:
            live.failures = (*live.failures, self._clock.now())[-_FAILURES:]
        if means.ended:
            await self._store.end(taken.account, version=taken.version, why=means.reason)
            await self.load()
        elif means.renew and await self._renew(taken):
            return replace(means, seconds=0.0)
        else:
            means = replace(means, renew=False)
            self._cool(taken.account, means)
        self._logger.warning(
            "account_failed", account=taken.name, reason=means.reason, seconds=means.seconds
        )
        return means

    def answered_limits(self, taken: Taken, error: UpstreamRefused) -> None:
        """A refusal may tell how much of a quota is used, too."""
        windows = limits.read_windows(error.headers, now=self._clock.now())
        if windows and taken.account is not None:
            self._write(self._store.saw_quota(taken.account, windows, now=self._clock.now()))

    async def _renew(self, taken: Taken) -> bool:
        """Refresh a credential that was refused; False when it cannot be."""
        account = next((each for each in self._accounts if each.id == taken.account), None)
        if account is None or account.kind != OAUTH:
            return False
        try:
            self._kept[account.id] = await self._refresher.fresh(account.id, version=taken.version)
        except (AccountEnded, RefreshFailed) as error:
            await self._refresh_failed(account, error)
            return False
        await self.load()
        return True

    def _cool(self, account: str, means: Consequence) -> None:
        if not means.seconds:
            return
        cooldown = Cooldown(
            scope=means.scope,
            until=self._clock.now() + means.seconds,
            reason=means.reason,
            guessed=means.guessed,
        )
        self._live[account].cooldowns[means.scope] = cooldown
        if not means.guessed:  # what we only guess is not worth keeping
            self._write(self._store.cool(account, cooldown))

    def _write(self, work: Coroutine[Any, Any, None]) -> None:
        # Beside the call: nobody should wait for what is already known here.
        task = asyncio.create_task(self._written(work), name="account note")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _written(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StoreFailed as error:
            self._logger.error("account_not_noted", why=error.detail)

    # --- upkeep ----------------------------------------------------------------------------

    async def loop(self) -> None:
        """Follow what other processes change, and refresh in good time; ends by cancellation."""
        rounds = 0
        while True:
            try:
                await self.follow()
                if rounds % _EARLY_ROUNDS == 0:
                    await self.refresh_early(spread=self._spread)
            except StoreFailed as error:
                self._logger.error("accounts_not_followed", why=error.detail)
            rounds += 1
            await self._clock.sleep(FOLLOW_SECONDS)

    async def refresh_early(self, *, spread: Callable[[], float]) -> None:
        """Refresh what ends soon; `spread` (0 to 1) keeps processes from doing so all at once."""
        for account in self._soon_over(share=0.5 + 0.5 * spread()):
            try:
                await self._refresher.fresh(account.id, version=account.version)
            except (AccountEnded, RefreshFailed) as error:
                await self._refresh_failed(account, error)
        await self.follow()

    def _soon_over(self, *, share: float) -> Iterable[Account]:
        now = self._clock.now()
        return [
            account
            for account in self._accounts
            if account.kind == OAUTH
            and account.state is not State.ENDED
            and account.expires_at is not None
            and account.expires_at <= now + _margin(account, EARLY_SECONDS) * share
        ]

    async def settle(self) -> None:
        """Finish refreshes and notes that are under way: a login that is not kept is lost."""
        await self._refresher.settle(seconds=_SETTLE_SECONDS)
        await asyncio.gather(*self._writing, return_exceptions=True)


def _margin(account: Account, most: float) -> float:
    """How long before its end a credential is refreshed: less for one that is short-lived."""
    begun = account.refreshed_at or account.added_at
    return most if account.expires_at is None else min(most, (account.expires_at - begun) / 2)


def _exhausted(choice: Choice, *, now: float) -> Fault:
    if choice.until is None:
        return no_credential().fault
    wait = max(choice.until - now, 1.0)
    problem = fault(
        Code.ACCOUNTS_EXHAUSTED,
        f"The gateway has no account left for this request: {choice.reason}. The first is free "
        f"again in {wait:.0f} s.",
    )
    return replace(problem, retry_after=wait, extra={"resets_at": int(choice.until)})
