"""What is told of accounts: who would serve a request now and why not the others, as JSON values.

By the router's own code: `Pool.choice` for the answer, `Pool.obstacles` for what stands in the way.
"""

from dataclasses import dataclass
from typing import Any

from handrail.core.credentials import SETTINGS
from handrail.core.routes import route
from handrail.core.select import Choice, Considered, Obstacle, Wants
from handrail.engine.accounts import Pool
from handrail.settings.model import Settings, Target
from handrail.store.accounts import Account, written


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that is asked about: its model, the account that it would demand, whose it is."""

    model: str = ""
    account: str | None = None
    caller: str | None = None


def whys(pool: Pool, settings: Settings, asked: Asked) -> list[dict[str, Any]]:
    """Which account the request would be sent with at each target of its route, in their order.

    [] when no route leads to one; without a model, all targets that its caller may use. An unknown
    caller may use none. Nothing of a credential is told.
    """
    caller = None if asked.caller is None else settings.callers.get(asked.caller)
    if asked.caller is not None and caller is None:
        return []
    allowed = None if caller is None else caller.policy.targets
    names = route(asked.model, settings.routes, allowed)
    if not asked.model:
        names = tuple(n for n in settings.targets if allowed is None or n in allowed)
    tags = frozenset(() if caller is None else caller.policy.account_tags)
    return [why(pool, settings.targets[name], asked, tags=tags) for name in names]


def why(
    pool: Pool, target: Target, asked: Asked, *, tags: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Which account a call of `target` would be made with now. It has one of the `tags`, if any."""
    accounts = pool.of(target)
    model, account = asked.model, asked.account
    if not accounts:
        return _without_accounts(target, model=model, account=account)
    found = target.catalogue.find(model)
    sent = model if found is None else found.sends
    choice = pool.choice(target, Wants(pin=account, tags=tags), model=sent)
    return {
        "target": target.label,
        "model": model,
        "demanded": account,
        "account": next((each.name for each in accounts if each.id == choice.account), None),
        "reason": choice.reason,
        "until": written(choice.until),
        "candidates": [_candidate(pool, each, choice, model=sent) for each in accounts],
    }


def told(pool: Pool, account: Account, *, pinned: bool) -> dict[str, Any]:
    """All that may be told about an account by the process that makes calls with it.

    `obstacles` are those against a call for any model; a cool-down of one model is in `cooldowns`.
    """
    seen, running = pool.view(account)
    return {
        **seen.shown(pinned=pinned),
        "running": running,
        "obstacles": [_obstacle(each) for each in pool.obstacles(account, model="")],
    }


def _without_accounts(target: Target, *, model: str, account: str | None) -> dict[str, Any]:
    given = target.api_key is not None or bool(target.bearer_command)
    serves = account is None and (given or not target.profile.needs_credential)
    reason = "there are no accounts, so every call shows what the settings give"
    if account is not None:
        reason = "the request demands it, but there is no such account"
    elif not serves:
        reason = "there is no account, and the settings give no credential"
    return {
        "target": target.label,
        "model": model,
        "demanded": account,
        "account": SETTINGS if serves else None,
        "reason": reason,
        "until": None,
        "candidates": [],
    }


def _candidate(pool: Pool, account: Account, choice: Choice, *, model: str) -> dict[str, Any]:
    considered = {seen.id: seen for seen in choice.considered}
    seen = considered.get(account.id)
    return {
        "name": account.name,
        "state": pool.view(account)[0].state.value,
        "chosen": account.id == choice.account,
        "why_not": None if account.id == choice.account else _why_not(seen, choice),
        "room": None if seen is None else round(seen.score, 6),
        "obstacles": [_obstacle(each) for each in pool.obstacles(account, model=model)],
    }


def _why_not(seen: Considered | None, choice: Choice) -> str:
    if seen is None:
        return f"another is set: {choice.reason}"
    return "less room, or not its turn" if seen.obstacle is None else seen.obstacle.reason


def _obstacle(obstacle: Obstacle) -> dict[str, Any]:
    return {
        "reason": obstacle.reason,
        "until": written(obstacle.until),
        "guessed": obstacle.guessed,
    }
