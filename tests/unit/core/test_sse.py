"""Event streams in any chunking, held against a reader written from the HTML standard."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handrail.core import sse
from handrail.core.sse import Decoder, Frame, FrameTooLarge

BOM = b"\xef\xbb\xbf"

Seen = list[tuple[str, bytes]]


def whole_stream(data: bytes) -> Seen:
    """Event name and data of each block, as section 9.2.6 reads a stream that has ended.

    Blocks without data stay in (as comments do), with empty data.
    """
    lines = re.split(rb"\r\n|\n|\r", data.removeprefix(BOM))[:-1]
    seen: Seen = []
    block: list[bytes] = []
    for line in lines:
        if line:
            block.append(line)
            continue
        if block:
            fields = [entry.partition(b":")[::2] for entry in block if entry[:1] != b":"]
            values = [(name, value.removeprefix(b" ")) for name, value in fields]
            names = [value for name, value in values if name == b"event"]
            found = b"\n".join(value for name, value in values if name == b"data")
            seen.append((names[-1].decode(errors="replace") if names else "", found))
        block = []
    return seen


def frames(chunks: list[bytes], *, limit: int = 1 << 20) -> list[Frame]:
    """What a decoder makes of chunks and the end of the stream."""
    decoder = Decoder(limit=limit)
    found = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    return found + decoder.finish()


def seen_by(chunks: list[bytes]) -> Seen:
    """Event name and data of each frame."""
    return [(frame.event, frame.data) for frame in frames(chunks)]


LINES = st.sampled_from(
    [
        b"data: one",
        b"data:two",
        b"data:  spaced",
        b"data",
        b"data:",
        b"event: ping",
        b"event:pong",
        b"event",
        b": comment",
        b":",
        b"id: 7",
        b"retry: 5",
        b"datax: no",
        b" data: no",
        "data: é😀".encode(),
        b"event: \xff",
        b"data: \xef\xbb\xbf",
        BOM + b"data: late",
        b"",
        b"",
        b"",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A stream with mixed line ends, perhaps a BOM, perhaps cut off."""
    lines = draw(st.lists(st.tuples(LINES, ENDS), max_size=14))
    text = b"".join(itertools.chain.from_iterable(lines))
    cut = draw(st.integers(0, 3))
    return draw(st.sampled_from([b"", BOM])) + (text[:-cut] if cut else text)


@st.composite
def chunked(draw: st.DrawFn) -> list[bytes]:
    """A stream in any chunks, some of them empty."""
    data = draw(streams())
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)])]


@given(chunked())
@example([b"data: x\r", b"\n\r", b"\n"])
@example([b"data: x\r", b"\r", b""])
@example([BOM[:1], BOM[1:], b"data: x\n", b"\ndata: y\n\n"])
@example([BOM, b"\n", b"\n", b"data: x\n\n"])
@example([b"\n", BOM, b"data: x\n\n"])
@example([b"data: x\n", b"\n", b"\n", b"\n", b"data: y\n\n"])
@example([b"data: x\n\n" + BOM + b"data: y\n\n"])
def test_any_chunking_gives_what_the_standard_reads(chunks: list[bytes]) -> None:
    assert seen_by(chunks) == whole_stream(b"".join(chunks))


