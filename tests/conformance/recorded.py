"""The recorded rows of the reference implementation, and what comparing with one of them gives."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

FOLDER: Final = Path(__file__).parent / "vectors"
NOW: Final = 1_795_348_800.0
"""The moment at which the reference's clock was stopped, in unix seconds."""

ABSENT: Final = "<absent>"
"""Stands for a term that one side does not have at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One recorded call. `key` is the id without its remark: file and number."""

    id: str
    key: str
    function: str
    args: list[Any]
    env: Mapping[str, str]
    result: Any
    error: Json | None

    @property
    def subject(self) -> str:
        """The remark behind the number, "" when there is none."""
        return self.id.removeprefix(self.key).strip("-")


@cache
def rows(name: str) -> tuple[Row, ...]:
    """Every row of one file, in order."""
    # Not splitlines: a row may hold U+2028, which JSON allows and which ends no line here.
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return tuple(_row(json.loads(line)) for line in lines if line)


def _row(body: Json) -> Row:
    found = re.match(r"[A-Za-z]+-\d+", body["id"])
    assert found is not None, body["id"]
    return Row(
        id=body["id"],
        key=found[0],
        function=body["function"],
        args=body["args"],
        env=body["env"],
        result=body.get("result"),
        error=body.get("error"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The same call in the terms that both have.

    A term `outcome` says how it ended; where that differs, nothing else is compared. `given` is
    what the caller sent, by term. `beside` is a second comparison that belongs to the row.
    """

    recorded: Json
    ours: Json
    given: Json = field(default_factory=dict)
    beside: "Outcome | None" = None

    def differing(self) -> Json:
        """The terms in which the two differ, each with what ours says."""
        terms = self.recorded.keys() | self.ours.keys()
        if self.recorded.get("outcome") != self.ours.get("outcome"):
            terms = {"outcome"}
        found = {
            term: self.ours.get(term, ABSENT)
            for term in terms
            if self.recorded.get(term, ABSENT) != self.ours.get(term, ABSENT)
        }
        return found if self.beside is None else {**self.beside.differing(), **found}
