"""What a run is asked to do, and what it must have said when it is done.

The scripted model begins every answer with `callN`, N counting its calls, and names its items by
the same N: text that comes from two calls can be told from text that comes from one.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]

_CALLS: Final = re.compile(rb"(?:call_?|msg_|rs_|fc_)(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of answer. `end` and `cause` are what must become of it if nobody interferes.

    `at` puts a place among the words behind the directives. `refusals` is how many calls the
    model turns away first; `endless` never ends by itself.
    """

    name: str
    weight: int
    directives: str = ""
    at: bool = False
    end: str = "completed"
    cause: str | None = None
    refusals: int = 0
    endless: bool = False


KINDS: Final = (
    Kind(name="words", weight=16),
    Kind(name="large", weight=1, directives="size=1000"),
    Kind(name="tool", weight=2, directives='tool=look_up args={"q":"a","n":3}'),
    Kind(name="reasoning", weight=2, directives="reasoning"),
    Kind(name="incomplete", weight=1, directives="incomplete", end="incomplete"),
    Kind(name="failed", weight=1, directives="fail", end="failed", cause="upstream_failed"),
    Kind(
        name="error",
        weight=1,
        directives="error=",
        at=True,
        end="failed",
        cause="upstream_failed",
    ),
    Kind(
        name="dropped",
        weight=1,
        directives="drop=",
        at=True,
        end="failed",
        cause="upstream_ended_early",
    ),
    Kind(
        name="ended early",
        weight=1,
        directives="eof=",
        at=True,
        end="failed",
        cause="upstream_ended_early",
    ),
    Kind(
        name="malformed",
        weight=1,
        directives="malformed=",
        at=True,
        end="failed",
        cause="upstream_protocol_error",
    ),
    Kind(name="broken", weight=1, directives="status=500", end="failed", cause="boo"),
    Kind(name="busy", weight=2, directives="status=429 retry_after=0.05 times=1", refusals=1),
    # Only for whoever allows another attempt: without, it is like the one above.
    Kind(name="flaky", weight=0, directives="status=500 retry_after=0.02 times=1", refusals=1),
    Kind(name="slow to answer", weight=2, directives="before=0.1"),
    Kind(name="slow to begin", weight=1, directives="first=0.1"),
    Kind(name="stalled", weight=1, directives="stall=", at=True, endless=True),
)
BY_NAME: Final[Mapping[str, Kind]] = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one run is asked for: a kind of answer of `words` words, `delay` seconds each."""

    kind: Kind
    words: int
    delay: float
    place: int

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        return 0.02 + self.words * (self.delay + 0.001)

    def text(self, tag: str) -> str:
        """The input that asks for it."""
        directives = self.kind.directives + (str(self.place) if self.kind.at else "")
        return f"[[tag={tag} words={self.words} delay={self.delay} {directives}]]"


def draw(chance: random.Random, *, names: tuple[str, ...] = ()) -> Order:
    """An order at random, of the kinds named, or of all."""
    kinds = [BY_NAME[name] for name in names] or list(KINDS)
    [kind] = chance.choices(kinds, [kind.weight or 1 for kind in kinds])
    words = chance.choice((1, 3, 8, 20, 60))
    delay = chance.choice((0.0, 0.0, 0.001, 0.003, 0.01))
    return Order(kind=kind, words=words, delay=delay, place=chance.randint(0, words))


def calls_in(data: bytes) -> set[int]:
    """The numbers of the model's calls that bytes of a reply come from."""
    return {int(number) for number in _CALLS.findall(data)}


def text_of(order: Order, number: int) -> str:
    """What the model says in its call `number`."""
    size = 1_000 if order.kind.name == "large" else 0
    return "".join("x" * size or f"{n or f'call{number}'} " for n in range(order.words))


def unlike(order: Order, output: list[Json], *, number: int, whole: bool) -> str | None:
    """What is wrong with an output, which may be a part unless `whole`; None when nothing is."""
    wanted: list[tuple[str, Callable[[Json], bool]]] = []
    if order.kind.name == "reasoning":
        wanted.append(("reasoning", lambda item: item["id"] == f"rs_{number}"))
    if order.kind.name == "tool":
        wanted.append(("function_call", lambda item: _called(item, whole=whole)))
    else:
        wanted.append(("message", lambda item: _said(item, text_of(order, number), whole=whole)))
    if len(output) > len(wanted) or (whole and len(output) != len(wanted)):
        return f"{len(output)} items instead of {len(wanted)}"
    for item, (kind, fits) in zip(output, wanted, strict=False):
        if item["type"] != kind or not fits(item):
            return f"an item that was not asked for: {str(item)[:200]}"
    return None


def _called(item: Json, *, whole: bool) -> bool:
    wanted = '{"q":"a","n":3}'
    given = item.get("arguments", "")
    return item["name"] == "look_up" and (given == wanted if whole else wanted.startswith(given))


def _said(item: Json, wanted: str, *, whole: bool) -> bool:
    said = "".join(part.get("text", "") for part in item["content"])
    if whole:
        return said == wanted and item["status"] == "completed"
    return wanted.startswith(said)
