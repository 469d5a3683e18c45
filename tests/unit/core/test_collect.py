"""A whole stream as one response."""

import json
from typing import Any

import pytest

from handrail.core import collect, events, sse, wire
from handrail.core.collect import Collector
from handrail.errors import HandrailError, UpstreamFailed

Json = dict[str, Any]
NOW = 1_700_000_000.0


def event(kind: str, **fields: Any) -> bytes:
    """One event as it stands in a stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


RESPONSE: Json = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
CREATED = event("response.created", response=RESPONSE)
MESSAGE = event(
    "response.output_item.done",
    output_index=0,
    item={"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "hi"}]},
)
COMPLETED = event("response.completed", response={**RESPONSE, "status": "completed", "store": True})


def collected(*chunks: bytes) -> Json:
    """What the stream amounts to."""
    collector = Collector()
    ended = [collector.feed(chunk) for chunk in chunks]
    assert ended == sorted(ended)
    body: Json = json.loads(wire.encode(collector.response(now=NOW)))
    return body


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_output_is_gathered_from_the_items_where_the_end_has_none(size: int) -> None:
    data = b": comment\n\n" + CREATED + MESSAGE + COMPLETED + b"data: [DONE]\n\n"
    body = collected(*[data[at : at + size] for at in range(0, len(data), size)])
    assert (body["id"], body["status"], body["store"]) == ("resp_1", "completed", False)
    assert body["output"][0]["content"][0]["text"] == "hi"


def test_what_comes_after_the_end_changes_nothing() -> None:
    late = event("response.failed", response={**RESPONSE, "status": "failed"})
    assert collected(CREATED, COMPLETED, late)["status"] == "completed"


def test_an_error_after_a_failure_does_not_take_its_place() -> None:
    error = {"code": "rate_limit_exceeded", "message": "Slow down."}
    failed = event("response.failed", response={**RESPONSE, "status": "failed", "error": error})
    with pytest.raises(HandrailError, match=r"^Slow down\.$"):
        collected(CREATED, failed, event("error", code="server_error", message="Late."))


def test_taking_an_event_tells_whether_the_end_has_come_also_after_it() -> None:
    collector = Collector()
    frames = sse.Decoder(limit=collect.MAX_EVENT_BYTES).feed(CREATED + COMPLETED + MESSAGE)
    taken = [collector.take(found) for found in map(events.read, frames) if found is not None]
    assert taken == [False, True, True]


def test_an_incomplete_response_is_a_response() -> None:
    end = event("response.incomplete", response={**RESPONSE, "status": "incomplete"})
    assert collected(CREATED, end)["status"] == "incomplete"


@pytest.mark.parametrize("stream", [b"", CREATED, CREATED + MESSAGE + COMPLETED[:-1]])
def test_a_stream_without_an_end_is_an_error(stream: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        collected(stream)
    assert caught.value.fault.code == "upstream_ended_early"
    assert caught.value.fault.message == "The upstream's stream ended without a terminal event."


@pytest.mark.parametrize(
    "end",
    [
        event(
            "response.failed",
            response={
                **RESPONSE,
                "status": "failed",
                "error": {"code": "rate_limit_exceeded", "message": "Slow down."},
            },
        ),
        event("error", code="rate_limit_exceeded", message="Slow down."),
    ],
    ids=["failed", "error"],
)
def test_the_upstreams_own_failure_keeps_its_words_and_gets_its_status(end: bytes) -> None:
    with pytest.raises(HandrailError) as caught:
        collected(CREATED, end)
    assert (caught.value.fault.status, caught.value.fault.message) == (429, "Slow down.")


@pytest.mark.parametrize(
    "stream",
    [
        b"data: no json\n\n",
        b'data: {"type": 5}\n\n',
        event("response.completed", response=5),
        b"data: " + b"x" * (collect.MAX_EVENT_BYTES + 1),
    ],
    ids=["no json", "no type", "no response", "event too large"],
)
def test_what_is_no_event_is_an_error(stream: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        Collector().feed(stream)
    assert caught.value.fault.code == "upstream_protocol_error"
    message = caught.value.fault.message
    assert message.startswith("The upstream sent what is no event: ")
    assert message.endswith(".")


def test_the_bounds_are_8_mib_for_an_event_and_256_mib_for_a_stream() -> None:
    assert (collect.MAX_EVENT_BYTES, collect.MAX_STREAM_BYTES) == (8 * 1024**2, 256 * 1024**2)


def test_an_endless_stream_is_an_error() -> None:
    collector = Collector(limit=20)
    collector.feed(b": twenty bytes.....\n")
    with pytest.raises(UpstreamFailed, match="larger than 20 bytes"):
        collector.feed(b":")


@pytest.mark.parametrize("response", ["null", "{}"])
def test_an_end_without_a_response_is_none(response: str) -> None:
    whole = collect.Collector()
    data = f'{{"type":"response.completed","response":{response}}}'
    assert whole.feed(f"data: {data}\n\n".encode())
    with pytest.raises(UpstreamFailed, match="without a response"):
        whole.response(now=0.0)


END = b'data: {"type":"response.completed","response":{"id":"r","output":[]}}'


def test_a_carriage_return_at_the_very_end_may_complete_the_end() -> None:
    whole = collect.Collector()
    whole.feed(END + b"\r\r")
    assert json.loads(wire.encode(whole.response(now=0.0)))["id"] == "r"


@pytest.mark.parametrize("apart", [True, False])
def test_what_follows_the_end_is_not_read(apart: bool) -> None:
    whole = collect.Collector()
    for chunk in (END + b"\n\n", b"data: junk\n\n") if apart else (END + b"\n\ndata: junk\n\n",):
        assert whole.feed(chunk)
    assert json.loads(wire.encode(whole.response(now=0.0)))["id"] == "r"


def test_an_event_of_the_wrong_shape_at_the_very_end_is_a_protocol_error() -> None:
    whole = collect.Collector()
    whole.feed(b"data: junk\r\r")
    with pytest.raises(UpstreamFailed, match="no event"):
        whole.response(now=0.0)
