"""The whole pipeline as one function: what it gives, and what holds for every body."""

import copy
import dataclasses
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core import wire
from handrail.core.caller_policy import CallerPolicy, Executor, StoreFalsePolicy, StorePolicy
from handrail.core.fast_session import FastSession, Strategy
from handrail.core.policy import Mode
from handrail.core.prepare import VERSION, Prepared, Upstream, prepare, top_level
from handrail.core.profiles import PROFILES
from handrail.core.rewrite import upstream_request, upstream_run_request
from handrail.errors import RequestRejected
from tests.guardrails import switch_of
from tests.unit.core.generated import JSON, KNOWN, UNKNOWN, WILD, spelled

Json = dict[str, Any]

ON = switch_of("file on")
LENIENT = CallerPolicy(name="ann", store_false=StoreFalsePolicy.GATEWAY)


def upstream(profile: str = "openai", **fields: Any) -> Upstream:
    """An upstream of a kind, by default one that can run background responses itself."""
    return Upstream(
        url="http://up.example/v1", profile=PROFILES[profile], runs_background=True, **fields
    )


def prepared(
    fields: Json, *, profile: str = "openai", executor: Executor = Executor.GATEWAY, **more: Any
) -> Prepared:
    """What becomes of a create with these fields, by a caller who may do everything."""
    data = json.dumps({"model": "m", "input": "hi", **fields}).encode()
    return prepare(
        wire.read_create(data),
        switch=ON,
        caller=LENIENT,
        executor=executor,
        upstream=upstream(profile, **more),
    )


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("stream", [True, False])
def test_a_stateless_create_is_what_the_gateway_sends(profile: str, stream: bool) -> None:
    fields = {"stream": stream, "reasoning": {}, "temperature": 1}
    request = wire.read_create(json.dumps({"model": "m", "input": "hi", **fields}).encode())
    result = prepared(fields, profile=profile)
    wanted = upstream_request(request, profile=PROFILES[profile], stream=stream)
    assert result.request == wanted
    assert result.content == wire.encode(wanted.body)
    assert result.body == json.loads(result.content)
    assert (result.plan.mode, result.plan.stream) == (Mode.STATELESS, stream)
    assert result.steps == wanted.steps
    assert result.version == VERSION


@pytest.mark.parametrize("fields", [{}, {"store": False}])
def test_what_the_gateway_runs_is_shown_as_its_stateless_call(fields: Json) -> None:
    result = prepared({"background": True, **fields})
    assert result.plan.mode is Mode.BACKGROUND
    assert (result.body["store"], result.body["stream"]) == (False, True)
    assert "background" not in result.body
    assert result.headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("stream", [True, False])
def test_what_the_upstream_runs_is_sent_as_such(stream: bool) -> None:
    fields = {"background": True, "stream": stream, "previous_response_id": "resp_1"}
    result = prepared(fields, executor=Executor.UPSTREAM)
    request = wire.read_create(json.dumps({"model": "m", "input": "hi", **fields}).encode())
    assert result.plan.mode is Mode.UPSTREAM
    assert result.request == upstream_run_request(
        request, profile=PROFILES["openai"], stream=stream, continues="resp_1"
    )


@pytest.mark.parametrize("own", [None, *Executor])
@pytest.mark.parametrize("everybodys", Executor)
def test_a_callers_own_executor_says_what_is_named_to_the_upstream(
    own: Executor | None, everybodys: Executor
) -> None:
    data = b'{"model":"m","background":true,"previous_response_id":"resp_1"}'
    result = prepare(
        wire.read_create(data),
        switch=ON,
        caller=CallerPolicy(name="ann", executor=own),
        executor=everybodys,
        upstream=replace(upstream("openai"), runs_background=True),
        has_store=True,
    )
    there = (own or everybodys) is Executor.UPSTREAM
    assert result.plan.mode is (Mode.UPSTREAM if there else Mode.BACKGROUND)
    assert ("previous_response_id" in result.body) is there


@pytest.mark.parametrize("store", [True, False])
def test_what_is_kept_is_shown_whole_although_a_fast_session_is_on(store: bool) -> None:
    talk = [{"role": "user", "content": f"part {n}\nof it"} for n in range(20)]
    result = prepare(
        wire.read_create(json.dumps({"model": "m", "input": talk, "store": store}).encode()),
        switch=ON,
        caller=CallerPolicy(name="ann", store=StorePolicy.KEEP),
        executor=Executor.GATEWAY,
        upstream=upstream("openai"),
        has_store=True,
        fast_session=FastSession(strategy=Strategy.ALWAYS, max_items=8),
    )
    assert result.plan.mode is (Mode.KEPT if store else Mode.STATELESS)
    assert len(result.body["input"]) == (20 if store else 8)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("background", [True, False])
def test_what_the_gateway_continues_is_shown_without_what_came_before(
    profile: str, background: bool
) -> None:
    named = {"providerOptions": {"openai": {"previousResponseId": "resp_1"}}}
    for fields in ({"previous_response_id": "resp_1"}, named):
        data = json.dumps({"model": "m", "input": [], "background": background, **fields}).encode()
        result = prepare(
            wire.read_create(data),
            switch=ON,
            caller=LENIENT,
            executor=Executor.GATEWAY,
            upstream=upstream(profile),
            has_store=True,
        )
        assert "previous_response_id" not in result.body
        steps = [step for step in result.steps if step.field == "previous_response_id"]
        reason = "what it stands for is put before the input"
        assert [(step.action, step.reason) for step in steps] == [("removed", reason)]
        assert result.plan.continues == "resp_1"


