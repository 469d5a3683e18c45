"""Every call that has arrived, so that a test can say when each began and how it ended."""

import time
from dataclasses import asdict, dataclass, field

from tests.scripted_upstream.script import Json


@dataclass(slots=True)
class Call:
    """One create. Times by the machine's monotonic clock, which all its processes share.

    `how` is open, refused (an error was answered), finished (the script was played to its end,
    whatever that was) or left (the client closed the connection).
    """

    number: int
    tag: str
    began: float
    how: str = "open"
    ended: float | None = None

    def end(self, how: str) -> None:
        """It is over."""
        self.how, self.ended = how, time.monotonic()


@dataclass
class Calls:
    """In the order of their arrival."""

    all: list[Call] = field(default_factory=list)

    def arrived(self, number: int, tag: str) -> Call:
        """A new one."""
        call = Call(number, tag, time.monotonic())
        self.all.append(call)
        return call

    def since(self, place: int) -> list[Json]:
        """Those from that place on."""
        return [asdict(call) for call in self.all[place:]]
