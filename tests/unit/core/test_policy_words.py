"""What the guardrails say: refusals and reasons name who decided, what, and what to do instead."""

import dataclasses
import json
from typing import Any

import pytest

from handrail.core import wire
from handrail.core.caller_policy import (
    BackgroundPolicy,
    CallerPolicy,
    Executor,
    Priority,
    StoreFalsePolicy,
    StorePolicy,
)
from handrail.core.policy import Plan, decide, decide_endpoint
from handrail.core.profiles import Endpoint
from handrail.core.switch import parse_boolean, resolve_switch
from handrail.errors import ConfigInvalid, RequestRejected

OURS, THEIRS = "HANDRAIL_BACKGROUND_RESPONSES", "CODEX_AUTH_BACKGROUND_RESPONSES"
ANN = CallerPolicy(name="ann", retention_seconds=4_321)


def decided(fields: dict[str, Any], *, file: bool = True, caller: CallerPolicy = ANN) -> Plan:
    """The plan for a create with these fields, where the file alone sets the switch."""
    switch = resolve_switch(flag=None, environment={}, file=file)
    data = json.dumps({"model": "m", **fields}).encode()
    return decide(wire.read_create(data), switch=switch, caller=caller)


def refusal(fields: dict[str, Any], **options: Any) -> str:
    """The message of the refusal of a create with these fields."""
    with pytest.raises(RequestRejected) as caught:
        decided(fields, **options)
    return caught.value.fault.message


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"flag": True}, "flag --background"),
        ({"flag": False}, "flag --no-background"),
        ({"environment": {OURS: "1"}}, f"environment {OURS}"),
        ({"environment": {THEIRS: "0"}}, f"environment {THEIRS}"),
        ({"file": False}, "file [background] enabled"),
        ({}, "default"),
    ],
)
def test_the_switch_names_the_very_setting_that_decided(said: dict[str, Any], name: str) -> None:
    switch = resolve_switch(**{"flag": None, "environment": {}, "file": None, **said})
    assert switch.source == name


def test_a_wrong_boolean_is_not_repeated_for_it_may_be_a_key_in_the_wrong_place() -> None:
    with pytest.raises(ConfigInvalid, match=r"^X: is not a boolean; use 1, true") as caught:
        parse_boolean("misplaced", name="X")
    assert "misplaced" not in str(caught.value)


def test_the_refusal_of_background_says_which_source_left_it_off() -> None:
    text = refusal({"background": True}, file=False)
    assert " disabled. It is off (file [background] enabled). To opt in: " in text


def test_the_refusal_of_store_true_names_the_caller() -> None:
    caller = CallerPolicy(name="ann", store=StorePolicy.REFUSE)
    text = refusal({"store": True}, caller=caller)
    assert text.startswith("store=true is refused for the caller 'ann' (")


@pytest.mark.parametrize(
    ("field", "instead"),
    [
        ("conversation", "send the history as 'input'."),
        ("background_options", "this gateway runs background responses itself."),
    ],
)
def test_the_refusal_of_an_unsupported_field_says_what_to_do_without_it(
    field: str, instead: str
) -> None:
    text = refusal({field: {"id": "x"}})
    assert text.startswith(f"Unsupported parameter: '{field}'.")
    assert text.endswith(instead)


def test_the_reasons_say_in_sentences_who_enabled_it_and_how_long_it_is_kept() -> None:
    assert [reason.text for reason in decided({"background": True}).reasons] == [
        "Background mode is on: file [background] enabled.",
        "Handrail keeps the response for 4321 s after its end.",
    ]


def test_the_reason_for_a_polling_window_says_that_it_is_short_and_why() -> None:
    caller = CallerPolicy(name="ann", store_false=StoreFalsePolicy.GATEWAY)
    plan = decided({"background": True, "store": False}, caller=caller)
    kept = "Handrail keeps the response for the polling window of 600 s only."
    assert plan.reasons[-1].text == f"store=false: {kept}"


def by_upstream(*, able: bool) -> Plan:
    """The plan for a background response where the upstream is to run it."""
    switch = resolve_switch(flag=None, environment={}, file=True)
    request = wire.read_create(b'{"model":"m","background":true}')
    return decide(request, switch=switch, caller=ANN, executor=Executor.UPSTREAM, able=able)


