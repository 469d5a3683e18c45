"""Numbered SQL files, each applied once, in order; a store from the future is refused."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from handrail.errors import ConfigInvalid
from handrail.store.queries import load

APPLICATION_ID: Final = 0x48524C31  # "HRL1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What one kind of file is made of: the mark in its head, and a folder below `sql`."""

    application_id: int
    folder: str = ""

    def migrations(self) -> list[str]:
        """The names of the migration files, oldest first, as `queries.load` takes them."""
        place = files("handrail.store").joinpath("sql", self.folder)
        names = sorted(entry.name for entry in place.iterdir() if entry.name[:4].isdigit())
        return [f"{self.folder}/{name}" if self.folder else name for name in names]


RUNS: Final = Schema(application_id=APPLICATION_ID)
ACCOUNTS: Final = Schema(application_id=0x48524C32, folder="accounts")  # "HRL2"
LEDGER: Final = Schema(application_id=0x48525531, folder="ledger")  # "HRU1"


def migrations() -> list[str]:
    """The names of the migration files of the run store, oldest first."""
    return RUNS.migrations()


def statements(text: str) -> Iterator[str]:
    """The statements of a file, one after another; a trigger with all that is in it is one."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def migrate(connection: sqlite3.Connection, *, path: str, schema: Schema = RUNS) -> None:
    """Bring the file to this version of its schema, all or nothing.

    Raises ConfigInvalid for a file that is another program's, or that a newer Handrail wrote: an
    older program must not guess at what it does not know.
    """
    connection.execute("begin immediate")
    try:
        have = _scalar(connection, "pragma user_version")
        owner = _scalar(connection, "pragma application_id")
        names = schema.migrations()
        tables = _scalar(connection, "select count(*) from sqlite_schema")
        if owner not in (0, schema.application_id) or (owner == 0 and tables):
            raise ConfigInvalid(f"{path}: is a database, but not one of Handrail's.")
        if have > len(names):
            raise ConfigInvalid(
                f"{path}: was written by a newer Handrail (schema {have}, this one knows "
                f"{len(names)}); upgrade Handrail, or restore a backup from before."
            )
        for number, name in enumerate(names[have:], start=have + 1):
            for statement in statements(load(name)):
                connection.execute(statement)
            connection.execute(f"pragma user_version = {number}")
        connection.execute(f"pragma application_id = {schema.application_id}")
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def _scalar(connection: sqlite3.Connection, statement: str) -> int:
    return int(connection.execute(statement).fetchone()[0])
