"""Which account made what, and which one a conversation used last."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from handrail.core.affinity import without_reasoning
from handrail.core.credentials import SETTINGS
from handrail.core.rewrite import UpstreamRequest
from handrail.engine.clock import Clock
from handrail.engine.single import MadeElsewhere
from handrail.store.accounts import TARGET, Account, Accounts

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

    def drop(self, key: K) -> None:
        """Forget one of them."""
        self._accounts.pop(key, None)

    def forget(self, which: Callable[[K, str], bool]) -> None:
        """Those for which it is so."""
        for key, (account, _) in list(self._accounts.items()):
            if which(key, account):
                del self._accounts[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who would read a request: the accounts of `target`, or only the one named `pin`.

    `names` and `homes` have the names and the targets of all accounts by their ids. `drops`:
    reasoning that others have made may be left out.
    """

    target: str
    names: Mapping[str, str]
    homes: Mapping[str, str]
    drops: bool
    pin: str | None = None

    def is_one(self, maker: str) -> bool:
        """Whether the maker is among them."""
        if maker.startswith(TARGET):
            return self.pin is None and maker.removeprefix(TARGET) == self.target
        here = self.homes.get(maker) == self.target
        return here and self.pin in (None, self.names.get(maker))

    def words(self, maker: str) -> str:
        """What a caller is told of a maker; no name of an account is any of its business."""
        home = self.homes.get(maker, "")
        if maker.startswith(TARGET):
            home = maker.removeprefix(TARGET)
        if not home:
            return "an account that is no longer here"
        return "another account" if home == self.target else f"the target '{home}'"


class Memory:
    """Both, of one process; who made what is kept in the store as well, as keyed digests."""

    def __init__(self, store: Accounts, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._conversations: _Recent[str] = _Recent(_CONVERSATIONS)
        self._makers: _Recent[bytes] = _Recent(_DIGESTS)
        self._unwritten: dict[bytes, str] = {}
        self._settings: set[str] = set()
        self.any = False
        """Whether it is known of anything who made it."""

    def used(self, conversation: str, account: str) -> None:
        """A conversation is served by an account now."""
        until = self._clock.monotonic() + LAST_SECONDS
        self._conversations.put(conversation, account, until=until)

    def last(self, conversation: str) -> str | None:
        """The account that a conversation used last, if that is not long ago."""
        return self._conversations.get(conversation, now=self._clock.monotonic())

    def made(self, maker: str, sealed: Sequence[str]) -> bool:
        """These can be read by their maker alone. This process knows it at once.

        Whether there is something to `write`.
        """
        now = self._clock.now()
        for digest in map(self._store.digest, sealed):
            if self._makers.get(digest, now=now) != maker:
                self._makers.put(digest, maker, until=now + MADE_SECONDS)
                self._unwritten[digest] = maker
        while len(self._unwritten) > _DIGESTS:  # then it must be learnt again, and not be known
            oldest = next(iter(self._unwritten))
            del self._unwritten[oldest]
            self._makers.drop(oldest)
        self.any = self.any or bool(sealed)
        return bool(self._unwritten)

    async def write(self) -> None:
        """Have the store know all that it does not yet, in one go. Raises StoreFailed."""
        batch = dict(self._unwritten)
        await self._store.made(batch, until=self._clock.now() + MADE_SECONDS)
        for digest, maker in batch.items():
            if self._unwritten.get(digest) == maker:
                del self._unwritten[digest]

    async def look(self, accounts: Sequence[Account]) -> None:
        """Take in which accounts there are now. Raises StoreFailed.

        One of the settings that is gone may come back under another name with the same key: what
        it has made is nobody's then. What any other has made stays its own.
        """
        settings = {account.id for account in accounts if account.kind == SETTINGS}
        gone, self._settings = self._settings - settings, settings
        if gone:
            self._makers.forget(lambda _, maker: maker in gone)
            self._unwritten = {d: m for d, m in self._unwritten.items() if m not in gone}
        self.any = self.any or await self._store.any_made()

    async def makers(self, sealed: Sequence[str]) -> dict[str, str]:
        """Who made each of these, as far as that is known. Raises StoreFailed."""
        now = self._clock.now()
        digests = {each: self._store.digest(each) for each in sealed}
        known = {each: self._makers.get(digest, now=now) for each, digest in digests.items()}
        missing = [digests[each] for each, maker in known.items() if maker is None]
        kept = await self._store.makers(missing, now=now) if missing else {}
        for digest, maker in kept.items():
            self._makers.put(digest, maker, until=now + MADE_SECONDS)
        found = {each: maker or kept.get(digests[each]) for each, maker in known.items()}
        return {each: maker for each, maker in found.items() if maker is not None}

    async def readable(
        self, request: UpstreamRequest, sealed: Sequence[str], *, at: Reader
    ) -> tuple[str | None, UpstreamRequest]:
        """The account that alone can read these (newest first), and the request as it can.

        None for any account. Raises MadeElsewhere when it is not one of `at`, and StoreFailed.
        """
        makers = await self.makers(sealed)
        newest = next((makers[each] for each in sealed if each in makers), None)
        if newest is None:
            return None, request
        if not at.is_one(newest):
            raise MadeElsewhere(at.words(newest))
        others = {maker for maker in makers.values() if maker != newest}
        if others:
            own = [each for each in sealed if makers.get(each, newest) == newest]
            stripped = without_reasoning(request, but=own) if at.drops else None
            if stripped is None:
                raise MadeElsewhere(at.words(min(others)))
            request = stripped
        return None if newest.startswith(TARGET) else newest, request
