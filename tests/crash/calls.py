"""What the upstream has seen, asked of it over its own route."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from tests.acceptance.processes import monotonic
from tests.crash.journal import Run
from tests.crash.orders import Json
from tests.crash.wire import Api


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls by the tag of their run, in the order of their arrival."""

    by_tag: Mapping[str, list[Json]]

    @classmethod
    def of(cls, calls: Iterable[Json]) -> Self:
        """Sorted by tag."""
        found: defaultdict[str, list[Json]] = defaultdict(list)
        for call in calls:
            found[call["tag"]].append(call)
        return cls(by_tag=dict(found))

    def __len__(self) -> int:
        return sum(map(len, self.by_tag.values()))

    @property
    def open(self) -> int:
        """How many have not ended."""
        return sum(call["ended"] is None for calls in self.by_tag.values() for call in calls)

    def of_run(self, run: Run) -> list[Json]:
        """The calls made for a run."""
        return self.by_tag.get(run.tag, [])


class Upstream:
    """The scripted upstream. Of many thousand calls only those since the last `settle` are told."""

    def __init__(self, url: str) -> None:
        self._api = Api(url, "none")
        self.settled = 0

    async def calls(self) -> Calls:
        """The calls since the last `settle`."""
        reply = await self._api.send("GET", f"/calls?from={self.settled}")
        return Calls.of(reply.json())

    async def at_rest(self, *, seconds: float) -> Calls:
        """The same, once none is open any more, or after so many seconds."""
        began = monotonic()
        while True:
            calls = await self.calls()
            if not calls.open or monotonic() - began > seconds:
                return calls
            await asyncio.sleep(0.01)

    def settle(self, calls: Calls) -> None:
        """These need not be told again."""
        self.settled += len(calls)

    def close(self) -> None:
        """Let go of the connection."""
        self._api.close()