def test_a_run_by_the_upstream_is_told_with_who_enabled_it_and_who_keeps_it() -> None:
    names = [reason.name for reason in by_upstream(able=True).reasons]
    assert names == ["background=enabled(file)", "store=upstream"]


def test_the_refusal_of_a_run_by_the_upstream_names_both_settings_that_change_it() -> None:
    with pytest.raises(RequestRejected) as caught:
        by_upstream(able=False)
    assert 'executor = "gateway"' in caught.value.fault.message
    assert "upstream.runs_background = true" in caught.value.fault.message


def test_a_reason_cannot_be_changed_after_the_decision() -> None:
    (reason,) = decided({}).reasons
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(reason, "text", "")  # noqa: B010


@pytest.mark.parametrize(
    "rule",
    ["background", "store", "store_false", "when_left", "executor", "priority", "max_priority"],
)
def test_a_rule_that_is_none_is_named_and_never_taken_for_another(rule: str) -> None:
    wrong: Any = {rule: "sometimes"}
    with pytest.raises(ConfigInvalid) as caught:
        CallerPolicy(name="ann", **wrong)
    words = {
        "background": "inherit, allow, deny",
        "store": "lower, refuse, keep, keep_all",
        "store_false": "reject, gateway",
        "when_left": "stop, continue",
        "executor": "gateway, upstream",
        "priority": "high, normal, low",
        "max_priority": "high, normal, low",
    }
    assert str(caught.value) == f"callers.ann.{rule}: must be one of {words[rule]}."


@pytest.mark.parametrize(
    ("own", "highest", "fits"),
    [
        ("high", "high", True),
        ("high", "normal", False),
        ("high", "low", False),
        ("normal", "high", True),
        ("normal", "normal", True),
        ("normal", "low", False),
        ("low", "high", True),
        ("low", "normal", True),
        ("low", "low", True),
    ],
)
def test_a_callers_own_priority_is_never_above_its_highest(
    own: str, highest: str, fits: bool
) -> None:
    rules: Any = {"priority": own, "max_priority": highest}
    if fits:
        assert CallerPolicy(name="ann", **rules).priority == own
        return
    with pytest.raises(ConfigInvalid) as caught:
        CallerPolicy(name="ann", **rules)
    assert str(caught.value) == (
        f"callers.ann.priority: {own} is above max_priority, which is {highest}."
    )


def test_a_background_response_has_the_callers_priority_unless_the_upstream_runs_it() -> None:
    caller = CallerPolicy(name="ann", priority=Priority.LOW)
    assert decided({"background": True}, caller=caller).priority is Priority.LOW
    assert decided({}, caller=caller).priority is Priority.NORMAL
    there = CallerPolicy(name="ann", priority=Priority.LOW, executor=Executor.UPSTREAM)
    assert decided({"background": True}, caller=there).priority is Priority.NORMAL


def test_a_rule_in_a_plain_word_is_the_rule_of_that_name() -> None:
    loose: Any = {"background": "deny", "store": "refuse", "store_false": "gateway"}
    caller = CallerPolicy(name="ann", **loose)
    assert caller.background is BackgroundPolicy.DENY
    assert caller.store is StorePolicy.REFUSE
    assert caller.store_false is StoreFalsePolicy.GATEWAY


def test_names_of_models_and_targets_may_be_any_sequence() -> None:
    names: Any = ["a", "b"]
    policy = CallerPolicy(name="ann", models=names, targets=names)
    assert (policy.models, policy.targets) == (("a", "b"), ("a", "b"))


def test_the_tags_of_a_callers_accounts_travel_with_every_plan() -> None:
    caller = CallerPolicy(name="ann", account_tags=["eu", "paid"])  # type: ignore[arg-type]
    counted = decide_endpoint(
        wire.read_create(b'{"model": "m", "input": "hi"}'),
        endpoint=Endpoint.INPUT_TOKENS,
        switch=resolve_switch(flag=None, environment={}, file=None),
        caller=caller,
    )
    for plan in (decided({"background": True}, caller=caller), decided({}, caller=caller), counted):
        assert plan.account_tags == ("eu", "paid")
        assert plan.reasons[-1].name == "accounts=tagged"
        assert plan.reasons[-1].text == "Accounts must have one of the tags eu, paid."
    assert decided({}).account_tags == ()
    assert "accounts" not in decided({}).header()
