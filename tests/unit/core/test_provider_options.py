"""providerOptions.openai: read into the body, never forwarded."""

import json
from typing import Any

import pytest

from handrail.core import wire
from handrail.core.profiles import PROFILES
from handrail.core.provider_options import FIELDS, KINDS
from handrail.core.rewrite import UpstreamRequest, upstream_request
from handrail.errors import RequestRejected

Json = dict[str, Any]
VALUES: Json = {
    wire.Kind.STRING: "s",
    wire.Kind.BOOLEAN: False,
    wire.Kind.INTEGER: 3,
    wire.Kind.OBJECT: {"k": "v"},
}


def rewritten(options: Json, **fields: Any) -> UpstreamRequest:
    """The upstream request of a create with these provider options."""
    body = {"model": "m", "input": "hi", "providerOptions": {"openai": options}, **fields}
    request = wire.read_create(json.dumps(body).encode())
    return upstream_request(request, profile=PROFILES["openai"], stream=False)


def sent(options: Json, **fields: Any) -> Json:
    """The upstream body."""
    body: Json = json.loads(wire.encode(rewritten(options, **fields).body))
    return body


@pytest.mark.parametrize("option", list(FIELDS))
def test_every_option_of_the_table_arrives_where_the_api_has_it(option: str) -> None:
    value = VALUES[KINDS[option][0]]
    body = sent({option: value})
    field, _, key = FIELDS[option].partition(".")
    assert (body[field][key] if key else body[field]) == value
    assert "providerOptions" not in body


@pytest.mark.parametrize("option", list(FIELDS))
def test_the_bodys_own_field_wins(option: str) -> None:
    field, _, key = FIELDS[option].partition(".")
    own = VALUES[KINDS[option][0]]
    given = {"k": "own"} if own == {"k": "v"} else {"s": "own", 3: 4, False: True}[own]
    whole = {key: given, "other": "x"} if key else given
    body = sent({option: own}, **{field: whole})
    assert body[field] == whole


def test_a_null_in_the_body_falls_through_to_the_option() -> None:
    body = sent({"promptCacheRetention": "24h"}, prompt_cache_retention=None)
    assert body["prompt_cache_retention"] == "24h"


def test_a_nested_option_joins_what_the_body_says_beside_it() -> None:
    body = sent({"reasoningEffort": "low"}, reasoning={"summary": "auto"}, text={"verbosity": None})
    assert body["reasoning"] == {"summary": "auto", "effort": "low"}
    assert body["include"] == ["reasoning.encrypted_content"]


def test_an_option_that_says_nothing_sets_nothing() -> None:
    assert "reasoning" not in sent({"reasoningEffort": None, "store": False})


@pytest.mark.parametrize("option", list(FIELDS))
def test_an_option_of_a_wrong_type_is_named_by_its_path(option: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        rewritten({option: [1]})
    assert caught.value.fault.param == f"providerOptions.openai.{option}"


def test_an_option_that_has_no_meaning_here_is_reported() -> None:
    request = rewritten({"strictJsonSchema": True, "textVerbosity": "low"})
    told = {step.field: step.action for step in request.steps}
    assert told["providerOptions.openai.strictJsonSchema"] == "dropped"
    assert told["text.verbosity"] == "set"
