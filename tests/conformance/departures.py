"""How a difference from the recorded reference is written down, and the reasons there may be.

A reason is a defect of the reference (D-1 … D-42, the list of docs/explanation/
reference-conformance.md) or one of REASONS. Each entry says what ours does instead; the walk fails
when ours does anything else, and when the row passes after all.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

REASONS: Final = {
    "stricter": "What cannot be meant is refused, with a 400 that names the parameter or by "
    "stopping the start, or is not read, where the reference guesses or passes it on.",
    "understood": "Handrail reads what the reference drops: text without an index, `on` and "
    "`off`, fractions, more ways to say how long to wait.",
    "honest": "The upstream's own words and figures: no rewritten advice, no 60 s that nobody "
    "named.",
    "order": "A header that says it outright wins over the body, and of the quota windows none "
    "is waited for that may not bind.",
    "whose-fault": "The status says who can mend it: a refused credential or payment is the "
    "operator's (503), a plan without the model is no limit that passes (403, not 429).",
    "one-end": "A stream has one end, its first terminal event; one without an end, or one that "
    "is no stream of events, is a 502 and never a 200.",
    "never-twice": "A create that was answered with a 2xx is not sent again, whatever it held.",
    "both-halves": "Calls and outputs are mended in one step; the recording shows one half alone.",
    "shape": "The same in another envelope: items with every key that the API's types require, "
    "200 for every success, and no field that only says no.",
    "asked": "Only what the caller or the operator asks for: no effort, summary, verbosity, model "
    "or time-out is filled in, or put in the place of a word, by a default of our own.",
    "words": "The caller's words reach the model as they were written: no prompt is put in front "
    "of them, none is taken out, and what is said outright is not overridden.",
    "meaning": "What is put otherwise or left out keeps its meaning: every keyword of a schema and "
    "every kind of tool call counts, instructions and the newest turn stay, a call stays with its "
    "output, and a tool goes only when the request itself says that it cannot be used.",
    "one-rule": "What a failure means depends on what the upstream said and on whether the call "
    "can have run; there are no modes and no knobs beside that rule.",
    "guess": "What only the gateway guesses about an account puts it behind the others; it neither "
    "ends one nor refuses the last one.",
    "not-here": "Left out on purpose; the guide for those who come from the reference says what "
    "takes its place.",
}

SENT: Final = "<as the caller sent it>"
"""Stands for the caller's own value of a term."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """One term in which ours differs, what ours says, and why."""

    reason: str
    term: str
    ours: Any


_SPACED: Final = frozenset({"about_the_account", "deferred_trim", "next_model", "raw_text"})


@dataclass(slots=True)
class Table:
    """Departures by the key of their row."""

    rows: dict[str, tuple[Departure, ...]] = field(default_factory=dict)

    def differs(self, file: str, numbers: Iterable[int], reason: str, **terms: Any) -> None:
        """Rows of a file differ in these terms. A second call for a row adds to the first."""
        found = tuple(
            Departure(
                reason=reason, term=term.replace("_", " ") if term in _SPACED else term, ours=ours
            )
            for term, ours in terms.items()
        )
        for number in numbers:
            key = f"{file}-{number:03}" if file != "pluginEndToEnd" else f"{file}-{number:02}"
            self.rows[key] = (*self.rows.get(key, ()), *found)
