"""What a create may look like: every field, every type, every way to be unreadable (G4)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from handrail.core import wire
from handrail.errors import RequestRejected
from tests.unit.core.generated import JSON, spelled

SAMPLES = {
    "string": '"x"',
    "boolean": "true",
    "integer": "1",
    "number": "1.5",
    "array": "[]",
    "object": "{}",
}

# The request fields of the API and the JSON types that each takes besides null.
TAKES = {
    "model": "string",
    "input": "string array",
    "instructions": "string",
    "background": "boolean",
    "background_options": "object",
    "store": "boolean",
    "stream": "boolean",
    "stream_options": "object",
    "include": "array",
    "previous_response_id": "string",
    "conversation": "string object",
    "prompt": "object",
    "providerOptions": "object",
    "tools": "array",
    "tool_choice": "string object",
    "parallel_tool_calls": "boolean",
    "reasoning": "object",
    "text": "object",
    "metadata": "object",
    "client_metadata": "object",
    "context_management": "array",
    "temperature": "integer number",
    "top_p": "integer number",
    "top_logprobs": "integer",
    "max_output_tokens": "integer",
    "max_tool_calls": "integer",
    "truncation": "string",
    "service_tier": "string",
    "prompt_cache_key": "string",
    "prompt_cache_retention": "string",
    "prompt_cache_options": "object",
    "safety_identifier": "string",
    "user": "string",
    "max_tokens": "integer",
    "max_completion_tokens": "integer",
}


def create(fields: str) -> bytes:
    """A create with a model and the given text of further fields."""
    return f'{{"model":"m",{fields}}}'.encode()


def refused(data: bytes) -> tuple[str | None, str | None, str]:
    """Code, param and message of the 400 that a create gets."""
    with pytest.raises(RequestRejected) as caught:
        wire.read_create(data)
    fault = caught.value.fault
    assert (fault.status, fault.type) == (400, "invalid_request_error")
    return fault.code, fault.param, fault.message


# None: it was read.
CODES = {
    None,
    "invalid_json",
    "invalid_type",
    "invalid_value",
    "duplicate_parameter",
    "missing_required_parameter",
}


def code_of(data: bytes) -> str | None:
    """The code of the 400 that a create gets, None when it is read."""
    try:
        wire.read_create(data)
    except RequestRejected as error:
        return error.fault.code
    return None


def test_the_table_of_this_test_names_every_field_that_is_read() -> None:
    assert set(TAKES) == set(wire.CREATE_FIELDS)


@pytest.mark.parametrize("field", TAKES)
@pytest.mark.parametrize("kind", SAMPLES)
def test_a_field_takes_its_own_types_and_no_other(field: str, kind: str) -> None:
    other = '"model":"m"' if field == "prompt" else '"prompt":{}'
    data = f'{{{other},"{field}":{SAMPLES[kind]}}}'.encode()
    if kind in TAKES[field].split():
        assert bytes(wire.read_create(data).body[field]) == SAMPLES[kind].encode()
        return
    code, param, message = refused(data)
    assert (code, param) == ("invalid_type", field)
    got = f"{'an' if kind[0] in 'aio' else 'a'} {kind}"
    assert message.startswith(f"Invalid type for '{field}': expected a")
    assert message.endswith(f", but got {got} instead.")


def test_a_field_of_several_types_names_them_all() -> None:
    wanted = "Invalid type for 'input': expected a string or an array, but got a boolean instead."
    assert refused(create('"input":true'))[2] == wanted


@pytest.mark.parametrize("field", [name for name in TAKES if name != "model"])
def test_null_means_not_set_for_every_field(field: str) -> None:
    request = wire.read_create(create(f'"{field}":null'))
    assert not request.has(field)
    assert field in request.body


@pytest.mark.parametrize("field", ["background", "store", "stream"])
@pytest.mark.parametrize(
    "value", ['"true"', '"false"', '"1"', '""', "1", "0", "-1", "1.0", "[true]", '{"a":true}']
)
def test_what_only_looks_like_a_boolean_is_an_error_and_never_false(field: str, value: str) -> None:
    code, param, _ = refused(create(f'"{field}":{value}'))
    assert (code, param) == ("invalid_type", field)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ('{"openai":{"store":"false"}}', "providerOptions.openai.store"),
        ('{"openai":{"store":0}}', "providerOptions.openai.store"),
        ('{"openai":{"include":"x"}}', "providerOptions.openai.include"),
        ('{"openai":{"include":[1]}}', "providerOptions.openai.include"),
        ('{"openai":[]}', "providerOptions.openai"),
        ('{"openai":"store"}', "providerOptions.openai"),
        ("[]", "providerOptions"),
        ('"x"', "providerOptions"),
    ],
)
def test_a_wrong_type_in_provider_options_is_named_by_its_whole_path(
    options: str, param: str
) -> None:
    code, named, _ = refused(create(f'"providerOptions":{options}'))
    assert (code, named) == ("invalid_type", param)


@pytest.mark.parametrize(
    "options", ["null", "{}", '{"openai":null}', '{"openai":{}}', '{"other":{"store":5}}']
)
def test_provider_options_that_say_nothing_to_us_decide_nothing(options: str) -> None:
    request = wire.read_create(create(f'"providerOptions":{options}'))
    assert (request.provider_store, request.include) == (None, None)


@pytest.mark.parametrize(
    "include", ["[1]", "[null]", "[true]", '["a",[]]', '[{"a":1}]', '["a", 1.5]']
)
def test_include_holds_strings_only(include: str) -> None:
    code, param, message = refused(create(f'"include":{include}'))
    assert (code, param) == ("invalid_type", "include")
    assert "array of strings" in message


@pytest.mark.parametrize(
    ("body", "options", "expected"),
    [
        ('["a"]', '["b"]', ("a",)),
        ("[]", '["b"]', ()),
        ("null", '["b"]', ("b",)),
        (None, '["b","c"]', ("b", "c")),
        (None, "null", None),
        (None, None, None),
        ("null", None, None),
    ],
)
def test_include_comes_from_the_body_before_provider_options(
    body: str | None, options: str | None, expected: tuple[str, ...] | None
) -> None:
    fields = [] if body is None else [f'"include":{body}']
    inner = "" if options is None else f'"include":{options}'
    fields.append(f'"providerOptions":{{"openai":{{{inner}}}}}')
    assert wire.read_create(create(",".join(fields))).include == expected


def test_a_create_is_read_whole() -> None:
    request = wire.read_create(
        create(
            '"stream":true,"background":true,"store":false,"include":["a"],'
            '"previous_response_id":"resp_1","providerOptions":{"openai":{"store":true}}'
        )
    )
    assert (request.model, request.stream, request.background) == ("m", True, True)
    assert (request.store, request.provider_store) == (False, True)
    assert (request.include, request.previous_response_id) == (("a",), "resp_1")
    assert request.has("stream")
    assert not request.has("reasoning")


def test_a_create_that_says_little_is_neither_streamed_nor_background() -> None:
    request = wire.read_create(b'{"model":"m"}')
    assert (request.stream, request.background, request.store) == (False, False, None)
    assert (request.provider_store, request.previous_response_id) == (None, None)


@pytest.mark.parametrize("body", ["{}", '{"model":null}', '{"model":""}', '{"prompt":null}'])
def test_a_create_needs_a_model(body: str) -> None:
    code, param, message = refused(body.encode())
    assert (code, param) == ("missing_required_parameter", "model")
    assert message == "Missing required parameter: 'model'."


def test_a_stored_prompt_may_stand_in_for_the_model() -> None:
    assert wire.read_create(b'{"prompt":{"id":"pmpt_1"}}').model == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b'{"model":"m"',
        b'{"model":"m"}}',
        b'{"model":"m"} x',
        b'{"model":"m",}',
        b"{'model':'m'}",
        b'{model:"m"}',
        b'{"model":"m","temperature":NaN}',
        b'{"model":"m","x":Infinity}',
        b'{"model":"m","x":01}',
        b'{"model":"m","x":1.}',
        b'{"model":"m","x":"\\q"}',
        b'{"model":"m","x":"a\nb"}',
        b'{"model":"m","x":"a\x00b"}',
        b'{"model":"m"/*c*/}',
        b'\xef\xbb\xbf{"model":"m"}',
        '{"model":"m"}'.encode("utf-16"),
        b'{"model":"\xff"}',
        b'{"model":"m","x":"\xc3"}',
        b'{"model":"m","x":["\xed\xa0\x80"]}',
        b'{"model":"m","\xc0\xaf":1}',
        b'{"model":"\\ud800"}',
        b'{"model":"m","x":"\\ud800"}',
        b'{"model":"m","x":"\\udc00 and more text behind it"}',
        b'{"model":"m","x":["\\ud800\\ud800"],"y":"behind"}',
        b'{"model":"m","\\ud800":1}',
        b'{"model":"m","providerOptions":{"\\ud800":1},"y":"behind"}',
    ],
)
def test_what_is_no_json_text_is_a_400(data: bytes) -> None:
    code, param, _ = refused(data)
    assert (code, param) == ("invalid_json", None)


@pytest.mark.parametrize("data", [b"[]", b"null", b"1", b'"x"', b"true", b'[{"model":"m"}]'])
def test_a_body_that_is_no_object_is_a_400(data: bytes) -> None:
    code, param, message = refused(data)
    assert (code, param) == ("invalid_type", None)
    assert message == "Invalid type for the request body: expected an object."


@pytest.mark.parametrize("field", ["temperature", "top_p"])
@pytest.mark.parametrize("value", ["1e999", "-1e999", "1" + "0" * 400])
def test_a_number_that_no_float_can_hold_is_a_400(field: str, value: str) -> None:
    code, param, message = refused(create(f'"{field}":{value}'))
    assert (code, param) == ("invalid_value", field)
    assert message == f"The value of '{field}' cannot be read."


@pytest.mark.parametrize("value", ["1e999", "1" + "0" * 400, "-0", "1E+2"])
def test_a_number_that_nobody_reads_passes_as_it_was_written(value: str) -> None:
    request = wire.read_create(create(f'"new_field":{value}'))
    assert bytes(request.body["new_field"]) == value.encode()


@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["arrays", "objects"]
)
def test_endless_nesting_is_a_400(opening: str, closing: str) -> None:
    text = opening * 100_000 + "1" + closing * 100_000
    assert refused(create(f'"x":{text}'))[0] == "invalid_json"
    assert refused(create(f'"providerOptions":{text}'))[0] in ("invalid_json", "invalid_type")


@pytest.mark.parametrize("depth", range(900, 1_000))
def test_no_depth_of_a_part_breaks_what_reads_it_again(depth: int) -> None:
    text = "[" * depth + "]" * depth
    parts = (f'"providerOptions":{{"openai":{{"a":{text}}}}}', f'"include":["a",{text}]')
    assert all(code_of(create(part)) in CODES for part in parts)


def test_an_object_may_have_256_keys_and_no_more() -> None:
    fields = ",".join(f'"k{number}":1' for number in range(255))
    assert len(wire.read_create(create(fields)).body) == 256
    code, _, message = refused(create(fields + ',"k255":1'))
    assert code == "invalid_value"
    assert "256" in message


def test_the_bound_on_keys_holds_inside_provider_options() -> None:
    fields = ",".join(f'"k{number}":1' for number in range(257))
    code, param, _ = refused(create(f'"providerOptions":{{"openai":{{{fields}}}}}'))
    assert (code, param) == ("invalid_value", "providerOptions.openai")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0", wire.Kind.INTEGER),
        ("-7", wire.Kind.INTEGER),
        ("9" * 18, wire.Kind.INTEGER),
        ("-" + "9" * 18, wire.Kind.INTEGER),
        ("9" * 19, wire.Kind.NUMBER),
        ("9" * 30, wire.Kind.NUMBER),
        ("1.0", wire.Kind.NUMBER),
        ("1e2", wire.Kind.NUMBER),
        ("9" * 18 + ".5", wire.Kind.NUMBER),
        ("null", wire.Kind.NULL),
        ("false", wire.Kind.BOOLEAN),
    ],
)
def test_the_type_of_a_raw_value_is_seen_from_its_first_bytes(text: str, kind: wire.Kind) -> None:
    assert wire.kind_of(Raw(text.encode())) is kind


def test_a_boolean_is_read_or_absent() -> None:
    body = {"yes": wire.TRUE, "no": wire.FALSE, "null": wire.NULL}
    found = {name: wire.boolean(body, name) for name in ("yes", "no", "null", "missing")}
    assert found == {"yes": True, "no": False, "null": None, "missing": None}


def test_the_elements_of_an_array_are_objects_with_raw_values() -> None:
    assert wire.items(Raw(b'[{"a": 1.50}, {}]')) == [{"a": Raw(b"1.50")}, {}]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b'["x"]', "tools[0]"),
        (b"[{},null]", "tools[1]"),
        (b"[{},{},[]]", "tools[2]"),
    ],
)
def test_the_first_element_that_is_no_object_is_named(text: bytes, where: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        wire.items(Raw(text), param="tools")
    assert caught.value.fault.param == where
    assert where in caught.value.fault.message


@pytest.mark.parametrize("text", [b"{}", b"5", b"[1", b"[1,"])
def test_what_is_no_array_of_anything_is_named(text: bytes) -> None:
    with pytest.raises(RequestRejected, match="'tools' cannot be read") as caught:
        wire.items(Raw(text), param="tools")
    assert (caught.value.fault.code, caught.value.fault.param) == ("invalid_json", "tools")


def test_an_array_nested_too_deeply_is_named() -> None:
    with pytest.raises(RequestRejected) as caught:
        wire.items(Raw(b'[{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}]"), param="input")
    assert (caught.value.fault.code, caught.value.fault.param) == ("invalid_json", "input")


@given(spelled(st.dictionaries(st.text(max_size=6), JSON, max_size=5)))
def test_any_object_is_read_as_the_standard_library_reads_it(data: bytes) -> None:
    body = wire.parse_object(data)
    assert json.loads(wire.encode(body)) == json.loads(data)


@given(st.binary(max_size=40) | spelled(JSON))
def test_reading_any_bytes_raises_nothing_but_a_rejection(data: bytes) -> None:
    assert code_of(data) in CODES
