"""How many requests and tokens may come within a window that slides, and when the next may.

All of it is arithmetic in whole nanoseconds and whole tokens, so that nothing is lost to rounding;
`engine.rates` has the clock. Requests are a sliding log: never more than the limit in any window,
wherever it begins, and what comes evenly at the rate is never refused. Tokens are a bucket that
may go below empty, because what a call uses is known at its end only.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from handrail.core.budgets import Work

SECOND: Final = 1_000_000_000
"""In nanoseconds, as every time here."""

MAX_BUCKETS: Final = 10_000
"""How many are counted apart by one limit. Callers choose their labels, and memory has an end."""

UNKNOWN_TOKENS: Final = 10_000
"""What a call counts as whose use nobody knows, or as the limit if that is less."""

MAX_NAME: Final = 200
_LOOKED_AT: Final = 8
_TOLD: Final = ("limit", "remaining", "reset")


class RateWindow(StrEnum):
    """The time that a limit is for."""

    SECOND = "second"
    MINUTE = "minute"


_LENGTHS: Final[Mapping[RateWindow, int]] = MappingProxyType(
    {RateWindow.SECOND: SECOND, RateWindow.MINUTE: 60 * SECOND}
)


class Each(StrEnum):
    """What a limit may hold for one by one."""

    CALLER = "caller"
    PROJECT = "project"
    MODEL = "model"


class Kind(StrEnum):
    """What is limited, as the headers of a reply name it."""

    REQUESTS = "requests"
    TOKENS = "tokens"


Key = tuple[str, ...]

_NAMES: Final[Mapping[Each, Callable[[Work], str]]] = MappingProxyType(
    {
        Each.CALLER: lambda work: work.caller,
        Each.PROJECT: lambda work: work.project or "",
        Each.MODEL: lambda work: work.models[-1].strip().lower()[:MAX_NAME],
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """How many requests, and tokens of input and output together, may come within a window.

    Of whom, as a budget says it; with `each` so many for every one of them, counted apart. None
    stands for everybody, and for no limit.
    """

    name: str
    window: RateWindow
    caller: str | None = None
    project: str | None = None
    model: str | None = None
    each: tuple[Each, ...] = ()
    max_requests: int | None = None
    max_tokens: int | None = None

    def covers(self, work: Work) -> bool:
        """Whether this limit is for such work."""
        return work.within(caller=self.caller, project=self.project, model=self.model)

    def key(self, work: Work) -> Key:
        """With what work is counted together. Of a model's names the upstream's own decides."""
        return tuple([_NAMES[each](work) for each in self.each])

    def said(self, kind: Kind) -> str:
        """The limit in words, such as "60 requests a minute for each caller"."""
        most = self.max_requests if kind is Kind.REQUESTS else self.max_tokens
        each = f" for each {' and '.join(self.each)}" if self.each else ""
        return f"{most} {kind} a {self.window}{each}"


class SlidingLog:
    """At most `limit` within any `window` nanoseconds. Times that are given never go back."""

    __slots__ = ("_taken", "_window", "limit")

    def __init__(self, limit: int, window: int) -> None:
        self.limit = limit
        self._window = window
        self._taken: deque[int] = deque()

    def wait(self, now: int) -> int:
        """How long until one more fits; 0 when it does now."""
        self._forget(now)
        if len(self._taken) < self.limit:
            return 0
        return self._taken[0] + self._window - now if self._taken else self._window

    def take(self, now: int) -> None:
        """Count one."""
        self._taken.append(now)

    def left(self, now: int) -> int:
        """How many fit now."""
        self._forget(now)
        return self.limit - len(self._taken)

    def reset(self, now: int) -> int:
        """How long until none is counted any more."""
        self._forget(now)
        return self._taken[-1] + self._window - now if self._taken else 0

    def _forget(self, now: int) -> None:
        gone = now - self._window
        while self._taken and self._taken[0] <= gone:
            self._taken.popleft()


class TokenBucket:
    """`limit` tokens, refilled evenly within `window` nanoseconds, and a debt beyond them.

    One more call fits while a whole token is there, whatever it will use; that is counted at its
    end, and what went beyond is waited for. Over a long time it is never more than the rate.
    """

    __slots__ = ("_at", "_owed", "_window", "limit")

    def __init__(self, limit: int, window: int) -> None:
        self.limit = limit
        self._window = window
        # Tokens times nanoseconds, which divides without a rest.
        self._owed = 0
        self._at = 0

    def add(self, tokens: int, now: int) -> None:
        """Count what a call has used."""
        self._refill(now)
        self._owed += tokens * self._window

    def wait(self, now: int) -> int:
        """How long until a whole token is there; 0 when one is."""
        if not self.limit:
            return self._window
        self._refill(now)
        beyond = self._owed - (self.limit - 1) * self._window
        return max(0, -(-beyond // self.limit))

    def left(self, now: int) -> int:
        """How many whole ones are there."""
        self._refill(now)
        return max(0, (self.limit * self._window - self._owed) // self._window)

    def reset(self, now: int) -> int:
        """How long until it is full."""
        self._refill(now)
        return -(-self._owed // self.limit) if self.limit else 0

    def _refill(self, now: int) -> None:
        if now > self._at:
            self._owed = max(0, self._owed - (now - self._at) * self.limit)
            self._at = now


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How much of a limit is left, and in how many nanoseconds all of it will be."""

    limit: int
    left: int
    reset: int


