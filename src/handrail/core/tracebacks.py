"""Tracebacks that may be logged: where an exception came from, without what it quotes."""

import traceback
from collections.abc import Iterator
from typing import Final

from handrail.core.redact import scrub

# Errors whose words are about code or machine. Those of others may quote what was being worked on:
# a KeyError its key, a ValueError the text that it could not read.
_TELLING: Final = (
    AssertionError,
    AttributeError,
    ImportError,
    MemoryError,
    NameError,
    NotImplementedError,
    RecursionError,
    RuntimeWarning,
    TypeError,
)


def told(error: BaseException) -> str:
    """A traceback for the log: each exception's class and where it came from, its causes first.

    What it says is shown only where that cannot be a prompt, an output or a key.
    """
    return "\n".join(_lines(error, seen=set()))


def _lines(error: BaseException, *, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _lines(before, seen=seen)
        yield "which led to" if error.__cause__ is not None else "during which came"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}'
    yield f"{type(error).__module__}.{type(error).__qualname__}{_words(error)}"
    for inner in getattr(error, "exceptions", ()):  # those of a group
        if id(inner) not in seen:
            yield from _lines(inner, seen=seen)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f": {error.strerror}" if error.strerror else ""
    return f": {scrub(str(error))}" if isinstance(error, _TELLING) else ""
