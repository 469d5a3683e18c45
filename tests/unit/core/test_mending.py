"""What may be tried in another form after a refusal, and what may not."""

import json
from typing import Any

import pytest

from handrail.core import wire
from handrail.core.mending import mended
from handrail.core.profiles import PROFILES
from handrail.core.rewrite import UpstreamRequest, upstream_request
from handrail.core.steps import Step, steps_header
from handrail.core.upstream_errors import refusal
from handrail.errors import Code, HandrailError, UpstreamFailed

UNSERVED = {"message": "The 'm' model is not supported when using Codex with a ChatGPT account."}
CHAIN = {"m": ("m", "n", "o"), "n": ("x",)}


def outgoing(**fields: Any) -> UpstreamRequest:
    """The upstream request of a create."""
    body = {"model": "m", "input": "hi", **fields}
    request = wire.read_create(json.dumps(body).encode())
    return upstream_request(request, profile=PROFILES["codex"], stream=True)


def refused(status: int, error: dict[str, Any]) -> HandrailError:
    """What an upstream answered."""
    return refusal(status, {}, json.dumps({"error": error}).encode(), now=0.0)


@pytest.mark.parametrize(
    "error",
    [
        UNSERVED,
        {"code": "model_not_found", "message": "m"},
        {"code": "model_not_supported_with_chatgpt_account", "message": "m"},
    ],
)
def test_a_model_that_is_not_served_gives_way_to_the_next_of_its_chain(
    error: dict[str, Any],
) -> None:
    request: UpstreamRequest | None = outgoing()
    tried = []
    while request is not None:
        tried.append(json.loads(bytes(request.body["model"])))
        told = request.steps[-1]
        request = mended(request, refused(400, error), fallbacks=CHAIN)
    assert tried == ["m", "n", "o"]
    assert (told.field, told.action) == ("model", "changed to o")


def test_without_a_chain_the_refusal_stands() -> None:
    assert mended(outgoing(), refused(400, UNSERVED), fallbacks={}) is None


@pytest.mark.parametrize(
    "error",
    [
        refused(400, {"message": "something else"}),
        refused(429, {"code": "rate_limit_exceeded", "message": "m"}),
        refused(401, {"message": "include"}),
        UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "include", sent=False),
    ],
)
def test_no_other_failure_changes_the_model(error: HandrailError) -> None:
    assert mended(outgoing(), error, fallbacks=CHAIN) is None


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "error",
    [
        {"message": "no", "param": "include"},
        {"message": "Encrypted content is not supported with this model."},
        {"message": "unknown: reasoning.encrypted_content"},
    ],
)
def test_what_we_added_to_include_is_taken_back_once(status: int, error: dict[str, Any]) -> None:
    again = mended(outgoing(), refused(status, error), fallbacks={})
    assert again is not None
    assert "include" not in again.body
    assert mended(again, refused(status, error), fallbacks={}) is None


def test_an_include_of_the_callers_own_is_not_touched() -> None:
    request = outgoing(include=["reasoning.encrypted_content"])
    assert mended(request, refused(400, {"message": "include"}), fallbacks={}) is None


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_include_is_taken_back_only_after_an_answer_about_the_request(status: int) -> None:
    error = refused(status, {"message": "no", "param": "include"})
    assert mended(outgoing(), error, fallbacks={}) is None


def test_include_is_not_read_out_of_where_the_parameter_and_the_message_meet() -> None:
    error = refused(400, {"message": "cludes a tool that is unknown", "param": "tools[0].in"})
    assert mended(outgoing(), error, fallbacks={}) is None


def step(field: str, action: str) -> Step:
    """A step."""
    return Step(field=field, action=action, reason="r")


def test_steps_are_told_in_a_header_without_anything_that_could_break_it() -> None:
    assert steps_header([]) == ""
    told = steps_header([step("input[].id", "removed from 3 items"), step("store", "set to false")])
    assert told == "input[].id: removed from 3 items, store: set to false"
    evil = steps_header([step("a\r\nset-cookie: x; \u00e9", "changed to \u00e9;\r\n")])
    assert evil == "a??set-cookie??x???: changed to ????"


def test_a_header_of_many_steps_is_bounded() -> None:
    told = steps_header([step("x" * 500, "dropped")] * 100)
    assert len(told) == 1_003
    assert told.endswith("...")
