"""One exchange of a refresh credential per expiry, whoever asks, in however many processes.

A refresh credential is good for one exchange, and an issuer that sees it twice may end the whole
account. So inside a process everybody waits for one task; between processes the store gives out one
lease, and whoever comes second reads what the first has kept. An exchange that has begun goes on
although nobody waits for it any more, and its result is durable before anybody uses it. Only when
the store does not take it for a while does this process go on with it, and it alone: it keeps the
lease, and writes until the store does.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from handrail.engine.clock import Clock
from handrail.engine.shield import to_the_end
from handrail.errors import StoreFailed
from handrail.store.accounts import Accounts, Busy, Kept, Leased, Renewal, Renewed
from handrail.telemetry import get_logger

LEASE_SECONDS: Final = 60.0
"""How long an exchange should take at most."""

BUSY_SECONDS: Final = 90.0
"""How long another process is waited for: longer than an exchange, its repeat and its keeping take.

One that hangs for longer keeps its lease all the same, for its exchange may have been sent.
"""

_POLL_SECONDS: Final = 0.1
_TRIES: Final = 2


class RefreshFailed(Exception):
    """An exchange gave no credential; the message is for the operator and holds no secret.

    `permanent`: the issuer will never take this refresh credential again. `lost`: it may have taken
    it, and its answer was lost. `wait` is how long the issuer asks to wait, in seconds.
    """

    def __init__(
        self, why: str, *, permanent: bool = False, lost: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(why)
        self.permanent = permanent
        self.lost = lost
        self.wait = wait


class Exchange(Protocol):
    """Asks an issuer for a new credential. Raises RefreshFailed."""

    async def __call__(self, credential: bytes) -> Renewal:
        """What takes the place of the kept `credential`."""


class AccountEnded(Exception):
    """The account is over until somebody signs in again.

    `why` is what ended it just now, with the credential of `version`; "" when that is known.
    """

    def __init__(self, account: str, *, version: int = 0, why: str = "") -> None:
        super().__init__(account)
        self.version = version
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    account: str
    version: int


class Refresher:
    """Refreshes accounts of one store. `owner` names this process in leases."""

    def __init__(self, store: Accounts, exchange: Exchange, *, clock: Clock, owner: str) -> None:
        self._store = store
        self._exchange = exchange
        self._clock = clock
        self._owner = owner
        self._under_way: dict[_Asked, asyncio.Task[Kept]] = {}
        # What was granted and is not in the store yet; nobody else has it.
        self._unsaved: dict[_Asked, Renewal] = {}
        self._logger = get_logger()

    async def fresh(self, account: str, *, version: int) -> Kept:
        """The credential that comes after `version`.

        Raises AccountEnded, RefreshFailed for now, and StoreFailed.
        """
        asked = _Asked(account=account, version=version)
        task = self._under_way.get(asked)
        if task is None:
            task = asyncio.create_task(self._fresh(asked), name=f"refresh {account}")
            self._under_way[asked] = task
            task.add_done_callback(lambda done: self._over(asked, done))
        # Whoever waits may leave; the exchange goes on.
        return await asyncio.shield(task)

    def _over(self, asked: _Asked, task: asyncio.Task[Kept]) -> None:
        del self._under_way[asked]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have

    async def save(self) -> Sequence[str]:
        """Keep what could not be kept before, as far as the store takes it now.

        The accounts of which somebody else has signed in meanwhile: what was granted is not theirs.
        """
        replaced = []
        for asked, renewal in list(self._unsaved.items()):
            if asked in self._under_way:
                continue  # it is being written
            try:
                kept = await self._saved(asked, renewal)
            except AccountEnded:
                replaced.append(asked.account)
            except Exception as error:
                self._not_kept(asked, error)
            else:
                if kept.credential != renewal.credential:
                    replaced.append(asked.account)
        return replaced

    def unsaved(self) -> frozenset[str]:
        """The accounts whose latest credential is not in the store yet."""
        return frozenset(asked.account for asked in self._unsaved)

    async def settle(self, *, seconds: float) -> None:
        """Wait so long at most for the exchanges that are under way, and until they are kept."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if self._under_way:
                    await asyncio.wait(list(self._under_way.values()))
                await self.save()
                while self._unsaved:
                    await self._clock.sleep(_POLL_SECONDS)
                    await self.save()
        for asked in self._unsaved:
            self._logger.error("refresh_lost", account=asked.account)

    async def _fresh(self, asked: _Asked) -> Kept:
        for earlier, renewal in list(self._unsaved.items()):
            if earlier == asked:
                try:
                    return await self._saved(earlier, renewal)
                except StoreFailed:
                    return _kept(earlier, renewal)
            if earlier.account == asked.account:
                # What the store has is spent, and must not be shown to the issuer again.
                await self._saved(earlier, renewal)
        return await self._refreshed(asked)

    async def _refreshed(self, asked: _Asked) -> Kept:
        until = self._clock.monotonic() + BUSY_SECONDS
        while True:
            leased = await self._store.lease(
                asked.account,
                version=asked.version,
                owner=self._owner,
                now=self._clock.now(),
                seconds=LEASE_SECONDS,
            )
            if leased is None:
                raise AccountEnded(asked.account)
            if isinstance(leased, Renewed):
                return leased.kept
            if isinstance(leased, Leased):
                return await to_the_end(self._exchanged(asked, leased.kept))
            if self._clock.monotonic() >= until:
                raise RefreshFailed("another process has been refreshing it for too long")
            await self._wait(leased)

    async def _wait(self, busy: Busy) -> None:
        left = max(busy.until - self._clock.now(), 0.0)
        await self._clock.sleep(min(left, _POLL_SECONDS))

    async def _exchanged(self, asked: _Asked, kept: Kept) -> Kept:
        try:
            renewal = await self._answer(kept.credential)
        except RefreshFailed as error:
            self._logger.error(
                "refresh_failed", account=asked.account, why=str(error), permanent=error.permanent
            )
            if error.permanent:
                end = self._store.end(asked.account, version=asked.version, why=str(error))
                if not await self._noted(end):
                    await self._noted(self._store.release(asked.account, owner=self._owner))
                # Also when it could not be written: whoever asked remembers it.
                raise AccountEnded(asked.account, version=asked.version, why=str(error)) from None
            await self._noted(self._store.release(asked.account, owner=self._owner))
            raise
        except BaseException:
            await self._noted(self._store.release(asked.account, owner=self._owner))
            raise
        self._unsaved[asked] = renewal
        return await self._keep(asked, renewal)

    async def _noted(self, work: Awaitable[None]) -> bool:
        """Do `work`, if it can be: that the store is sick must not hide what the issuer said."""
        try:
            await work
        except StoreFailed as error:
            self._logger.error("refresh_not_noted", why=error.detail)
            return False
        return True

    async def _answer(self, credential: bytes) -> Renewal:
        """An answer whose loss may have used the credential up is asked for once more.

        An issuer that takes it again has not; one that has says so, and nothing else helps then.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return await self._exchange(credential)
            except RefreshFailed as error:
                if not error.lost or tries == _TRIES:
                    raise

    async def _keep(self, asked: _Asked, renewal: Renewal) -> Kept:
        # What is not kept is lost for good with this process: a store that cannot be written now is
        # tried again while the caller waits, then by `save`. The lease stays ours until then.
        until = self._clock.monotonic() + LEASE_SECONDS / 2
        while True:
            try:
                return await self._saved(asked, renewal)
            except AccountEnded:
                raise
            except Exception as error:
                self._not_kept(asked, error)
                if self._clock.monotonic() > until:
                    return _kept(asked, renewal)
                await self._clock.sleep(_POLL_SECONDS)

    def _not_kept(self, asked: _Asked, error: Exception) -> None:
        why = error.detail if isinstance(error, StoreFailed) else None
        self._logger.error(
            "refresh_not_kept", account=asked.account, why=why, exc_info=error if not why else None
        )

    async def _saved(self, asked: _Asked, renewal: Renewal) -> Kept:
        """What the account has from now on. Raises AccountEnded when it is gone, and StoreFailed.

        It is not what was granted when somebody has signed in while the exchange was under way.
        """
        renewed = await self._store.renew(
            asked.account, version=asked.version, renewal=renewal, now=self._clock.now()
        )
        if renewed:
            kept: Kept | None = _kept(asked, renewal)
            self._logger.info("refreshed", account=asked.account)
        else:
            kept = await self._store.credential(asked.account)
            self._logger.warning("refresh_too_late", account=asked.account)
        self._unsaved.pop(asked, None)
        if kept is None:
            raise AccountEnded(asked.account)
        return kept


def _kept(asked: _Asked, renewal: Renewal) -> Kept:
    return Kept(credential=renewal.credential, version=asked.version + 1)
