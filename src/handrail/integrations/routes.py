"""Which calls of an SDK the guardrails concern: a literal table of path endings.

What is spelled so that an upstream might read a create where we read none is refused, not passed.
"""

from enum import Enum, auto
from typing import Final
from urllib.parse import unquote

from handrail.errors import Code, HandrailError, RequestRejected, fault


class Route(Enum):
    """What is done with a call."""

    CREATE = auto()
    COMPACT = auto()
    INPUT_TOKENS = auto()
    PASS = auto()


# Ends of a POST path, longest first; None stands for an id.
_ENDINGS: Final[tuple[tuple[tuple[str | None, ...], Route], ...]] = (
    (("responses", None, "cancel"), Route.PASS),
    (("responses", "compact"), Route.COMPACT),
    (("responses", "input_tokens"), Route.INPUT_TOKENS),
    (("responses",), Route.CREATE),
)


def route_of(method: str, path: str, *, upgrade: bool) -> Route:
    """The route of a call; `path` as it stands in the URL, encoded, without the query.

    Raises HandrailError for a WebSocket upgrade and for a path that is spelled ambiguously.
    """
    words = [unquote(part).partition(";")[0].strip().casefold() for part in path.split("/")]
    if "responses" not in words:
        return Route.PASS
    if upgrade:
        message = "WebSocket is not supported here; use HTTP."
        raise HandrailError(fault(Code.UPGRADE_REQUIRED, message))
    if method.upper() != "POST":
        return Route.PASS
    segments = path.split("/")[1:]
    for ending, route in _ENDINGS:
        if _ends(segments, ending) and all(segments):
            return route
    raise RequestRejected(
        Code.NOT_FOUND,
        f"There is no route POST {path[:200]}. Paths are matched exactly: no slash at the end, no "
        "percent-encoded spelling.",
    )


def _ends(segments: list[str], ending: tuple[str | None, ...]) -> bool:
    last = segments[-len(ending) :]
    return len(last) == len(ending) and all(
        wanted in (None, part) for wanted, part in zip(ending, last, strict=True)
    )
