"""The upstreams that runs may need: those of the settings now, and those of earlier snapshots."""

from collections.abc import Iterable
from dataclasses import replace

from handrail.core.policy import Plan
from handrail.settings.model import Target


class Targets:
    """Finds the target that a run was accepted for, by its name.

    A reload that changes the upstream does not send waiting runs somewhere else, or by other rules:
    what an earlier snapshot named stays known until the process ends. After a restart only the
    settings' own targets and rules are known; a run for another one ends as `target_gone`.
    """

    def __init__(self, targets: Iterable[Target]) -> None:
        self._by_name: dict[str, Target] = {}
        self._by_rules: dict[tuple[str, str], Target] = {}
        self.use(targets)

    def use(self, targets: Iterable[Target]) -> None:
        """Make these the ones for new requests."""
        for target in targets:
            self._by_name[target.name] = target
            self._by_rules[target.name, target.rules] = target

    def of(self, name: str, plan: Plan) -> list[Target]:
        """The targets that a run was accepted for, the first to be asked; [] when that is gone."""
        first = self.find(name, rules=plan.rules)
        others = (self.find(each.name, rules=each.rules) for each in plan.others)
        return [] if first is None else [first, *(each for each in others if each is not None)]

    def find(self, name: str, *, rules: str = "") -> Target | None:
        """The target of that name, None when it is gone; by those rules, if they are still known.

        Its credential, proxy and time-outs are today's: those are not decided for a run.
        """
        target = self._by_name.get(name)
        then = self._by_rules.get((name, rules))
        if target is None or then is None or then.rules == target.rules:
            return target
        return replace(
            target,
            profile=then.profile,
            extra_fields=then.extra_fields,
            model_fallbacks=then.model_fallbacks,
            catalogue=then.catalogue,
        )