class Bucket:
    """What is counted together under one limit."""

    __slots__ = ("requests", "tokens")

    def __init__(self, limit: RateLimit) -> None:
        window = _LENGTHS[limit.window]
        most, used = limit.max_requests, limit.max_tokens
        self.requests = None if most is None else SlidingLog(most, window)
        self.tokens = None if used is None else TokenBucket(used, window)

    def wait(self, now: int) -> tuple[int, Kind]:
        """How long until one more request fits, and what stands in its way; 0 when nothing."""
        requests = 0 if self.requests is None else self.requests.wait(now)
        tokens = 0 if self.tokens is None else self.tokens.wait(now)
        return (tokens, Kind.TOKENS) if tokens > requests else (requests, Kind.REQUESTS)

    def take(self, now: int) -> None:
        """Count a request."""
        if self.requests is not None:
            self.requests.take(now)

    def charge(self, tokens: int | None, now: int) -> None:
        """Count what a call has used; None when nobody knows."""
        if self.tokens is not None:
            unknown = min(UNKNOWN_TOKENS, self.tokens.limit)
            self.tokens.add(unknown if tokens is None else tokens, now)

    def standing(self, kind: Kind, now: int) -> Standing | None:
        """Of requests or of tokens; None where these are not limited."""
        of = self.requests if kind is Kind.REQUESTS else self.tokens
        if of is None:
            return None
        return Standing(limit=of.limit, left=of.left(now), reset=of.reset(now))

    def idle(self, now: int) -> bool:
        """Whether it is as if it were new."""
        return all(not of.reset(now) for of in (self.requests, self.tokens) if of is not None)


class Buckets:
    """The buckets of one limit, by what is counted apart, at most MAX_BUCKETS of them.

    One that is idle makes room for another. When none is, whatever is new shares one: a label that
    was never seen before must not be a way around a limit.
    """

    __slots__ = ("_by_key", "_limit", "_most", "_others")

    def __init__(self, limit: RateLimit, *, most: int = MAX_BUCKETS) -> None:
        self._limit = limit
        self._most = most
        self._by_key: OrderedDict[Key, Bucket] = OrderedDict()
        self._others = Bucket(limit)

    def __len__(self) -> int:
        """How many are counted apart now, idle ones too."""
        return len(self._by_key)

    def of(self, key: Key, now: int) -> Bucket:
        """The bucket of a key."""
        found = self._by_key.get(key)
        if found is not None:
            return found
        if len(self._by_key) >= self._most and not self._made_room(now):
            return self._others
        found = self._by_key[key] = Bucket(self._limit)
        return found

    def busy(self, now: int) -> list[tuple[Key, Bucket]]:
        """Those of which something is taken. What shares one has the key `("*",)`."""
        every = [*self._by_key.items(), (("*",), self._others)]
        return [(key, bucket) for key, bucket in every if not bucket.idle(now)]

    def _made_room(self, now: int) -> bool:
        # A few at a time, in turn: every request may come here.
        for _ in range(_LOOKED_AT):
            key = next(iter(self._by_key))
            if self._by_key[key].idle(now):
                del self._by_key[key]
                return True
            self._by_key.move_to_end(key)
        return False


def headers(buckets: Iterable[Bucket], now: int) -> dict[str, str]:
    """What OpenAI's API says of its limits, of the one that is nearest to being reached."""
    every = list(buckets)
    requests = [bucket.requests for bucket in every if bucket.requests is not None]
    tokens = [bucket.tokens for bucket in every if bucket.tokens is not None]
    return _told(_OF_REQUESTS, requests, now) | _told(_OF_TOKENS, tokens, now)


_OF_REQUESTS: Final = tuple(f"x-ratelimit-{what}-requests" for what in _TOLD)
_OF_TOKENS: Final = tuple(f"x-ratelimit-{what}-tokens" for what in _TOLD)


def _told(
    names: tuple[str, ...], counts: Sequence[SlidingLog | TokenBucket], now: int
) -> dict[str, str]:
    if not counts:
        return {}
    shares = [count.left(now) / count.limit if count.limit else 0.0 for count in counts]
    nearest = counts[shares.index(min(shares))]
    said = (str(nearest.limit), str(nearest.left(now)), reset_text(nearest.reset(now)))
    return dict(zip(names, said, strict=True))


def reset_text(wait: int) -> str:
    """Nanoseconds as OpenAI's headers say a time: "20ms", "1.5s", "6m0s"; rounded up."""
    millis = -(-wait // 1_000_000)
    if millis < 1_000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    seconds = f"{rest / 1_000:g}s"
    return f"{minutes}m{seconds}" if minutes else seconds