def test_an_upstream_that_cannot_run_it_is_a_refusal() -> None:
    able = dataclasses.replace(upstream(), runs_background=False)
    with pytest.raises(RequestRejected) as caught:
        prepare(
            wire.read_create(b'{"model":"m","background":true}'),
            switch=ON,
            caller=LENIENT,
            executor=Executor.UPSTREAM,
            upstream=able,
        )
    assert caught.value.fault.code == "background_not_supported"


def test_the_url_and_headers_are_those_of_the_call_and_hold_no_credential() -> None:
    result = prepared({})
    assert result.url == "http://up.example/v1/responses"
    assert dict(result.headers) == {
        "content-type": "application/json",
        "accept": "application/json",
    }
    assert prepared({}, profile="codex").headers["accept"] == "text/event-stream"


def test_further_fields_of_a_server_go_along() -> None:
    assert "seed" not in prepared({"seed": 1}, profile="compatible").body
    more = prepared({"seed": 1}, profile="compatible", extra_fields=frozenset({"seed"}))
    assert more.body["seed"] == 1


def test_a_change_is_a_step_with_the_field_before_and_after() -> None:
    changes = {change.step.field: change for change in prepared({"store": True}).changes()}
    store = changes["store"]
    assert (store.before, store.after) == (wire.TRUE, wire.FALSE)
    assert (changes["stream"].before, changes["stream"].after) == (None, wire.FALSE)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("store", "store"),
        ("input[].id", "input"),
        ("input[0].id", "input"),
        ("reasoning.effort", "reasoning"),
        ("providerOptions.openai.zzz", "providerOptions"),
        ("", ""),
        (".", "."),
    ],
)
def test_the_field_of_a_path_is_its_first_word(path: str, field: str) -> None:
    assert top_level(path) == field


def test_what_was_prepared_cannot_be_changed_and_does_not_show_content() -> None:
    result = prepared({"input": "a secret plan"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.url = "http://elsewhere"  # type: ignore[misc]
    with pytest.raises(TypeError):
        result.headers["authorization"] = "x"  # type: ignore[index]
    assert "secret" not in repr(result)
    assert "secret" not in str(result.steps)


EXECUTORS = st.sampled_from(Executor)
PROFILE_NAMES = st.sampled_from(sorted(PROFILES))


def attempt(data: bytes, profile: str, executor: Executor) -> Prepared | str:
    """What is prepared, or the code and text of the refusal; anything else fails the test."""
    try:
        return prepare(
            wire.read_create(data),
            switch=ON,
            caller=LENIENT,
            executor=executor,
            upstream=upstream(profile),
        )
    except RequestRejected as error:
        return f"{error.fault.code} {error.fault.message}"


@given(spelled(WILD | JSON), PROFILE_NAMES, EXECUTORS)
def test_any_json_is_prepared_or_rejected_and_twice_the_same(
    data: bytes, profile: str, executor: Executor
) -> None:
    first, second = attempt(data, profile, executor), attempt(data, profile, executor)
    if isinstance(first, str):
        assert first == second
    else:
        assert isinstance(second, Prepared)
        assert (first.plan, first.content, first.steps) == (
            second.plan,
            second.content,
            second.steps,
        )


@given(st.binary(max_size=60) | st.binary(max_size=20).map(lambda end: b'{"model":"m",' + end))
def test_bytes_that_are_no_json_are_rejected(data: bytes) -> None:
    attempt(data, "openai", Executor.GATEWAY)


@given(KNOWN, UNKNOWN, st.sampled_from(["openai", "codex"]), EXECUTORS)
def test_a_field_that_no_rule_knows_survives_where_it_is_welcome(
    known: Json, unknown: Json, profile: str, executor: Executor
) -> None:
    data = json.dumps({**known, **unknown}).encode()
    result = attempt(data, profile, executor)
    if isinstance(result, Prepared):
        assert {name: result.body[name] for name in unknown} == unknown


def untold(result: Prepared) -> set[str]:
    """The fields that differ between the caller's body and the upstream's without a step."""
    before = {name: json.loads(bytes(value)) for name, value in result.given.items()}
    after = result.body
    told = {top_level(step.field) for step in result.steps}
    told |= {word for step in result.steps for word in step.action.split()}
    differing = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    # Null and an empty `include` mean that nothing was said; leaving them out changes nothing.
    return {name for name in differing - told if before.get(name) or after.get(name)}


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "include": st.just(["message.output_text.logprobs"]),
        "previousResponseId": st.just("resp_1"),
        "reasoningEffort": st.just("low"),
        "store": st.booleans(),
        "zzz": st.just(1),
    },
)


@given(KNOWN, OPTIONS, PROFILE_NAMES, EXECUTORS)
def test_no_field_is_changed_without_a_step_that_says_why(
    known: Json, options: Json, profile: str, executor: Executor
) -> None:
    body = copy.deepcopy(known) | {"providerOptions": {"openai": options}, "max_tokens": 5}
    result = attempt(json.dumps(body).encode(), profile, executor)
    if isinstance(result, Prepared):
        assert untold(result) == set()
