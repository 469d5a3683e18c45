"""What the catalogue puts into a body, and that a model it does not know is left alone."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core import wire
from handrail.core.catalogue import Capability, Catalogue, Entry, Options, catalogue_for
from handrail.core.efforts import Effort
from handrail.core.model_options import Known, apply
from handrail.core.profiles import CODEX, COMPATIBLE, OPENAI, PROFILES, Endpoint
from handrail.core.rewrite import endpoint_request, upstream_request, upstream_run_request
from handrail.core.steps import Step
from handrail.errors import RequestRejected
from tests.unit.core.generated import JSON, KNOWN, UNKNOWN, WILD, spelled

Json = dict[str, Any]

SHIPPED: Json = {
    "m": {
        "aliases": ["old"],
        "efforts": ["low", "high", "max", "ultra"],
        "verbosities": ["medium"],
        "retentions": ["in_memory"],
        "capabilities": ["reasoning"],
    },
    "plain": {},
}
SETTINGS = "the settings say so, and the request does not"


KNOWN_M = Known(
    model="m",
    include=None,
    capabilities=frozenset({Capability.REASONING}),
    lowest_effort=Effort.LOW,
)


def catalogue(own: Json | None = None, *, profile: str = "codex", **defaults: Any) -> Catalogue:
    """The catalogue at an upstream of a profile, with these tables of the operator's."""
    return catalogue_for(
        PROFILES[profile],
        shipped=lambda: msgspec.convert(SHIPPED, dict[str, Entry]),
        own=msgspec.convert(own or {}, dict[str, Entry]),
        defaults=Options(**defaults),
    )


def applied(
    fields: Json, own: Json | None = None, *, fills: bool = True, **options: Any
) -> tuple[Json, list[Step], Known]:
    """The body afterwards, the steps, and what is known."""
    body = wire.parse_object(json.dumps({"model": "m", **fields}).encode())
    steps: list[Step] = []
    name = wire.string(body, "model") or ""
    known = apply(body, steps, model=name, catalogue=catalogue(own, **options), fills=fills)
    return json.loads(wire.encode(body)), steps, known


def step(field: str, action: str, reason: str) -> Step:
    return Step(field=field, action=action, reason=reason)


# --- the name -----------------------------------------------------------------------------------


def test_the_upstreams_name_leaves_and_a_step_says_so() -> None:
    body, steps, known = applied({"model": "old"})
    assert body == {"model": "m"}
    assert steps == [
        step("model", "changed to m", "the model catalogue has it by that name"),
    ]
    assert known == KNOWN_M


def test_an_ending_is_an_effort_and_no_part_of_the_name() -> None:
    body, steps, _ = applied({"model": "old-high"})
    assert body == {"model": "m", "reasoning": {"effort": "high"}}
    assert steps == [
        step(
            "model",
            "changed to m",
            "the model catalogue has it by that name; 'high' is an effort",
        ),
        step("reasoning.effort", "set to high", "the model's name says so"),
    ]


def test_a_name_that_is_the_upstreams_own_leaves_without_a_step() -> None:
    assert applied({}) == ({"model": "m"}, [], KNOWN_M)
    assert KNOWN_M.reasons


@pytest.mark.parametrize("profile", ["codex", "openai"])
def test_a_model_that_is_not_known_leaves_as_it_came(profile: str) -> None:
    fields = {
        "model": "gpt-4o-high",
        "reasoning": {"effort": "VERY", "summary": 5},
        "text": {"verbosity": 7},
        "prompt_cache_retention": "for ever",
    }
    body, steps, known = applied(fields, profile=profile, effort="low", verbosity="low")
    assert body == fields
    assert steps == []
    assert known == Known(model="gpt-4o-high")
    assert not known.reasons


@pytest.mark.parametrize(
    ("efforts", "lowest"),
    [
        (["xhigh", "none", "low"], "none"),
        (["high", "minimal"], "minimal"),
        (["max", "ultra"], "max"),
        ([], None),
    ],
)
def test_the_least_effort_of_a_model_is_known(efforts: list[str], lowest: str | None) -> None:
    _, _, known = applied({}, {"m": {"efforts": efforts, "capabilities": []}})
    assert known == Known(
        model="m", capabilities=frozenset(), lowest_effort=Effort(lowest) if lowest else None
    )
    assert not known.reasons


