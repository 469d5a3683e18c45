"""What goes for the endpoints beside create: read as strictly, guarded alike, always stateless."""

import dataclasses
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from msgspec import Raw

from handrail.core import wire
from handrail.core.caller_policy import (
    BackgroundPolicy,
    CallerPolicy,
    StoreFalsePolicy,
    StorePolicy,
)
from handrail.core.endpoints import READERS, prepare_endpoint
from handrail.core.policy import Mode, Plan, decide_endpoint
from handrail.core.profiles import PROFILES, Endpoint
from handrail.core.rewrite import GATEWAY_FIELDS, UpstreamRequest, endpoint_request
from handrail.core.switch import Switch
from handrail.errors import RequestRejected
from tests.unit.core.generated import WILD, spelled

Json = dict[str, Any]
EVERY = pytest.mark.parametrize("endpoint", Endpoint)
OFF = Switch(enabled=False, source="default", locked=False)
ON = Switch(enabled=True, source="flag --background", locked=False)
ANYBODY = CallerPolicy(name="anybody")


def data(fields: Json | None = None) -> bytes:
    """A body with these fields."""
    return json.dumps({"model": "m", "input": "hi", **(fields or {})}).encode()


def decided(
    fields: Json | None = None,
    *,
    endpoint: Endpoint = Endpoint.COMPACT,
    switch: Switch = OFF,
    caller: CallerPolicy = ANYBODY,
) -> Plan:
    """What policy says to a call."""
    request = READERS[endpoint](data(fields))
    return decide_endpoint(request, endpoint=endpoint, switch=switch, caller=caller)


def refusal(fields: Json, **options: Any) -> tuple[str | None, str | None, str]:
    """Code, param and text of the refusal of a call."""
    with pytest.raises(RequestRejected) as caught:
        decided(fields, **options)
    fault = caught.value.fault
    return fault.code, fault.param, fault.message


def rewritten(
    fields: Json | None = None, *, endpoint: Endpoint = Endpoint.COMPACT, profile: str = "openai"
) -> UpstreamRequest:
    """What becomes of a call with these fields."""
    request = READERS[endpoint](data(fields))
    return endpoint_request(request, endpoint=endpoint, profile=PROFILES[profile])


def sent(fields: Json | None = None, **options: Any) -> Json:
    """The body that goes out."""
    body: Json = json.loads(wire.encode(rewritten(fields, **options).body))
    return body


# --- which there are -------------------------------------------------------------------------


def test_a_profile_names_the_endpoints_that_its_upstream_has() -> None:
    assert {name: set(profile.endpoints) for name, profile in PROFILES.items()} == {
        "openai": {Endpoint.COMPACT, Endpoint.INPUT_TOKENS},
        "codex": {Endpoint.COMPACT},
        "azure": set(),
        "compatible": set(),
    }


def test_an_endpoint_is_below_create() -> None:
    assert Endpoint.COMPACT.path == "/responses/compact"
    assert Endpoint.INPUT_TOKENS.path == "/responses/input_tokens"


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [b"", b'"model":null,', b'"model":"",'])
def test_compact_needs_a_model_and_input_tokens_does_not(model: bytes) -> None:
    body = b'{%b"input":"hi","prompt":{"id":"p"}}' % model
    with pytest.raises(RequestRejected) as caught:
        wire.read_compact(body)
    fault = caught.value.fault
    assert (fault.code, fault.param) == ("missing_required_parameter", "model")
    assert wire.read_input_tokens(body).model == ""


