"""Logs: one JSON object a line on stderr, redacted before it is written.

What may be logged is ids, names of settings, callers and decisions, counts and durations; never a
prompt, an output, a key or an e-mail address. Whatever looks like a secret all the same is masked
here, and JSON escapes every control character, so that no log line can be forged.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from handrail.core.redact import redacted
from handrail.core.tracebacks import told

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_QUIET: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "aiohttp")

Logger = structlog.typing.FilteringBoundLogger


def get_logger() -> Logger:
    """The logger. `configure` decides where its lines go; call that first.

    Bound at once: structlog's lazy proxy would build a logger for every line, written or not.
    """
    logger: Logger = structlog.get_logger().bind()
    return logger


def redact(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> Any:
    """Mask every value whose name says secret, and every text that looks like one, at any depth."""
    for name, value in entry.items():
        entry[name] = redacted(name, value)
    return entry


def _traceback_in_place(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> Any:
    """Put the traceback of `exc_info`, if there is one, into `exception`."""
    given = entry.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exc_info()[1] if given is True else given
    if isinstance(error, BaseException):
        entry["exception"] = told(error)
    return entry


def configure(level: str, *, stream: TextIO | None = None) -> None:
    """Send our own lines, and warnings of the libraries below, to `stream` (stderr)."""
    out = stream or sys.stderr
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _traceback_in_place,
        redact,
        structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _traceback_in_place,
                redact,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
