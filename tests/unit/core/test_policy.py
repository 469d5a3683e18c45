"""Guardrails G1 to G7: every combination, against an oracle written from their wording."""

import dataclasses
import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from msgspec import Raw

from handrail.core import wire
from handrail.core.caller_policy import (
    BackgroundPolicy,
    CallerPolicy,
    Executor,
    StoreFalsePolicy,
    StorePolicy,
    WhenLeft,
)
from handrail.core.policy import Mode, Plan, decide
from handrail.core.switch import Switch, parse_boolean, resolve_switch
from handrail.errors import ConfigInvalid, RequestRejected
from tests.guardrails import (
    EXECUTORS,
    KEPT_SECONDS,
    OURS,
    SOURCES,
    THEIRS,
    Case,
    every_case,
    expected,
    switch_of,
)
from tests.unit.core.generated import WILD, spelled


def outcome(
    case: Case,
    *,
    switch: Switch,
    caller: CallerPolicy,
    runs: tuple[Executor, bool],
    has_store: bool,
) -> tuple[Any, ...]:
    """What is decided, in the oracle's terms."""
    executor, able = runs
    try:
        plan = decide(
            wire.read_create(case.data()),
            switch=switch,
            caller=caller,
            executor=executor,
            able=able,
            has_store=has_store,
        )
    except RequestRejected as error:
        return ("error", error.fault.code, error.fault.param)
    assert plan.stream is (case.stream is True)
    assert plan.header().startswith(f"mode={plan.mode}; ")
    assert all(reason.name and reason.text for reason in plan.reasons)
    return (plan.mode.value, plan.store, plan.retention_seconds)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("background", BackgroundPolicy)
@pytest.mark.parametrize("store", StorePolicy)
@pytest.mark.parametrize("store_false", StoreFalsePolicy)
@pytest.mark.parametrize("runs", EXECUTORS)
def test_every_combination_is_decided_as_the_guardrails_say(
    source: str,
    background: BackgroundPolicy,
    store: StorePolicy,
    store_false: StoreFalsePolicy,
    runs: tuple[Executor, bool],
) -> None:
    caller = CallerPolicy(
        name="ann",
        background=background,
        store=store,
        store_false=store_false,
        retention_seconds=KEPT_SECONDS,
    )
    switch = switch_of(source)
    cases = list(every_case())
    assert len(cases) == 4 * 4 * 4 * 3
    for case, has_store in itertools.product(cases, [True, False]):
        wanted = expected(case, source=source, caller=caller, runs=runs, has_store=has_store)
        made = outcome(case, switch=switch, caller=caller, runs=runs, has_store=has_store)
        assert made == wanted, (case, has_store)


@pytest.mark.parametrize("source", ["file on", "default"])
@pytest.mark.parametrize("own", [None, *Executor])
@pytest.mark.parametrize("models", [("*",), ("m",), ("x", "m"), ("x",), ()])
@pytest.mark.parametrize("runs", EXECUTORS)
def test_a_callers_own_executor_and_models_are_decided_as_the_guardrails_say(
    source: str, own: Executor | None, models: tuple[str, ...], runs: tuple[Executor, bool]
) -> None:
    caller = CallerPolicy(
        name="ann",
        store=StorePolicy.REFUSE,
        retention_seconds=KEPT_SECONDS,
        executor=own,
        models=models,
    )
    for case in every_case():
        wanted = expected(case, source=source, caller=caller, runs=runs, has_store=True)
        made = outcome(case, switch=switch_of(source), caller=caller, runs=runs, has_store=True)
        assert made == wanted, case


def said(text: str | None) -> bool | None:
    """The boolean that a variable of this test gives."""
    return None if text is None else text == "1"


