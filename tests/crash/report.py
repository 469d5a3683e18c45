"""What came of it, as a table and as JSON."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.journal import Violation
from tests.crash.points import POINTS


@dataclass(slots=True)
class Report:
    """The figures of a run of the driver. Times in seconds."""

    seed: int = 0
    cycles: int = 0
    kills: int = 0
    accepted: int = 0
    refused: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    deleted: int = 0
    expired: int = 0
    upstream_calls: int = 0
    bytes_compared: int = 0
    resumes: int = 0
    slowest_terminal: float = 0.0
    slowest_start: float = 0.0
    slowest_close: float = 0.0
    latest_exit: float = 0.0
    streams: int = 0
    seconds: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    @property
    def least_reached(self) -> tuple[str, int]:
        """The point at which it was killed least, and how often that was."""
        name = min((key(point) for point in POINTS), key=lambda name: self.reached[name])
        return name, self.reached[name]

    def lines(self) -> list[str]:
        """The table."""
        shown = self._plain() | {"violations": len(self.violations)}
        shown["reached"] = (
            f"{len(self.reached)} of {len(POINTS)} points, least {self.least_reached}"
        )
        return [
            f"{name:>18}  {round(value, 2) if isinstance(value, float) else value}"
            for name, value in shown.items()
        ]

    def _plain(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__slots__}
        broken = [asdict(violation) for violation in self.violations]
        return plain | {"ends": dict(self.ends), "violations": broken}

    def save(self, path: Path) -> None:
        """All of it, as JSON."""
        path.write_text(json.dumps(self._plain(), indent=1) + "\n")


def key(point: object) -> str:
    """How a point is called in the figures."""
    return f"{getattr(point, 'name', '')} {getattr(point, 'when', '')}"
