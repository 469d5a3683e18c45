"""Keys that stand twice (G4): two programs in a row must never read two values out of one body."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handrail.core import wire
from handrail.errors import RequestRejected
from tests.unit.core.generated import JSON, spelled

# Two values of one key: equal, different, and each way round a beginning of the other.
PAIRS = [
    ("true", "true"),
    ("false", "true"),
    ("true", "false"),
    ("null", "true"),
    ("1", "12"),
    ("12", "1"),
    ("1", "1.5"),
    ("1.5", "1"),
    ("1", "1e3"),
    ("1e3", "1"),
    ('"a"', '"ab"'),
    ('"ab"', '"a"'),
    ('""', '"x"'),
    ("[]", "[[]]"),
    ("[1]", "[1,2]"),
    ("{}", '{"a":1}'),
    ('{"x":1}', "{}"),
    ('"}"', '"}"'),
    ('","', '"\\""'),
]


def rejection(data: bytes) -> tuple[str | None, str | None]:
    """Code and param of the 400 that a create gets."""
    with pytest.raises(RequestRejected) as caught:
        wire.read_create(data)
    assert caught.value.fault.param is not None
    assert caught.value.fault.param in caught.value.fault.message
    return caught.value.fault.code, caught.value.fault.param


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize(
    "layout",
    [
        b'{"model":"m","x":%b,"x":%b}',
        b'{"x":%b,"x":%b,"model":"m"}',
        b'{"x":%b,"model":"m","x":%b}',
        b'{\n  "model" : "m",\r\n\t"x" :  %b ,\n  "x" : %b\n}\n',
        b' {"x":%b , "y":{"x":0},"x":%b, "model":"m"}',
    ],
    ids=["last", "first", "apart", "pretty", "around"],
)
def test_a_key_given_twice_is_a_400_whatever_its_values(
    layout: bytes, first: str, second: str
) -> None:
    data = layout % (first.encode(), second.encode())
    assert rejection(data) == ("duplicate_parameter", "x")


@pytest.mark.parametrize("field", ["background", "store", "stream", "model", "providerOptions"])
def test_a_duplicate_is_found_whichever_field_it_is(field: str) -> None:
    value = {"model": '"m"', "providerOptions": "{}"}.get(field, "true")
    data = f'{{"prompt":{{}},"{field}":{value},"{field}":{value}}}'
    assert rejection(data.encode()) == ("duplicate_parameter", field)


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        ("background", "back\\u0067round", "background"),
        ("back\\u0067round", "background", "background"),
        ("\\u0073tore", "store", "store"),
        ("\\u0073\\u0074\\u006f\\u0072\\u0065", "stor\\u0065", "store"),
        ("a\\/b", "a/b", "a/b"),
        ('a\\"b', "a\\u0022b", 'a"b'),
        ("\\ud83d\\ude00", "😀", "😀"),
        ("a\\\\", "a\\u005c", "a\\"),
        ("", "", ""),
    ],
)
def test_another_spelling_of_a_key_is_the_same_key(one: str, other: str, name: str) -> None:
    data = f'{{"model":"m","{one}":true,"{other}":false}}'
    with pytest.raises(RequestRejected) as caught:
        wire.read_create(data.encode())
    assert caught.value.fault.code == "duplicate_parameter"
    assert caught.value.fault.param == name
    assert caught.value.fault.message == f"The parameter '{name}' is given twice."


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ('{"openai":{},"openai":{}}', "providerOptions.openai"),
        ('{"openai":{"store":true},"openai":{"store":false}}', "providerOptions.openai"),
        ('{"other":1,"other":1}', "providerOptions.other"),
        ('{"openai":{"store":true,"store":true}}', "providerOptions.openai.store"),
        ('{"openai":{"store":true,"st\\u006fre":false}}', "providerOptions.openai.store"),
        ('{"openai":{"a":12,"a":1}}', "providerOptions.openai.a"),
        ('{ "openai" : { "a" : 1 ,\n "a" : 12 } }', "providerOptions.openai.a"),
    ],
)
def test_a_duplicate_inside_provider_options_is_named_by_its_path(options: str, param: str) -> None:
    data = f'{{"model":"m","providerOptions":{options}}}'
    assert rejection(data.encode()) == ("duplicate_parameter", param)


@pytest.mark.parametrize(
    "fields",
    [
        '"a":1,"A":1',
        '"a":1,"a ":1',
        '"a":{"b":1},"b":1',
        '"a":[{"x":1},{"x":1}]',
        '"x":"\\"y\\":1","y":1',
        '"x":"},{","y":"\\\\"',
        '"\\u0061":1,"\\u0062":1',
        '"x":1,"xx":1,"xxx":11',
    ],
)
def test_keys_that_only_look_alike_are_no_duplicates(fields: str) -> None:
    assert wire.read_create(f'{{"model":"m",{fields}}}'.encode()).model == "m"


def test_too_many_keys_do_not_hide_a_duplicate() -> None:
    repeated = ",".join(['"x":1'] * 1_000)
    assert rejection(f'{{"model":"m",{repeated}}}'.encode()) == ("duplicate_parameter", "x")


def keys_twice(data: bytes) -> bool:
    """Whether the standard library's parser sees a key of the outermost object twice."""
    last: list[tuple[str, Any]] = []

    def remember(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        last[:] = pairs  # the outermost object is finished last
        return dict(pairs)

    json.loads(data, object_pairs_hook=remember)
    return len({key for key, _ in last}) < len(last)


def escaped(key: str, *, every: bool) -> str:
    """A key as a JSON string, plainly or with each character escaped."""
    if not every:
        return json.dumps(key)
    units = key.encode("utf-16-be")
    pairs = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
    return '"' + "".join(f"\\u{pair}" for pair in pairs) + '"'


SPACES = st.sampled_from(["", " ", "\n  ", "\r\n\t"])
KEYS = st.sampled_from(["a", "b", "ab", "", '"', "\\", "}", "é", "😀"]) | st.text(max_size=2)
SPELLED_VALUES = st.sampled_from(["1", "12", "1.5", "1e3", "true", '"a"', "{}", "[]"]).map(
    str.encode
) | spelled(JSON)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """An object as text, with keys from so few that many stand twice."""
    members = []
    for key, value in draw(st.lists(st.tuples(KEYS, SPELLED_VALUES), max_size=5)):
        name = escaped(key, every=draw(st.booleans()))
        gaps = [draw(SPACES) for _ in range(4)]
        members.append(
            gaps[0].encode()
            + name.encode()
            + gaps[1].encode()
            + b":"
            + gaps[2].encode()
            + value
            + gaps[3].encode()
        )
    return b" {" + b",".join(members) + draw(SPACES).encode() + b"}\n"


@given(objects())
@example(b'{"a":12,"a":1}')
@example(b'{"a":1,"a":12}')
@example(b'{"a":[1,"a"],"a":[1]}')
def test_a_duplicate_is_found_exactly_when_the_standard_library_sees_one(data: bytes) -> None:
    try:
        body = wire.parse_object(data)
    except RequestRejected as error:
        found = error.fault.code
    else:
        found = None
        assert list(body) == list(json.loads(data))
    assert found == ("duplicate_parameter" if keys_twice(data) else None)
