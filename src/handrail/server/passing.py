"""Which headers of a request go to the upstream, and which of its own come back."""

from collections.abc import Mapping, Sequence
from typing import Final

from handrail.core.policy import Plan
from handrail.core.prepare import decision
from handrail.engine.dispatch import Said
from handrail.engine.ways import Place
from handrail.server.exchange import Exchange
from handrail.settings.model import Target

# What an upstream may say to the caller. Everything else stays here: account names, cookies,
# organisations, the upstream's own request id (it goes out under our name).
_PASSED_BACK: Final = (
    "openai-processing-ms",
    "openai-version",
    "x-codex-turn-state",
    "x-reasoning-included",
)


def forwarded(exchange: Exchange, allowed: tuple[str, ...]) -> dict[str, str]:
    """The headers of a request that are on an upstream's list, by exact name or `prefix-*`."""
    exact = {name for name in allowed if not name.endswith("*")}
    prefixes = tuple(name[:-1] for name in allowed if name.endswith("*"))
    found = {}
    for raw_name, value in exchange.headers:
        name = raw_name.decode("latin-1")
        if name in exact or (prefixes and name.startswith(prefixes)):
            found[name] = value.decode("latin-1")
    return found


def places_of(exchange: Exchange, targets: Sequence[Target]) -> list[Place]:
    """The targets, each with those headers of the request that may go along to it."""
    return [
        Place(target=target, headers=forwarded(exchange, target.profile.headers))
        for target in targets
    ]


def reply_headers(plan: Plan, said: Said) -> dict[str, str]:
    """The headers of a reply: what was decided, and what the upstream may say to the caller."""
    return {"handrail-decision": decision(plan, said.steps), **passed_headers(said.headers)}


def passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What of an upstream's reply headers the caller may hear."""
    passed = {
        name.lower(): value
        for name, value in headers.items()
        if name.lower() in _PASSED_BACK or name.lower().startswith("x-ratelimit-")
    }
    if "x-request-id" in headers:
        passed["handrail-upstream-request-id"] = headers["x-request-id"]
    return passed


def is_codex(exchange: Exchange) -> bool:
    """Whether Codex CLI asks, whose idle timer does not see comments."""
    return exchange.header(b"originator").startswith("codex") or exchange.header(
        b"user-agent"
    ).startswith("codex")
