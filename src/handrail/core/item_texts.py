"""What input items say in words: the text of a message, and which mode it puts the model in."""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Raw

from handrail.core import wire
from handrail.core.items import Head
from handrail.core.wire import Body

MAX_READ: Final = 64 * 1024
"""Bytes of a message's content that are read; a longer one counts as one that cannot be."""

INSTRUCTING: Final = frozenset({"developer", "system"})
"""The roles whose messages are instructions."""


class _Part(msgspec.Struct):
    """What is read of a part of a message."""

    text: str | None = None


_STRING: Final = msgspec.json.Decoder(str)
_PARTS: Final = msgspec.json.Decoder(list[_Part])


def is_message(head: Head) -> bool:
    """Whether the item is a message; typeless `{role, content}` items are."""
    return head.type in (None, "message")


def text_of(item: Mapping[str, Raw]) -> str | None:
    """The text of a message, its parts on a line each.

    None for one that has anything but text in it, is longer than MAX_READ, or cannot be read.
    """
    content = item.get("content")
    if content is None or len(memoryview(content)) > MAX_READ:
        return None
    try:
        if wire.kind_of(content) is wire.Kind.STRING:
            return _STRING.decode(content)
        texts = [part.text for part in _PARTS.decode(content)]
    except (msgspec.DecodeError, RecursionError):
        return None
    known = [text for text in texts if text is not None]
    return "\n".join(known) if len(known) == len(texts) else None


class WorkMode(StrEnum):
    """How Codex CLI works together with its user, as its instructions tell the model."""

    PLAN = "plan"
    DEFAULT = "default"


_MODE: Final = re.compile(
    r"collaboration mode:\s*\W{0,4}(plan|default)\b|\bin \W{0,4}(plan|default) mode\b",
    re.IGNORECASE,
)


def stated_mode(items: Sequence[Body], heads: Sequence[Head]) -> WorkMode | None:
    """The mode that the instructions among the items put the model in; the last word holds.

    None when none of them says one. What a user says puts the model in no mode.
    """
    for item, head in zip(reversed(items), reversed(heads), strict=True):
        if is_message(head) and head.role in INSTRUCTING:
            found = _MODE.findall(text_of(item) or "")
            if found:
                return WorkMode("".join(found[-1]).lower())
    return None
