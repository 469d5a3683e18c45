"""What the upstream gets: every rule of the profiles, and what holds for any body at all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core import wire
from handrail.core.profiles import PROFILES
from handrail.core.rewrite import GATEWAY_FIELDS, UpstreamRequest, upstream_request
from handrail.errors import RequestRejected
from tests.unit.core.generated import KNOWN, UNKNOWN, WILD, spelled

Json = dict[str, Any]
ENCRYPTED = "reasoning.encrypted_content"
EVERY = pytest.mark.parametrize("profile", ["openai", "codex", "azure", "compatible"])


def rewritten(
    fields: Json | None = None,
    *,
    profile: str = "openai",
    stream: bool = False,
    extra: frozenset[str] = frozenset(),
) -> UpstreamRequest:
    """What becomes of a create with these fields."""
    data = json.dumps({"model": "m", "input": "hi", **(fields or {})}).encode()
    request = wire.read_create(data)
    return upstream_request(request, profile=PROFILES[profile], stream=stream, extra_fields=extra)


def sent(fields: Json | None = None, **options: Any) -> Json:
    """The body that goes out."""
    body: Json = json.loads(wire.encode(rewritten(fields, **options).body))
    return body


def test_this_test_knows_every_profile() -> None:
    assert set(PROFILES) == {"openai", "codex", "azure", "compatible"}


@EVERY
@pytest.mark.parametrize("store", [{}, {"store": None}, {"store": True}, {"store": False}])
def test_store_leaves_as_an_explicit_false(profile: str, store: Json) -> None:
    assert sent(store, profile=profile)["store"] is False
    steps = [step for step in rewritten(store).steps if step.field == "store"]
    assert len(steps) == (store != {"store": False})


@EVERY
@pytest.mark.parametrize("asked", [{}, {"stream": None}, {"stream": True}, {"stream": False}])
@pytest.mark.parametrize("wanted", [True, False])
def test_stream_leaves_as_an_explicit_boolean(profile: str, asked: Json, wanted: bool) -> None:
    request = rewritten(asked, profile=profile, stream=wanted)
    streams = wanted or profile == "codex"
    assert request.streams is streams
    assert bytes(request.body["stream"]) == (b"true" if streams else b"false")
    steps = [step for step in request.steps if step.field == "stream"]
    assert len(steps) == (asked.get("stream") is not streams)


@pytest.mark.parametrize(
    ("profile", "wanted", "reason"),
    [
        ("codex", False, "the upstream only streams"),
        ("openai", True, "what Handrail keeps is read as a stream"),
        ("openai", False, "always said explicitly"),
    ],
)
def test_the_reason_for_streaming_is_told(profile: str, wanted: bool, reason: str) -> None:
    steps = rewritten({}, profile=profile, stream=wanted).steps
    assert [step.reason for step in steps if step.field == "stream"] == [reason]


@EVERY
def test_what_is_meant_for_the_gateway_goes_no_further(profile: str) -> None:
    fields: Json = {
        "background": True,
        "background_options": {"completion_window": "2h"},
        "conversation": "conv_1",
        "providerOptions": {"openai": {"store": True}},
        "previous_response_id": None,
    }
    request = rewritten(fields, profile=profile)
    assert set(request.body) == {"model", "input", "store", "stream"} | (
        {"include"} if profile == "codex" else set()
    )
    removed = {step.field for step in request.steps if step.action == "removed"}
    assert removed == set(GATEWAY_FIELDS)


@EVERY
def test_context_that_the_upstream_was_asked_to_remember_is_never_silently_dropped(
    profile: str,
) -> None:
    with pytest.raises(RequestRejected) as caught:
        rewritten({"previous_response_id": "resp_1"}, profile=profile)
    assert caught.value.fault.param == "previous_response_id"


OTHER = "message.output_text.logprobs"


@pytest.mark.parametrize("reasoning", [{}, {"reasoning": None}, {"reasoning": {}}])
@pytest.mark.parametrize("asked", [None, [], [OTHER], [ENCRYPTED], [ENCRYPTED, OTHER]])
@pytest.mark.parametrize("place", ["body", "options"])
@EVERY
def test_encrypted_reasoning_is_asked_for_where_it_must_travel_with_the_items(
    profile: str, place: str, asked: list[str] | None, reasoning: Json
) -> None:
    include: Json = {"include": asked}
    fields = include if place == "body" else {"providerOptions": {"openai": include}}
    request = rewritten({**fields, **reasoning}, profile=profile)
    reasons = reasoning == {"reasoning": {}}
    ours = profile == "codex" or (profile in ("openai", "azure") and reasons)
    adds = ours and ENCRYPTED not in (asked or [])
    wanted = [*(asked or []), *([ENCRYPTED] if adds else [])]
    assert request.added_include is adds
    assert list(wire.strings(request.body, "include") or ()) == wanted
    assert ("include" in request.body) is bool(wanted)


@EVERY
def test_what_is_asked_for_twice_is_sent_once(profile: str) -> None:
    body = rewritten({"include": [OTHER, ENCRYPTED, OTHER]}, profile=profile).body
    assert wire.strings(body, "include") == (OTHER, ENCRYPTED)


def test_what_we_added_to_include_can_be_taken_back() -> None:
    request = rewritten({"reasoning": {}, "include": [OTHER]})
    plain = request.without_added_include()
    assert wire.strings(plain.body, "include") == (OTHER,)
    assert (plain.added_include, plain.streams) == (False, request.streams)
    assert plain.steps[:-1] == request.steps
    assert wire.strings(request.body, "include") == (OTHER, ENCRYPTED)


def test_an_include_that_was_ours_alone_is_taken_back_whole() -> None:
    assert "include" not in rewritten(profile="codex").without_added_include().body


def test_taking_back_from_nothing_is_harmless() -> None:
    assert "include" not in rewritten().without_added_include().body


ITEMS: list[Json] = [
    {"type": "message", "id": "msg_1", "role": "user", "content": [{"id": "inner", "n": 1}]},
    {"role": "assistant", "content": "typeless"},
    {"type": "reasoning", "id": "rs_1", "encrypted_content": "x"},
]


@pytest.mark.parametrize(("profile", "strips"), [("openai", 1), ("codex", 1), ("compatible", 0)])
def test_item_ids_are_taken_off_where_nothing_could_know_them(profile: str, strips: bool) -> None:
    request = rewritten({"input": ITEMS}, profile=profile)
    bare = [{key: item[key] for key in item if key != "id"} for item in ITEMS]
    assert json.loads(bytes(request.body["input"])) == (bare if strips else ITEMS)
    steps = [step.action for step in request.steps if step.field == "input[].id"]
    assert steps == (["removed from 2 items"] if strips else [])


@EVERY
def test_a_reference_to_a_stored_item_is_a_400_that_names_it(profile: str) -> None:
    fields = {"input": [{"role": "user"}, {"type": "item_reference", "id": "msg_9"}]}
    with pytest.raises(RequestRejected, match="'msg_9'") as caught:
        rewritten(fields, profile=profile)
    fault = caught.value.fault
    assert (fault.code, fault.param) == ("item_reference_not_found", "input[1].id")


@EVERY
def test_an_input_element_that_is_no_object_is_named(profile: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        rewritten({"input": [{"role": "user"}, "x"]}, profile=profile)
    assert caught.value.fault.param == "input[1]"


def test_no_depth_of_the_input_breaks_what_reads_it_again() -> None:
    for depth in range(900, 1_000):
        text = b"[" * depth + b"]" * depth
        with pytest.raises(RequestRejected):
            upstream_request(
                wire.read_create(b'{"model":"m","input":[1,%b]}' % text),
                profile=PROFILES["openai"],
                stream=False,
            )


@EVERY
def test_a_text_input_stays_text_unless_the_profile_wants_a_list(profile: str) -> None:
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
    assert sent(profile=profile)["input"] == (items if profile == "codex" else "hi")


@EVERY
@pytest.mark.parametrize("absent", [True, False])
def test_an_input_that_is_not_there_becomes_a_list_where_the_profile_wants_one(
    profile: str, absent: bool
) -> None:
    data = b'{"model":"m"}' if absent else b'{"model":"m","input":null}'
    request = upstream_request(wire.read_create(data), profile=PROFILES[profile], stream=False)
    if profile == "codex":
        assert bytes(request.body["input"]) == b"[]"
    else:
        assert not wire.is_set(request.body, "input")


@pytest.mark.parametrize(("stream", "stays"), [(True, True), (False, False)])
def test_stream_options_leave_only_with_a_stream(stream: bool, stays: bool) -> None:
    fields = {"stream_options": {"include_obfuscation": False}}
    assert ("stream_options" in sent(fields, stream=stream)) is stays


@pytest.mark.parametrize(
    "field",
    ["max_output_tokens", "max_tokens", "temperature", "top_p", "metadata", "user", "truncation"],
)
def test_the_codex_backend_does_not_get_what_it_refuses(field: str) -> None:
    values: Json = {"metadata": {"a": "b"}, "user": "u", "truncation": "auto"}
    request = rewritten({field: values.get(field, 1)}, profile="codex")
    assert field not in request.body
    assert [step.field for step in request.steps if step.action == "dropped"] == [field]


@pytest.mark.parametrize("field", ["instructions", "client_metadata", "prompt_cache_key", "new"])
def test_the_codex_backend_gets_the_rest(field: str) -> None:
    fields = {field: {"a": "b"} if field == "client_metadata" else "x"}
    assert sent(fields, profile="codex")[field] == fields[field]


def test_a_compatible_server_gets_only_what_all_of_them_take() -> None:
    fields = {"temperature": 0.5, "client_metadata": {}, "prompt_cache_key": "k", "seed": 3}
    assert set(sent(fields, profile="compatible")) == {
        "model",
        "input",
        "store",
        "stream",
        "temperature",
    }


def test_a_compatible_server_gets_further_fields_that_were_named() -> None:
    extra = frozenset({"seed", "background"})
    body = sent({"seed": 3, "background": True}, profile="compatible", extra=extra)
    assert body["seed"] == 3
    assert "background" not in body


@pytest.mark.parametrize("profile", ["codex", "compatible"])
def test_a_stored_prompt_is_refused_where_nothing_holds_one(profile: str) -> None:
    with pytest.raises(RequestRejected, match=f"profile '{profile}'") as caught:
        rewritten({"prompt": {"id": "pmpt_1"}}, profile=profile)
    fault = caught.value.fault
    assert (fault.code, fault.param) == ("unsupported_parameter", "prompt")
    assert "prompt" not in sent({"prompt": None}, profile=profile)


def test_a_stored_prompt_goes_to_openai() -> None:
    assert sent({"prompt": {"id": "pmpt_1"}})["prompt"] == {"id": "pmpt_1"}


@pytest.mark.parametrize("old", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("profile", ["openai", "compatible"])
def test_a_limit_by_its_older_name_is_translated(profile: str, old: str) -> None:
    assert sent({old: 5}, profile=profile)["max_output_tokens"] == 5
    both = rewritten({old: 5, "max_output_tokens": 7}, profile=profile)
    assert json.loads(wire.encode(both.body))["max_output_tokens"] == 7
    assert old not in both.body
    assert "dropped" in {step.action for step in both.steps if step.field == old}
    assert old not in sent({old: None}, profile=profile)


@EVERY
def test_tool_calls_and_outputs_leave_whole(profile: str) -> None:
    call = {"type": "function_call", "call_id": "a", "name": "n", "arguments": "{}"}
    orphan = {"type": "function_call_output", "call_id": "b", "output": "o"}
    request = rewritten({"input": [call, orphan]}, profile=profile)
    items = json.loads(wire.encode(request.body))["input"]
    assert [item["type"] for item in items] == ["function_call", "function_call_output", "message"]
    told = [step.action for step in request.steps if step.field == "input"]
    assert told == ["1 tool outputs made messages", "1 tool outputs added"]


@EVERY
def test_compaction_items_are_never_dropped(profile: str) -> None:
    given = [
        {"type": "compaction", "encrypted_content": "x"},
        {"role": "user", "content": "hi"},
        {"type": "compaction_trigger"},
    ]
    assert sent({"input": given}, profile=profile)["input"] == given


@EVERY
def test_the_callers_instructions_leave_as_they_were_written(profile: str) -> None:
    body = rewritten({"instructions": "Be  brief.\n"}, profile=profile).body
    assert wire.string(body, "instructions") == "Be  brief.\n"
    assert "instructions" not in rewritten(profile=profile).body


@EVERY
def test_a_limit_on_output_is_left_out_only_where_the_backend_refuses_it(profile: str) -> None:
    made = rewritten({"max_output_tokens": 5}, profile=profile)
    refused = profile == "codex"
    assert ("max_output_tokens" not in made.body) is refused
    assert any(step.field == "max_output_tokens" for step in made.steps) is refused


def test_what_no_rule_touches_leaves_byte_for_byte() -> None:
    data = b'{"model":"m","new" : {"a" : 1.50, "b":[ "\\u00e9" ]},"temperature":1E0}'
    body = upstream_request(wire.read_create(data), profile=PROFILES["openai"], stream=False).body
    assert bytes(body["new"]) == b'{"a" : 1.50, "b":[ "\\u00e9" ]}'
    assert bytes(body["temperature"]) == b"1E0"


def test_steps_say_what_was_done_and_why() -> None:
    fields = {"user": "u", "background": True, "input": [{"id": "a", "role": "user"}]}
    assert [(s.field, s.action, s.reason) for s in rewritten(fields, profile="codex").steps] == [
        ("background", "removed", "read by the gateway"),
        ("store", "set to false", "upstream calls keep nothing"),
        ("stream", "set to true", "the upstream only streams"),
        (
            "include",
            f"{ENCRYPTED} added",
            "without a store, reasoning must travel with the items",
        ),
        ("input[].id", "removed from 1 items", "nothing is stored that they could name"),
        ("user", "dropped", "profile codex does not take it"),
    ]


@pytest.mark.parametrize(
    ("input_", "action"), [('"hi"', "made a list of items"), ("null", "set to []")]
)
def test_an_input_that_was_made_a_list_says_so(input_: str, action: str) -> None:
    data = f'{{"model":"m","input":{input_}}}'.encode()
    request = upstream_request(wire.read_create(data), profile=PROFILES["codex"], stream=True)
    assert action in [step.action for step in request.steps if step.field == "input"]


@EVERY
def test_steps_hold_no_content_of_the_request(profile: str) -> None:
    fields = {"user": "canary", "input": [{"id": "canary", "role": "canary"}], "new": "canary"}
    assert "canary" not in repr(rewritten(fields, profile=profile).steps)


PROFILE = st.sampled_from(sorted(PROFILES))


@given(spelled(KNOWN), spelled(UNKNOWN), PROFILE, st.booleans())
def test_any_create_leaves_stateless_and_changed_only_by_rules(
    known: bytes, unknown: bytes, profile: str, stream: bool
) -> None:
    news = json.loads(unknown)
    request = wire.read_create(json.dumps({**news, **json.loads(known)}).encode())
    before = {name: bytes(value) for name, value in request.body.items()}
    try:
        made = upstream_request(request, profile=PROFILES[profile], stream=stream)
    except RequestRejected as error:
        refusal = error.fault.param
    else:
        refusal = None
        check(made, news=news if profile != "compatible" else {})
        again = upstream_request(request, profile=PROFILES[profile], stream=stream)
        assert again == made
    refuses = "prompt" in PROFILES[profile].refuses
    assert refusal == ("prompt" if refuses and request.has("prompt") else None)
    assert {name: bytes(value) for name, value in request.body.items()} == before


def check(made: UpstreamRequest, *, news: Json) -> None:
    """What holds for every body that leaves."""
    body = json.loads(wire.encode(made.body))
    assert body["store"] is False
    assert body["stream"] is made.streams
    assert not set(body) & {"background", "background_options", "providerOptions", "conversation"}
    assert body["model"] == "m"
    assert {name: body[name] for name in news} == news
    assert made.added_include <= (ENCRYPTED in body.get("include", []))


@given(spelled(WILD), PROFILE, st.booleans())
def test_rewriting_any_json_raises_nothing_but_a_rejection(
    data: bytes, profile: str, stream: bool
) -> None:
    made = None
    try:
        request = wire.read_create(data)
        made = upstream_request(request, profile=PROFILES[profile], stream=stream)
    except RequestRejected as error:
        status = error.fault.status
    if made is None:
        assert status == 400
    else:
        assert made.body["store"] == wire.FALSE
        assert "background" not in made.body
