"""Input items: ids, references, and how a kept response lists them."""

import json
from typing import Any

import pytest
from msgspec import Raw

from handrail.core import items, wire
from handrail.core.items import PageRequest
from handrail.core.wire import Body
from handrail.errors import RequestRejected


def raws(*entries: dict[str, Any]) -> list[Body]:
    """Items with raw values."""
    return [{name: wire.raw(value) for name, value in entry.items()} for entry in entries]


def plain(body: Any) -> Any:
    """Raw values as ordinary ones."""
    return json.loads(wire.encode(body))


def test_a_text_input_becomes_one_user_message() -> None:
    assert plain(items.as_items(Raw(b'"hi \\u00e9"'))) == [
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "hi é"}],
        }
    ]


def test_a_list_input_stays_as_it_is() -> None:
    assert plain(items.as_items(Raw(b'[{"role":"user","x":1.50}]'))) == [{"role": "user", "x": 1.5}]


def test_an_input_element_that_is_no_object_is_named() -> None:
    with pytest.raises(RequestRejected) as caught:
        items.as_items(Raw(b'[{},"x"]'))
    assert caught.value.fault.param == "input[1]"


def test_of_a_key_that_stands_twice_in_an_item_the_last_one_holds() -> None:
    assert plain(items.as_items(Raw(b'[{"type":1,"type":"message"}]'))) == [{"type": "message"}]


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ({"type": "reasoning"}, "reasoning"),
        ({"role": "user"}, "message"),
        ({"type": None}, "message"),
        ({"type": ""}, ""),
        ({"type": 5}, ""),
        ({"type": {}}, ""),
    ],
)
def test_an_item_without_a_type_is_a_message(item: dict[str, Any], kind: str) -> None:
    assert items.item_type(raws(item)[0]) == kind


@pytest.mark.parametrize(
    ("item", "id_"),
    [({"id": "msg_1"}, "msg_1"), ({}, None), ({"id": None}, None), ({"id": 5}, None)],
)
def test_an_id_is_a_text_or_none(item: dict[str, Any], id_: str | None) -> None:
    assert items.item_id(raws(item)[0]) == id_


def test_references_are_found_in_order() -> None:
    given = raws(
        {"type": "item_reference", "id": "b"},
        {"role": "user", "id": "x"},
        {"type": "item_reference", "id": "a"},
    )
    assert items.references(given) == ("b", "a")


@pytest.mark.parametrize("reference", [{}, {"id": None}, {"id": 5}])
def test_a_reference_without_an_id_is_named_by_its_place(reference: dict[str, Any]) -> None:
    given = raws({"role": "user"}, {"type": "item_reference", **reference})
    with pytest.raises(RequestRejected) as caught:
        items.references(given)
    fault = caught.value.fault
    assert (fault.code, fault.param) == ("missing_required_parameter", "input[1].id")
    assert fault.message == "Missing required parameter: 'input[1].id'."


def test_a_reference_is_replaced_by_what_it_points_at() -> None:
    kept = raws({"type": "message", "id": "msg_1", "content": "hi"})[0]
    given = raws({"role": "user"}, {"type": "item_reference", "id": "msg_1"})
    resolved = items.resolve_references(given, {"msg_1": kept})
    assert resolved == [given[0], kept]
    assert resolved[1] is not kept


@pytest.mark.parametrize(("target", "shown"), [("msg_9", "'msg_9'"), (None, "''")])
def test_a_reference_that_nothing_kept_answers_is_a_400_that_names_it(
    target: str | None, shown: str
) -> None:
    given = raws({"role": "user"}, {"type": "item_reference", "id": target})
    with pytest.raises(RequestRejected, match=f"Item with id {shown} not found") as caught:
        items.resolve_references(given, {"msg_1": {}})
    fault = caught.value.fault
    assert (fault.status, fault.code) == (400, "item_reference_not_found")
    assert fault.param == "input[1].id"


def test_ids_are_taken_off_items_and_left_on_what_is_inside() -> None:
    given = raws({"id": "a", "content": [{"id": "inner"}]}, {"role": "user"}, {"id": None, "x": 1})
    bodies, heads = items.read(wire.raw(given))
    assert items.strip_ids(bodies, heads) == 2
    assert plain(bodies) == [{"content": [{"id": "inner"}]}, {"role": "user"}, {"x": 1}]


