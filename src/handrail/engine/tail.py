"""Readers of runs: replay from the store, then follow live, from any number, any number of them.

The store is the truth; what is published here only saves reading it again. A reader that cannot
keep up falls out of the small live window and reads from the store, so memory stays bounded.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Final

from handrail.core import events, wire
from handrail.core.lifecycle import is_final
from handrail.core.sse import COMMENT, parse_frame
from handrail.store.base import Segment, Store

WINDOW_BYTES: Final = 256 * 1024


class _Live:
    """The latest durable segments of one run that somebody follows."""

    def __init__(self) -> None:
        self.readers: dict[asyncio.Event, None] = {}  # woken in the order in which they came
        self._segments: deque[Segment] = deque()
        self._bytes = 0

    def add(self, segment: Segment) -> None:
        self._segments.append(segment)
        self._bytes += sum(map(len, segment.frames))
        while self._bytes > WINDOW_BYTES and len(self._segments) > 1:
            self._bytes -= sum(map(len, self._segments.popleft().frames))

    def after(self, number: int) -> list[bytes] | None:
        """The frames after `number`; None when the window does not reach back to them."""
        if not self._segments or self._segments[-1].last <= number:
            return []
        if self._segments[0].first > number + 1:
            return None
        newer = []
        for segment in reversed(self._segments):
            if segment.last <= number:
                break
            newer.append(segment.frames[max(0, number + 1 - segment.first) :])
        return [frame for frames in reversed(newer) for frame in frames]


class Tails:
    """Who follows what. All methods but `follow` are called by whoever writes runs."""

    def __init__(self, store: Store, *, heartbeat_seconds: float) -> None:
        self._store = store
        self._heartbeat_seconds = heartbeat_seconds
        self._live: dict[str, _Live] = {}
        self._closing = False

    def published(self, run_id: str, segment: Segment) -> None:
        """These events of the run are durable now."""
        live = self._live.get(run_id)
        if live is not None:
            live.add(segment)
            self.changed(run_id)

    def changed(self, run_id: str) -> None:
        """Something about the run is different: its readers look again."""
        live = self._live.get(run_id)
        if live is not None:
            for reader in live.readers:
                reader.set()

    def close(self) -> None:
        """End every stream after what is durable now: the process is about to stop."""
        self._closing = True
        for run_id in list(self._live):
            self.changed(run_id)

    @contextmanager
    def _reader(self, run_id: str) -> Iterator[tuple[_Live, asyncio.Event]]:
        live = self._live.setdefault(run_id, _Live())
        reader = asyncio.Event()
        live.readers[reader] = None
        try:
            yield live, reader
        finally:
            live.readers.pop(reader, None)
            if not live.readers and self._live.get(run_id) is live:
                del self._live[run_id]

    async def follow(
        self,
        run_id: str,
        *,
        caller: str,
        after: int,
        obfuscation: bool = True,
        numbered_heartbeat: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """The events after number `after`, in whole frames, until the terminal one; then ends.

        Comments fill silence, or with `numbered_heartbeat` events under the number of the last
        one: they are no part of the log, and no cursor may move by them. Ends early, without a
        terminal event, only when the run is deleted or the process stops. Raises StoreFailed when
        the store cannot be read.
        """
        with self._reader(run_id) as (live, wake):
            ask = True
            while True:
                # Woken while it was writing: there may be news that no window has, such as an end
                # from outside. Cleared before looking, so that what comes meanwhile is not missed.
                ask = ask or wake.is_set()
                wake.clear()
                newer = live.after(after)
                frames = newer or []
                ended = behind = False
                # The store is asked at first, while it has more, when the window does not reach
                # back, and when we were woken without news; not after each delivery.
                if newer is None or (ask and not newer):
                    part = await self._store.read(run_id, after=after, caller=caller)
                    if part is None:
                        return
                    frames = list(part.frames)
                    behind = after + len(frames) < part.last_seq
                    ended = is_final(part.state) and not behind
                if frames:
                    after += len(frames)
                    yield b"".join(frames if obfuscation else map(_plain, frames))
                if ended or _is_terminal(frames) or (self._closing and not frames):
                    return
                ask = behind or not frames
                if not frames and not await _woken(wake, self._heartbeat_seconds):
                    yield _heartbeat(after) if numbered_heartbeat else COMMENT


def _heartbeat(number: int) -> bytes:
    return events.event(events.KEEPALIVE, {"sequence_number": wire.raw(max(number, 0))}).frame


async def _woken(wake: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return False
    return True


_TERMINAL_STARTS: Final = tuple(f"event: {name}\n".encode() for name in sorted(events.CLOSING))


def _is_terminal(frames: list[bytes]) -> bool:
    # Every frame in the log was encoded here, so its first line is its type.
    return bool(frames) and frames[-1].startswith(_TERMINAL_STARTS)


def _plain(frame: bytes) -> bytes:
    event = events.read(parse_frame(frame))
    return frame if event is None else events.without_obfuscation(event).frame
