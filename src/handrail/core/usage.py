"""What an upstream says that a call has used, read from the response that ended it.

By OpenAI's reference of the Responses API, `input_tokens` includes the cached ones and
`output_tokens` includes those of reasoning: the parts are told, and never added to the whole
(defect D-20 of the reference).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Raw

MAX_COUNT: Final = 1_000_000_000
"""Beyond this a count is no count: no call has a thousandth of it, and sums must stay sums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counts of one call, from 0 to MAX_COUNT; None for what was not told, which is not 0.

    `cached` are inside `input`, `reasoning` inside `output`.
    """

    input: int | None = None
    cached: int | None = None
    output: int | None = None
    reasoning: int | None = None

    @property
    def total(self) -> int | None:
        """Input and output together; None unless both were told."""
        if self.input is None or self.output is None:
            return None
        return self.input + self.output


def read_other_usage(answer: Mapping[str, Raw]) -> Usage | None:
    """The usage in an answer of another route; None when it holds none that can be read.

    Chat completions and embeddings call their counts otherwise. Embeddings tell a total instead of
    an output.
    """
    found = _object(answer.get("usage"))
    if "input_tokens" in found:
        return read_usage(answer)
    given, output = _count(found, "prompt_tokens"), _count(found, "completion_tokens")
    total = _count(found, "total_tokens")
    if output is None and total is not None and given is not None and total >= given:
        output = total - given
    usage = Usage(
        input=given,
        cached=_count(found.get("prompt_tokens_details"), "cached_tokens"),
        output=output,
        reasoning=_count(found.get("completion_tokens_details"), "reasoning_tokens"),
    )
    return None if usage == Usage() else usage


def read_usage(response: Mapping[str, Raw]) -> Usage | None:
    """The usage in a response object; None when it holds none that can be read.

    A count that is no whole number from 0 to MAX_COUNT was not told.
    """
    found = _object(response.get("usage"))
    usage = Usage(
        input=_count(found, "input_tokens"),
        cached=_count(found.get("input_tokens_details"), "cached_tokens"),
        output=_count(found, "output_tokens"),
        reasoning=_count(found.get("output_tokens_details"), "reasoning_tokens"),
    )
    return None if usage == Usage() else usage


def _object(value: Raw | None) -> dict[str, Any]:
    try:
        found = {} if value is None else msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(holder: Any, name: str) -> int | None:
    value = holder.get(name) if isinstance(holder, dict) else None
    # `True` is an int to Python.
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None
