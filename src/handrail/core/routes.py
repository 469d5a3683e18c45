"""Which targets a model's requests may go to: literal rules, the first that fits decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from handrail.core.model_access import unknown_model
from handrail.errors import Code, HandrailError, RequestRejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Requests for models that the glob `model` fits go to one of `targets`, in that order."""

    model: str
    targets: tuple[str, ...]


EVERYTHING = "*"


def route(model: str, routes: Sequence[Route], allowed: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the targets for a model, "" for a request that names none; the first is asked.

    Globs (`*`, `?`, `[abc]`; case counts) are held against the name as the request says it. The
    first route that fits decides, also when its caller may use none of its targets: `allowed` are
    those it may use, None for all. () when there is none.
    """
    for each in routes:
        if fnmatchcase(model, each.model):
            return tuple(t for t in each.targets if allowed is None or t in allowed)
    return ()


def no_route(model: str) -> RequestRejected:
    """What is said of a model, "" for none, that no route leads to a target."""
    if model:
        return unknown_model(model)
    return RequestRejected(
        Code.MISSING_PARAMETER,
        "Missing required parameter: 'model'. It decides which upstream the request goes to.",
        param="model",
    )


def worth_telling(problems: Sequence[HandrailError]) -> HandrailError:
    """Of what several targets said, what the caller is to hear: the soonest moment to come back.

    Otherwise what the last one said. That one of them could not take the request is told only when
    none could.
    """
    told = [each for each in problems if not isinstance(each, RequestRejected)] or problems
    timed = [each for each in told if each.fault.retry_after is not None]
    return min(timed, key=_wait) if timed else told[-1]


def _wait(problem: HandrailError) -> float:
    return problem.fault.retry_after or 0.0
