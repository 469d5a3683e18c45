"""Tool calls and their outputs: an upstream without memory wants both in the same input.

A client that trims its history, or breaks off a tool, leaves outputs without a call and calls
without an output; OpenAI and the Codex backend answer 400 to either. What is missing is told in
words, so that the model still sees it. Only for requests that carry their whole history: where the
history is kept elsewhere (`previous_response_id`), the other half may well be there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from handrail.core import wire
from handrail.core.items import Head
from handrail.core.wire import Body

MAX_TEXT: Final = 16_000
"""Characters of an orphaned output that are kept."""

BROKEN_OFF: Final = "Operation cancelled by user"

# A call, and what its output is called.
_OUTPUT_OF: Final[Mapping[str, str]] = MappingProxyType(
    {
        "function_call": "function_call_output",
        "custom_tool_call": "custom_tool_call_output",
        "local_shell_call": "local_shell_call_output",
    }
)
# A call, and the outputs that answer it: Codex CLI answers a local shell call like a function.
_ANSWERED_BY: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "function_call": ("function_call_output",),
        "custom_tool_call": ("custom_tool_call_output",),
        "local_shell_call": ("local_shell_call_output", "function_call_output"),
    }
)
_OUTPUTS: Final = frozenset(_OUTPUT_OF.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """Items with every tool call answered; how many outputs had no call, how many calls none."""

    items: list[Body]
    heads: list[Head]
    orphaned: int = 0
    missing: int = 0


def repaired(items: list[Body], heads: list[Head]) -> Repaired:
    """`items` with every tool call answered, as `items.read` gives them.

    An orphaned output becomes an assistant message that quotes it; a call without an output gets
    one that says it was broken off.
    """
    answerable: set[tuple[str, str]] = set()
    called: set[str] = set()
    given: set[tuple[str, str]] = set()
    for head in heads:
        kind = head.type or "message"
        if kind in _OUTPUT_OF:
            id_ = _call_id(head)
            called.add(id_)
            answerable.update([(output, id_) for output in _ANSWERED_BY[kind]])
        elif kind in _OUTPUTS:
            given.add((kind, _call_id(head)))
    orphans = given - answerable
    # An output of another kind becomes words, so it answers nothing.
    missing = called - {id_ for _, id_ in given - orphans} - {""}
    if not orphans and not missing:
        return Repaired(items=items, heads=heads)
    return _mended(items, heads, orphans=orphans, missing=missing)


def _mended(
    items: list[Body], heads: list[Head], *, orphans: set[tuple[str, str]], missing: set[str]
) -> Repaired:
    result: list[Body] = []
    found: list[Head] = []
    orphaned = 0
    for item, head in zip(items, heads, strict=True):
        kind, id_ = head.type or "message", _call_id(head)
        if (kind, id_) in orphans:
            result.append(_quoted(item, id_))
            found.append(Head(type="message", role="assistant"))
            orphaned += 1
            continue
        result.append(item)
        found.append(head)
        if kind in _OUTPUT_OF and id_ in missing:
            result.append(_broken_off(_OUTPUT_OF[kind], item))
            found.append(Head(type=_OUTPUT_OF[kind], id=head.id, call_id=head.call_id))
    return Repaired(
        items=result,
        heads=found,
        orphaned=orphaned,
        missing=len(result) - len(items),  # orphans are replaced, one for one
    )


def _call_id(head: Head) -> str:
    # `local_shell_call_output` names its call in `id` by the API's own types.
    return (head.call_id or head.id or "").strip()


def _quoted(item: Body, call_id: str) -> Body:
    name = item.get("name")
    named = name is not None and wire.kind_of(name) is wire.Kind.STRING
    tool = (wire.string(item, "name") or "").strip() if named else ""
    text = f"[Previous {tool or 'tool'} result; call_id={call_id or 'unknown'}]: {_text(item)}"
    return {
        "type": wire.raw("message"),
        "role": wire.raw("assistant"),
        "content": wire.raw(text),
    }


def _text(item: Body) -> str:
    output = item.get("output")
    if output is None:
        return ""
    if wire.kind_of(output) is wire.Kind.STRING:
        text = wire.string(item, "output") or ""
    else:
        text = bytes(output).decode()
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}\n...[truncated]"


def _broken_off(kind: str, call: Body) -> Body:
    name = "call_id" if wire.string(call, "call_id") else "id"  # as `_call_id` reads it
    return {"type": wire.raw(kind), name: call[name], "output": wire.raw(BROKEN_OFF)}
