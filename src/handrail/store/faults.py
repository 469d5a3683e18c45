"""What an error of SQLite means: nothing for now, or nothing more until the next start.

After a failed fsync nobody knows what the disk holds: the kernel may have dropped the pages and
say "fine" the next time (the PostgreSQL project's fsync findings of 2018; SQLite's own documents
leave it to the application). So a store whose disk or file has failed is never written again by
this process; the next start reads what is really there.
"""

import sqlite3
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from handrail.errors import Code, StoreFailed


class Verdict(StrEnum):
    """What becomes of the store after an error."""

    GOES_ON = "goes on"
    BROKEN = "broken"


# By SQLite's name of the error, the extended one first. What stands here under neither name is a
# defect of a statement (a constraint, a type) and concerns only who gave it.
VERDICTS: Final[Mapping[str, Verdict]] = MappingProxyType(
    {
        # Passes: room comes back, a lock is given back, memory and descriptors are freed. SQLite
        # has undone the transaction, and nothing of it had been called durable.
        "SQLITE_FULL": Verdict.GOES_ON,
        "SQLITE_BUSY": Verdict.GOES_ON,
        "SQLITE_LOCKED": Verdict.GOES_ON,
        "SQLITE_PROTOCOL": Verdict.GOES_ON,
        "SQLITE_NOMEM": Verdict.GOES_ON,
        "SQLITE_CANTOPEN": Verdict.GOES_ON,
        "SQLITE_READONLY": Verdict.GOES_ON,
        "SQLITE_IOERR_NOMEM": Verdict.GOES_ON,
        "SQLITE_IOERR_SHMSIZE": Verdict.GOES_ON,  # a full disk, met while the log's index grows
        "SQLITE_IOERR_SHMOPEN": Verdict.GOES_ON,
        "SQLITE_IOERR_SHMMAP": Verdict.GOES_ON,
        "SQLITE_IOERR_LOCK": Verdict.GOES_ON,
        "SQLITE_IOERR_SHMLOCK": Verdict.GOES_ON,
        # The disk or the file has failed. IOERR stands for every other one of its family:
        # FSYNC, DIR_FSYNC, WRITE, READ, SHORT_READ, TRUNCATE, CORRUPTFS, DATA ...
        "SQLITE_IOERR": Verdict.BROKEN,
        "SQLITE_CORRUPT": Verdict.BROKEN,
        "SQLITE_NOTADB": Verdict.BROKEN,
        "SQLITE_READONLY_DBMOVED": Verdict.BROKEN,
    }
)


def name_of(error: sqlite3.Error | UnicodeDecodeError) -> str:
    """SQLite's name of an error; empty when it does not come from SQLite itself."""
    return getattr(error, "sqlite_errorname", None) or ""


def verdict(error: sqlite3.Error | UnicodeDecodeError) -> Verdict:
    """Whether the store may still be written after `error`."""
    return _known(error) or Verdict.GOES_ON


def concerns_all(error: sqlite3.Error) -> bool:
    """Whether another statement would have failed as well, so that trying each is of no use.

    Not a full disk: a smaller write may still find room.
    """
    return _known(error) is not None and not name_of(error).startswith("SQLITE_FULL")


def _known(error: sqlite3.Error | UnicodeDecodeError) -> Verdict | None:
    name = name_of(error)
    family = "_".join(name.split("_")[:2])
    return VERDICTS.get(name) or VERDICTS.get(family)


def store_failed(error: sqlite3.Error | UnicodeDecodeError) -> StoreFailed:
    """What an error of SQLite means to a caller.

    A UnicodeDecodeError is what Python's library makes of a text, or a message, that is damaged.
    """
    code, message = Code.STORE_UNAVAILABLE, "The gateway's run store cannot be used now."
    if name_of(error).startswith("SQLITE_FULL"):
        code = Code.STORAGE_FULL
        message = "The gateway's disk is full: nothing new can be kept now."
    return StoreFailed(
        code,
        message,
        detail=name_of(error) or type(error).__name__,
        final=verdict(error) is Verdict.BROKEN,
    )
