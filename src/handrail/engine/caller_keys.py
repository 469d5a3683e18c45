"""The keys of callers as a process has them: a snapshot that is renewed, and the verbs on keys."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from handrail.core.caller_keys import (
    CallerKey,
    Keyring,
    Standing,
    Wish,
    check_caller,
    key_digest,
    made,
    shown_name,
)
from handrail.engine.clock import Clock
from handrail.errors import Code, RequestRejected, StoreFailed
from handrail.settings.model import Secret
from handrail.store.callers import Keys
from handrail.telemetry import get_logger

LOOK_SECONDS: Final = 1.0
"""How often the file is looked at; what it costs is one read of a counter."""

USED_SECONDS: Final = 60.0
"""How often the use of one key is written down at most, and how often its refusal is logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A key that was just made, and what is kept of it. `old` is the one that it follows, if any.

    This is the only place where the key itself ever is.
    """

    secret: Secret
    key: CallerKey
    old: CallerKey | None = None


class CallerKeys:
    """Keys of callers over their port.

    `caller_of` compares with an immutable snapshot and does no I/O; `loop` renews that when another
    process has changed the file. What this process changes holds at once. Until the keys could be
    read for the first time there are none.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        clock: Clock,
        new_secret: Callable[[], str],
        new_id: Callable[[], str],
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._new_secret = new_secret
        self._new_id = new_id
        self._ring = Keyring()
        self._known: dict[str, CallerKey] = {}
        self._seen: int | None = None
        self._used: dict[str, float] = {}
        self._written: dict[str, float] = {}  # monotonic
        self._refused: dict[str, float] = {}  # monotonic
        self._failing = False
        self._due = True
        self._renewing = asyncio.Lock()
        self._logger = get_logger()

    @property
    def stale(self) -> bool:
        """Whether the snapshot may be an old one: the file cannot be read, or was not yet."""
        return self._failing or self._seen is None

    # --- who is it -------------------------------------------------------------------------

    def caller_of(self, digest: bytes, callers: Collection[str]) -> str | None:
        """The name, of `callers`, whose key has this digest; None when no usable key has it.

        Why a key that was made is of no use is for the log, by its id, and never for the client.
        """
        key = self._ring.find(digest)
        if key is None:
            return None
        now = self._clock.now()
        standing = key.standing(now)
        if standing is not Standing.ACTIVE or key.caller not in callers:
            self._log_refusal(key, standing)
            return None
        self._used[key.id] = now
        return key.caller

    def _log_refusal(self, key: CallerKey, standing: Standing) -> None:
        now = self._clock.monotonic()
        if now - self._refused.get(key.id, -USED_SECONDS) >= USED_SECONDS:
            self._refused[key.id] = now
            why = "caller_gone" if standing is Standing.ACTIVE else standing.value
            self._logger.warning("key_refused", key_id=key.id, caller=key.caller, why=why)

    def without(self, callers: Collection[str]) -> list[str]:
        """Those of `callers` who have no key here that opens anything."""
        now = self._clock.now()
        active = (key for key in self._known.values() if key.standing(now) is Standing.ACTIVE)
        return sorted(set(callers) - {key.caller for key in active})

    # --- the snapshot ----------------------------------------------------------------------

    async def loop(self) -> None:
        """Look for ever; ends only by cancellation."""
        while True:
            await self.look()
            await self._clock.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Renew the snapshot if the file has changed, and write down which keys were used.

        When the file cannot be read the old snapshot stays, and `stale` says so.
        """
        try:
            if self._due or self._failing or await self._keys.changes() != self._seen:
                await self.refresh()
            await self._write_uses(at_once=False)
            self._failing = False
        except StoreFailed as error:
            if not self._failing:
                self._logger.error("keys_unusable", why=error.detail or error.fault.code)
            self._failing = True

    async def refresh(self) -> None:
        """Renew the snapshot, after this process has changed the file. Raises StoreFailed.

        If that fails it is made up for at the next look.
        """
        self._due = True
        async with self._renewing:  # or an older reading could replace a newer one
            seen = await self._keys.changes()  # first: what comes in between is seen next time
            keys = await self._keys.all()
            self._log_changes(keys)
            self._ring = Keyring.of(keys)
            self._known = {key.id: key for key in keys}
            self._seen = seen
            self._due = False

    def _log_changes(self, keys: Sequence[CallerKey]) -> None:
        if self._seen is None:
            self._logger.info("keys_read", count=len(keys))
            return
        for key in keys:
            before = self._known.get(key.id)
            if before is None:
                self._logger.info("key_added", key_id=key.id, caller=key.caller)
            elif before.revoked_at is None and key.revoked_at is not None:
                self._logger.info("key_revoked", key_id=key.id, caller=key.caller)

    async def _write_uses(self, *, at_once: bool) -> None:
        now = self._clock.monotonic()
        due = {
            key_id: at
            for key_id, at in self._used.items()
            if at_once or now - self._written.get(key_id, -USED_SECONDS) >= USED_SECONDS
        }
        if not due:
            return
        await self._keys.used(due)
        for key_id, at in due.items():
            self._written[key_id] = now
            if self._used[key_id] == at:
                del self._used[key_id]

    async def close(self) -> None:
        """Write down what is left to be written."""
        try:
            await self._write_uses(at_once=True)
        except StoreFailed as error:
            self._logger.error("key_uses_lost", why=error.detail or error.fault.code)

    # --- verbs -----------------------------------------------------------------------------

    async def listed(self) -> Sequence[CallerKey]:
        """Every key that was made, the oldest first. Raises StoreFailed."""
        return await self._keys.all()

    async def create(self, wish: Wish, *, callers: Collection[str]) -> Issued:
        """Make a key for one of `callers`. Raises RequestRejected and StoreFailed."""
        check_caller(wish.caller, callers)
        secret = Secret(self._new_secret())
        digest = key_digest(secret.reveal())
        key = made(wish, key_id=self._new_id(), digest=digest, now=self._clock.now())
        await self._keys.add(key)
        return Issued(secret=secret, key=key)

    async def rotate(self, key_id: str, *, callers: Collection[str], overlap: int) -> Issued:
        """Give a key a successor; it lives on for `overlap` seconds itself.

        Raises RequestRejected for a key that is not there or opens nothing, and StoreFailed.
        """
        for key in await self._keys.all():
            if key.id == key_id:
                check_caller(key.caller, callers)
        secret = Secret(self._new_secret())
        both = await self._keys.rotate(
            key_id,
            new_id=self._new_id(),
            digest=key_digest(secret.reveal()),
            now=self._clock.now(),
            overlap=overlap,
        )
        if both is None:
            raise _not_found(key_id)
        new, old = both
        return Issued(secret=secret, key=new, old=old)

    async def revoke(self, key_id: str) -> CallerKey:
        """Make a key open nothing, for good; idempotent. Raises RequestRejected and StoreFailed."""
        key = await self._keys.revoke(key_id, now=self._clock.now())
        if key is None:
            raise _not_found(key_id)
        return key


def _not_found(key_id: str) -> RequestRejected:
    words = f"There is no key '{shown_name(key_id)}'."
    return RequestRejected(Code.NOT_FOUND, words, param="id")
