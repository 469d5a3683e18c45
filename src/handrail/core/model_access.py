"""Which models a caller may use: globs, held against the name that a request asks for."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from handrail.errors import Code, RequestRejected

ANY_MODEL: Final = ("*",)
_SHOWN: Final = 80


def may_use(model: str, globs: Sequence[str]) -> bool:
    """Whether one of the globs (`*`, `?`, `[abc]`; case counts) fits the whole name."""
    return any(fnmatchcase(model, glob) for glob in globs)


def check_model(model: str, globs: Sequence[str]) -> None:
    """Raise RequestRejected unless the model that a request names, "" for none, may be used.

    The refusal is that of a model which does not exist. A request without one is refused where not
    every model is allowed: a stored prompt would choose it at the upstream.
    """
    if may_use(model, globs):
        return
    if not model:
        raise RequestRejected(
            Code.MISSING_PARAMETER,
            "Missing required parameter: 'model'. Not every model is open to this caller, so the "
            "request must name it.",
            param="model",
        )
    raise unknown_model(model)


def unknown_model(model: str) -> RequestRejected:
    """What is said of a model that is not there, or not for this caller."""
    return RequestRejected(
        Code.MODEL_NOT_FOUND,
        f"The model '{model[:_SHOWN]}' does not exist or you do not have access to it.",
        param="model",
    )