@pytest.mark.parametrize("flag", [None, True, False])
@pytest.mark.parametrize("ours", [None, "1", "0"])
@pytest.mark.parametrize("theirs", [None, "1", "0"])
@pytest.mark.parametrize("file", [None, True, False])
def test_the_strongest_source_decides_and_contradicting_variables_stop_the_start(
    flag: bool | None, ours: str | None, theirs: str | None, file: bool | None
) -> None:
    given_ = {OURS: ours, THEIRS: theirs}
    environment = {name: text for name, text in given_.items() if text is not None}
    if {ours, theirs} == {"0", "1"}:
        with pytest.raises(ConfigInvalid, match=f"{OURS} and {THEIRS} contradict each other"):
            resolve_switch(flag=flag, environment=environment, file=file)
        return
    switch = resolve_switch(flag=flag, environment=environment, file=file)
    order = [flag, said(ours), said(theirs), file, False]
    names = ["flag", "environment HANDRAIL", "environment CODEX", "file", "default"]
    first = next(place for place, value in enumerate(order) if value is not None)
    assert switch.enabled is order[first]
    assert switch.source.startswith(names[first])
    assert switch.locked is (first < 3 and not switch.enabled)


TRUE = ["1", "true", "yes", "on"]
FALSE = ["0", "false", "no", "off"]


@pytest.mark.parametrize("word", TRUE + FALSE)
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title, " \t{}\n".format])
def test_a_boolean_is_read_in_any_case_and_trimmed(word: str, spell: Any) -> None:
    assert parse_boolean(spell(word), name="X") is (word in TRUE)


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_an_empty_boolean_is_unset(text: str) -> None:
    assert parse_boolean(text, name="X") is None
    assert not resolve_switch(flag=None, environment={OURS: text, THEIRS: "0"}, file=True).enabled


@pytest.mark.parametrize("text", ["2", "-1", "y", "n", "t", "enable", "on off", "tru e", "ja", "%"])
@pytest.mark.parametrize("variable", [OURS, THEIRS])
@pytest.mark.parametrize("flag", [None, True, False])
def test_any_other_word_stops_the_start_and_names_the_variable(
    text: str, variable: str, flag: bool | None
) -> None:
    with pytest.raises(ConfigInvalid, match=f"{variable}: is not a boolean"):
        resolve_switch(flag=flag, environment={variable: f" {text} "}, file=True)


def test_a_long_wrong_word_is_not_repeated_whole() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_boolean("x" * 5_000, name="X")
    assert len(str(caught.value)) < 200


def test_the_words_of_the_policies_are_those_of_the_settings() -> None:
    assert list(BackgroundPolicy) == ["inherit", "allow", "deny"]
    assert list(StorePolicy) == ["lower", "refuse", "keep", "keep_all"]
    assert list(WhenLeft) == ["stop", "continue"]
    assert list(StoreFalsePolicy) == ["reject", "gateway"]
    assert list(Mode) == ["stateless", "kept", "background", "background-upstream"]
    assert list(Executor) == ["gateway", "upstream"]


def test_a_caller_inherits_the_switch_and_a_response_is_kept_for_a_day() -> None:
    caller = CallerPolicy(name="ann")
    words = (caller.background, caller.store, caller.store_false, caller.when_left)
    assert (*words, caller.fast_session) == ("inherit", "lower", "reject", "stop", "inherit")
    assert (caller.max_running, caller.max_queued) == (8, 100)
    assert caller.max_stored_bytes == 0
    assert caller.retention_seconds == 24 * 3_600
    assert (caller.executor, caller.models) == (None, ("*",))
    assert (caller.priority, caller.max_priority) == ("normal", "high")


ON = switch_of("file on")
ALLOWED = CallerPolicy(name="ann", background=BackgroundPolicy.ALLOW)


def decided(fields: dict[str, Any], *, switch: Switch = ON, caller: CallerPolicy = ALLOWED) -> Plan:
    """The plan for a create with these fields."""
    data = json.dumps({"model": "m", **fields}).encode()
    return decide(wire.read_create(data), switch=switch, caller=caller)


def message(fields: dict[str, Any], **options: Any) -> str:
    """The text of the refusal of a create with these fields."""
    with pytest.raises(RequestRejected) as caught:
        decided(fields, **options)
    return caught.value.fault.message


