"""The upstreams that runs may need: the one of the settings now, and those of earlier snapshots."""

from handrail.settings.model import Target


class Targets:
    """Finds the target that a run was accepted for, by its name.

    A reload that changes the upstream does not send waiting runs somewhere else: what an earlier
    snapshot named stays known until the process ends. After a restart only the settings' own
    target is known, and a run for another ends as `target_gone`.
    """

    def __init__(self, target: Target) -> None:
        self._by_name = {target.name: target}
        self.current = target

    def use(self, target: Target) -> None:
        """Make `target` the one for new requests."""
        self._by_name[target.name] = target
        self.current = target

    def find(self, name: str) -> Target | None:
        """The target of that name, None when it is gone."""
        return self._by_name.get(name)
