"""Tools of a request: their shape, their schemas, which may go along, and the choice among them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from handrail.core import tools, wire
from handrail.core.profiles import ToolCleanUp
from handrail.core.steps import Step
from handrail.core.tool_schemas import PLACEHOLDER
from handrail.errors import RequestRejected
from tests.unit.core.generated import JSON, spelled

Json = dict[str, Any]
Done = tuple[Json, list[tuple[str, str]]]
ALL, SHAPE, NEVER = ToolCleanUp.ALL, ToolCleanUp.SHAPE, ToolCleanUp.NEVER
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
RUN = {"type": "function", "name": "run", "parameters": SCHEMA}
NESTED = {"type": "function", "function": {"name": "run", "parameters": SCHEMA}}
FLAT = {"type": "function", "strict": False, "name": "run", "parameters": SCHEMA}
ASK = {"type": "function", "name": "request_user_input", "parameters": SCHEMA}
DIRTY = {"type": "function", "name": "run", "parameters": {"type": "object", "title": "T"}}
PLAN = [{"role": "developer", "content": "You are in **Plan Mode** now."}]
DEFAULT = [{"role": "developer", "content": "# Collaboration Mode: Default"}]


def told(steps: list[Step]) -> list[tuple[str, str]]:
    """Field and action of each step, all of which have a reason."""
    assert all(step.reason for step in steps)
    return [(step.field, step.action) for step in steps]


def done(
    body: Json, clean_up: ToolCleanUp = ALL, capabilities: frozenset[str] | None = None
) -> Done:
    """The body after the clean-up, and what is said of it."""
    found = wire.parse_object(json.dumps(body).encode())
    steps: list[Step] = []
    tools.write(found, steps, clean_up=clean_up, capabilities=capabilities)
    return json.loads(wire.encode(found)), told(steps)


def left(given: Any, **options: Any) -> Any:
    """The tools that are left of these; None for none at all."""
    return done({"tools": given}, **options)[0].get("tools")


# --- shape ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean_up", [SHAPE, ALL])
def test_a_function_of_the_older_apis_shape_is_made_flat(clean_up: ToolCleanUp) -> None:
    body, steps = done({"tools": [RUN, NESTED, NESTED]}, clean_up)
    assert body == {"tools": [RUN, FLAT, FLAT]}
    assert steps == [("tools", "2 functions made flat")]


def test_what_a_nested_function_says_stays() -> None:
    nested = {
        "type": "function",
        "defer_loading": True,
        "function": {"name": "run", "description": "d", "strict": True, "parameters": SCHEMA},
    }
    flat = {"type": "function", "defer_loading": True, **nested["function"]}  # type: ignore[dict-item]
    assert left([nested]) == [flat]


@pytest.mark.parametrize("clean_up", [SHAPE, ALL])
@pytest.mark.parametrize(
    "tool",
    [
        {},
        {"type": "function"},
        {"type": "function", "function": None},
        {"type": "function", "function": "run"},
        {"type": "function", "function": {}},
        {"type": "function", "function": {"name": 1}},
        {"type": "function", "function": {"name": None}},
        {"type": "function", "name": "a", "function": {"name": "b"}},
        {"type": "custom", "function": {"name": "b"}},
        {"type": ["function"], "function": {"name": "b"}},
        {"type": "web_search", "filters": {"title": "T"}},
        {"type": "mcp", "server_label": "s"},
        {"type": "namespace", "name": "n", "tools": "bad"},
        {"type": "namespace", "name": "n", "tools": [[]]},
        {"type": "namespace", "name": "n", "tools": None},
        {"type": "namespace", "name": "n"},
        {"type": "function", "name": "a", "parameters": None},
        {"type": "function", "name": "a", "parameters": []},
        {"type": "function", "name": "a", "parameters": {}},
    ],
)
def test_what_is_no_older_shape_is_left_as_it_is(tool: Json, clean_up: ToolCleanUp) -> None:
    assert done({"tools": [tool]}, clean_up) == ({"tools": [tool]}, [])


def test_namespaces_are_gone_through_to_a_bound() -> None:
    tool: Json = NESTED
    assert tools.MAX_NESTING == 8
    for _ in range(tools.MAX_NESTING):
        tool = {"type": "namespace", "name": "n", "tools": [RUN, tool]}
    flat = json.dumps(tool).replace(json.dumps(NESTED), json.dumps(FLAT))
    assert left([tool]) == [json.loads(flat)]
    deeper = {"type": "namespace", "name": "n", "tools": [tool]}
    assert left([deeper]) == [deeper]


@pytest.mark.parametrize("clean_up", [SHAPE, ALL])
def test_the_choice_of_a_function_is_made_flat_too(clean_up: ToolCleanUp) -> None:
    body = {"tools": [RUN], "tool_choice": {"type": "function", "function": {"name": "run"}}}
    found, steps = done(body, clean_up)
    assert found["tool_choice"] == {"type": "function", "name": "run"}
    assert steps == [("tool_choice", "made flat")]


@pytest.mark.parametrize("choice", ["auto", None, {"type": "function", "name": "run"}, 7, {}])
def test_another_choice_stays(choice: object) -> None:
    body = {"tools": [RUN], "tool_choice": choice}
    assert done(body) == (body, [])
    assert done({"tool_choice": choice}) == ({"tool_choice": choice}, [])


@pytest.mark.parametrize("clean_up", [SHAPE, ALL])
@pytest.mark.parametrize(("element", "kind"), [(None, "null"), (1, "an integer"), ([], "an array")])
def test_an_element_that_is_no_object_is_refused_by_its_place(
    element: object, kind: str, clean_up: ToolCleanUp
) -> None:
    with pytest.raises(RequestRejected, match=kind) as refused:
        done({"tools": [RUN, element]}, clean_up)
    assert refused.value.fault.param == "tools[1]"


def test_never_means_never() -> None:
    body = {"tools": [None, NESTED, DIRTY], "tool_choice": NESTED}
    assert done(body, NEVER) == (body, [])
    assert done({"tools": []}, NEVER, frozenset()) == ({"tools": []}, [])


@pytest.mark.parametrize("clean_up", list(ToolCleanUp))
def test_without_tools_nothing_is_done(clean_up: ToolCleanUp) -> None:
    assert done({}, clean_up) == ({}, [])
    assert done({"tools": None}, clean_up) == ({"tools": None}, [])


# --- schemas --------------------------------------------------------------------------------------


def test_schemas_are_cleaned_only_where_all_is() -> None:
    empty = {"type": "object", "properties": {"_placeholder": dict(PLACEHOLDER)}}
    body, steps = done({"tools": [DIRTY, RUN, {"type": "namespace", "tools": [DIRTY]}]})
    clean = {**DIRTY, "parameters": empty}
    assert body == {"tools": [clean, RUN, {"type": "namespace", "tools": [clean]}]}
    assert steps == [("tools[].parameters", "cleaned in 2 functions")]
    assert done({"tools": [DIRTY]}, SHAPE) == ({"tools": [DIRTY]}, [])


def test_a_nested_function_is_cleaned_as_a_flat_one() -> None:
    nested = {"type": "function", "function": {"name": "run", "parameters": DIRTY["parameters"]}}
    assert left([nested])[0]["parameters"] == left([DIRTY])[0]["parameters"]


def test_a_strict_schema_is_the_upstreams_own_business() -> None:
    for strict in (False, None):
        assert left([{**DIRTY, "strict": strict}]) != [{**DIRTY, "strict": strict}]
    assert left([{**DIRTY, "strict": True}]) == [{**DIRTY, "strict": True}]
    other = {**DIRTY, "type": "custom"}
    assert left([other]) == [other]


def test_a_schema_that_cannot_be_read_is_left_alone() -> None:
    tool = b'[{"type":"function","name":"a","parameters":{"title":"T","maximum":1e999}}]'
    body = {"tools": Raw(tool)}
    steps: list[Step] = []
    tools.write(body, steps, clean_up=ALL)
    assert (bytes(body["tools"]), steps) == (tool, [])


def test_a_list_too_deep_to_be_read_is_refused() -> None:
    deep = b'[{"type":"function","a":' + b"[" * 3_000 + b"]" * 3_000 + b"}]"
    with pytest.raises(RequestRejected, match="deeply"):
        tools.write({"tools": Raw(deep)}, [], clean_up=SHAPE)


def test_what_needs_nothing_leaves_byte_for_byte() -> None:
    text = b'[ {"type" : "function", "name":"a",\n"parameters":{"type":"object","properties":{"a":'
    text += b'{"type":"number","maximum":1.50e2}}}} , {"type":"web_search"}, '
    text += b'{"type": "namespace", "tools": [ {"type" : "web_search"} ]} ]'
    for clean_up in (SHAPE, ALL):
        body = {"tools": Raw(text)}
        tools.write(body, [], clean_up=clean_up, capabilities=frozenset())
        assert bytes(body["tools"]) == text
    # Another namespace that is changed is no reason to touch this one.
    body = {"tools": Raw(b'[{"type":"namespace","tools":[{"type":"computer"}]},' + text[1:])}
    tools.write(body, [], clean_up=ALL, capabilities=frozenset())
    assert b'"tools":[ {"type" : "web_search"} ]' in bytes(body["tools"])


# --- which may go along ---------------------------------------------------------------------------

CAPABLE = [{"type": "tool_search"}, {"type": "computer"}, {"type": "computer_use_preview"}]


def test_a_model_gets_the_types_of_tools_that_it_takes() -> None:
    assert left([*CAPABLE, RUN]) == [*CAPABLE, RUN]
    assert left([*CAPABLE, RUN], capabilities=frozenset({"tool_search"})) == [CAPABLE[0], RUN]
    assert left([*CAPABLE, RUN], capabilities=frozenset({"computer_use"})) == [*CAPABLE[1:], RUN]
    body, steps = done({"tools": [*CAPABLE, RUN]}, capabilities=frozenset())
    assert body == {"tools": [RUN]}
    assert steps == [
        ("tools", "1 of type tool_search removed"),
        ("tools", "1 of type computer removed"),
        ("tools", "1 of type computer_use_preview removed"),
    ]
    assert left([RUN, CAPABLE[0]], capabilities=frozenset()) == [RUN]
    kept = done({"tools": CAPABLE}, SHAPE, frozenset())
    assert kept == ({"tools": CAPABLE}, [])


@pytest.mark.parametrize(
    ("items", "removed"),
    [
        (DEFAULT, True),
        (PLAN, False),
        ([], False),
        ([*PLAN, *DEFAULT], True),
        ([*DEFAULT, *PLAN], False),
        ([{"role": "user", "content": "we are in default mode"}], False),
        ([{"role": "system", "content": "you are in Default mode"}], True),
        ([{"role": "developer", "content": "in Plan mode ... in Default mode"}], True),
        ([{"role": "developer", "content": "in Default mode ... in Plan mode"}], False),
        ([{"role": "developer", "content": "in Default mode"}, {"role": "user"}], True),
        ([{"role": "developer", "content": "in Default mode", "type": "reasoning"}], False),
        ("in Default mode", False),
        (None, False),
    ],
)
def test_a_tool_of_plan_mode_goes_where_the_instructions_say_another(
    items: Any, removed: bool
) -> None:
    body, steps = done({"tools": [ASK, RUN], "input": items})
    assert body["tools"] == ([RUN] if removed else [ASK, RUN])
    assert steps == [("tools", "1 of type function removed")] * removed
    assert done({"tools": [RUN], "input": items})[1] == []


def test_input_is_read_only_for_a_tool_that_depends_on_it() -> None:
    assert left([RUN]) == [RUN]
    assert done({"tools": [RUN], "input": [None]})[1] == []
    with pytest.raises(RequestRejected):
        done({"tools": [ASK], "input": [None]})
    assert left([ASK]) == [ASK]


def test_an_empty_namespace_goes_and_so_does_an_empty_list() -> None:
    empty = {"type": "namespace", "name": "n", "tools": []}
    body, steps = done({"tools": [{**empty, "tools": [ASK, empty]}, RUN], "input": DEFAULT})
    assert body["tools"] == [RUN]
    assert steps == [
        ("tools", "1 of type function removed"),
        ("tools", "2 of type namespace removed"),
    ]
    body, steps = done({"tools": [empty]})
    assert (body, steps[-1]) == ({}, ("tools", "removed"))
    assert done({"tools": []}) == ({}, [("tools", "removed")])
    assert done({"tools": [empty]}, SHAPE) == ({"tools": [empty]}, [])
    assert done({"tools": []}, SHAPE) == ({"tools": []}, [])


# --- the choice -----------------------------------------------------------------------------------


def chosen(given: Any, choice: Any) -> Done:
    """Tools and choice for a model without any capability, in default mode."""
    body = {"tools": given, "tool_choice": choice, "input": DEFAULT}
    found, steps = done(body, capabilities=frozenset())
    return found, [step for step in steps if step[0] == "tool_choice"]


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "request_user_input"},
        {"type": "custom", "name": "request_user_input"},
        {"type": "computer"},
        {"type": "computer", "name": "whatever"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "tool_search"}]},
    ],
)
def test_the_choice_of_a_removed_tool_is_left_to_the_model(choice: Json) -> None:
    custom = {"type": "custom", "name": "request_user_input"}
    found, steps = chosen([ASK, custom, *CAPABLE, RUN], choice)
    assert found["tool_choice"] == "auto"
    assert steps == [("tool_choice", "set to auto")]


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        None,
        {},
        {"type": "function"},
        {"type": "function", "name": "run"},
        {"type": "function", "name": "never heard of"},
        {"type": "web_search"},
        {"type": "allowed_tools", "mode": "auto", "tools": [RUN, {"type": "web_search"}]},
        {"type": "allowed_tools", "tools": "x"},
        {"type": "allowed_tools", "tools": []},
    ],
)
def test_the_choice_of_any_other_tool_is_the_callers(choice: object) -> None:
    found, steps = chosen([ASK, *CAPABLE, RUN], choice)
    assert (found["tool_choice"], steps) == (choice, [])
    found, steps = chosen([RUN], choice)
    assert (found["tool_choice"], steps) == (choice, [])


def test_of_the_allowed_tools_the_removed_ones_go() -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "computer"}, RUN]}
    found, steps = chosen([*CAPABLE, RUN], allowed)
    assert found["tool_choice"] == {**allowed, "tools": [RUN]}
    assert steps == [("tool_choice", "shortened")]


def test_a_tool_that_is_there_twice_may_be_chosen_still() -> None:
    twin = {"type": "namespace", "name": "n", "tools": [RUN, {"type": "computer"}]}
    choice = {"type": "function", "name": "run"}
    found, steps = chosen([twin, RUN], choice)
    assert (found["tool_choice"], steps) == (choice, [])


@pytest.mark.parametrize("choice", ["auto", "required", "none", {"type": "computer"}])
def test_without_a_tool_there_is_no_choice(choice: object) -> None:
    for some in (CAPABLE, []):
        found, steps = chosen(some, choice)
        assert found == {"input": DEFAULT}
        assert steps == [("tool_choice", "removed")]


# --- any JSON at all ------------------------------------------------------------------------------

_KINDS = st.sampled_from(
    ["function", "namespace", "custom", "computer", "tool_search", "allowed_tools"]
)
_NAMES = st.sampled_from(["run", "request_user_input", "", None])
_FIELDS = {"name": _NAMES | JSON, "parameters": JSON, "strict": JSON, "tools": JSON}


def _tools(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=3)
    return st.fixed_dictionaries(
        {"type": _KINDS}, optional={**_FIELDS, "function": inner | JSON, "tools": lists | JSON}
    )


WILD = st.recursive(JSON | st.fixed_dictionaries({"type": _KINDS}, optional=_FIELDS), _tools)


@given(
    spelled(
        st.fixed_dictionaries(
            {"tools": st.lists(WILD, max_size=4) | JSON},
            optional={"tool_choice": WILD, "input": st.lists(JSON, max_size=2) | JSON},
        )
    ),
    st.sampled_from(list(ToolCleanUp)),
    st.none() | st.frozensets(st.sampled_from(["tool_search", "computer_use"])),
)
def test_cleaning_any_json_raises_nothing_but_a_rejection(
    data: bytes, clean_up: ToolCleanUp, capabilities: frozenset[str] | None
) -> None:
    body = wire.parse_object(data)
    try:
        wire.check_kinds(body, wire.CREATE_FIELDS)
        tools.write(body, [], clean_up=clean_up, capabilities=capabilities)
    except RequestRejected:
        return
    once = wire.encode(body)
    tools.write(body, [], clean_up=clean_up, capabilities=capabilities)
    assert wire.encode(body) == once


_PLAIN = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "name": st.text(min_size=1, max_size=9),
        "parameters": st.dictionaries(
            st.text(min_size=1, max_size=5), st.just({"type": "string"}), min_size=1, max_size=3
        ).map(lambda properties: {"type": "object", "properties": properties}),
    },
    optional={"strict": st.booleans(), "description": st.text(max_size=9)},
)


@given(spelled(st.lists(_PLAIN, min_size=1, max_size=4)), st.sampled_from(list(ToolCleanUp)))
def test_a_valid_flat_function_is_never_changed(data: bytes, clean_up: ToolCleanUp) -> None:
    body = wire.parse_object(b'{"tools":' + data + b"}")
    before = bytes(body["tools"])
    steps: list[Step] = []
    tools.write(body, steps, clean_up=clean_up, capabilities=frozenset())
    assert (bytes(body["tools"]), steps) == (before, [])
