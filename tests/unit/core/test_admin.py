"""What a request to the admin API says."""

import json
from typing import Any

import pytest

from handrail.core.admin import check_query, read_new_key, read_nothing
from handrail.core.caller_keys import Wish
from handrail.errors import RequestRejected


def wish(fields: Any) -> Wish:
    return read_new_key(json.dumps(fields).encode())


def test_a_new_key_needs_a_caller_and_may_have_a_label_and_an_end() -> None:
    assert wish({"caller": "ann"}) == Wish(caller="ann")
    assert wish({"caller": "ann", "label": None, "expires": None}) == Wish(caller="ann")
    asked = {"caller": "ann", "label": "ci", "expires": "90d"}
    assert wish(asked) == Wish(caller="ann", label="ci", lifetime=90 * 86_400)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"[]", "invalid_type", None),
        (b"{}", "missing_required_parameter", "caller"),
        (b'{"caller":null}', "missing_required_parameter", "caller"),
        (b'{"caller":""}', "missing_required_parameter", "caller"),
        (b'{"caller":5}', "invalid_type", "caller"),
        (b'{"caller":["ann"]}', "invalid_type", "caller"),
        (b'{"caller":"ann","caller":"bob"}', "duplicate_parameter", "caller"),
        (b'{"caller":"ann","label":5}', "invalid_type", "label"),
        (b'{"caller":"ann","label":"a\\nb"}', "invalid_value", "label"),
        (b'{"caller":"ann","expires":30}', "invalid_type", "expires"),
        (b'{"caller":"ann","expires":"30"}', "invalid_value", "expires"),
        (b'{"caller":"ann","expires":""}', "invalid_value", "expires"),
        (b'{"caller":"ann","key":"hr_mine"}', "unsupported_parameter", "key"),
        (b'{"caller":"ann","Label":"x"}', "unsupported_parameter", "Label"),
        (b'{"caller":"ann","' + b"x" * 200 + b'":1}', "unsupported_parameter", "x" * 80),
    ],
)
def test_anything_else_is_refused_and_named(body: bytes, code: str, param: str | None) -> None:
    with pytest.raises(RequestRejected) as caught:
        read_new_key(body)
    assert (caught.value.fault.code, caught.value.fault.param) == (code, param)


def test_the_refusal_of_a_key_for_nobody_says_what_is_missing() -> None:
    with pytest.raises(RequestRejected, match="Missing required parameter: 'caller'"):
        wish({"label": "x"})


def test_a_request_without_fields_may_have_an_empty_body_or_an_empty_object() -> None:
    read_nothing(b"")
    read_nothing(b" {} ")
    for body, param in ((b'{"force":true}', "force"), (b"null", None)):
        with pytest.raises(RequestRejected) as caught:
            read_nothing(body)
        assert caught.value.fault.param == param


def test_an_unknown_query_field_is_refused_and_named() -> None:
    check_query({}, frozenset())
    check_query({"limit": "5"}, frozenset({"limit"}))
    with pytest.raises(RequestRejected, match="Unknown parameter: 'key'") as caught:
        check_query({"limit": "5", "key": "1"}, frozenset({"limit"}))
    assert (caught.value.fault.code, caught.value.fault.param) == ("unsupported_parameter", "key")
