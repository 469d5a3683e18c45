"""Which models a caller may use."""

import json
from typing import Any

import pytest

from handrail.core import wire
from handrail.core.caller_policy import CallerPolicy
from handrail.core.model_access import ANY_MODEL, check_model, may_use
from handrail.core.policy import decide, decide_endpoint
from handrail.core.profiles import Endpoint
from handrail.core.switch import resolve_switch
from handrail.errors import RequestRejected

OFF = resolve_switch(flag=None, environment={}, file=None)


@pytest.mark.parametrize(
    ("model", "globs", "may"),
    [
        ("gpt-5.5", ["*"], True),
        ("", ["*"], True),
        ("gpt-5.5", ["gpt-5.5"], True),
        ("gpt-5.5", ["gpt-5?5"], True),
        ("gpt-5.5", ["GPT-5.5"], False),
        ("gpt-5.5", ["gpt-*"], True),
        ("gpt-5.5", ["o3", "gpt-*"], True),
        ("my-gpt-5.5", ["gpt-*"], False),
        ("gpt-5.5-mini", ["gpt-5.5"], False),
        ("gpt-5.5\n", ["gpt-5.5"], False),
        ("org/model", ["org/*"], True),
        ("o4", ["o[34]"], True),
        ("o5", ["o[34]"], False),
        ("gpt-5.5", [], False),
        ("", ["gpt-*"], False),
    ],
)
def test_a_glob_fits_the_whole_name_as_it_is_written(
    model: str, globs: list[str], may: bool
) -> None:
    assert may_use(model, globs) is may


def test_by_default_any_model_may_be_used() -> None:
    assert may_use("anything", ANY_MODEL)
    assert may_use("", ANY_MODEL)


def test_a_glob_with_many_stars_is_no_work_without_end() -> None:
    assert not may_use("a" * 5_000, ["*a*" * 20 + "b"])


def refused(model: str, *globs: str) -> RequestRejected:
    with pytest.raises(RequestRejected) as caught:
        check_model(model, globs)
    return caught.value


def test_a_model_that_is_not_for_this_caller_is_one_that_does_not_exist() -> None:
    fault = refused("gpt-5.5", "o3").fault
    assert (fault.status, fault.code, fault.param) == (404, "model_not_found", "model")
    assert fault.message == ("The model 'gpt-5.5' does not exist or you do not have access to it.")
    assert refused("x" * 500, "o3").fault.message.startswith(f"The model '{'x' * 80}' does")


def test_a_request_that_leaves_the_model_to_a_stored_prompt_must_name_it() -> None:
    fault = refused("", "o3").fault
    assert (fault.status, fault.code, fault.param) == (400, "missing_required_parameter", "model")
    assert "Not every model is open to this caller" in fault.message
    check_model("", ["*"])


@pytest.mark.parametrize(
    ("fields", "model", "code"),
    [
        ({}, "m", None),
        ({}, "n", "model_not_found"),
        ({"prompt": {"id": "pmpt_1"}}, None, "missing_required_parameter"),
        ({"background": True}, "n", "background_not_enabled"),
        ({"conversation": "c"}, "n", "unsupported_parameter"),
        ({"previous_response_id": "resp_1"}, "n", "previous_response_not_found"),
    ],
)
def test_what_is_wrong_besides_is_told_first_as_with_an_unknown_model(
    fields: dict[str, Any], model: str | None, code: str | None
) -> None:
    caller = CallerPolicy(name="ann", models=("m",))
    named = {} if model is None else {"model": model}
    request = wire.read_create(json.dumps({**named, **fields}).encode())
    if code is None:
        assert decide(request, switch=OFF, caller=caller)
        return
    with pytest.raises(RequestRejected) as caught:
        decide(request, switch=OFF, caller=caller)
    assert caught.value.fault.code == code


@pytest.mark.parametrize("endpoint", Endpoint)
def test_the_endpoints_beside_create_are_held_to_the_same_list(endpoint: Endpoint) -> None:
    caller = CallerPolicy(name="ann", models=["m"])  # type: ignore[arg-type]
    assert caller.models == ("m",)
    allowed, other = (wire.read_input_tokens(b'{"model":"%b"}' % name) for name in (b"m", b"n"))
    assert decide_endpoint(allowed, endpoint=endpoint, switch=OFF, caller=caller)
    with pytest.raises(RequestRejected, match="'n' does not exist"):
        decide_endpoint(other, endpoint=endpoint, switch=OFF, caller=caller)