@pytest.mark.parametrize("source", ["flag off", "handrail off", "codex off", "default", "file off"])
def test_the_refusal_of_background_names_every_setting_that_enables_it(source: str) -> None:
    text = message({"background": True}, switch=switch_of(source), caller=CallerPolicy(name="ann"))
    assert text.startswith("Responses background mode is disabled.")
    assert switch_of(source).source in text
    for setting in ("--background", f"{OURS}=1", "[background] enabled = true"):
        assert setting in text
    assert '[callers.ann] background = "allow"' in text


def test_a_denied_caller_is_told_that_it_is_about_the_caller() -> None:
    caller = CallerPolicy(name="ann", background=BackgroundPolicy.DENY)
    assert "denied to the caller 'ann'" in message({"background": True}, caller=caller)


@pytest.mark.parametrize("source", ["flag off", "handrail off", "codex off"])
def test_a_locked_switch_says_so_to_a_caller_who_was_allowed(source: str) -> None:
    text = message({"background": True}, switch=switch_of(source))
    assert "locked" in text
    assert switch_of(source).source in text


def test_the_refusal_of_store_false_names_the_setting_that_accepts_it() -> None:
    text = message({"background": True, "store": False})
    assert text.startswith("Responses background mode requires store=true")
    assert '[callers.ann] store_false = "gateway"' in text


def test_the_refusal_of_store_true_names_the_setting_that_refuses_it() -> None:
    caller = CallerPolicy(name="ann", store=StorePolicy.REFUSE)
    assert 'callers.ann.store = "refuse"' in message({"store": True}, caller=caller)


@pytest.mark.parametrize(("retention", "window"), [(86_400, 600), (601, 600), (600, 600), (30, 30)])
def test_store_false_is_kept_for_the_polling_window_and_never_longer_than_retention(
    retention: int, window: int
) -> None:
    caller = CallerPolicy(
        name="ann", store_false=StoreFalsePolicy.GATEWAY, retention_seconds=retention
    )
    plan = decided({"background": True, "store": False}, caller=caller)
    assert plan.retention_seconds == window
    assert f"{window} s" in plan.reasons[-1].text


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
        ({"conversation": {"id": "conv_1"}}, "unsupported_parameter", "conversation"),
        (
            {"providerOptions": {"openai": {"conversation": "conv_1"}}},
            "unsupported_parameter",
            "conversation",
        ),
        (
            {"providerOptions": {"openai": {"previousResponseId": "resp_1"}}},
            "previous_response_not_found",
            "previous_response_id",
        ),
        (
            {"background_options": {"completion_window": "2h"}},
            "unsupported_parameter",
            "background_options",
        ),
        (
            {"previous_response_id": "resp_1"},
            "previous_response_not_found",
            "previous_response_id",
        ),
    ],
)
def test_what_needs_a_store_upstream_is_refused_and_named(
    background: bool, fields: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(RequestRejected) as caught:
        decided({"background": background, **fields})
    assert (caught.value.fault.code, caught.value.fault.param) == (code, param)


@pytest.mark.parametrize("field", ["conversation", "background_options", "previous_response_id"])
def test_the_same_fields_as_null_ask_for_nothing(field: str) -> None:
    assert decided({field: None}).mode is Mode.STATELESS


def test_an_unknown_previous_response_says_what_is_kept_and_which_setting_changes_that() -> None:
    text = message({"previous_response_id": "resp_1"})
    assert "the background responses that it keeps" in text
    assert "[background] enabled" in text


@pytest.mark.parametrize("executor", Executor)
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(
    "named",
    [
        {"previous_response_id": "resp_1"},
        {"providerOptions": {"openai": {"previousResponseId": "resp_1"}}},
    ],
)
def test_where_there_is_a_store_every_create_may_continue_from_it(
    executor: Executor, background: bool, named: dict[str, Any]
) -> None:
    data = json.dumps({"model": "m", "background": background, **named}).encode()
    plan = decide(
        wire.read_create(data), switch=ON, caller=ALLOWED, executor=executor, has_store=True
    )
    assert plan.continues == "resp_1"
    assert plan.header().endswith("; previous_response_id=kept")
    assert plan.reasons[-1].text == (
        "What Handrail keeps of the conversation is put before the input; what the upstream keeps "
        "of it is named to it."
    )


def test_not_enabled_is_reported_before_everything_else() -> None:
    fields = {"background": True, "store": False, "conversation": "c", "background_options": {}}
    assert "is disabled" in message(
        fields, switch=switch_of("default"), caller=CallerPolicy(name="")
    )


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ({}, "mode=stateless; store=false"),
        ({"store": True}, "mode=stateless; store=lowered"),
        ({"background": True}, "mode=background; background=enabled(file); store=gateway"),
        (
            {"background": True, "store": False},
            "mode=background; background=enabled(file); store=polling-window",
        ),
    ],
)
def test_the_decision_is_told_in_a_header_without_content_of_the_request(
    fields: dict[str, Any], header: str
) -> None:
    caller = CallerPolicy(name="ann", store_false=StoreFalsePolicy.GATEWAY)
    assert decided({"input": "secret", **fields}, caller=caller).header() == header


