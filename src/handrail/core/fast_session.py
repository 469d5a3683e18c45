"""Fast sessions: what the operator lets be left out of a request so that its answer comes sooner.

Off unless the operator asks for it. Then a request is judged by what it ends with: where tools are
at work, or the user writes code, lists or tables, everything is needed (`hybrid` leaves it alone);
otherwise the input may be trimmed. Background responses, requests that continue from what an
upstream keeps, and the endpoints beside create are never touched.

The judgement follows the reference implementation's, with every kind of tool call counted and with
content that is no plain text taken as complex.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from handrail.core.item_texts import is_message, text_of
from handrail.core.items import Head
from handrail.core.wire import Body
from handrail.errors import ConfigInvalid

MIN_ITEMS: Final = 8
MAX_ITEMS: Final = 200
"""Bounds of what an input may be trimmed to."""

TRIVIAL_CHARS: Final = 220
WINDOW: Final = 12
"""Items at the end that are looked at for tool calls, at the least."""

INSTRUCTION_CHARS: Final = 900
TRIVIAL_INSTRUCTION_CHARS: Final = 320
_MIN_CUT: Final = 180
NOTICE: Final = "[The instructions end here to save time. Answer briefly and to the point.]"
"""The last line of instructions that were cut."""

# Blanks within a line only: over line ends too, a text of nothing else would take for ever.
_LIST_LINE: Final = re.compile(r"^[ \t]*(?:[-*]|[0-9]+\.)[ \t]+\S", re.MULTILINE)
_TABLE: Final = re.compile(r"\|.+\|")
_LINK: Final = re.compile(r"https?://", re.IGNORECASE)


class Strategy(StrEnum):
    """Which requests are treated as those of a fast session."""

    OFF = "off"
    HYBRID = "hybrid"
    ALWAYS = "always"


class FastPolicy(StrEnum):
    """What holds for one caller: the strategy of all, or one of its own."""

    INHERIT = "inherit"
    OFF = "off"
    HYBRID = "hybrid"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class FastSession:
    """What may be left out; nothing, as it is made without arguments.

    `strategy` may be given as a plain word. `max_items` (8 to 200) is what an input is trimmed to.
    `drop_tools` lets a trivial turn go without tools, `cut_instructions` shortens long
    instructions. `compact_seconds` is how long the upstream's `compact` endpoint may take to put in
    short what would be left out, 0 not to ask it. Raises ConfigInvalid for what is none of these.
    """

    strategy: Strategy = Strategy.OFF
    max_items: int = 30
    drop_tools: bool = False
    cut_instructions: bool = False
    compact_seconds: float = 0.0

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "strategy", Strategy(self.strategy))
        except ValueError:
            raise ConfigInvalid(f"strategy: must be one of {', '.join(Strategy)}.") from None
        if not MIN_ITEMS <= self.max_items <= MAX_ITEMS:
            raise ConfigInvalid(f"max_items: must be from {MIN_ITEMS} to {MAX_ITEMS}.")

    def under(self, policy: FastPolicy) -> "FastSession":
        """What holds for a caller of this policy."""
        if policy is FastPolicy.INHERIT:
            return self
        return replace(self, strategy=Strategy(policy.value))


NO_FAST_SESSION: Final = FastSession()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a request's end says: whether it is complex, whether its last turn is trivial, and why.

    A trivial turn is one short line of plain words.
    """

    is_complex: bool
    is_trivial: bool
    reason: str


def applies(strategy: Strategy, judgement: Judgement) -> bool:
    """Whether a request so judged is treated as one of a fast session."""
    return strategy is Strategy.ALWAYS or (strategy is Strategy.HYBRID and not judgement.is_complex)


def judge(items: Sequence[Body], heads: Sequence[Head], *, max_items: int) -> Judgement:
    """Judge by the last three messages of the user and, for tool calls, by the last items.

    Those are the last 12, or half of `max_items` if that is more.
    """
    said = _last_texts(items, heads)
    is_trivial = bool(said) and said[0] is not None and _is_trivial(said[0])
    window = max(WINDOW, max_items // 2)
    if any(_is_tool_work(head) for head in heads[-window:]):
        return _judged("tools are at work", is_complex=True, is_trivial=is_trivial)
    if not said:
        return _judged("there is no word of a user", is_complex=False, is_trivial=False)
    if is_trivial:
        return _judged("the last turn is one short line", is_complex=False, is_trivial=True)
    if None in said:
        why = "the user's last messages hold more than short text"
        return _judged(why, is_complex=True, is_trivial=False)
    if any(_is_structured(text) for text in said if text is not None):
        why = "the user's last messages hold code, a list, a table or several lines"
        return _judged(why, is_complex=True, is_trivial=False)
    return _judged("the user's last messages are plain", is_complex=False, is_trivial=False)


def _judged(reason: str, *, is_complex: bool, is_trivial: bool) -> Judgement:
    return Judgement(is_complex=is_complex, is_trivial=is_trivial, reason=reason)


def is_user(head: Head) -> bool:
    """Whether the item is a message of the user."""
    return is_message(head) and (head.role or "").lower() == "user"


def _last_texts(items: Sequence[Body], heads: Sequence[Head]) -> list[str | None]:
    """The last three user messages that are not blank, newest first; None for no plain text."""
    found: list[str | None] = []
    for item, head in zip(reversed(items), reversed(heads), strict=True):
        if len(found) == 3:
            break
        if is_user(head):
            text = text_of(item)
            if text is None or text.strip():
                found.append(text)
    return found


def _is_tool_work(head: Head) -> bool:
    kind = head.type or ""
    return kind.endswith(("_call", "_call_output"))


def _is_trivial(text: str) -> bool:
    text = text.strip()
    return (
        len(text) <= TRIVIAL_CHARS
        and "\n" not in text
        and "```" not in text
        and not any(pattern.search(text) for pattern in (_LIST_LINE, _TABLE, _LINK))
    )


def _is_structured(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    return (
        "```" in text
        or len(lines) >= 3
        or any(pattern.search(text) for pattern in (_LIST_LINE, _TABLE))
    )


def shortened(instructions: str, *, is_trivial: bool) -> str:
    """Instructions of at most 900 characters (320 in a trivial turn) and a line that says so.

    They are cut at the end of a line where that leaves enough of them; what is short enough stays
    as it is.
    """
    limit = TRIVIAL_INSTRUCTION_CHARS if is_trivial else INSTRUCTION_CHARS
    if len(instructions) <= limit:
        return instructions
    at = instructions.rfind("\n", 0, limit + 1)
    kept = instructions[: at if at >= _MIN_CUT else limit]
    return f"{kept.rstrip()}\n\n{NOTICE}"