@pytest.mark.parametrize("kind", ["local_shell_call_output", "mcp_approval_request"])
def test_an_id_that_says_which_call_is_meant_stays(kind: str) -> None:
    given = raws({"type": kind, "id": "x"}, {"type": "reasoning", "id": "y"})
    bodies, heads = items.read(wire.raw(given))
    assert items.strip_ids(bodies, heads) == 1
    assert plain(bodies) == [{"type": kind, "id": "x"}, {"type": "reasoning"}]


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("message", "msg_"),
        ("reasoning", "rs_"),
        ("function_call", "fc_"),
        ("function_call_output", "fco_"),
        ("custom_tool_call", "ctc_"),
        ("custom_tool_call_output", "ctco_"),
        ("web_search_call", "item_"),
    ],
)
def test_a_listed_item_without_an_id_gets_one_of_its_kind(kind: str, prefix: str) -> None:
    shown = plain(items.listed(raws({"type": kind}), run_id="resp_1"))[0]
    assert shown["id"].startswith(prefix)
    assert shown["status"] == "completed"


def test_invented_ids_are_the_same_each_time_and_differ_by_place_and_run() -> None:
    given = raws({"role": "user"}, {"role": "user"})
    ids = [
        [item["id"] for item in plain(items.listed(given, run_id=run))]
        for run in ("resp_1", "resp_1", "resp_2")
    ]
    assert ids[0] == ids[1]
    assert len({*ids[0], *ids[2]}) == 4


def test_a_listed_item_keeps_what_the_caller_gave() -> None:
    given = {"id": "msg_7", "type": "message", "status": "incomplete", "role": "user", "x": [1]}
    assert plain(items.listed(raws(given), run_id="resp_1")) == [given]


@pytest.mark.parametrize(
    ("item", "content"),
    [
        ({"role": "user", "content": "hi"}, [{"type": "input_text", "text": "hi"}]),
        ({"content": "hi"}, [{"type": "input_text", "text": "hi"}]),
        (
            {"role": "assistant", "content": "hi"},
            [{"type": "output_text", "text": "hi", "annotations": []}],
        ),
        ({"role": "user", "content": [{"a": 1}]}, [{"a": 1}]),
        ({"type": "reasoning", "content": "hi"}, "hi"),
        ({"role": "user", "content": None}, None),
    ],
)
def test_the_text_of_a_listed_message_becomes_a_part(item: dict[str, Any], content: Any) -> None:
    assert plain(items.listed(raws(item), run_id="resp_1"))[0]["content"] == content


def test_a_listed_message_may_be_without_content() -> None:
    assert "content" not in items.listed(raws({"role": "user"}), run_id="resp_1")[0]


LISTED = raws(*({"id": f"msg_{number}"} for number in range(5)))


@pytest.mark.parametrize(
    ("request_", "ids", "more"),
    [
        (PageRequest(), "43210", False),
        (PageRequest(descending=False), "01234", False),
        (PageRequest(limit=2), "43", True),
        (PageRequest(limit=2, descending=False), "01", True),
        (PageRequest(limit=5), "43210", False),
        (PageRequest(limit=2, after="msg_3"), "21", True),
        (PageRequest(limit=2, after="msg_2"), "10", False),
        (PageRequest(limit=2, after="msg_2", descending=False), "34", False),
        (PageRequest(limit=9, after="msg_1"), "0", False),
        (PageRequest(after="msg_0"), "", False),
    ],
)
def test_a_page_holds_what_was_asked_for(request_: PageRequest, ids: str, more: bool) -> None:
    shown = plain(items.page(LISTED, request_))
    assert [item["id"] for item in shown["data"]] == [f"msg_{digit}" for digit in ids]
    assert shown["object"] == "list"
    assert shown["first_id"] == (f"msg_{ids[0]}" if ids else "")
    assert shown["last_id"] == (f"msg_{ids[-1]}" if ids else "")
    assert shown["has_more"] is more


def test_a_page_has_twenty_items_unless_more_are_asked_for_and_never_more_than_a_hundred() -> None:
    assert (PageRequest().limit, items.MAX_PAGE) == (20, 100)


def test_an_empty_list_has_an_empty_page() -> None:
    assert items.page([], PageRequest()) == {
        "object": "list",
        "data": [],
        "first_id": "",
        "last_id": "",
        "has_more": False,
    }


def test_pages_follow_one_another_without_gap_or_repeat() -> None:
    seen: list[str] = []
    more = True
    while more:
        after = seen[-1] if seen else None
        page = plain(items.page(LISTED, PageRequest(limit=2, after=after, descending=False)))
        seen += [item["id"] for item in page["data"]]
        more = page["has_more"]
    assert seen == [f"msg_{number}" for number in range(5)]


def test_a_page_after_an_unknown_item_is_a_400() -> None:
    with pytest.raises(RequestRejected) as caught:
        items.page(LISTED, PageRequest(after="msg_x" + "y" * 500))
    fault = caught.value.fault
    assert (fault.code, fault.param) == ("invalid_value", "after")
    assert len(fault.message) < 150
