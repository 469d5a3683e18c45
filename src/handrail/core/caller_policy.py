"""The rules of one caller: what it may ask for, and what becomes of what it asks.

`core.policy` decides by them; the settings and the library build them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from handrail.core.fast_session import FastPolicy
from handrail.core.model_access import ANY_MODEL
from handrail.errors import ConfigInvalid


class BackgroundPolicy(StrEnum):
    """What a caller may do beside the switch."""

    INHERIT = "inherit"
    ALLOW = "allow"
    DENY = "deny"


class Executor(StrEnum):
    """Who runs background responses: the gateway, over a stateless call, or the upstream itself."""

    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class StorePolicy(StrEnum):
    """What becomes of a foreground request that asks for `store:true`.

    KEEP_ALL keeps one that leaves `store` out as well, as the API itself does.
    """

    LOWER = "lower"
    REFUSE = "refuse"
    KEEP = "keep"
    KEEP_ALL = "keep_all"


class WhenLeft(StrEnum):
    """What becomes of a kept foreground stream whose reader has left."""

    STOP = "stop"
    CONTINUE = "continue"


class StoreFalsePolicy(StrEnum):
    """What becomes of `background:true` together with `store:false`."""

    REJECT = "reject"
    GATEWAY = "gateway"


class CrashPolicy(StrEnum):
    """What becomes of a run whose upstream call may have run, but whose answer was lost.

    `safe` ends it: never paid twice by accident. `retry` makes a new attempt while nothing of the
    answer is visible.
    """

    SAFE = "safe"
    RETRY = "retry"


class Priority(StrEnum):
    """Which of a caller's own waiting runs goes first; nothing between callers."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    def above(self, other: "Priority") -> bool:
        """Whether this one goes before the other."""
        order = list(Priority)
        return order.index(self) < order.index(other)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerPolicy:
    """The rules of one caller. Retention is in seconds, counted from the terminal state.

    `weight` (1 to 100) is the caller's share of what runs, beside the others' weights. `executor`
    is who runs its background responses, None for whoever runs everybody's. `models` are globs of
    the models that it may use, `targets` the names of the targets, None for all; `account_tags` are
    tags of which its accounts must have one, if there are any. `priority` is that of runs whose
    create names none, `max_priority` the highest that one may name.

    Raises ConfigInvalid for a rule that is none: rules are compared by identity, and a "deny" that
    is not BackgroundPolicy.DENY would deny nothing. Also for streams that are to go on without a
    reader although nothing of them is kept, and for a priority above the highest.
    """

    name: str
    background: BackgroundPolicy = BackgroundPolicy.INHERIT
    store: StorePolicy = StorePolicy.LOWER
    store_false: StoreFalsePolicy = StoreFalsePolicy.REJECT
    when_left: WhenLeft = WhenLeft.STOP
    fast_session: FastPolicy = FastPolicy.INHERIT
    max_running: int = 8
    max_queued: int = 100
    max_foreground: int = 0
    max_stored_bytes: int = 0
    retention_seconds: int = 86_400
    crash: CrashPolicy = CrashPolicy.SAFE
    weight: int = 1
    executor: Executor | None = None
    models: tuple[str, ...] = ANY_MODEL
    targets: tuple[str, ...] | None = None
    account_tags: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL
    max_priority: Priority = Priority.HIGH

    def __post_init__(self) -> None:
        for rule, words in _RULES.items():
            said = getattr(self, rule)
            try:
                object.__setattr__(self, rule, said if said is None else words(said))
            except ValueError:
                place = f"callers.{self.name}.{rule}"
                raise ConfigInvalid(f"{place}: must be one of {', '.join(words)}.") from None
        if self.when_left is WhenLeft.CONTINUE and self.store not in _KEEPING:
            raise ConfigInvalid(
                f'callers.{self.name}.when_left: "continue" needs store = "keep" or "keep_all": '
                "what is not kept cannot be read later."
            )
        if self.priority.above(self.max_priority):
            raise ConfigInvalid(
                f"callers.{self.name}.priority: {self.priority} is above max_priority, which is "
                f"{self.max_priority}."
            )
        object.__setattr__(self, "models", tuple(self.models))
        object.__setattr__(self, "account_tags", tuple(self.account_tags))
        if self.targets is not None:
            object.__setattr__(self, "targets", tuple(self.targets))


_KEEPING: Final = frozenset({StorePolicy.KEEP, StorePolicy.KEEP_ALL})

_RULES: Final[Mapping[str, type[StrEnum]]] = MappingProxyType(
    {
        "background": BackgroundPolicy,
        "store": StorePolicy,
        "store_false": StoreFalsePolicy,
        "crash": CrashPolicy,
        "when_left": WhenLeft,
        "fast_session": FastPolicy,
        "executor": Executor,
        "priority": Priority,
        "max_priority": Priority,
    }
)
