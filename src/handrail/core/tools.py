"""Tools of a request: their shape, their schemas, and which of them may go along.

The shape of this API is flat, `{"type": "function", "name", "parameters"}`; that of the older one,
with all of it under `function`, is understood and made flat. What a profile has cleaned is said by
its ToolCleanUp; a tool that needs nothing leaves byte for byte as it came.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from handrail.core import items as item_rules
from handrail.core import tool_schemas, wire
from handrail.core.item_texts import WorkMode, stated_mode
from handrail.core.profiles import ToolCleanUp
from handrail.core.steps import Step
from handrail.core.wire import Body, Kind

PLAN_ONLY: Final = frozenset({"request_user_input"})
"""Functions of Codex CLI that it answers in plan mode only."""

NEEDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "computer": "computer_use",
        "computer_use_preview": "computer_use",
        "tool_search": "tool_search",
    }
)
"""A type of tool that not every model takes, and the capability that it needs."""

MAX_REMEMBERED: Final = 8 * 1024
"""Bytes of a schema whose cleaned form is remembered; 256 of them are."""

MAX_NESTING: Final = 8
"""Namespaces within namespaces that are gone through; what is deeper leaves as it came."""

_OBJECT: Final = msgspec.json.Decoder(Body)
_STRING: Final = msgspec.json.Decoder(str)
_TOOLS: Final = msgspec.json.Decoder(list[Body])
_FUNCTION: Final = wire.raw("function")
_NAMESPACE: Final = wire.raw("namespace")
_NAMED: Final = frozenset({"function", "custom"})

# A rule's answer for one tool: itself, another in its place, or none.
Rule = Callable[[Body], Body | None]


@dataclass(slots=True, kw_only=True)
class _Pass:
    """One rule over all tools, namespaces included; counts what it changed and what it removed."""

    rule: Rule
    changed: int = 0
    removed: list[Body] = field(default_factory=list)

    def over(self, tools: Sequence[Body], *, depth: int = 0) -> list[Body]:
        """The tools after the rule; the very list elements where nothing was to be done."""
        result = []
        for tool in tools:
            made = self.rule(self._inside(tool, depth) if depth < MAX_NESTING else tool)
            if made is None:
                self.removed.append(tool)
            else:
                result.append(made)
        return result

    def _inside(self, tool: Body, depth: int) -> Body:
        inner = _members(tool)
        if inner is None:
            return tool
        before = self.changed, len(self.removed)
        made = self.over(inner, depth=depth + 1)
        unchanged = before == (self.changed, len(self.removed))
        return tool if unchanged else {**tool, "tools": wire.raw(made)}


def write(
    body: Body,
    steps: list[Step],
    *,
    clean_up: ToolCleanUp,
    capabilities: frozenset[str] | None = None,
) -> None:
    """Clean the tools of `body`, and `tool_choice` with them; say each change in a Step.

    `capabilities` are those of the model, None when nobody knows: then no tool is one too many.
    Raises RequestRejected for an element of `tools` that is no object, and for input that must be
    read for it and cannot be.
    """
    if clean_up is ToolCleanUp.NEVER:
        return
    _flatten_choice(body, steps)
    if not wire.is_set(body, "tools"):
        return
    if clean_up is ToolCleanUp.SHAPE and _is_flat(body["tools"]):
        return
    given = wire.items(body["tools"], param="tools")
    tools = _flattened(given, steps)
    if clean_up is ToolCleanUp.ALL:
        tools = _with_clean_schemas(tools, steps)
        kept = _fitting(body, tools, steps, capabilities=capabilities)
        _fit_choice(body, steps, before=tools, after=kept)
        tools = kept
        if not tools:
            del body["tools"]
            steps.append(Step(field="tools", action="removed", reason="the list is empty"))
            return
    if len(tools) != len(given) or any(a is not b for a, b in zip(tools, given, strict=True)):
        body["tools"] = wire.raw(tools)


class _Head(msgspec.Struct):
    """What of a tool says that it may need more than a look."""

    function: Raw | UnsetType = UNSET
    tools: Raw | UnsetType = UNSET


_HEADS: Final = msgspec.json.Decoder(list[_Head])


def _is_flat(tools: Raw) -> bool:
    # One pass in C: what is of this API's shape already should cost next to nothing.
    try:
        heads = _HEADS.decode(tools)
        return all(head.function is UNSET and head.tools is UNSET for head in heads)
    except (msgspec.DecodeError, RecursionError):
        return False


# --- shape ----------------------------------------------------------------------------------------


def _flattened(given: Sequence[Body], steps: list[Step]) -> list[Body]:
    work = _Pass(rule=lambda tool: tool)

    def flat(tool: Body) -> Body:
        inner = _nested_function(tool)
        if inner is None:
            return tool
        work.changed += 1
        outer = {key: value for key, value in tool.items() if key != "function"}
        # The older API checks arguments strictly only where asked to, this one where not forbidden.
        return {**outer, "strict": wire.FALSE, **inner}

    work.rule = flat
    tools = work.over(given)
    if work.changed:
        action = f"{work.changed} functions made flat"
        reason = "this API has name and parameters beside the type, not under function"
        steps.append(Step(field="tools", action=action, reason=reason))
    return tools


def _flatten_choice(body: Body, steps: list[Step]) -> None:
    choice = _object(body.get("tool_choice"))
    inner = None if choice is None else _nested_function(choice)
    if inner is not None:
        body["tool_choice"] = wire.raw({"type": "function", "name": inner["name"]})
        reason = "this API has the name beside the type, not under function"
        steps.append(Step(field="tool_choice", action="made flat", reason=reason))


def _nested_function(tool: Mapping[str, Raw]) -> Body | None:
    """What stands under `function`, None for a tool that has its name where it belongs."""
    if tool.get("type") != _FUNCTION or "name" in tool:
        return None
    inner = _object(tool.get("function"))
    return inner if inner is not None and _text(inner, "name") is not None else None


# --- schemas --------------------------------------------------------------------------------------


def _with_clean_schemas(tools: Sequence[Body], steps: list[Step]) -> list[Body]:
    work = _Pass(rule=lambda tool: tool)

    def clean(tool: Body) -> Body:
        # A strict schema is one that the upstream holds itself to: any change would break it.
        if tool.get("type") != _FUNCTION or tool.get("strict") == wire.TRUE:
            return tool
        parameters = _clean_parameters(tool.get("parameters"))
        if parameters is None:
            return tool
        work.changed += 1
        return {**tool, "parameters": parameters}

    work.rule = clean
    done = work.over(tools)
    if work.changed:
        reason = "this profile's schemas go out without what its backend does not read"
        action = f"cleaned in {work.changed} functions"
        steps.append(Step(field="tools[].parameters", action=action, reason=reason))
    return done


def _clean_parameters(value: Raw | None) -> Raw | None:
    """The cleaned schema, None when it is clean or cannot be read."""
    if value is None or wire.kind_of(value) is not Kind.OBJECT:
        return None
    text = bytes(value)
    return _clean_again(text) if len(text) <= MAX_REMEMBERED else _clean_text(text)


def _clean_text(text: bytes) -> Raw | None:
    try:
        schema = msgspec.json.decode(text)
        return wire.raw(schema) if tool_schemas.clean(schema) else None
    except (msgspec.DecodeError, RecursionError):
        return None


# An agent sends the same tools with every turn.
_clean_again: Final = lru_cache(maxsize=256)(_clean_text)


# --- which may go along ---------------------------------------------------------------------------


def _fitting(
    body: Body, tools: Sequence[Body], steps: list[Step], *, capabilities: frozenset[str] | None
) -> list[Body]:
    """The tools that this model in this mode can use."""
    mode = _mode_for(body, tools)
    plan = _Pass(rule=lambda tool: None if _text(tool, "name") in PLAN_ONLY else tool)
    kept = plan.over(tools) if mode is WorkMode.DEFAULT else list(tools)
    _tell_removed(plan, steps, reason="it is for plan mode, and the instructions say default mode")
    lacks = _Pass(rule=lambda tool: tool if _takes(capabilities, tool) else None)
    kept = lacks.over(kept)
    _tell_removed(lacks, steps, reason="the model does not take this type of tool")
    empty = _Pass(rule=lambda tool: None if _members(tool) == [] else tool)
    kept = empty.over(kept)
    _tell_removed(empty, steps, reason="nothing is in the namespace")
    return kept


def _tell_removed(work: _Pass, steps: list[Step], *, reason: str) -> None:
    # Types, never names: a Step holds no content of the request.
    counts: dict[str, int] = {}
    for tool in work.removed:
        kind = _text(tool, "type") or "?"
        kind = kind if kind in NEEDS or kind == "namespace" else "function"
        counts[kind] = counts.get(kind, 0) + 1
    for kind, count in counts.items():
        action = f"{count} of type {kind} removed"
        steps.append(Step(field="tools", action=action, reason=reason))


def _takes(capabilities: frozenset[str] | None, tool: Mapping[str, Raw]) -> bool:
    need = NEEDS.get(_text(tool, "type") or "")
    return capabilities is None or need is None or need in capabilities


def _mode_for(body: Body, tools: Sequence[Body]) -> WorkMode | None:
    """The mode that the input states; it is read only for a tool that depends on it."""
    if not PLAN_ONLY & {name for _, name in _identities(tools)}:
        return None
    value = body.get("input")
    if value is None or wire.kind_of(value) is not Kind.ARRAY:
        return None
    return stated_mode(*item_rules.read(value))


def _identities(tools: Sequence[Body]) -> set[tuple[str, str]]:
    """Type and name of every tool, namespaces included; "" for a name that it does not have."""
    found: set[tuple[str, str]] = set()

    def note(tool: Body) -> Body:
        found.add((_text(tool, "type") or "", _text(tool, "name") or ""))
        return tool

    _Pass(rule=note).over(tools)
    return found


# --- the choice -----------------------------------------------------------------------------------


def _fit_choice(
    body: Body, steps: list[Step], *, before: Sequence[Body], after: Sequence[Body]
) -> None:
    """Take back the choice of a tool that has just been removed; any other is the caller's."""
    if not wire.is_set(body, "tool_choice"):
        return
    reason = "the tool that it names has been removed"
    if not after:
        del body["tool_choice"]
        steps.append(Step(field="tool_choice", action="removed", reason="there is no tool"))
        return
    gone = _identities(before) - _identities(after)
    choice = _object(body["tool_choice"])
    if not gone or choice is None:
        return
    if _chosen(choice) in gone:
        body["tool_choice"] = wire.raw("auto")
        steps.append(Step(field="tool_choice", action="set to auto", reason=reason))
        return
    allowed = _members(choice, of=wire.raw("allowed_tools"))
    left = [tool for tool in allowed or () if _chosen(tool) not in gone]
    if allowed is not None and len(left) < len(allowed):
        body["tool_choice"] = wire.raw({**choice, "tools": left} if left else "auto")
        action = "shortened" if left else "set to auto"
        steps.append(Step(field="tool_choice", action=action, reason=reason))


def _chosen(choice: Mapping[str, Raw]) -> tuple[str, str]:
    kind = _text(choice, "type") or ""
    return kind, (_text(choice, "name") or "") if kind in _NAMED else ""


# --- reading --------------------------------------------------------------------------------------


def _members(tool: Mapping[str, Raw], *, of: Raw = _NAMESPACE) -> list[Body] | None:
    """The tools inside a namespace; None for any other tool, and for what is no list of objects."""
    if tool.get("type") != of or not wire.is_set(tool, "tools"):
        return None
    try:
        return _TOOLS.decode(tool["tools"])
    except (msgspec.DecodeError, RecursionError):
        return None


def _object(value: Raw | None) -> Body | None:
    try:
        return None if value is None else _OBJECT.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return None


def _text(tool: Mapping[str, Raw], key: str) -> str | None:
    try:
        return _STRING.decode(tool.get(key, wire.NULL))
    except msgspec.DecodeError:
        return None
