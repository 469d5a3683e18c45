"""JSON as it crosses the gateway: the body stays a mapping, values stay untouched bytes.

A proxy that parses into closed models loses the fields it does not know. Here a body is a
`dict[str, msgspec.Raw]`; only the fields that a rule reads are decoded, and what nobody touched is
written back byte for byte. Everything that is read is checked here first, so that a wrong type is
a 400 that names the parameter and never "not background".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Raw

from handrail.errors import Code, RequestRejected

Body = dict[str, Raw]
"""A JSON object whose values are raw, already syntax-checked JSON text."""

MAX_FIELDS: Final = 256
"""Bound on the keys of one object that we read; OpenAI's create has about 40."""

_OBJECT: Final = msgspec.json.Decoder(Body)
_ITEMS: Final = msgspec.json.Decoder(list[Body])
_ELEMENTS: Final = msgspec.json.Decoder(list[Raw])
_STRINGS: Final = msgspec.json.Decoder(list[str])
_STRING: Final = msgspec.json.Decoder(str)
_FLOAT: Final = msgspec.json.Decoder(float)
_ENCODER: Final = msgspec.json.Encoder()

TRUE: Final = Raw(b"true")
FALSE: Final = Raw(b"false")
NULL: Final = Raw(b"null")


class Kind(StrEnum):
    """The JSON types, worded as OpenAI's messages word them."""

    STRING = "a string"
    BOOLEAN = "a boolean"
    INTEGER = "an integer"
    NUMBER = "a number"
    ARRAY = "an array"
    OBJECT = "an object"
    NULL = "null"


_FIRST_BYTE: Final = MappingProxyType(
    {
        ord('"'): Kind.STRING,
        ord("t"): Kind.BOOLEAN,
        ord("f"): Kind.BOOLEAN,
        ord("["): Kind.ARRAY,
        ord("{"): Kind.OBJECT,
        ord("n"): Kind.NULL,
    }
)
_INTEGER: Final = re.compile(rb"-?[0-9]{1,18}\Z")

# What a create may hold, by the openai SDK's ResponseCreateParams (3.54.0) and what real clients
# send (typeless items, `providerOptions`). Unknown fields are not here and pass unread.
CREATE_FIELDS: Final[Mapping[str, tuple[Kind, ...]]] = MappingProxyType(
    {
        "model": (Kind.STRING,),
        "input": (Kind.STRING, Kind.ARRAY),
        "instructions": (Kind.STRING,),
        "background": (Kind.BOOLEAN,),
        "background_options": (Kind.OBJECT,),
        "store": (Kind.BOOLEAN,),
        "stream": (Kind.BOOLEAN,),
        "stream_options": (Kind.OBJECT,),
        "include": (Kind.ARRAY,),
        "previous_response_id": (Kind.STRING,),
        "conversation": (Kind.STRING, Kind.OBJECT),
        "prompt": (Kind.OBJECT,),
        "providerOptions": (Kind.OBJECT,),
        "tools": (Kind.ARRAY,),
        "tool_choice": (Kind.STRING, Kind.OBJECT),
        "parallel_tool_calls": (Kind.BOOLEAN,),
        "reasoning": (Kind.OBJECT,),
        "text": (Kind.OBJECT,),
        "metadata": (Kind.OBJECT,),
        "client_metadata": (Kind.OBJECT,),
        "context_management": (Kind.ARRAY,),
        "temperature": (Kind.NUMBER,),
        "top_p": (Kind.NUMBER,),
        "top_logprobs": (Kind.INTEGER,),
        "max_output_tokens": (Kind.INTEGER,),
        "max_tool_calls": (Kind.INTEGER,),
        "truncation": (Kind.STRING,),
        "service_tier": (Kind.STRING,),
        "prompt_cache_key": (Kind.STRING,),
        "prompt_cache_retention": (Kind.STRING,),
        "prompt_cache_options": (Kind.OBJECT,),
        "safety_identifier": (Kind.STRING,),
        "user": (Kind.STRING,),
        # Not fields of this API, but sent by clients of the older one, and understood.
        "max_tokens": (Kind.INTEGER,),
        "max_completion_tokens": (Kind.INTEGER,),
    }
)

