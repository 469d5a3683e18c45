"""Schemas of parameters: what is put in plainer words, and what keeps its meaning."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.tool_schemas import NULLABLE, PLACEHOLDER, clean
from tests.unit.core.generated import JSON, SCALARS

Json = dict[str, Any]
NONE = {"_placeholder": dict(PLACEHOLDER)}
DIRTY = {"const": "x"}
CLEAN = {"enum": ["x"], "type": "string"}


def cleaned(schema: Json) -> Json:
    """The schema of parameters after the clean-up; the given one stays as it was."""
    copy: Json = json.loads(json.dumps(schema))
    clean(copy)
    return copy


def value(schema: Any) -> Json:
    """The same for the schema of one parameter."""
    found: Json = cleaned({"type": "object", "properties": {"k": schema}})["properties"]["k"]
    return found


@pytest.mark.parametrize(
    "keyword",
    [
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    ],
)
def test_a_schema_inside_is_visited(keyword: str) -> None:
    assert value({keyword: {"title": "T", keyword: DIRTY}}) == {keyword: {keyword: CLEAN}}


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "items", "oneOf", "prefixItems"])
def test_each_schema_of_a_list_is_visited(keyword: str) -> None:
    given = {keyword: [{**DIRTY, "minLength": 1}, {"type": "integer", "title": "T"}]}
    assert value(given) == {keyword: [{"minLength": 1, **CLEAN}, {"type": "integer"}]}


@pytest.mark.parametrize(
    "keyword",
    ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"],
)
def test_each_named_schema_is_visited(keyword: str) -> None:
    assert value({keyword: {"a": DIRTY, "b": ["c"]}}) == {keyword: {"a": CLEAN, "b": ["c"]}}


def test_what_is_put_in_says_what_it_is() -> None:
    told = "Not a parameter: there are none. Leave it out."
    assert dict(PLACEHOLDER) == {"type": "boolean", "description": told}
    assert NULLABLE == "(nullable)"


@pytest.mark.parametrize("kind", ["string", "array"])
@pytest.mark.parametrize(
    ("said", "left"),
    [
        ({"$schema": "x"}, {}),
        ({"title": "T"}, {}),
        ({"additionalProperties": False}, {}),
        ({"const": "x"}, {"enum": ["x"]}),
        ({"anyOf": [{"const": "x"}]}, {"enum": ["x"]}),
        ({"oneOf": [{"const": "x"}]}, {"enum": ["x"]}),
        ({"properties": {"a": {}}, "required": ["b"]}, {"properties": {"a": {}}}),
        ({"description": "d", "minLength": 1}, {"description": "d", "minLength": 1}),
    ],
)
def test_a_schema_of_a_plain_type_is_cleaned_like_any_other(
    kind: str, said: Json, left: Json
) -> None:
    assert value({"type": kind, **said}) == {"type": kind, **left}


def test_what_is_no_schema_is_left_alone() -> None:
    for keyword in ("default", "enum", "examples", "x-new", "required"):
        one: Json = {keyword: {"title": "T"}, "description": "d"}
        many: Json = {keyword: [{"title": "T"}], "description": "d"}
        assert (value(one), value(many)) == (one, many)


def test_whether_anything_was_changed_is_told() -> None:
    plain = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"not": {}}}}
    assert clean(json.loads(json.dumps(plain))) is False
    for place in ("a", "b"):
        dirty = json.loads(json.dumps(plain))
        dirty["properties"][place]["not"] = {"title": "T"}
        assert clean(dirty) is True
    assert clean({"title": "T", "properties": {"a": {"type": "string"}}}) is True


def test_only_titles_of_schemas_go_and_properties_of_that_name_stay() -> None:
    given = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "T",
        "type": "object",
        "properties": {"title": {"type": "string", "title": "T"}, "const": {"type": "string"}},
    }
    plain = {"title": {"type": "string"}, "const": {"type": "string"}}
    assert cleaned(given) == {"type": "object", "properties": plain}
    assert value({"title": {"type": "string"}, "$schema": 1}) == {
        "title": {"type": "string"},
        "$schema": 1,
    }


@pytest.mark.parametrize(
    ("constant", "kind"),
    [
        (None, "null"),
        (True, "boolean"),
        (3, "integer"),
        (0.5, "number"),
        ("x", "string"),
        ([1], "array"),
        ({"a": 1}, "object"),
    ],
)
def test_a_const_becomes_an_enum_of_one(constant: object, kind: str) -> None:
    assert value({"const": constant})["enum"] == [constant]
    assert value({"const": constant})["type"] == kind
    assert value({"const": constant, "type": "array"})["type"] == "array"
    assert "const" not in value({"const": constant})


def test_a_const_beside_an_enum_stays() -> None:
    assert value({"const": "a", "enum": ["a", "b"]}) == {"const": "a", "enum": ["a", "b"]}


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
def test_alternatives_of_one_value_each_become_an_enum(keyword: str) -> None:
    branches = [{"const": "a", "title": "A", "type": "string"}, {"const": "b"}]
    assert value({keyword: branches}) == {"enum": ["a", "b"], "type": "string"}
    assert value({keyword: [{"const": 1}, {"const": "b"}]}) == {"enum": [1, "b"]}
    assert value({keyword: [{"const": 1}], "type": "number"}) == {"enum": [1], "type": "number"}


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
@pytest.mark.parametrize(
    "branches",
    [
        [{"const": "a", "description": "what it stands for"}],
        [{"const": "a"}, {"type": "integer"}],
        [{"const": "a"}, "b"],
        [],
        "a",
    ],
)
def test_alternatives_that_say_more_stay_alternatives(keyword: str, branches: Any) -> None:
    found = value({keyword: branches})
    assert found.keys() == {keyword}
    assert len(found[keyword]) == len(branches)
    again = value({keyword: [DIRTY], "enum": ["x", "y"]})
    assert again == {keyword: [CLEAN], "enum": ["x", "y"]}


def test_null_among_types_is_told_in_words() -> None:
    nullable = ["null", "string"]
    assert value({"type": nullable}) == {"type": "string", "description": NULLABLE}
    told = {"type": "string", "description": f"Text. {NULLABLE}"}
    assert value({"type": nullable, "description": "Text."}) == told
    for text in ("Nullable text.", 7):
        assert value({"type": nullable, "description": text})["description"] == text
    assert cleaned({"type": ["object", "null"]}) == {
        "type": "object",
        "description": NULLABLE,
        "properties": NONE,
    }


@pytest.mark.parametrize(
    ("types", "left"),
    [
        (["string"], "string"),
        (["string", "number"], ["string", "number"]),
        (["string", "string"], "string"),
        (["null", "string", "number"], ["string", "number"]),
        (["null"], ["null"]),
        ([], []),
        (["string", 1], ["string", 1]),
        (["string", 1, "null"], ["string", 1, "null"]),
        ("string", "string"),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_no_type_is_forgotten(types: object, left: object) -> None:
    assert value({"type": types})["type"] == left
    told = isinstance(types, list) and "null" in types and left != types
    assert ("description" in value({"type": types})) is told


def test_an_enum_that_lists_null_keeps_the_type_that_allows_it() -> None:
    given = {"type": ["string", "null"], "enum": ["a", None]}
    assert value(given) == given
    assert value({"type": ["string", "null"], "enum": ["a"]})["type"] == "string"
    assert value({"type": ["string", "null"], "enum": 1})["type"] == "string"


@pytest.mark.parametrize("condition", ["not", "if"])
def test_a_condition_is_put_in_words_of_the_same_meaning_only(condition: str) -> None:
    inner: Json = {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    exact = {**inner, "properties": {"a": {"type": ["string", "null"], "enum": ["x"]}}}
    given = {**inner, "properties": {"a": {"type": ["string", "null"], "const": "x"}}}
    assert value({condition: given}) == {condition: exact}
    assert value({"anyOf": [{condition: given}, {}]}) == {"anyOf": [{condition: exact}, {}]}


@pytest.mark.parametrize(
    "given",
    [
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": []},
        {"type": "object", "properties": ["a"]},
        {"type": "object", "additionalProperties": False},
        {"type": "object", "required": "a"},
        {"type": "object", "required": [1]},
    ],
)
def test_a_function_without_parameters_gets_one_that_is_none(given: Json) -> None:
    assert cleaned(given)["properties"] == NONE
    assert "additionalProperties" not in cleaned(given)


def test_inside_only_an_object_that_can_have_no_property_gets_it() -> None:
    closed = {"type": "object", "additionalProperties": False}
    assert value(closed) == {"type": "object", "properties": NONE}
    for free in ({"type": "object"}, {"type": "object", "additionalProperties": True}):
        assert value(free) == {"type": "object", "properties": {}}
    assert cleaned({"type": "object", "additionalProperties": True}) == {
        "type": "object",
        "properties": {},
    }
    assert value({"additionalProperties": False}) == {}
    assert value({"properties": {}}) == {"properties": {}}


@pytest.mark.parametrize(
    "others",
    [
        {"additionalProperties": {"type": "string"}},
        {"patternProperties": {"^x-": {"type": "string"}}},
        {"propertyNames": {"pattern": "^a"}},
        {"$ref": "#/$defs/a"},
        {"allOf": [{"$ref": "#/$defs/a"}]},
        {"anyOf": [{"$ref": "#/$defs/a"}]},
        {"oneOf": [{"$ref": "#/$defs/a"}]},
    ],
)
def test_properties_that_are_said_otherwise_are_not_forgotten(others: Json) -> None:
    assert cleaned({"type": "object", **others}) == {"type": "object", "properties": {}, **others}
    given = {"type": "object", "properties": {"a": {}}, "required": ["a", "b"], **others}
    assert cleaned(given) == given


def test_what_is_required_is_a_property() -> None:
    properties = {"a": {"type": "string"}, "": {}}
    given = {"type": "object", "properties": properties}
    assert cleaned({**given, "required": ["a", "b", "a", 1, ""]})["required"] == ["a", ""]
    assert "required" not in cleaned({**given, "required": ["b"]})
    assert "required" not in cleaned({**given, "required": []})
    assert cleaned({**given, "required": "a"})["required"] == "a"
    unknown = {"type": "object", "required": ["a", "a", 1]}
    assert cleaned(unknown) == {**unknown, "properties": {"a": {}}}
    assert value({"required": ["a"]}) == {"required": ["a"]}


def test_a_schema_of_any_depth_is_cleaned_to_its_end() -> None:
    schema: Json = {"const": "x"}
    for _ in range(5_000):
        schema = {"items": schema}
    clean(schema)
    depth = 0
    while "items" in schema:
        schema, depth = schema["items"], depth + 1
    assert (depth, schema) == (5_000, CLEAN)


_WORDS = st.sampled_from(
    [
        "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "description", "enum",
        "if", "items", "not", "oneOf", "properties", "required", "title", "type",
    ]
)  # fmt: skip
_TYPES = st.sampled_from(["object", "string", "null", "array", ["string", "null"], ["object"]])


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(_WORDS, inner, max_size=5) | st.lists(inner, max_size=3)


SCHEMAS = st.recursive(SCALARS | _TYPES | JSON, _schemas, max_leaves=20).filter(
    lambda schema: isinstance(schema, dict)
)


@given(SCHEMAS)
def test_cleaning_any_json_raises_nothing_and_twice_is_once(schema: Json) -> None:
    once = cleaned(schema)
    assert cleaned(once) == once
