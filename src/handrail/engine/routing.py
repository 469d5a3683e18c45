"""Where a request goes: the targets that its route leads to, as far as they can take it."""

from collections.abc import Sequence
from dataclasses import replace

from handrail.core.endpoints import require_endpoint
from handrail.core.policy import Plan, Reason
from handrail.core.profiles import Endpoint
from handrail.core.routes import no_route
from handrail.settings.model import Target


def routed(
    model: str, targets: Sequence[Target], *, upstream_runs: bool = False
) -> tuple[Target, ...]:
    """The targets for a request for `model`; with `upstream_runs` those that run it themselves.

    Raises RequestRejected when there is none.
    """
    if not targets:
        raise no_route(model)
    if not upstream_runs:
        return tuple(targets)
    able = [target for target in targets if target.runs_background]
    # Ids travel in these, and whether an upstream needs or hates them is its profile's nature.
    return tuple(each for each in able if each.profile.name == able[0].profile.name)


def with_endpoint(targets: Sequence[Target], endpoint: Endpoint) -> tuple[Target, ...]:
    """Those that have an endpoint beside create. Raises RequestRejected when none has."""
    able = tuple(target for target in targets if endpoint in target.profile.endpoints)
    if not able:
        require_endpoint(targets[0].profile, endpoint)
    return able


def with_targets(plan: Plan, targets: Sequence[Target]) -> Plan:
    """The plan with the reason why these are asked; as it is where there is no other target."""
    if targets[0].only:
        return plan
    first, *others = (target.label for target in targets)
    instead = f"; if it cannot be used: {', '.join(others)}" if others else ""
    reason = Reason(name=f"target={first}", text=f"The route leads to {first}{instead}.")
    return replace(plan, reasons=(*plan.reasons, reason))
