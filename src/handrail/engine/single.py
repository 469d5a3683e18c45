"""The account of a call where there is only the settings' own credential, or none."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from handrail.core.credentials import SETTINGS, Shown
from handrail.core.failover import Consequence, consequence
from handrail.core.limits import ALL
from handrail.core.request_options import ACCOUNT
from handrail.core.rewrite import UpstreamRequest
from handrail.core.select import Obstacle, Wants
from handrail.engine.meter import CallRecord
from handrail.errors import (
    Code,
    HandrailError,
    RequestRejected,
    UpstreamFailed,
    UpstreamRefused,
    fault,
)
from handrail.settings.model import Target
from handrail.upstream.credentials import Credentials

_UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one call is made with. `account` is None for the only credential of the settings.

    `model` is what it is for, "" for no model. A `question` is about the account alone.
    """

    account: str | None
    name: str
    shown: Shown | None = field(repr=False)
    version: int = 0
    reason: str = ""
    model: str = ""
    question: bool = False


class Spent(Protocol):
    """What budgets stand against one more call with an account, beside those under way."""

    def __call__(self, account: str, *, model: str, running: int) -> Iterable[Obstacle]:
        """By the account's name."""


def nothing_spent(account: str, *, model: str, running: int) -> Iterable[Obstacle]:
    """`Spent` where there are no budgets."""
    return ()


class NoAccount(HandrailError):
    """No account may be used for a call now."""


class MadeElsewhere(RequestRejected):
    """The request holds what nobody can read to whom it may go; `maker` says who alone can."""

    def __init__(self, maker: str) -> None:
        super().__init__(
            Code.ENCRYPTED_CONTENT_ELSEWHERE,
            f"The input holds encrypted content that only {maker} can read, and this request "
            "cannot go there. Leave those items out of 'input'.",
            param="input",
        )


class Accounts(Protocol):
    """Gives each upstream call what it is made with."""

    async def take(self, target: Target, wants: Wants, *, model: str) -> Taken:
        """The account for a call; it is given back with `done`. Raises HandrailError."""

    def other(self, target: Target, wants: Wants, *, model: str) -> bool:
        """Whether there is an account for another call, after those that were tried."""

    def free(self, target: Target, *, model: str, tags: frozenset[str]) -> bool:
        """Whether nothing at all stands against a call to the target now.

        Its account must have one of the `tags`, if there are any.
        """

    async def bound(
        self, target: Target, wants: Wants, request: UpstreamRequest, *, headers: Mapping[str, str]
    ) -> tuple[Wants, UpstreamRequest]:
        """What `request` wants beside: the account that alone can read it, or the last one.

        And the request as that account can read it: where the settings allow it, without reasoning
        that another has made. Raises MadeElsewhere when no account of the target can read it.
        """

    def noted(self, taken: Taken, sealed: Sequence[str], *, target: Target) -> None:
        """The answer of the target holds what only this account can read."""

    def done(self, taken: Taken, record: CallRecord | None) -> None:
        """The call is over; `record` says how, None when `failed` is told."""

    def shown(
        self, error: HandrailError, target: Target, *, model: str, tags: frozenset[str]
    ) -> HandrailError:
        """What a caller hears after `error`, when no other account is left for the call."""

    def answered(self, taken: Taken, headers: Mapping[str, str]) -> None:
        """The upstream has taken the call, and said this beside it."""

    async def failed(
        self, taken: Taken, error: HandrailError, *, target: Target, model: str
    ) -> Consequence:
        """What `error` means for the account."""


class Single:
    """`Accounts` where there are none: the credential of the settings, for every call."""

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._credentials = Credentials(now=now)
        self._now = now
        self._held: dict[tuple[str, str], float] = {}

    async def take(self, target: Target, wants: Wants, *, model: str) -> Taken:
        """See the port."""
        if wants.pin is not None:
            raise no_such()
        if wants.tags:  # the credential of the settings has none
            raise barred(wants)
        secret = await self._credentials.of(target)
        show = None if secret is None else Shown(secret=secret.reveal())
        return Taken(account=None, name=SETTINGS, shown=show)

    def other(self, target: Target, wants: Wants, *, model: str) -> bool:
        """See the port."""
        return False

    def free(self, target: Target, *, model: str, tags: frozenset[str]) -> bool:
        """See the port."""
        if tags:  # the credential of the settings has none
            return False
        now = self._now()
        return all(self._held.get((target.name, scope), 0.0) <= now for scope in (ALL, model))

    async def bound(
        self, target: Target, wants: Wants, request: UpstreamRequest, *, headers: Mapping[str, str]
    ) -> tuple[Wants, UpstreamRequest]:
        """See the port."""
        return wants, request

    def noted(self, taken: Taken, sealed: Sequence[str], *, target: Target) -> None:
        """See the port."""

    def done(self, taken: Taken, record: CallRecord | None) -> None:
        """See the port."""

    def shown(
        self, error: HandrailError, target: Target, *, model: str, tags: frozenset[str]
    ) -> HandrailError:
        """See the port."""
        return error

    def answered(self, taken: Taken, headers: Mapping[str, str]) -> None:
        """See the port."""

    async def failed(
        self,
        taken: Taken,
        error: HandrailError,
        *,
        target: Target,
        model: str,
    ) -> Consequence:
        """See the port."""
        if isinstance(error, UpstreamRefused) and error.upstream_status == _UNAUTHORIZED:
            self._credentials.forget(target)
        means = consequence(error, model=model, also=target.also_after)
        if means.seconds and not target.only:
            self._hold(target, means)
        return means

    def _hold(self, target: Target, means: Consequence) -> None:
        """Other targets come first until then; there is no other credential to go to."""
        now = self._now()
        self._held = {key: until for key, until in self._held.items() if until > now}
        self._held[target.name, means.scope] = now + means.seconds


def no_such() -> RequestRejected:
    """A request demands an account that is not there."""
    return RequestRejected(
        Code.INVALID_VALUE,
        f"'{ACCOUNT}' names no account that may be used here.",
        param=ACCOUNT,
    )


def barred(wants: Wants) -> HandrailError:
    """The caller's rule leaves it no account; of those it may not use it learns nothing."""
    if wants.pin is not None:
        return no_such()
    return NoAccount(
        fault(
            Code.NO_ACCOUNT_ALLOWED,
            "No account of the gateway has one of the tags that this caller's account_tags name; "
            "its operator has to mend that.",
        )
    )


def no_credential() -> UpstreamFailed:
    """There is no credential that could be shown."""
    return UpstreamFailed(
        Code.UPSTREAM_CREDENTIALS_REJECTED,
        "The gateway has no credential for its upstream; its operator has to mend that.",
        sent=False,
    )
