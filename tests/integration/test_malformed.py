"""Bodies that cannot be meant: each is a 400 that says what is wrong, and goes nowhere."""

import asyncio
import gzip
from itertools import product

import pytest

from tests.conftest import Running, Scripted, Start
from tests.raw_http import CHUNKED, CREATE, Reply, ask, chunked, get, head, post

# What each field of a create may be; null is "not set" for all of them.
FIELDS = {
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
    "temperature": "number",
    "top_p": "number",
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

VALUES = [
    ("string", '"x"'),
    ("string", '"true"'),
    ("string", '"1"'),
    ("boolean", "true"),
    ("boolean", "false"),
    ("integer", "0"),
    ("integer", "-1"),
    ("number", "0.5"),
    ("number", "1e2"),
    ("number", "1" * 40),
    ("array", "[]"),
    ("array", '["x"]'),
    ("object", "{}"),
    ("object", '{"a":1}'),
]

UNREADABLE = [
    ("temperature", "1e999"),
    ("temperature", "-1e999"),
    ("top_p", "1e400"),
    ("max_output_tokens", "1e999"),
    ("max_output_tokens", "1.0"),
    ("max_output_tokens", "9" * 100_000),
    ("top_logprobs", "1" * 19),
]

NESTED = [
    *((f'"input":[{item}]', "input[0]") for item in ("1", '"x"', "null", "true", "[]", "1.5")),
    ('"input":[{"role":"user","content":"a"},7]', "input[1]"),
    ('"input":[{"role":"user","content":"a"},[{}]]', "input[1]"),
    ('"input":[{"type":"item_reference"}]', "input[0].id"),
    ('"input":[{"type":"item_reference","id":null}]', "input[0].id"),
    ('"input":[{"type":"item_reference","id":7}]', "input[0].id"),
    ('"input":[{"role":"user"},{"type":"item_reference","id":"msg_x"}]', "input[1].id"),
    ('"input":[{"type":"item_reference","id":"../../x"}]', "input[0].id"),
    *((f'"include":[{name}]', "include") for name in ("1", "null", "true", "[]", "{}", '"a",1')),
    *(
        (f'"providerOptions":{{"openai":{value}}}', "providerOptions.openai")
        for value in ('"x"', "1", "true", "[]")
    ),
    *(
        (f'"providerOptions":{{"openai":{{"store":{value}}}}}', "providerOptions.openai.store")
        for value in ('"false"', "0", "1", "[]", "{}", "0.0")
    ),
    *(
        (f'"providerOptions":{{"openai":{{"include":{value}}}}}', "providerOptions.openai.include")
        for value in ('"x"', "1", "true", "{}", "[1]", "[null]", '[["x"]]')
    ),
    ('"providerOptions":{"openai":{"store":true,"store":false}}', "providerOptions.openai.store"),
    ('"providerOptions":{"openai":{},"openai":{}}', "providerOptions.openai"),
    ('"store":true,"\\u0073tore":false', "store"),
    ('"background":false,"b\\u0061ckground":true', "background"),
    ('"conversation":"conv_1"', "conversation"),
    ('"conversation":{"id":"conv_1"}', "conversation"),
    ('"background_options":{}', "background_options"),
    ('"previous_response_id":"resp_1"', "previous_response_id"),
    ('"previous_response_id":""', "previous_response_id"),
    ('"background":true', "background"),
    ('"background":true,"store":false', "background"),
]

MODELLESS = [
    '{}', '{"input":"hi"}', '{"model":null,"input":"hi"}', '{"model":"","input":"hi"}',
    '{"prompt":null}', '{"Model":"m"}', '{"model ":"m"}',
]  # fmt: skip

WHOLE = (
    b'{"model":"m","input":[{"role":"user","content":"h\\u00e9 \\"x\\""}],'
    b'"top_p":0.5,"u":[1,{"a":null}]}'
)

NO_JSON = {
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "a megabyte of blanks": b" " * (1 << 20),
    "two objects": b'{"model":"m"}{"model":"m"}',
    "two lines": b'{"model":"m"}\n{"model":"m"}',
    "an object and a word": b'{"model":"m"} x',
    "an object and a NUL": b'{"model":"m"}\x00',
    "a NUL and an object": b'\x00{"model":"m"}',
    "a comma too many": b'{"model":"m",}',
    "a comma too few": b'{"model":"m" "input":"x"}',
    "no colon": b'{"model" "m"}',
    "no value": b'{"model":}',
    "no name": b'{:"m"}',
    "number as a name": b'{1:"m"}',
    "single quotes": b"{'model':'m'}",
    "no quotes": b'{model:"m"}',
    "a comment": b'{"model":"m"/* x */}',
    "a comment line": b'{"model":"m"}// x',
    "NaN": b'{"model":"m","temperature":NaN}',
    "Infinity": b'{"model":"m","temperature":Infinity}',
    "minus Infinity": b'{"model":"m","temperature":-Infinity}',
    "True": b'{"model":"m","stream":True}',
    "None": b'{"model":"m","stream":None}',
    "undefined": b'{"model":"m","stream":undefined}',
    "leading zero": b'{"model":"m","top_logprobs":01}',
    "plus": b'{"model":"m","top_logprobs":+1}',
    "no digit before the point": b'{"model":"m","top_p":.5}',
    "no digit behind the point": b'{"model":"m","top_p":1.}',
    "no exponent": b'{"model":"m","top_p":1e}',
    "hexadecimal": b'{"model":"m","top_logprobs":0x1}',
    "minus alone": b'{"model":"m","top_logprobs":-}',
    "line feed in a string": b'{"model":"a\nb"}',
    "NUL in a string": b'{"model":"a\x00b"}',
    "tab in a string": b'{"model":"a\tb"}',
    "unknown escape": b'{"model":"\\x41"}',
    "half a pair of escapes": b'{"model":"\\ud800"}',
    "the other half": b'{"model":"m","input":"\\udfff x"}',
    "two first halves": b'{"model":"m","instructions":"\\ud800\\ud800"}',
    "half a pair in a name": b'{"model":"m","input":[{"\\ud800":1}]}',
    "half a pair where nobody looks": b'{"model":"m","u":{"a":["\\ud83d"]}}',
    "short escape": b'{"model":"\\u00"}',
    "string without an end": b'{"model":"m',
    "backslash at the end": b'{"model":"m\\"}',
    "byte order mark": b'\xef\xbb\xbf{"model":"m"}',
    "UTF-16": '{"model":"m"}'.encode("utf-16"),
    "UTF-16, little": '{"model":"m"}'.encode("utf-16-le"),
    "UTF-16, big": '{"model":"m"}'.encode("utf-16-be"),
    "UTF-32": '{"model":"m"}'.encode("utf-32"),
    "UTF-7": '{"model":"mä"}'.encode("utf-7").replace(b'"', b"+ACI-"),
    "latin-1": '{"model":"mä"}'.encode("latin-1"),
    "overlong": b'{"model":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"model":"\xed\xa0\x80"}',
    "beyond Unicode": b'{"model":"\xf4\x90\x80\x80"}',
    "cut inside a character": b'{"model":"\xe2\x82"}',
    "bad UTF-8 in a field nobody reads": b'{"model":"m","u":"\xff"}',
    "bad UTF-8 in a name": b'{"model":"m","\xff":1}',
    "EBCDIC": '{"model":"m"}'.encode("cp500"),
    "XML": b"<model>m</model>",
    "a form": b"model=m&input=hi",
    "multipart": b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--',
    "YAML": b"model: m\ninput: hi\n",
    "an event stream": b'data: {"model":"m"}\n\n',
    "gzip without saying so": gzip.compress(b'{"model":"m"}'),
    "null": b"null",
    "a string": b'"x"',
    "a number": b"1",
    "a boolean": b"true",
    "an array": b'[{"model":"m","input":"hi"}]',
    "an empty array": b"[]",
    "a million arrays": b'{"model":"m","u":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "a million objects": b'{"model":"m","u":' + b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_001,
    "a million open arrays": b"[" * 1_000_000,
    "a hundred thousand names": b'{"model":"m",%b}'
    % b",".join(b'"k%d":1' % number for number in range(100_000)),
    "a hundred thousand equal names": b'{"model":"m"' + b',"k":1' * 100_000 + b"}",
}


async def refusals(gateway: Running, bodies: dict[str, bytes]) -> dict[str, Reply]:
    """The answer to each create, all of them 400s in the envelope; some at the same time."""
    room = asyncio.Semaphore(8)

    async def refusal(body: bytes) -> Reply | None:
        async with room:
            return await ask(gateway.port, post(body))

    replies = await asyncio.gather(*(refusal(body) for body in bodies.values()))
    found = dict(zip(bodies, replies, strict=True))
    wrong = {name: reply for name, reply in found.items() if reply is None or reply.status != 400}
    assert wrong == {}
    refused = {name: reply for name, reply in found.items() if reply is not None}
    assert all(r.error["type"] == "invalid_request_error" for r in refused.values())
    return refused


def with_fields(fields: dict[str, str]) -> bytes:
    """A create with these fields beside, or instead of, model and input."""
    whole = {"model": '"m"', "input": '"hi"', **fields}
    text = ",".join(f'"{name}":{value}' for name, value in whole.items())
    return f"{{{text}}}".encode()


async def test_a_wrong_type_of_any_field_is_a_400_that_names_the_field(
    start: Start, upstream: Scripted
) -> None:
    wrong = {
        f"{field} {value}": with_fields({field: value})
        for (field, kinds), (kind, value) in product(FIELDS.items(), VALUES)
        if kind not in kinds.split() and not (kind == "integer" and "number" in kinds)
    }
    assert len(wrong) > 350
    async with start() as gateway:
        for name, reply in (await refusals(gateway, wrong)).items():
            field = name.partition(" ")[0]
            assert (reply.error["code"], reply.error["param"]) == ("invalid_type", field), name
            assert f"'{field}'" in reply.error["message"]
        assert upstream.seen.calls == 0


async def test_a_value_that_cannot_be_read_is_a_400_that_names_the_field(
    start: Start, upstream: Scripted
) -> None:
    bodies = {f"{field} {value}": with_fields({field: value}) for field, value in UNREADABLE}
    async with start() as gateway:
        for name, reply in (await refusals(gateway, bodies)).items():
            assert reply.error["param"] == name.partition(" ")[0]
            assert len(reply.body) < 1_000
        assert upstream.seen.calls == 0


async def test_what_is_wrong_further_inside_is_named_by_its_path(
    start: Start, upstream: Scripted
) -> None:
    bodies = {fragment: f'{{"model":"m",{fragment}}}'.encode() for fragment, _ in NESTED}
    async with start() as gateway:
        replies = await refusals(gateway, bodies)
        assert {name: reply.error["param"] for name, reply in replies.items()} == dict(NESTED)
        assert upstream.seen.calls == 0


@pytest.mark.parametrize("second", ["the same", "another"])
async def test_a_field_that_stands_twice_is_a_400_that_names_it(
    start: Start, upstream: Scripted, second: str
) -> None:
    examples = {"string": '"m"', "boolean": "false", "array": "[]", "object": "{}"}
    numbers = {"number": "1", "integer": "1"}
    first = {name: (examples | numbers)[kinds.split()[0]] for name, kinds in FIELDS.items()}
    bodies = {}
    for name, value in first.items():
        one, two = f'"{name}":{value}', f'"{name}":{value if second == "the same" else "null"}'
        rest = "" if name == "model" else '"model":"m",'
        bodies[f"{name} ahead"] = f"{{{rest}{one},{two}}}".encode()
        bodies[f"{name} behind"] = f"{{{two},{rest}{one}}}".encode()
    async with start() as gateway:
        for name, reply in (await refusals(gateway, bodies)).items():
            assert reply.error["code"] == "duplicate_parameter", name
            assert reply.error["param"] == name.partition(" ")[0]
        assert upstream.seen.calls == 0


async def test_a_create_without_a_model_is_a_400_that_names_it(
    start: Start, upstream: Scripted
) -> None:
    bodies = {text: text.encode() for text in MODELLESS}
    async with start() as gateway:
        for reply in (await refusals(gateway, bodies)).values():
            assert reply.error["code"] == "missing_required_parameter"
            assert reply.error["param"] == "model"
        assert upstream.seen.calls == 0


async def test_a_body_that_is_no_json_object_is_a_400(start: Start, upstream: Scripted) -> None:
    async with start() as gateway:
        for name, reply in (await refusals(gateway, NO_JSON)).items():
            codes = ("invalid_json", "invalid_type", "invalid_value", "duplicate_parameter")
            assert reply.error["code"] in codes, name
            assert len(reply.body) < 1_000
        assert upstream.seen.calls == 0


async def test_a_body_that_is_cut_off_anywhere_is_a_400(start: Start, upstream: Scripted) -> None:
    cut = {f"after {size}": WHOLE[:size] for size in range(len(WHOLE))}
    async with start() as gateway:
        for reply in (await refusals(gateway, cut)).values():
            assert reply.error["code"] == "invalid_json"
        assert upstream.seen.calls == 0
        good = await ask(gateway.port, post(WHOLE))
        assert good is not None
        assert good.status == 200


async def test_nesting_at_the_edge_of_what_can_be_parsed_is_a_400(
    start: Start, upstream: Scripted
) -> None:
    def nested(depth: int) -> bytes:
        return b'{"model":"m","input":' + b"[" * depth + b"]" * depth + b"}"

    async with start() as gateway:
        low, high = 2, 200_000  # a wrong item at the lower, "too deep" at the upper end
        while high - low > 1:
            middle = (low + high) // 2
            reply = await ask(gateway.port, post(nested(middle)))
            assert reply is not None
            low, high = (middle, high) if b"input[0]" in reply.body else (low, middle)
        around = {str(depth): nested(depth) for depth in range(max(2, low - 20), high + 20)}
        await refusals(gateway, around)
        assert upstream.seen.calls == 0


BACKGROUND_BODY = b'{"model":"m","input":"hi","background":true}'
COMPACT = b"POST /v1/responses/compact HTTP/1.1"
ENTRANCES = {
    "create": post(BACKGROUND_BODY),
    "create, streamed": post(BACKGROUND_BODY.replace(b"}", b',"stream":true}')),
    "create, null store": post(BACKGROUND_BODY.replace(b"}", b',"store":null}')),
    "trailing slash": post(BACKGROUND_BODY, line=b"POST /v1/responses/ HTTP/1.1"),
    "doubled base": post(BACKGROUND_BODY, line=b"POST /v1/v1/responses HTTP/1.1"),
    "no base": post(BACKGROUND_BODY, line=b"POST /responses HTTP/1.1"),
    "encoded letter": post(BACKGROUND_BODY, line=b"POST /v1/%72esponses HTTP/1.1"),
    "encoded slash": post(BACKGROUND_BODY, line=b"POST /v1%2fresponses HTTP/1.1"),
    "dots": post(BACKGROUND_BODY, line=b"POST /v1/x/../responses HTTP/1.1"),
    "query": post(BACKGROUND_BODY, line=b"POST /v1/responses?beta=true HTTP/1.1"),
    "query says false": post(BACKGROUND_BODY, line=b"POST /v1/responses?background=false HTTP/1.1"),
    "fragment": post(BACKGROUND_BODY, line=b"POST /v1/responses#x HTTP/1.1"),
    "compact": post(BACKGROUND_BODY, line=COMPACT),
    "compact, streamed": post(BACKGROUND_BODY.replace(b"}", b',"stream":true}'), line=COMPACT),
    "compact, query": post(BACKGROUND_BODY, line=b"POST /v1/responses/compact?beta=true HTTP/1.1"),
    "compact, trailing slash": post(BACKGROUND_BODY, line=b"POST /v1/responses/compact/ HTTP/1.1"),
    "compact, doubled base": post(BACKGROUND_BODY, line=b"POST /v1/v1/responses/compact HTTP/1.1"),
    "compact, encoded": post(BACKGROUND_BODY, line=b"POST /v1/responses/%63ompact HTTP/1.1"),
    "compact, encoded slash": post(BACKGROUND_BODY, line=b"POST /v1/responses%2fcompact HTTP/1.1"),
    "compact, given twice": post(
        BACKGROUND_BODY.replace(b"}", b',"background":false}'), line=COMPACT
    ),
    "compact, WebSocket": post(
        BACKGROUND_BODY, b"Connection: Upgrade", b"Upgrade: websocket", line=COMPACT
    ),
    "input_tokens": post(BACKGROUND_BODY, line=b"POST /v1/responses/input_tokens HTTP/1.1"),
    "input_tokens, query": post(
        BACKGROUND_BODY, line=b"POST /v1/responses/input_tokens?beta=true HTTP/1.1"
    ),
    "WebSocket": get("/v1/responses", b"Connection: Upgrade", b"Upgrade: websocket")
    + b'{"type":"response.create","background":true}',
    "WebSocket at compact": get(
        "/v1/responses/compact", b"Connection: Upgrade", b"Upgrade: websocket"
    )
    + b'{"type":"response.create","background":true}',
    "WebSocket by POST": post(BACKGROUND_BODY, b"Connection: Upgrade", b"Upgrade: websocket"),
    "h2c": post(BACKGROUND_BODY, b"Connection: Upgrade", b"Upgrade: h2c"),
    "overridden method": post(BACKGROUND_BODY, b"X-HTTP-Method-Override: GET"),
    "GET with a body": post(BACKGROUND_BODY, line=b"GET /v1/responses HTTP/1.1"),
    "chunked": head(CREATE, CHUNKED) + chunked(*(bytes([byte]) for byte in BACKGROUND_BODY)),
    "gzip": post(gzip.compress(BACKGROUND_BODY), b"Content-Encoding: gzip"),
    "HTTP/1.0": post(BACKGROUND_BODY, line=b"POST /v1/responses HTTP/1.0"),
    "other type": post(BACKGROUND_BODY, kind=b"application/json; charset=utf-16"),
    "escaped": post(BACKGROUND_BODY.replace(b"background", b"b\\u0061ckground")),
    "given twice": post(BACKGROUND_BODY.replace(b"}", b',"background":false}')),
    "given twice, the other order": post(BACKGROUND_BODY.replace(b"{", b'{"background":false,')),
    "as text": post(BACKGROUND_BODY.replace(b"true", b'"true"')),
    "as a number": post(BACKGROUND_BODY.replace(b"true", b"1")),
    "x-api-key": post(BACKGROUND_BODY, b"x-api-key: hr_test-caller-key-0123456789", key=None),
    "as Codex": post(BACKGROUND_BODY, b"originator: codex_cli_rs", b"User-Agent: codex_exec/1"),
    "as a retry": post(BACKGROUND_BODY, b"x-stainless-retry-count: 1", b"Idempotency-Key: k"),
}


@pytest.mark.parametrize("manners", ["openai", "codex", "vllm"])
async def test_no_entrance_lets_a_background_create_through_while_it_is_off(
    start: Start, upstream: Scripted, manners: str
) -> None:
    async with start(manners=manners) as gateway:
        for name, request in ENTRANCES.items():
            reply = await ask(gateway.port, request)
            assert reply is not None
            assert 400 <= reply.status < 500, name
            assert reply.error["type"] == "invalid_request_error"
            assert upstream.seen.calls == 0, name


# Of the entrances those that lead somewhere, so that it is the guard that answers.
GUARDED = [
    "create", "create, streamed", "create, null store", "query", "query says false", "compact",
    "compact, streamed", "compact, query", "input_tokens", "input_tokens, query", "h2c", "chunked",
    "gzip", "escaped", "x-api-key", "as Codex", "as a retry", "overridden method", "HTTP/1.0",
]  # fmt: skip


async def test_every_entrance_that_leads_somewhere_gives_the_same_reason(
    start: Start, upstream: Scripted
) -> None:
    async with start() as gateway:
        for name in GUARDED:
            reply = await ask(gateway.port, ENTRANCES[name])
            assert reply is not None
            assert (reply.status, reply.error["code"], reply.error["param"]) == (
                400,
                "background_not_enabled",
                "background",
            ), name
        assert upstream.seen.calls == 0
