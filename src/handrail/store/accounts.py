"""Accounts as the engine sees them: a port and frozen rows.

Several processes use them at once. What must not happen twice (a refresh credential is good for one
exchange) is guarded by a lease and by the version of the credential: whoever comes second finds
either the lease or the new version, and reads instead of asking the issuer again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from handrail.core.limits import Cooldown, Told, Window
from handrail.core.select import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account without its credential. Times in unix seconds.

    `kind` is `oauth`, `key` (a kept API key) or `settings` (the credential is in the settings and
    never here). `expires_at` is of the access credential, None when nobody knows. `resumed` is how
    often the operator has had it resumed or signed in again, `credits` what it has paid for beside
    its plan (`Told`).
    """

    id: str
    name: str
    target: str
    kind: str
    version: int = 0
    expires_at: float | None = None
    plan: str | None = None
    state: State = State.ACTIVE
    why_ended: str | None = None
    weight: float = 1.0
    tags: tuple[str, ...] = ()
    added_at: float = 0.0
    refreshed_at: float | None = None
    resumed: int = 0
    credits: str | None = None
    cooldowns: tuple[Cooldown, ...] = ()
    quota: tuple[Window, ...] = ()

    def shown(self, *, pinned: bool) -> dict[str, object]:
        """What may be told about it, as JSON values. Times are written in ISO 8601, UTC."""
        return {
            "name": self.name,
            "target": self.target,
            "kind": self.kind,
            "plan": self.plan,
            "credits": self.credits,
            "state": self.state.value,
            "why_ended": self.why_ended,
            "pinned": pinned,
            "weight": self.weight,
            "tags": list(self.tags),
            "expires_at": written(self.expires_at),
            "refreshed_at": written(self.refreshed_at),
            "cooldowns": [
                {"model": each.scope or "*", "until": written(each.until), "reason": each.reason}
                for each in self.cooldowns
            ],
            "quota": [
                {
                    "name": each.name,
                    "model": each.about,
                    "used_percent": each.used_percent,
                    "seconds": each.seconds,
                    "resets_at": written(each.resets_at),
                    "seen_at": written(each.seen_at),
                }
                for each in self.quota
            ],
        }


def written(moment: float | None) -> str | None:
    """A moment as people read it, in UTC."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """An account to be kept; `credential` is what will be sealed."""

    name: str
    target: str
    kind: str
    credential: bytes = field(repr=False)
    expires_at: float | None = None
    plan: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A credential as it is kept, and which writing of it this is."""

    credential: bytes = field(repr=False)
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """Somebody else refreshes, until then (unix seconds) as far as anybody can tell."""

    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """You refresh, and nobody else until you say so or the lease is over."""

    kept: Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """Somebody has refreshed already."""

    kept: Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A credential that takes another's place. `expires_at` in unix seconds."""

    credential: bytes = field(repr=False)
    expires_at: float | None
    plan: str | None = None


TARGET: Final = "target:"
"""Before the name of a target that made something with the credential of the settings."""


class Accounts(Protocol):
    """Where accounts are kept. Raises StoreFailed when it cannot do its work."""

    async def all(self, *, now: float) -> Sequence[Account]:
        """All accounts by name, with the cooldowns that are not over."""

    async def pinned(self) -> str | None:
        """The id of the account that the operator pinned."""

    async def credential(self, account: str) -> Kept | None:
        """What is kept of an account; None when it is gone."""

    async def lease(
        self, account: str, *, version: int, owner: str, now: float, seconds: float
    ) -> Leased | Renewed | Busy | None:
        """Ask to refresh what has `version`. None when the account is gone or has ended.

        A lease is given to one at a time: its holder must have ended it, or be dead.
        """

    async def renew(self, account: str, *, version: int, renewal: Renewal, now: float) -> bool:
        """Keep what a refresh gave, durably, and end the lease. False when it was too late."""

    async def release(self, account: str, *, owner: str) -> None:
        """End a lease without a result."""

    async def end(
        self, account: str, *, version: int, why: str, resumed: int | None = None
    ) -> None:
        """The account is over until somebody signs in again.

        Not if it has another version by now, or was resumed or signed in to another time.
        """

    async def cool(self, account: str, cooldown: Cooldown) -> None:
        """Not to be used for a while; an end that is later already holds."""

    async def saw_quota(self, account: str, told: Told, *, now: float) -> None:
        """What the upstream said about its limits, at `now`; what it did not say stays."""

    def digest(self, sealed: str) -> bytes:
        """What is kept in place of something that only one account can read."""

    async def made(self, makers: Mapping[bytes, str], *, until: float) -> None:
        """Who made these: by digest the id of an account, or TARGET and the name of a target."""

    async def any_made(self) -> bool:
        """Whether it is known of anything who made it."""

    async def makers(self, digests: Sequence[bytes], *, now: float) -> Mapping[bytes, str]:
        """Who made each of these, as far as that is known."""

    async def sweep(self, *, now: float) -> None:
        """Forget what is over."""

    async def put(self, account: str, state: State) -> bool:
        """What the operator wants of it; an active one is freed of its cool-downs too.

        False, and nothing has changed, when it is gone, or has ended: only a new credential brings
        it back, but one of the settings may be made active.
        """

    async def changes(self) -> int:
        """Another number after another process has changed something."""
