"""What one seed means: sizes, limits, what goes wrong when. Drawn before anything runs."""

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from handrail.core.caller_keys import key_digest
from handrail.core.caller_policy import CallerPolicy, CrashPolicy, StoreFalsePolicy
from handrail.settings.load import load
from handrail.settings.model import Caller, Settings
from tests.simulation.disk import Trouble

NAMES: Final = ("ann", "bob", "cyd", "dan")
POLLING_WINDOW: Final = 600

# What may happen to the gateway, with its weight.
BLOWS: Final[Mapping[str, int]] = {
    "die": 8,
    "die before a commit": 4,
    "die after a commit": 5,
    "die a call sent": 3,
    "drain": 3,
    "drain before a commit": 3,
    "jump": 3,
    "revoke": 2,
    **{f"disk {trouble}": 2 for trouble in Trouble},
}


@dataclass(frozen=True)
class Blow:
    """One thing that happens at a moment of the simulated time, for so long."""

    at: float
    kind: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One simulation. Times in simulated seconds."""

    seed: int
    callers: tuple[str, ...]
    clients: int
    most: int
    seconds: float
    shuffled: bool
    calm: float
    store_false: bool
    settings: Settings
    blows: tuple[Blow, ...]

    def retention_of(self, caller: str, *, store_false: bool) -> float:
        """How long a run of a caller is kept after its end."""
        kept = self.settings.callers[caller].policy.retention_seconds
        return min(kept, POLLING_WINDOW) if store_false else kept

    @property
    def retrying(self) -> frozenset[str]:
        """The callers whose runs may have another attempt after a lost answer."""
        policies = {name: caller.policy for name, caller in self.settings.callers.items()}
        return frozenset(n for n, p in policies.items() if p.crash is CrashPolicy.RETRY)

    @property
    def running(self) -> dict[str, int]:
        """How many runs each caller may have under way."""
        limits = self.settings.limits
        return {caller: limits.running(caller) for caller in self.callers}


def key_of(caller: str) -> str:
    """The caller's key."""
    return f"hr_simulated-key-of-{caller}"


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    chance = random.Random(f"{seed} plan")
    callers = NAMES[: chance.randint(1, len(NAMES))]
    seconds = chance.choice((5.0, 20.0, 60.0))
    return Plan(
        seed=seed,
        callers=callers,
        clients=chance.randint(1, 6),
        most=chance.choice((6, 12, 25)),
        seconds=seconds,
        shuffled=chance.random() < 0.3,
        calm=chance.choice((0.95, 0.6, 0.3)),
        store_false=chance.random() < 0.3,
        settings=_settings(chance, callers, seed=seed),
        blows=_blows(chance, seconds),
    )


def _blows(chance: random.Random, seconds: float) -> tuple[Blow, ...]:
    number = chance.choice((0, 1, 2, 4, 7))
    times = sorted(chance.uniform(0.05, seconds) for _ in range(number))
    kinds = chance.choices(list(BLOWS), list(BLOWS.values()), k=number)
    return tuple(
        Blow(at, kind, chance.choice((0.05, 0.5, 4.0, 15.0)))
        for at, kind in zip(times, kinds, strict=True)
    )


def _settings(chance: random.Random, callers: tuple[str, ...], *, seed: int) -> Settings:
    retention = chance.choice((20, 90, 86_400))
    crash = random.Random(f"{seed} crash")
    policies = {
        caller: Caller(
            digest=key_digest(key_of(caller)),
            policy=CallerPolicy(
                name=caller,
                store_false=StoreFalsePolicy.GATEWAY,
                max_running=chance.choice((1, 2, 8)),
                max_queued=chance.choice((2, 5, 100)),
                retention_seconds=retention,
                crash=crash.choice((CrashPolicy.SAFE, CrashPolicy.SAFE, CrashPolicy.RETRY)),
            ),
        )
        for caller in callers
    }
    base = _loaded(chance.choice(("openai", "compatible")))
    return replace(
        base,
        callers=MappingProxyType(policies),
        max_running=chance.choice((1, 3, 6, 64)),
        max_queued=chance.choice((4, 1_000)),
        drain_seconds=chance.choice((0, 1, 10)),
        max_run_seconds=chance.choice((40, 200)),
        max_output_bytes=chance.choice((60_000, 10_000_000)),
    )


@functools.cache
def _loaded(profile: str) -> Settings:
    flags = {
        "upstream.url": "http://127.0.0.1:9/v1",
        "upstream.profile": profile,
        "background.enabled": True,
        "config": None,
    }
    environment = {
        "HANDRAIL_CALLER_KEY": key_of("default"),
        "HANDRAIL_UPSTREAM_API_KEY": "sk-simulated",
    }
    settings = load(flags, environment, default_data_dir=Path("simulated"))
    target = replace(settings.target, reply_seconds=15.0, idle_seconds=20.0)
    return replace(settings, targets={target.label: target})