@EVERY
@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"[]", "invalid_type", None),
        (b'{"model":"m"', "invalid_json", None),
        (b'{"model":1}', "invalid_type", "model"),
        (b'{"model":"m","input":5}', "invalid_type", "input"),
        (b'{"model":"m","background":"true"}', "invalid_type", "background"),
        (b'{"model":"m","stream":1}', "invalid_type", "stream"),
        (b'{"model":"m","store":"no"}', "invalid_type", "store"),
        (b'{"model":"m","tools":{}}', "invalid_type", "tools"),
        (b'{"model":"m","include":[1]}', "invalid_type", "include"),
        (b'{"model":"m","model":"m"}', "duplicate_parameter", "model"),
        (
            b'{"model":"m","background":false,"background":true}',
            "duplicate_parameter",
            "background",
        ),
        (
            b'{"model":"m","providerOptions":{"openai":{"store":1}}}',
            "invalid_type",
            "providerOptions.openai.store",
        ),
    ],
)
def test_a_body_is_read_as_strictly_as_a_creates(
    endpoint: Endpoint, body: bytes, code: str, param: str | None
) -> None:
    with pytest.raises(RequestRejected) as caught:
        READERS[endpoint](body)
    assert (caught.value.fault.code, caught.value.fault.param) == (code, param)


# --- the guardrails ------------------------------------------------------------------------------


@EVERY
def test_a_call_is_stateless_and_says_what_a_create_would(endpoint: Endpoint) -> None:
    for fields in ({}, {"store": False}, {"background": False, "stream": None}):
        plan = decided(fields, endpoint=endpoint, switch=ON)
        assert (plan.mode, plan.stream, plan.store) == (Mode.STATELESS, False, False)
        assert plan.retention_seconds == 0
        assert plan.header() == "mode=stateless; store=false"
    assert decided({"store": True}, endpoint=endpoint).header() == "mode=stateless; store=lowered"


@EVERY
@pytest.mark.parametrize("fields", [{}, {"store": False}, {"stream": True}, {"store": True}])
def test_background_that_is_not_enabled_is_refused_in_the_same_words_as_at_create(
    endpoint: Endpoint, fields: Json
) -> None:
    code, param, text = refusal({"background": True, **fields}, endpoint=endpoint)
    assert (code, param) == ("background_not_enabled", "background")
    assert text.startswith("Responses background mode is disabled.")
    assert "HANDRAIL_BACKGROUND_RESPONSES" in text


@EVERY
@pytest.mark.parametrize("fields", [{}, {"store": False}, {"stream": True}, {"store": True}])
def test_background_that_is_enabled_is_refused_too_and_never_ignored(
    endpoint: Endpoint, fields: Json
) -> None:
    code, param, text = refusal({"background": True, **fields}, endpoint=endpoint, switch=ON)
    assert (code, param) == ("unsupported_parameter", "background")
    assert text == (
        f"Unsupported parameter: 'background' is not supported by '{endpoint}': "
        "a call to it is never run in the background."
    )


@EVERY
def test_the_refusal_of_a_stream_says_what_the_endpoint_answers_with(endpoint: Endpoint) -> None:
    assert refusal({"stream": True}, endpoint=endpoint) == (
        "unsupported_parameter",
        "stream",
        f"Unsupported parameter: 'stream' is not supported by '{endpoint}': "
        "it answers with one JSON object.",
    )


@EVERY
def test_a_callers_own_policy_is_obeyed(endpoint: Endpoint) -> None:
    denied = CallerPolicy(name="d", background=BackgroundPolicy.DENY)
    allowed = CallerPolicy(name="a", background=BackgroundPolicy.ALLOW)
    careful = CallerPolicy(name="c", store=StorePolicy.REFUSE)
    background = {"background": True}
    code, *_ = refusal(background, endpoint=endpoint, switch=ON, caller=denied)
    assert code == "background_not_enabled"
    code, *_ = refusal(background, endpoint=endpoint, caller=allowed)
    assert code == "unsupported_parameter"
    for fields in ({"store": True}, {"providerOptions": {"openai": {"store": True}}}):
        code, *_ = refusal(fields, endpoint=endpoint, caller=careful)
        assert code == "store_not_allowed"


@EVERY
@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"stream": True}, "unsupported_parameter", "stream"),
        ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
        ({"background_options": {}}, "unsupported_parameter", "background_options"),
        ({"previous_response_id": "r"}, "previous_response_not_found", "previous_response_id"),
    ],
)
def test_what_a_stateless_object_cannot_honour_is_an_error_that_names_it(
    endpoint: Endpoint, fields: Json, code: str, param: str
) -> None:
    for switch in (OFF, ON):
        assert refusal(fields, endpoint=endpoint, switch=switch)[:2] == (code, param)


