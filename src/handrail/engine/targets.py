"""The upstreams that runs may need: the one of the settings now, and those of earlier snapshots."""

from dataclasses import replace

from handrail.settings.model import Target


class Targets:
    """Finds the target that a run was accepted for, by its name.

    A reload that changes the upstream does not send waiting runs somewhere else, or by other rules:
    what an earlier snapshot named stays known until the process ends. After a restart only the
    settings' own target and rules are known; a run for another target ends as `target_gone`.
    """

    def __init__(self, target: Target) -> None:
        self._by_name: dict[str, Target] = {}
        self._by_rules: dict[tuple[str, str], Target] = {}
        self.use(target)

    def use(self, target: Target) -> None:
        """Make `target` the one for new requests."""
        self._by_name[target.name] = target
        self._by_rules[target.name, target.rules] = target
        self.current = target

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
