"""One list of models for two kinds of client."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from handrail.core import wire
from handrail.core.models import both_shapes, find, only, union
from handrail.errors import UpstreamFailed
from tests.unit.core.generated import JSON, spelled

Json = dict[str, Any]
ENTRY = {"id": "gpt-x", "object": "model", "created": 5, "owned_by": "somebody", "new": 1.50}
CODEX = {"slug": "gpt-codex", "display_name": "Codex", "priority": 1, "visibility": "hide"}
DERIVED = {"id": "gpt-codex", "object": "model", "created": 0, "owned_by": "openai"}


def shaped(body: Json) -> Json:
    """What a client gets for this list of the upstream."""
    result: Json = json.loads(
        wire.encode(both_shapes(wire.parse_object(json.dumps(body).encode())))
    )
    return result


def test_a_list_for_sdks_gets_an_empty_one_for_codex() -> None:
    body = {"object": "list", "data": [ENTRY]}
    assert shaped(body) == {**body, "models": []}


def test_a_list_for_codex_gets_one_for_sdks() -> None:
    assert shaped({"models": [CODEX]}) == {"object": "list", "data": [DERIVED], "models": [CODEX]}


def test_a_list_can_be_cut_to_what_a_caller_may_use_in_both_shapes() -> None:
    other = {**ENTRY, "id": "o3"}
    body = {
        "object": "list",
        "first_id": "o3",
        "last_id": "gpt-x",
        "data": [other, ENTRY, {"id": 5}],
        "models": [CODEX, {"slug": "o3"}, 5],
    }
    whole = both_shapes(wire.parse_object(json.dumps(body).encode()))
    asked: list[str] = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return name.startswith("gpt-")

    cut = json.loads(wire.encode(only(whole, wanted)))
    assert cut == {"object": "list", "data": [ENTRY], "models": [CODEX]}
    assert asked == ["o3", "gpt-x", "", "gpt-codex", "o3", ""]


def test_what_the_upstream_says_in_both_shapes_stays_as_it_is() -> None:
    body = {"object": "list", "data": [ENTRY], "models": [{"name": "llama", "model": "llama"}]}
    assert shaped(body) == body


def test_other_keys_survive_byte_for_byte() -> None:
    body = both_shapes(wire.parse_object(b'{"data":[ ],"has_more" : false,"x":{"a" : 1.50}}'))
    assert body["x"] == Raw(b'{"a" : 1.50}')
    assert body["data"] == Raw(b"[ ]")
    assert body["has_more"] == Raw(b"false")


@pytest.mark.parametrize("nothing", [{}, {"data": None}, {"data": {}}, {"data": "x"}])
def test_a_key_that_holds_no_list_counts_as_not_given(nothing: Json) -> None:
    assert shaped({**nothing, "models": [CODEX]})["data"] == [DERIVED]
    with pytest.raises(UpstreamFailed) as caught:
        shaped({**nothing, "models": None})
    assert caught.value.fault.code == "upstream_protocol_error"


def test_a_list_that_is_no_list_for_codex_is_replaced() -> None:
    assert shaped({"data": [], "models": {"a": 1}, "object": None}) == {
        "object": "list",
        "data": [],
        "models": [],
    }


def test_entries_without_a_name_are_passed_over() -> None:
    odd: list[Any] = [5, None, [], {}, {"slug": 5}, {"slug": None}, CODEX, "x", [[]]]
    assert shaped({"models": odd})["data"] == [DERIVED]
    listed = both_shapes(wire.parse_object(json.dumps({"data": [*odd, ENTRY]}).encode()))
    found = find(listed, "gpt-x")
    assert found is not None
    assert json.loads(bytes(found)) == ENTRY
    assert find(listed, "5") is None


def test_a_model_is_found_by_its_whole_id_only() -> None:
    listed = both_shapes(wire.parse_object(json.dumps({"models": [CODEX]}).encode()))
    found = find(listed, "gpt-codex")
    assert found is not None
    assert json.loads(bytes(found)) == DERIVED
    for other in ("gpt", "gpt-codex-mini", "GPT-CODEX", ""):
        assert find(listed, other) is None


def test_no_depth_breaks_what_reads_the_list_again() -> None:
    for depth in range(900, 1_000):
        nested = Raw(b"[" * depth + b"]" * depth)
        for field in ("data", "models"):
            with contextlib.suppress(UpstreamFailed):
                assert find(both_shapes({field: nested}), "x") is None


@given(body=spelled(st.dictionaries(st.sampled_from(["data", "models", "object", "x"]), JSON)))
def test_any_object_becomes_a_list_of_both_shapes_or_is_the_upstreams_failure(body: bytes) -> None:
    given_ = wire.parse_object(body)
    try:
        result = both_shapes(given_)
    except UpstreamFailed:
        assert not isinstance(json.loads(body).get("data"), list)
        return
    assert isinstance(json.loads(bytes(result["data"])), list)
    assert isinstance(json.loads(bytes(result["models"])), list)
    assert result.get("x") == given_.get("x")
    assert find(result, "no such model") is None


def joined(*bodies: Json) -> Json:
    """The lists of several upstreams as one."""
    lists = [both_shapes(wire.parse_object(json.dumps(body).encode())) for body in bodies]
    result: Json = json.loads(wire.encode(union(lists)))
    return result


def test_several_lists_become_one_in_which_the_first_of_a_name_stands() -> None:
    other = {**ENTRY, "owned_by": "nobody"}
    nameless = {"object": "model"}
    again = {**CODEX, "priority": 9}
    listed = joined(
        {"data": [ENTRY, nameless], "has_more": True}, {"models": [CODEX]}, {"models": [again]}
    )
    assert listed == {"object": "list", "data": [ENTRY, DERIVED], "models": [CODEX]}
    assert joined({"data": [other]}, {"data": [ENTRY]})["data"] == [other]


def test_one_list_stays_as_it_is_and_none_is_an_empty_one() -> None:
    assert joined({"data": [ENTRY], "new": 1}) == {
        "object": "list",
        "data": [ENTRY],
        "models": [],
        "new": 1,
    }
    assert joined() == {"object": "list", "data": [], "models": []}