@EVERY
def test_no_combination_runs_in_the_background_or_streams(endpoint: Endpoint) -> None:
    loose = [None, True, False]
    policies = itertools.product(BackgroundPolicy, StorePolicy, StoreFalsePolicy)
    callers = [
        CallerPolicy(name="c", background=background, store=store, store_false=store_false)
        for background, store, store_false in policies
    ]
    for background, store, stream in itertools.product(loose, loose, loose):
        fields = {"background": background, "store": store, "stream": stream}
        for caller, switch in itertools.product(callers, (OFF, ON)):
            try:
                plan = decided(fields, endpoint=endpoint, switch=switch, caller=caller)
            except RequestRejected:
                continue
            assert not background
            assert not stream
            assert plan.mode is Mode.STATELESS


# --- what leaves ---------------------------------------------------------------------------------


@EVERY
def test_fields_that_only_a_create_has_are_left_out_with_a_step_each(endpoint: Endpoint) -> None:
    only: Json = {
        "store": True,
        "stream": False,
        "stream_options": {"include_obfuscation": False},
        "include": ["reasoning.encrypted_content"],
    }
    request = rewritten(only, endpoint=endpoint)
    assert set(request.body) == {"model", "input"}
    assert {(step.field, step.reason) for step in request.steps} == {
        (field, f"no field of {endpoint}") for field in only
    }
    assert not request.streams
    assert not request.added_include


@EVERY
@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_meant_for_the_gateway_goes_no_further(endpoint: Endpoint, profile: str) -> None:
    fields: Json = {
        "background": False,
        "background_options": None,
        "conversation": None,
        "previous_response_id": None,
        "providerOptions": {"openai": {"store": True, "include": ["x"]}},
    }
    request = rewritten(fields, endpoint=endpoint, profile=profile)
    assert set(request.body) == {"model", "input"}
    removed = {step.field for step in request.steps if step.action == "removed"}
    assert removed == set(GATEWAY_FIELDS)


def test_context_that_the_upstream_was_asked_to_remember_is_never_silently_dropped() -> None:
    with pytest.raises(RequestRejected) as caught:
        rewritten({"previous_response_id": "resp_1"})
    assert caught.value.fault.param == "previous_response_id"


ITEMS: list[Json] = [
    {"type": "message", "id": "msg_1", "role": "user", "content": [{"id": "inner", "n": 1}]},
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA", "created_by": "x"},
    {"type": "reasoning", "id": "rs_1", "encrypted_content": "x", "summary": []},
    {"type": "compaction_trigger"},
]


@EVERY
@pytest.mark.parametrize(("profile", "strips"), [("openai", 1), ("codex", 1), ("compatible", 0)])
def test_items_lose_their_ids_and_nothing_else(
    endpoint: Endpoint, profile: str, strips: bool
) -> None:
    request = rewritten({"input": ITEMS}, endpoint=endpoint, profile=profile)
    bare = [{key: item[key] for key in item if key != "id"} for item in ITEMS]
    assert json.loads(bytes(request.body["input"])) == (bare if strips else ITEMS)
    steps = [step.action for step in request.steps if step.field == "input[].id"]
    assert steps == (["removed from 3 items"] if strips else [])


@EVERY
def test_tool_outputs_are_made_whole_as_at_create(endpoint: Endpoint) -> None:
    alone = {"type": "function_call_output", "call_id": "c1", "output": "42"}
    request = rewritten({"input": [*ITEMS, alone]}, endpoint=endpoint)
    types = [item["type"] for item in json.loads(bytes(request.body["input"]))]
    assert types == ["message", "compaction", "reasoning", "compaction_trigger", "message"]
    assert "1 tool outputs made messages" in [step.action for step in request.steps]


@EVERY
def test_a_reference_to_a_stored_item_is_a_400_that_names_it(endpoint: Endpoint) -> None:
    with pytest.raises(RequestRejected) as caught:
        rewritten({"input": [{"type": "item_reference", "id": "msg_9"}]}, endpoint=endpoint)
    fault = caught.value.fault
    assert (fault.code, fault.param) == ("item_reference_not_found", "input[0].id")