# --- reasoning ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "sent", "reason"),
    [
        ("high", "high", None),
        ("max", "max", None),
        ("medium", "low", "m does not take 'medium'"),
        ("NONE", "low", "m does not take 'none'"),
        ("ultra", "max", "'ultra' is sent as 'max'"),
        (" High", "high", "as the API spells it"),
        ("", "", None),
        ("very", "very", None),
    ],
)
@pytest.mark.parametrize("fills", [True, False])
def test_a_callers_effort_is_fitted_to_the_model(
    said: str, sent: str, reason: str | None, fills: bool
) -> None:
    given = {"model": "m", "reasoning": {"context": "auto", "effort": said}}
    body, steps, _ = applied(given, fills=fills)
    assert body["reasoning"] == {"context": "auto", "effort": sent}
    assert steps == ([step("reasoning.effort", f"set to {sent}", reason)] if reason else [])


def test_a_model_without_a_list_of_efforts_takes_any() -> None:
    cases: list[Json] = [{}, {"m": {"efforts": []}}]
    for own in cases:
        profile = "codex" if own else "openai"
        given = {"reasoning": {"effort": "medium"}}
        body, steps, _ = applied(given, own, profile=profile)
        assert body == {"model": "m", **given}
        assert steps == []


OWN: Json = {"m": {"effort": "max", "summary": "auto", "variants": {"low": {"effort": "high"}}}}


@pytest.mark.parametrize(
    ("model", "said", "sent", "reason"),
    [
        ("m", None, "max", SETTINGS),
        ("m-low", None, "high", SETTINGS),
        ("m-high", None, "high", "the model's name says so"),
        ("m-none", None, "low", "the model's name says so; m does not take 'none'"),
        ("m-ultra", None, "max", "the model's name says so; 'ultra' is sent as 'max'"),
        ("m-high", "low", "low", None),
        ("m-low", "low", "low", None),
        ("m", "low", "low", None),
    ],
)
def test_body_then_variant_then_ending_then_settings(
    model: str, said: str | None, sent: str, reason: str | None
) -> None:
    given: Json = {"model": model, "reasoning": {"effort": said, "summary": "detailed"}}
    body, steps, _ = applied(given, OWN)
    assert body["reasoning"] == {"effort": sent, "summary": "detailed"}
    told = [entry for entry in steps if entry.field != "model"]
    assert told == ([step("reasoning.effort", f"set to {sent}", reason)] if reason else [])


@pytest.mark.parametrize("reasoning", [{}, {"reasoning": None}, {"reasoning": {}}])
def test_what_the_settings_say_is_filled_in(reasoning: Json) -> None:
    body, steps, _ = applied(reasoning, OWN)
    assert body == {"model": "m", "reasoning": {"effort": "max", "summary": "auto"}}
    assert steps == [
        step("reasoning.effort", "set to max", SETTINGS),
        step("reasoning.summary", "set to auto", SETTINGS),
    ]


def test_a_setting_that_the_model_does_not_take_is_fitted_too() -> None:
    body, steps, _ = applied({}, effort="minimal")
    assert body["reasoning"] == {"effort": "low"}
    reason = f"{SETTINGS}; m does not take 'minimal'"
    assert steps == [step("reasoning.effort", "set to low", reason)]


def test_without_settings_nothing_is_filled_in() -> None:
    given = {"reasoning": {}, "text": {"format": {"type": "text"}}}
    assert applied(given)[:2] == ({"model": "m", **given}, [])


def test_an_endpoint_beside_create_gets_the_name_and_nothing_filled_in() -> None:
    own = {"m": {**OWN["m"], "verbosity": "medium", "prompt_cache_retention": "in_memory"}}
    body, steps, _ = applied({"model": "old-high", "text": {}}, own, fills=False)
    assert body == {"model": "m", "text": {}}
    assert [entry.field for entry in steps] == ["model"]


# --- verbosity and retention ----------------------------------------------------------------------


@pytest.mark.parametrize("said", ["low", "high"])
def test_a_verbosity_that_the_model_does_not_take_becomes_the_nearest(said: str) -> None:
    body, steps, _ = applied({"text": {"format": {}, "verbosity": said}}, fills=False)
    assert body["text"] == {"format": {}, "verbosity": "medium"}
    assert steps == [step("text.verbosity", "set to medium", "m takes no other")]


