"""The JSON schema of a function's parameters, cleaned for backends that read a part of JSON Schema.

What a value may be is never narrowed to something else and never forgotten: a `const` becomes an
`enum` of one value, a map stays a map, and only what says nothing about values is left out. Two
things are put otherwise and told in words: that a value may be null, and that a function takes no
parameters. Every place where a schema may hold another is visited (JSON Schema 2020-12 and the
draft 7 names); anything that is no schema is left alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, Final

Schema = dict[str, Any]

PLACEHOLDER: Final[Mapping[str, str]] = MappingProxyType(
    {"type": "boolean", "description": "Not a parameter: there are none. Leave it out."}
)
"""The one property of an object that can have none; some backends refuse an empty object."""

NULLABLE: Final = "(nullable)"


class _Holds(Enum):
    """What the value of a keyword is."""

    SCHEMAS = auto()
    """A schema, or a list of them."""
    NAMED = auto()
    """A schema under each name."""
    CONDITION = auto()
    """A schema that is a condition: what narrows or widens it turns its meaning round."""


_KEYWORDS: Final[Mapping[str, _Holds]] = MappingProxyType(
    {
        "$defs": _Holds.NAMED,
        "additionalItems": _Holds.SCHEMAS,
        "additionalProperties": _Holds.SCHEMAS,
        "allOf": _Holds.SCHEMAS,
        "anyOf": _Holds.SCHEMAS,
        "contains": _Holds.SCHEMAS,
        "contentSchema": _Holds.SCHEMAS,
        "definitions": _Holds.NAMED,
        "dependencies": _Holds.NAMED,
        "dependentSchemas": _Holds.NAMED,
        "else": _Holds.SCHEMAS,
        "if": _Holds.CONDITION,
        "items": _Holds.SCHEMAS,
        "not": _Holds.CONDITION,
        "oneOf": _Holds.SCHEMAS,
        "patternProperties": _Holds.NAMED,
        "prefixItems": _Holds.SCHEMAS,
        "properties": _Holds.NAMED,
        "propertyNames": _Holds.SCHEMAS,
        "then": _Holds.SCHEMAS,
        "unevaluatedItems": _Holds.SCHEMAS,
        "unevaluatedProperties": _Holds.SCHEMAS,
    }
)

# Without any of these a schema of a plain type says nothing that could be put otherwise.
_TOUCHED: Final = frozenset(
    {
        "$schema",
        "additionalProperties",
        "anyOf",
        "const",
        "oneOf",
        "required",
        "title",
    }
)

# What may say, beside `properties`, which properties an object has.
_SAY_PROPERTIES: Final = (
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "patternProperties",
    "propertyNames",
)
_ALTERNATIVES: Final = ("anyOf", "oneOf")
_OF_A_CONST: Final = frozenset({"const", "title", "type"})


def clean(schema: Schema) -> bool:
    """Clean the schema of a function's parameters, in place; whether anything was changed.

    Raises nothing, whatever the schema holds.
    """
    changed = _cleaned(schema, is_root=True)
    waiting: list[tuple[Schema, bool]] = [(schema, False)]
    while waiting:
        parent, exact = waiting.pop()
        for child, is_condition in _children(parent):
            child_exact = exact or is_condition
            changed = _cleaned(child, exact=child_exact) or changed
            waiting.append((child, child_exact))
    return changed


def _children(schema: Schema) -> Iterator[tuple[Schema, bool]]:
    """The schemas directly inside, and whether each is a condition."""
    for keyword, value in schema.items():
        holds = _KEYWORDS.get(keyword)
        if holds is None:
            continue
        inner: Iterable[Any] = (value,)
        if holds is _Holds.NAMED:
            inner = value.values() if isinstance(value, dict) else ()
        elif isinstance(value, list):
            inner = value
        for child in inner:
            if isinstance(child, dict):
                yield child, holds is _Holds.CONDITION


def _cleaned(schema: Schema, *, is_root: bool = False, exact: bool = False) -> bool:
    """Clean one schema without those inside it; with `exact`, in words of the same meaning."""
    kind = schema.get("type")
    if isinstance(kind, str) and kind != "object" and _TOUCHED.isdisjoint(schema):
        return False
    before = dict(schema)
    _clean_values(schema)
    if not exact:
        _name_one_type(schema)
        _clean_object(schema, is_root=is_root)
    return before != schema


def _clean_values(schema: Schema) -> None:
    """What one value may be, in words of the same meaning."""
    for keyword in ("title", "$schema"):
        if isinstance(schema.get(keyword), str):
            del schema[keyword]
    for keyword in _ALTERNATIVES:
        _list_alternatives(schema, keyword)
    if "const" in schema and "enum" not in schema:
        _write_enum(schema, [schema.pop("const")])


def _list_alternatives(schema: Schema, keyword: str) -> None:
    found = schema.get(keyword)
    if not isinstance(found, list) or not found or "enum" in schema:
        return
    # A branch that says more, such as what its value stands for, stays a branch.
    if all(isinstance(b, dict) and "const" in b and b.keys() <= _OF_A_CONST for b in found):
        del schema[keyword]
        _write_enum(schema, [branch["const"] for branch in found])


def _write_enum(schema: Schema, values: list[Any]) -> None:
    schema["enum"] = values
    types = {_type_of(value) for value in values}
    if "type" not in schema and len(types) == 1:
        schema["type"] = types.pop()


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", str: "string", int: "integer", float: "number", list: "array"}
    return names.get(type(value), "object")


def _name_one_type(schema: Schema) -> None:
    types = schema.get("type")
    if not isinstance(types, list) or not all(isinstance(name, str) for name in types):
        return
    rest = [name for name in dict.fromkeys(types) if name != "null"]
    values = schema.get("enum")
    # An enum that lists null needs a type that allows it.
    if not rest or (isinstance(values, list) and None in values):
        return
    schema["type"] = rest[0] if len(rest) == 1 else rest
    if "null" in types:
        text = schema.get("description", "")
        if isinstance(text, str) and "nullable" not in text.lower():
            schema["description"] = f"{text} {NULLABLE}".lstrip()


def _clean_object(schema: Schema, *, is_root: bool) -> None:
    others = schema.get("additionalProperties")
    closed = others is False or (is_root and others is not True)
    if isinstance(others, bool):
        del schema["additionalProperties"]
    properties, required = schema.get("properties"), schema.get("required")
    names = required if isinstance(required, list) else []
    names = list(dict.fromkeys(name for name in names if isinstance(name, str)))
    elsewhere = any(keyword in schema for keyword in _SAY_PROPERTIES)
    if isinstance(properties, dict) and properties:
        if isinstance(required, list) and not elsewhere:
            _write_required(schema, [name for name in names if name in properties])
    elif schema.get("type") == "object":
        schema["properties"] = {name: {} for name in names}
        if closed and not names and not elsewhere:
            schema["properties"] = {"_placeholder": dict(PLACEHOLDER)}


def _write_required(schema: Schema, names: list[str]) -> None:
    if names:
        schema["required"] = names
    else:
        del schema["required"]