# What of `providerOptions.openai` decides whether and how a request may run.
PROVIDER_FIELDS: Final[Mapping[str, tuple[Kind, ...]]] = MappingProxyType(
    {
        "store": (Kind.BOOLEAN,),
        "include": (Kind.ARRAY,),
        "previousResponseId": (Kind.STRING,),
        "conversation": (Kind.STRING, Kind.OBJECT),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """A create request: the whole body, and the few fields that policy decides on.

    A call to an endpoint beside create is read into one too, so that the same rules see the same
    fields; `model` is "" where none was given.

    `provider` is providerOptions.openai. `store` and `provider_store` (its `store`) are None when
    unset or null. `include` and `previous_response_id` are those of the first of body and provider
    options that sets them, None when neither does. `whole` says that the input holds everything
    that the previous response stands for, so that an upstream need not know it.
    """

    body: Mapping[str, Raw]
    provider: Mapping[str, Raw]
    model: str
    stream: bool
    background: bool
    store: bool | None
    provider_store: bool | None
    include: tuple[str, ...] | None
    previous_response_id: str | None
    whole: bool = False

    def has(self, field: str) -> bool:
        """Whether the field is present and not null."""
        return is_set(self.body, field)

    @property
    def has_conversation(self) -> bool:
        """Whether the request belongs to a conversation that the upstream keeps."""
        return is_set(self.body, "conversation") or is_set(self.provider, "conversation")


def is_set(body: Mapping[str, Raw], field: str) -> bool:
    """Whether `body` holds `field` with anything but null."""
    value = body.get(field)
    return value is not None and value != NULL


def _head(value: Raw) -> bytes:
    # The first bytes of a raw value, without copying the megabytes that may follow.
    return bytes(memoryview(value)[:20])


def raw(value: object) -> Raw:
    """`value` as raw JSON."""
    return Raw(_ENCODER.encode(value))


def encode(body: object) -> bytes:
    """A body as compact JSON; raw parts are copied as they are."""
    return _ENCODER.encode(body)


def parse_object(data: bytes, *, param: str | None = None) -> Body:
    """The object that `data` holds, values raw.

    Raises RequestRejected when it is not UTF-8, not JSON, nested beyond the parser's bound (about
    1,000 levels), not an object, or has a key twice.
    """
    try:
        data.decode()  # msgspec does not look for bad UTF-8 inside raw parts
        body = _OBJECT.decode(data)
    except UnicodeDecodeError:
        raise RequestRejected(
            Code.INVALID_JSON, "The JSON is not valid UTF-8.", param=param
        ) from None
    except RecursionError:
        raise RequestRejected(
            Code.INVALID_JSON, "The JSON is nested too deeply.", param=param
        ) from None
    except msgspec.ValidationError:
        where = f"'{param}'" if param else "the request body"
        raise RequestRejected(
            Code.INVALID_TYPE, f"Invalid type for {where}: expected an object.", param=param
        ) from None
    except msgspec.DecodeError as error:
        raise RequestRejected(
            Code.INVALID_JSON, f"Could not parse the JSON: {error}.", param=param
        ) from None
    if len(body) > MAX_FIELDS:
        raise RequestRejected(
            Code.INVALID_VALUE, f"An object has more than {MAX_FIELDS} keys.", param=param
        )
    twice = _duplicate_key(data, body)
    if twice is not None:
        name = f"{param}.{twice}" if param else twice
        raise RequestRejected(
            Code.DUPLICATE_PARAMETER, f"The parameter '{name}' is given twice.", param=name
        )
    return body


_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_KEY: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _duplicate_key(data: bytes, body: Body) -> str | None:
    """The first key that stands twice in `data`, which has been parsed into `body`.

    A parser keeps the last of two equal keys, so two programs in a row can read two different
    values out of one body. The walk skips each value by the length of the one that was kept; where
    that does not fit, an earlier value was another one, and the key stands twice.
    """
    seen: set[str] = set()
    at = _after_space(data, data.index(b"{") + 1)
    while data[at] != 0x7D:  # }
        end = _KEY.match(data, at)
        if end is None:  # pragma: no cover - parsed JSON has a key here
            return ""
        key = _STRING.decode(end.group())
        if key in seen:
            return key
        seen.add(key)
        at = _after_space(data, _after_space(data, end.end()) + 1)
        value = bytes(body[key])
        if not data.startswith(value, at):
            return key
        at = _after_space(data, at + len(value))
        if data[at] == 0x2C:  # ,
            at = _after_space(data, at + 1)
        elif data[at] != 0x7D:
            return key
    return None


def _after_space(data: bytes, at: int) -> int:
    found = _SPACE.match(data, at)
    return at if found is None else found.end()


def kind_of(value: Raw) -> Kind:
    """The JSON type of a raw value; INTEGER for a number of at most 18 digits without fraction."""
    head = _head(value)
    kind = _FIRST_BYTE.get(head[0])
    if kind is not None:
        return kind
    return Kind.INTEGER if _INTEGER.match(head) else Kind.NUMBER


def check_kinds(
    body: Mapping[str, Raw], fields: Mapping[str, tuple[Kind, ...]], *, prefix: str = ""
) -> None:
    """Raise RequestRejected for the first field of a wrong type or with an unreadable value.

    Null passes for every field: to OpenAI's API it means "not set".
    """
    for name, value in body.items():
        wanted = fields.get(name)
        if wanted is None:
            continue
        got = kind_of(value)
        if got is Kind.NULL:
            continue
        if got in wanted or (got is Kind.INTEGER and Kind.NUMBER in wanted):
            _check_readable(value, got, param=prefix + name)
            continue
        expected = " or ".join(kind.value for kind in wanted)
        param = prefix + name
        raise RequestRejected(
            Code.INVALID_TYPE,
            f"Invalid type for '{param}': expected {expected}, but got {got.value} instead.",
            param=param,
        )


def _check_readable(value: Raw, kind: Kind, *, param: str) -> None:
    # Raw values are checked for syntax only: a number like 1e999 is left to whoever reads it.
    if kind is not Kind.NUMBER:
        return
    try:
        _FLOAT.decode(value)
    except msgspec.DecodeError:
        raise RequestRejected(
            Code.INVALID_VALUE, f"The value of '{param}' cannot be read.", param=param
        ) from None


def boolean(body: Mapping[str, Raw], field: str) -> bool | None:
    """A field that `check_kinds` has passed as boolean; None when unset or null."""
    value = body.get(field)
    if value is None:
        return None
    return {b"true": True, b"false": False}.get(bytes(value))


def string(body: Mapping[str, Raw], field: str) -> str | None:
    """A field that `check_kinds` has passed as string; None when unset or null."""
    return _STRING.decode(body[field]) if is_set(body, field) else None


def strings(body: Mapping[str, Raw], field: str, *, prefix: str = "") -> tuple[str, ...] | None:
    """An array of strings; None when unset or null. Raises RequestRejected for anything else."""
    if not is_set(body, field):
        return None
    param = prefix + field
    try:
        return tuple(_STRINGS.decode(body[field]))
    except (msgspec.DecodeError, RecursionError):
        raise RequestRejected(
            Code.INVALID_TYPE,
            f"Invalid type for '{param}': expected an array of strings.",
            param=param,
        ) from None


def nested(body: Mapping[str, Raw], field: str, *, prefix: str = "") -> Body:
    """An object inside the body, read as strictly as the body itself; empty when unset or null."""
    if not is_set(body, field):
        return {}
    check_kinds({field: body[field]}, {field: (Kind.OBJECT,)}, prefix=prefix)
    return parse_object(bytes(body[field]), param=prefix + field)


def items(value: Raw, *, param: str = "input") -> list[Body]:
    """The objects of an array, each with raw values.

    Raises RequestRejected that names the first element which is no object.
    """
    try:
        return _ITEMS.decode(value)
    except RecursionError:
        raise RequestRejected(
            Code.INVALID_JSON, f"'{param}' is nested too deeply.", param=param
        ) from None
    except msgspec.DecodeError:
        raise _not_an_object(value, param) from None


def _not_an_object(value: Raw, param: str) -> RequestRejected:
    try:
        kinds = [kind_of(element) for element in _ELEMENTS.decode(value)]
    except (msgspec.DecodeError, RecursionError):
        return RequestRejected(Code.INVALID_JSON, f"'{param}' cannot be read.", param=param)
    index = next(index for index, kind in enumerate(kinds) if kind is not Kind.OBJECT)
    where = f"{param}[{index}]"
    message = f"Invalid type for '{where}': expected an object, but got {kinds[index].value}."
    return RequestRejected(Code.INVALID_TYPE, message, param=where)


def read_create(data: bytes) -> CreateRequest:
    """The body of a create, checked.

    Raises RequestRejected for JSON that cannot be read and for a wrong type in any field of
    CREATE_FIELDS. Which combinations are allowed is `policy`'s business, not this function's.
    """
    request = _read(data)
    if not request.model and not request.has("prompt"):
        raise _no_model()
    return request


def read_compact(data: bytes) -> CreateRequest:
    """The body of a call to `compact`, read as strictly as a create's; it must name a model."""
    request = _read(data)
    if not request.model:
        raise _no_model()
    return request


def read_input_tokens(data: bytes) -> CreateRequest:
    """The body of a call to `input_tokens`, read as strictly; OpenAI's API demands no field."""
    return _read(data)


def _no_model() -> RequestRejected:
    return RequestRejected(
        Code.MISSING_PARAMETER, "Missing required parameter: 'model'.", param="model"
    )


def _read(data: bytes) -> CreateRequest:
    body = parse_object(data)
    check_kinds(body, CREATE_FIELDS)
    options = nested(nested(body, "providerOptions"), "openai", prefix="providerOptions.")
    prefix = "providerOptions.openai."
    check_kinds(options, PROVIDER_FIELDS, prefix=prefix)
    include = strings(body, "include")
    if include is None:
        include = strings(options, "include", prefix=prefix)
    previous = string(body, "previous_response_id")
    if previous is None:  # an empty one is an id that nothing has
        previous = string(options, "previousResponseId")
    return CreateRequest(
        body=body,
        provider=options,
        model=string(body, "model") or "",
        stream=boolean(body, "stream") or False,
        background=boolean(body, "background") or False,
        store=boolean(body, "store"),
        provider_store=boolean(options, "store"),
        include=include,
        previous_response_id=previous,
    )