@pytest.mark.parametrize(
    ("accepts", "said", "sent"),
    [
        (["low", "high"], "medium", "low"),
        (["high"], "medium", "high"),
        (["high"], "low", "high"),
        (["low"], "high", "low"),
        (["medium", "high"], "low", "medium"),
        (["low", "medium"], "high", "medium"),
        (["low"], "very", "very"),
        ([], "low", "low"),
    ],
)
def test_verbosities_have_a_ladder_too(accepts: list[str], said: str, sent: str) -> None:
    body, steps, _ = applied({"text": {"verbosity": said}}, {"m": {"verbosities": accepts}})
    assert body["text"] == {"verbosity": sent}
    assert len(steps) == (said != sent)


@pytest.mark.parametrize("text", [{}, {"text": None}, {"text": {}}, {"text": {"verbosity": None}}])
def test_a_verbosity_of_the_settings_is_filled_in(text: Json) -> None:
    body, steps, _ = applied({"model": "plain", **text}, verbosity="high")
    assert body == {"model": "plain", "text": {"verbosity": "high"}}
    assert steps == [step("text.verbosity", "set to high", SETTINGS)]
    fitted, _, _ = applied({}, verbosity="high")
    assert fitted["text"] == {"verbosity": "medium"}


def test_a_retention_that_the_model_does_not_take_is_left_out() -> None:
    for fills in (True, False):
        body, steps, _ = applied({"prompt_cache_retention": "24h"}, fills=fills)
        assert body == {"model": "m"}
        assert steps == [step("prompt_cache_retention", "removed", "m does not take it")]


@pytest.mark.parametrize("model", ["m", "plain"])
def test_a_retention_that_the_model_takes_stays(model: str) -> None:
    given = {"model": model, "prompt_cache_retention": "in_memory"}
    body, steps, _ = applied(given, prompt_cache_retention="24h")
    assert (body, steps) == (given, [])


def test_a_retention_of_the_settings_is_filled_in() -> None:
    body, steps, _ = applied({"prompt_cache_retention": None}, prompt_cache_retention="24h")
    assert body == {"model": "m", "prompt_cache_retention": "24h"}
    assert steps == [step("prompt_cache_retention", "set to 24h", SETTINGS)]


