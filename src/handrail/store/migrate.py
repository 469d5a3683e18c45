"""Numbered SQL files, each applied once, in order; a store from the future is refused."""

import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from typing import Final

from handrail.errors import ConfigInvalid
from handrail.store.queries import load

APPLICATION_ID: Final = 0x48524C31  # "HRL1"


def migrations(folder: str = "") -> list[str]:
    """The names of the migration files in a folder below `sql`, oldest first."""
    place = files("handrail.store").joinpath("sql", folder)
    return sorted(entry.name for entry in place.iterdir() if entry.name[:4].isdigit())


def statements(text: str) -> Iterator[str]:
    """The statements of a file, one after another; a trigger with all that is in it is one."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def migrate(
    connection: sqlite3.Connection,
    *,
    path: str,
    folder: str = "",
    application_id: int = APPLICATION_ID,
) -> None:
    """Bring the schema to this version, all or nothing, by the files in a folder below `sql`.

    `application_id` tells one kind of file from another. Raises ConfigInvalid for a file that is
    another program's, or that a newer Handrail wrote: an older program must not guess at what it
    does not know.
    """
    connection.execute("begin immediate")
    try:
        have = _scalar(connection, "pragma user_version")
        owner = _scalar(connection, "pragma application_id")
        names = migrations(folder)
        tables = _scalar(connection, "select count(*) from sqlite_schema")
        if owner not in (0, application_id) or (owner == 0 and tables):
            raise ConfigInvalid(f"{path}: is a database, but not one of Handrail's.")
        if have > len(names):
            raise ConfigInvalid(
                f"{path}: was written by a newer Handrail (schema {have}, this one knows "
                f"{len(names)}); upgrade Handrail, or restore a backup from before."
            )
        for number, name in enumerate(names[have:], start=have + 1):
            for statement in statements(load(f"{folder}/{name}" if folder else name)):
                connection.execute(statement)
            connection.execute(f"pragma user_version = {number}")
        connection.execute(f"pragma application_id = {application_id}")
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def _statements(text: str) -> Iterator[str]:
    held = ""
    for line in text.splitlines(keepends=True):
        held += line
        if sqlite3.complete_statement(held):  # which knows where a trigger ends
            yield held
            held = ""


def _scalar(connection: sqlite3.Connection, statement: str) -> int:
    return int(connection.execute(statement).fetchone()[0])
