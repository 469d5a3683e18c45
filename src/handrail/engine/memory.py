"""Which account made what, and which one a conversation used last."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from handrail.engine.clock import Clock
from handrail.engine.single import MadeElsewhere
from handrail.store.accounts import TARGET, Accounts

K = TypeVar("K")

LAST_SECONDS: Final = 1_200.0
"""How long a conversation is taken to the account that it used last: prompts are cached no longer
than that at the upstream."""

MADE_SECONDS: Final = 7 * 86_400.0
"""How long it is known who made something that only that account can read."""

_CONVERSATIONS: Final = 10_000
_DIGESTS: Final = 50_000


class _Recent(Generic[K]):
    """Accounts by key, the oldest forgotten first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._accounts: OrderedDict[K, tuple[str, float]] = OrderedDict()

    def put(self, key: K, account: str, *, until: float) -> None:
        self._accounts[key] = (account, until)
        self._accounts.move_to_end(key)
        if len(self._accounts) > self._most:
            self._accounts.popitem(last=False)

    def get(self, key: K, *, now: float) -> str | None:
        account, until = self._accounts.get(key, ("", 0.0))
        return account if until > now else None


class Memory:
    """Both, of one process; who made what is kept in the store as well, as keyed digests."""

    def __init__(self, store: Accounts, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._conversations: _Recent[str] = _Recent(_CONVERSATIONS)
        self._makers: _Recent[bytes] = _Recent(_DIGESTS)

    def used(self, conversation: str, account: str) -> None:
        """A conversation is served by an account now."""
        until = self._clock.monotonic() + LAST_SECONDS
        self._conversations.put(conversation, account, until=until)

    def last(self, conversation: str) -> str | None:
        """The account that a conversation used last, if that is not long ago."""
        return self._conversations.get(conversation, now=self._clock.monotonic())

    def made(self, maker: str, sealed: Sequence[str]) -> Callable[[], Awaitable[None]] | None:
        """These can be read by their maker alone: what writes that down, None if it is known.

        This process knows it at once. What is returned raises StoreFailed, and may be called again.
        """
        until = self._clock.now() + MADE_SECONDS
        new = []
        for digest in map(self._store.digest, sealed):
            if self._makers.get(digest, now=self._clock.now()) != maker:
                self._makers.put(digest, maker, until=until)
                new.append(digest)
        return partial(self._store.made, maker, new, until=until) if new else None

    async def maker(self, sealed: Sequence[str]) -> str | None:
        """Who made the newest of these that is known. Raises StoreFailed."""
        now = self._clock.now()
        digests = [self._store.digest(each) for each in sealed]
        for digest in digests:
            known = self._makers.get(digest, now=now)
            if known is not None:
                return known
        found = await self._store.maker(digests, now=now)
        return found

    async def maker_at(
        self, target: str, sealed: Sequence[str], *, homes: Mapping[str, str]
    ) -> str | None:
        """The account of `target` that alone can read these, None for any or nobody knows whose.

        `homes` has the targets of all accounts. Raises MadeElsewhere, and StoreFailed.
        """
        maker = await self.maker(sealed)
        if maker is None:
            return None
        alone = maker.startswith(TARGET)
        home = maker.removeprefix(TARGET) if alone else homes.get(maker, target)
        if home != target:
            raise MadeElsewhere(home, target)
        return None if alone else maker