# What the older remote compaction of Codex CLI sends.
CODEX_COMPACT: Json = {
    "instructions": "be brief",
    "tools": [{"type": "function", "name": "shell"}],
    "parallel_tool_calls": True,
    "reasoning": {"effort": "low"},
    "text": {"verbosity": "low"},
    "prompt_cache_key": "k",
    "service_tier": "auto",
}


def test_the_codex_backend_gets_a_list_and_not_what_it_refuses() -> None:
    dropped = {"temperature": 1, "metadata": {}, "max_output_tokens": 5, "truncation": "auto"}
    body = sent({**CODEX_COMPACT, **dropped, "image": {}}, profile="codex")
    assert body.pop("input")[0]["content"] == [{"type": "input_text", "text": "hi"}]
    assert body == {"model": "m", **CODEX_COMPACT, "image": {}}
    with pytest.raises(RequestRejected, match="profile 'codex'"):
        rewritten({"prompt": {"id": "pmpt_1"}}, profile="codex")


def test_openai_gets_every_other_field_byte_for_byte() -> None:
    text = b'{"model":"m","input":"hi","personality":"friendly","new" : {"a" : 1.50}}'
    request = endpoint_request(
        wire.read_input_tokens(text), endpoint=Endpoint.INPUT_TOKENS, profile=PROFILES["openai"]
    )
    assert request.body["new"] == Raw(b'{"a" : 1.50}')
    assert set(request.body) == {"model", "input", "personality", "new"}
    assert request.steps == ()


@EVERY
@pytest.mark.parametrize("profile", PROFILES)
@given(body=spelled(WILD))
def test_any_body_leaves_without_what_the_endpoint_lacks_or_is_refused(
    endpoint: Endpoint, profile: str, body: bytes
) -> None:
    try:
        request = READERS[endpoint](body)
        decide_endpoint(request, endpoint=endpoint, switch=ON, caller=ANYBODY)
        outgoing = endpoint_request(request, endpoint=endpoint, profile=PROFILES[profile])
    except RequestRejected:
        return
    left = {*GATEWAY_FIELDS, "store", "stream", "stream_options", "include", "previous_response_id"}
    assert not left & set(outgoing.body)
    assert set(outgoing.body) <= set(request.body) | {"input"}


HAS = {
    "openai": {Endpoint.COMPACT, Endpoint.INPUT_TOKENS},
    "codex": {Endpoint.COMPACT},
    "compatible": set(),
}


@EVERY
@pytest.mark.parametrize("profile", HAS)
def test_a_call_is_decided_and_rewritten_where_the_upstream_has_the_endpoint(
    endpoint: Endpoint, profile: str
) -> None:
    def prepared() -> tuple[Plan, UpstreamRequest]:
        return prepare_endpoint(
            READERS[endpoint](data({"store": True})),
            endpoint=endpoint,
            switch=OFF,
            caller=ANYBODY,
            profile=PROFILES[profile],
            extra_fields=frozenset(),
        )

    if endpoint in HAS[profile]:
        plan, outgoing = prepared()
        assert plan.mode is Mode.STATELESS
        assert "store" not in outgoing.body
        return
    with pytest.raises(RequestRejected) as caught:
        prepared()
    assert caught.value.fault.code == "unsupported_endpoint"
    assert caught.value.fault.message == (
        f"'{endpoint}' is not supported here: upstreams of the profile '{profile}' do not have it."
    )


def test_a_field_that_the_operator_lets_through_leaves_with_a_call_too() -> None:
    _, outgoing = prepare_endpoint(
        READERS[Endpoint.COMPACT](data({"seed": 7, "top_k": 1})),
        endpoint=Endpoint.COMPACT,
        switch=OFF,
        caller=ANYBODY,
        profile=dataclasses.replace(PROFILES["compatible"], endpoints=frozenset(Endpoint)),
        extra_fields=frozenset({"seed"}),
    )
    assert set(outgoing.body) == {"model", "input", "seed"}