@given(chunked())
def test_any_chunking_gives_the_same_bytes_to_pass_on(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    assert (
        frames(chunks) == frames([data]) == frames([data[at : at + 1] for at in range(len(data))])
    )


@given(chunked())
def test_what_is_passed_on_reads_the_same_again(chunks: list[bytes]) -> None:
    raws = [frame.raw for frame in frames(chunks)]
    assert all(raw.endswith(b"\n\n") and raw.count(b"\n\n") == 1 for raw in raws)
    again = [sse.parse_frame(raw) for raw in raws]
    assert [(frame.event, frame.data) for frame in again] == whole_stream(b"".join(chunks))


@pytest.mark.parametrize(
    ("stream", "event", "data"),
    [
        (b"data: x\n\n", "", b"x"),
        (b"event: a\ndata: x\n\n", "a", b"x"),
        (b"event: a\nevent: b\ndata: x\n\n", "b", b"x"),
        (b"event: \xff\ndata: x\n\n", "\ufffd", b"x"),
        (b"data: x\nevent: \xff\n\n", "\ufffd", b"x"),
        (b"event: a\ndata:x\n\n", "a", b"x"),
        (b"event: a\ndata: x\ndata: y\n\n", "a", b"x\ny"),
        (b"event: a\ndata: x\nid: 1\n\n", "a", b"x"),
        (b"event: a\nretry: 5\n\n", "a", b""),
        (b"event: a\n: comment\n\n", "a", b""),
        (b"data: x\ndata: y\n\n", "", b"x\ny"),
        (b"data:x\nid: 1\ndata: \n\n", "", b"x\n"),
        (b": hi\ndata: x\n\n", "", b"x"),
        (b": hi\n\n", "", b""),
        (b"event: lonely\n\n", "lonely", b""),
        (b"data: x\r\n\r\n", "", b"x"),
        (b"data: x\r\r", "", b"x"),
        (BOM + b"data: x\n\n", "", b"x"),
        (b"\n\n\ndata: x\n\n", "", b"x"),
    ],
)
def test_one_event_is_read_as_written(stream: bytes, event: str, data: bytes) -> None:
    assert seen_by([stream]) == [(event, data)]


@pytest.mark.parametrize("stream", [b"", b"\n", b"\n\n\n", b"\r\r", BOM, BOM + b"\n\n"])
def test_a_stream_without_events_gives_none(stream: bytes) -> None:
    assert frames([stream]) == []


@pytest.mark.parametrize("stream", [b"data: x", b"data: x\n", b"data: x\r", b"data: x\r\n"])
def test_an_event_that_the_end_cuts_off_is_not_delivered(stream: bytes) -> None:
    assert frames([b"data: whole\n\n" + stream]) == frames([b"data: whole\n\n"])


def test_a_carriage_return_at_the_very_end_may_complete_an_event() -> None:
    decoder = Decoder(limit=100)
    assert decoder.feed(b"data: x\r\n\r") == []
    assert [frame.data for frame in decoder.finish()] == [b"x"]
    assert decoder.finish() == []


def test_finishing_twice_delivers_nothing_that_the_end_cut_off() -> None:
    decoder = Decoder(limit=100)
    assert decoder.feed(b"data: x\r") == []
    assert decoder.finish() == decoder.finish() == []


def test_the_line_end_that_completes_an_event_is_no_part_of_the_next() -> None:
    decoder = Decoder(limit=20)
    assert decoder.feed(b"data: x\n") == []
    assert [frame.data for frame in decoder.feed(b"\ndata: " + b"y" * 14)] == [b"x"]
    assert [frame.data for frame in decoder.feed(b"\n\n")] == [b"y" * 14]


def test_an_unfinished_event_may_be_as_large_as_the_bound_and_not_larger() -> None:
    decoder = Decoder(limit=20)
    assert len(decoder.feed(b"data: 0123456789\n\ndata: " + b"x" * 14)) == 1
    with pytest.raises(FrameTooLarge, match="an event is larger than 20 bytes"):
        decoder.feed(b"x")


def test_the_bound_is_on_one_event_and_not_on_the_stream() -> None:
    decoder = Decoder(limit=20)
    assert sum(len(decoder.feed(b"data: 0123456789\n\n")) for _ in range(100)) == 100


def test_the_bound_is_the_same_after_an_event_in_pieces() -> None:
    decoder = Decoder(limit=20)
    pieces = [b"data: 01234", b"56789\n", b"\n"]
    assert sum(len(decoder.feed(piece)) for piece in pieces * 100) == 100
    assert decoder.feed(b"data: " + b"x" * 14) == []
    with pytest.raises(FrameTooLarge):
        decoder.feed(b"x")


def test_an_endless_line_in_small_chunks_is_refused_too() -> None:
    decoder = Decoder(limit=1_000)

    def feed_for_ever() -> None:
        for _ in range(1_001):
            decoder.feed(b"x")

    with pytest.raises(FrameTooLarge):
        feed_for_ever()


def test_what_is_written_is_read_back() -> None:
    data = '{"a":"é"}'.encode()
    raw = b"event: response.created\ndata: " + data + b"\n\n"
    assert sse.encode("response.created", data) == raw
    assert frames([raw]) == [Frame("response.created", data, raw)]


def test_a_keep_alive_is_a_comment_that_parsers_skip() -> None:
    (frame,) = frames([sse.COMMENT])
    assert (frame.event, frame.data, frame.raw) == ("", b"", sse.COMMENT)
    assert sse.COMMENT.startswith(b":")


def test_a_frame_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        sse.parse_frame(b"data: x\n\n").data = b""  # type: ignore[misc]
