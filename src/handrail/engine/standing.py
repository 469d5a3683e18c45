"""What only this process knows about an account: its calls, their failures, and short pauses."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from handrail.core.failover import is_open
from handrail.core.limits import Cooldown
from handrail.core.select import Obstacle

MAX_COOLDOWNS: Final = 64
"""Most models of one account that are held back here at once; callers name models as they like."""

_FAILURES: Final = 16


@dataclass(slots=True)
class Standing:
    """One account's. Times in unix seconds; `resumed` is how often it was by the operator."""

    running: int = 0
    calls: int = 0
    credit: float = 0.0
    used_at: float = 0.0
    limited: int = 0
    failures: tuple[float, ...] = ()
    cooldowns: dict[str, Cooldown] = field(default_factory=dict)
    quota_noted: tuple[object, ...] = ()
    resumed: int = 0

    def taken(self, *, now: float) -> None:
        """A call is made with it."""
        self.running += 1
        self.calls += 1
        self.used_at = now

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """A call has chosen it and waits for its credential: to others that is a call under way."""
        self.running += 1
        try:
            yield
        finally:
            self.given_back()

    def given_back(self) -> None:
        """That call is over."""
        self.running = max(0, self.running - 1)

    def failed(self, *, now: float) -> None:
        """A call was lost, or not even begun, in a way that may be the account's."""
        self.failures = (*self.failures, now)[-_FAILURES:]

    def well(self) -> None:
        """A call has ended well."""
        self.failures = ()
        self.limited = 0

    def cool(self, cooldown: Cooldown, *, now: float) -> None:
        """Hold it back. What was said holds over what is guessed, then the later end."""
        known = self.cooldowns.get(cooldown.scope)
        told = known is not None and known.until > now and not known.guessed
        if known is not None and told and (cooldown.guessed or cooldown.until <= known.until):
            return
        self.cooldowns = {scope: c for scope, c in self.cooldowns.items() if c.until > now}
        self.cooldowns[cooldown.scope] = cooldown
        if len(self.cooldowns) > MAX_COOLDOWNS:
            soonest = min(self.cooldowns.values(), key=lambda each: each.until)
            del self.cooldowns[soonest.scope]

    def seen(self, resumed: int) -> None:
        """The operator has had it resumed so often; since the last time it has no past."""
        if resumed != self.resumed:
            self.resumed = resumed
            self.failures, self.limited, self.cooldowns = (), 0, {}
            self.credit = 0.0

    def with_cooldowns(self, kept: Iterable[Cooldown], *, now: float) -> tuple[Cooldown, ...]:
        """Those that are kept and those of this process, once each and not over yet."""
        found = {each.scope: each for each in kept if each.until > now}
        for each in self.cooldowns.values():
            known = found.get(each.scope)
            if each.until > now and (known is None or (each.guessed, -each.until) < _worth(known)):
                found[each.scope] = each
        return tuple(found.values())

    def breaker(self, *, now: float) -> Obstacle | None:
        """What stands against it after failures in a row."""
        held = is_open(self.failures, now=now)
        if held is None:
            return None
        return Obstacle(reason="its last calls have failed", until=held, guessed=True)


def _worth(cooldown: Cooldown) -> tuple[bool, float]:
    return cooldown.guessed, -cooldown.until
