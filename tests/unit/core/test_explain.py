"""What is shown of a decision: everything that a stranger needs, and no secret."""

import json
from typing import Any

import pytest
from hypothesis import given
from msgspec import Raw

from handrail.core import wire
from handrail.core.caller_policy import Executor
from handrail.core.catalogue import Capability, Catalogue, Entry
from handrail.core.efforts import Effort
from handrail.core.explain import MAX_SHOWN, UNREADABLE, explained, model, refused, shown
from handrail.core.prepare import VERSION, Prepared
from handrail.core.redact import MASK, hidden
from handrail.errors import Code, RequestRejected
from tests.unit.core.generated import WILD, spelled
from tests.unit.core.test_prepare import attempt, prepared

Json = dict[str, Any]


def test_plan_steps_and_call_are_all_there() -> None:
    result = explained(prepared({"store": True, "stream": False}))
    assert result["version"] == VERSION
    assert result["plan"]["mode"] == "stateless"
    assert result["decision"] == "mode=stateless; store=lowered; steps=store: set to false"
    assert result["plan"]["reasons"][0]["text"].endswith(".")
    assert result["steps"] == [
        {
            "field": "store",
            "action": "set to false",
            "reason": "upstream calls keep nothing",
            "before": "true",
            "after": "false",
        }
    ]
    assert result["url"].endswith("/v1/responses")
    assert result["headers"]["accept"] == "application/json"
    assert result["body"] == {"model": "m", "input": "hi", "store": False, "stream": False}


def test_an_absent_field_is_none_and_a_null_is_null() -> None:
    assert shown(None) is None
    assert shown(wire.NULL) == "null"


def test_a_long_value_is_cut_and_its_length_is_told() -> None:
    text = shown(wire.raw("x" * 5_000)) or ""
    assert len(text) < MAX_SHOWN + 30
    assert text.endswith("… (5002 characters)")
    assert shown(wire.raw("x" * (MAX_SHOWN - 2))) == f'"{"x" * (MAX_SHOWN - 2)}"'


@pytest.mark.parametrize(
    "value", [b'"\\ud800"', b"1e999", b"[" * 900 + b"]" * 900], ids=["half a pair", "huge", "deep"]
)
def test_what_cannot_be_read_is_said_to_be_so(value: bytes) -> None:
    assert shown(Raw(value)) in (
        f'"{UNREADABLE}"',
        value.decode()[:MAX_SHOWN] + "… (1800 characters)",
    )


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (None, None),
        ({"store": wire.FALSE}, {"store": "false"}),
        ({"model": wire.raw("m")}, None),
    ],
)
def test_a_refusal_is_the_envelope_and_what_the_body_says(given: Any, named: Any) -> None:
    error = RequestRejected(Code.BACKGROUND_REQUIRES_STORE, "No.", param="store")
    result = refused(error, given)
    assert result["status"] == 400
    assert result["error"] == {
        "message": "No.",
        "type": "invalid_request_error",
        "param": "store",
        "code": "background_requires_store",
    }
    assert result.get("given") == named


def test_a_refusal_without_a_param_is_about_the_whole_body() -> None:
    assert "given" not in refused(RequestRejected(Code.INVALID_JSON, "No."), {"": wire.NULL})


SECRETS: list[Json] = [
    {"tools": [{"type": "mcp", "authorization": "canary"}]},
    {"tools": [{"type": "mcp", "headers": {"X-Anything": "canary"}}]},
    {"tools": [{"type": "mcp", "headers": {"X": {"y": "Bearer canary"}}}]},
    {"new": {"API_KEY": "canary"}},
    {"input": "my key is sk-canary0123456789"},
    {"input": [{"role": "user", "content": "Bearer canary"}]},
    {"metadata": {"password": "canary"}},
]


@pytest.mark.parametrize("fields", SECRETS)
def test_no_secret_is_shown(fields: Json) -> None:
    result = explained(prepared({"store": True, **fields}))
    assert "canary" not in json.dumps(result)
    assert MASK in json.dumps(result)


def test_names_and_schemas_that_only_sound_secret_are_left_alone() -> None:
    schema = {"properties": {"token": {"type": "string"}}, "headers": "none", "n": [1, None, True]}
    assert hidden(schema) == schema


@given(spelled(WILD))
def test_whatever_is_prepared_can_be_explained(data: bytes) -> None:
    result = attempt(data, "openai", Executor.GATEWAY)
    if isinstance(result, Prepared):
        json.dumps(explained(result))


def test_what_is_known_about_a_model_is_told() -> None:
    entry = Entry(
        family="f",
        default_effort=Effort.LOW,
        efforts=(Effort.LOW, Effort.HIGH),
        capabilities=frozenset({Capability.TOOL_SEARCH, Capability.REASONING}),
    )
    known = Catalogue(entries={"m": entry, "bare": Entry()}, aliases={"old": "m"})
    assert model("old-high", known) == {
        "asked": "old-high",
        "sent": "m",
        "family": "f",
        "default_effort": "low",
        "efforts": ["low", "high"],
        "capabilities": ["reasoning", "tool_search"],
    }
    nothing: Json = {"family": None, "default_effort": None}
    bare: Json = {"asked": "bare", "sent": "bare", **nothing, "efforts": [], "capabilities": []}
    assert model("bare", known) == bare
    unknown: Json = {"asked": "x", "sent": None, **nothing, "efforts": None, "capabilities": None}
    assert model("x", known) == unknown