def test_a_caller_who_lifts_an_off_is_named_as_the_reason() -> None:
    plan = decided({"background": True}, switch=switch_of("default"))
    assert "background=enabled(caller)" in plan.header()
    assert "'ann'" in plan.reasons[0].text


def test_a_decision_depends_on_its_arguments_alone() -> None:
    request = wire.read_create(b'{"model":"m","background":true}')
    before = dict(request.body)
    plans = [decide(request, switch=ON, caller=ALLOWED) for _ in range(2)]
    assert plans[0] == plans[1]
    assert request.body == before


@pytest.mark.parametrize(
    ("value", "field"), [(decided({}), "store"), (ON, "locked"), (ALLOWED, "name")]
)
def test_nothing_that_a_decision_is_made_of_can_be_changed(value: Any, field: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, False)


@given(spelled(WILD))
def test_deciding_on_any_json_raises_nothing_but_a_rejection(data: bytes) -> None:
    plan = None
    try:
        request = wire.read_create(data)
        plan = decide(request, switch=ON, caller=ALLOWED)
    except RequestRejected as error:
        code = error.fault.code
    if plan is None:
        assert code is not None
    else:
        truly = request.body.get("background") == Raw(b"true")
        assert plan.mode is (Mode.BACKGROUND if truly else Mode.STATELESS)


def by_upstream(fields: dict[str, Any], *, caller: CallerPolicy = ALLOWED) -> Plan:
    """The plan where the upstream runs background responses."""
    request = wire.read_create(json.dumps({"model": "m", **fields}).encode())
    return decide(request, switch=ON, caller=caller, executor=Executor.UPSTREAM)


def test_a_response_that_the_upstream_runs_may_be_scheduled_there() -> None:
    options = {"background_options": {"completion_window": "2h"}}
    assert by_upstream({"background": True, **options}).mode is Mode.UPSTREAM
    with pytest.raises(RequestRejected, match="background_options"):
        by_upstream(options)
    lenient = replace(ALLOWED, store_false=StoreFalsePolicy.GATEWAY)
    with pytest.raises(RequestRejected, match="background_options"):
        by_upstream({"background": True, "store": False, **options}, caller=lenient)


@pytest.mark.parametrize("background", [True, False])
def test_where_the_upstream_keeps_responses_one_may_continue_from_them(background: bool) -> None:
    fields = {"background": background, "previous_response_id": "resp_1"}
    assert by_upstream(fields).continues == "resp_1"
    assert by_upstream({"background": background}).continues is None


def test_a_response_that_the_gateway_runs_continues_from_nothing() -> None:
    lenient = replace(ALLOWED, store_false=StoreFalsePolicy.GATEWAY)
    fields = {"background": True, "store": False, "previous_response_id": "resp_1"}
    with pytest.raises(RequestRejected) as caught:
        by_upstream(fields, caller=lenient)
    assert caught.value.fault.param == "previous_response_id"


@pytest.mark.parametrize("background", [True, False])
def test_a_conversation_is_refused_also_where_the_upstream_keeps_responses(
    background: bool,
) -> None:
    with pytest.raises(RequestRejected) as caught:
        by_upstream({"background": background, "conversation": "conv_1"})
    assert caught.value.fault.param == "conversation"