# --- what is wrong, and what holds for any body ---------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning": {"effort": 5}}, "reasoning.effort"),
        ({"reasoning": {"summary": ["auto"]}}, "reasoning.summary"),
        ({"text": {"verbosity": True}}, "text.verbosity"),
    ],
)
def test_a_wrong_type_inside_is_refused_by_name(fields: Json, param: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        applied(fields)
    assert caught.value.fault.param == param
    assert caught.value.fault.status == 400


MODELS = st.sampled_from(["m", "old", "m-high", "old-ultra", "OLD ", "plain", "plain-low", "mine"])
EFFORTS = st.none() | st.text(max_size=4) | st.sampled_from(["none", "HIGH", "ultra", "medium"])
TUNED = st.fixed_dictionaries(
    {"model": MODELS},
    optional={
        "reasoning": st.none()
        | st.fixed_dictionaries({}, optional={"effort": EFFORTS, "summary": EFFORTS}),
        "text": st.none() | st.fixed_dictionaries({}, optional={"verbosity": EFFORTS}),
        "prompt_cache_retention": st.none() | st.sampled_from(["24h", "in_memory", "x"]),
    },
)


@pytest.mark.parametrize("profile", PROFILES)
@given(known=KNOWN, tuned=TUNED, unknown=UNKNOWN)
def test_what_has_been_shaped_is_not_shaped_again(
    profile: str, known: Json, tuned: Json, unknown: Json
) -> None:
    own = {"m": OWN["m"], "mine": {"verbosity": "low"}}
    once, _, found = applied({**known, **unknown, **tuned}, own, profile=profile, effort="low")
    twice, steps, again = applied(once, own, profile=profile, effort="low")
    assert twice == once
    assert steps == []
    assert again == found


@pytest.mark.parametrize("profile", PROFILES)
@given(data=spelled(WILD), name=st.text(min_size=1, max_size=8).map("new-{}".format))
def test_a_body_to_an_unknown_model_is_the_same_with_and_without_a_catalogue(
    profile: str, data: bytes, name: str
) -> None:
    known = catalogue(profile=profile, effort="low", include=("x",), verbosity="low")
    try:
        parsed = wire.parse_object(data)
        request = wire.read_create(wire.encode({**parsed, "model": wire.raw(name)}))
        plain = upstream_request(request, profile=PROFILES[profile], stream=False)
    except RequestRejected:
        return
    shaped = upstream_request(request, profile=PROFILES[profile], stream=False, catalogue=known)
    assert wire.encode(shaped.body) == wire.encode(plain.body)
    assert shaped.steps == plain.steps


@given(
    data=spelled(st.builds(lambda body, tuned: {**body, **tuned}, WILD, TUNED)),
    reasoning=JSON,
    text=JSON,
)
def test_any_body_is_shaped_or_refused(data: bytes, reasoning: Any, text: Any) -> None:
    known = catalogue(OWN, effort="low", summary="auto", verbosity="low", include=("x",))
    with contextlib.suppress(RequestRejected):
        parsed = wire.parse_object(data)
        body = {**parsed, "reasoning": wire.raw(reasoning), "text": wire.raw(text)}
        request = wire.read_create(wire.encode(body))
        upstream_request(request, profile=CODEX, stream=True, catalogue=known)
        upstream_run_request(request, profile=OPENAI, stream=True, catalogue=known)
        endpoint_request(request, endpoint=Endpoint.COMPACT, profile=OPENAI, catalogue=known)


# --- in the whole rewriting -----------------------------------------------------------------------

ENCRYPTED = "reasoning.encrypted_content"
WHOLE: Json = {"model": "m", "input": "hi"}


def sent(fields: Json, write: Any = upstream_request, **options: Any) -> tuple[Json, Any]:
    request = wire.read_create(json.dumps({**WHOLE, **fields}).encode())
    made = write(request, stream=True, **options)
    return json.loads(wire.encode(made.body)), made


@pytest.mark.parametrize(
    ("model", "adds"),
    [("m", True), ("old", True), ("m-high", True), ("plain", False), ("x", False)],
)
def test_encrypted_reasoning_is_asked_of_models_that_are_known_to_reason(
    model: str, adds: bool
) -> None:
    body, made = sent({"model": model}, profile=OPENAI, catalogue=catalogue(profile="openai"))
    assert made.added_include is adds
    assert body.get("include") == ([ENCRYPTED] if adds else None)
    other, _ = sent({"model": model}, profile=COMPATIBLE, catalogue=catalogue())
    assert "include" not in other


@pytest.mark.parametrize(
    ("fields", "include", "tells"),
    [
        ({}, ["cfg", ENCRYPTED], True),
        ({"include": None}, ["cfg", ENCRYPTED], True),
        ({"include": ["body"]}, ["body", ENCRYPTED], False),
        ({"providerOptions": {"openai": {"include": ["opt"]}}}, ["opt", ENCRYPTED], False),
    ],
)
def test_include_is_bodys_then_options_then_settings(
    fields: Json, include: list[str], tells: bool
) -> None:
    known = catalogue({"m": {"include": ["cfg"]}}, profile="openai")
    body, made = sent(fields, profile=OPENAI, catalogue=known)
    assert body["include"] == include
    assert (step("include", "set", SETTINGS) in made.steps) is tells
    kept, run = sent(fields, upstream_run_request, profile=OPENAI, catalogue=known)
    assert kept["include"] == include[:1]
    assert (step("include", "set", SETTINGS) in run.steps) is tells


def test_an_empty_include_of_the_settings_is_one() -> None:
    known = catalogue({"m": {"include": []}}, profile="openai")
    body, _ = sent({}, upstream_run_request, profile=OPENAI, catalogue=known)
    assert body["include"] == []


@pytest.mark.parametrize("write", [upstream_request, upstream_run_request])
def test_both_kinds_of_background_are_shaped_alike(write: Any) -> None:
    fields = {"model": "old-high", "background": True}
    body, made = sent(fields, write, profile=CODEX, catalogue=catalogue())
    assert body["model"] == "m"
    assert body["reasoning"] == {"effort": "high"}
    assert made.models == ("old-high", "m")


def test_what_the_providers_options_say_is_the_callers_word() -> None:
    options = {"providerOptions": {"openai": {"reasoningEffort": "medium"}}, "model": "m-high"}
    body, made = sent(options, profile=CODEX, catalogue=catalogue())
    assert body["reasoning"] == {"effort": "low"}
    assert step("reasoning.effort", "set to low", "m does not take 'medium'") in made.steps


def test_an_endpoint_beside_create_gets_the_upstreams_name() -> None:
    request = wire.read_compact(json.dumps({**WHOLE, "model": "old-high"}).encode())
    made = endpoint_request(
        request, endpoint=Endpoint.COMPACT, profile=CODEX, catalogue=catalogue()
    )
    assert bytes(made.body["model"]) == b'"m"'
    assert "reasoning" not in made.body
    assert made.models == ("old-high", "m")
