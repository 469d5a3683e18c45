"""Opening the file: as a reader beside the gateway, and as the one who writes."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from handrail.errors import ConfigInvalid, StoreFailed
from handrail.store.faults import name_of
from handrail.store.migrate import migrate
from handrail.store.rows import SQL
from handrail.store.vault import Vault

BUSY_SECONDS: Final = 5.0
"""How long a statement waits for another process's lock before it fails."""

# Up to this size a start reads the whole file for damage: a quarter of a second at most. A larger
# one would keep callers waiting; `handrail db check` reads it when the operator wants it.
CHECKED_BYTES: Final = 64 << 20
_DAMAGE: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


def connect(
    path: Path, *, seconds: float = BUSY_SECONDS, any_thread: bool = False
) -> sqlite3.Connection:
    """A connection in autocommit mode that waits `seconds` for other processes' locks.

    With `any_thread` it may be used by one thread after another.
    """
    return _prepared(
        sqlite3.connect(
            path, isolation_level=None, timeout=seconds, check_same_thread=not any_thread
        )
    )


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, not even the log when it is closed; for any thread."""
    return _prepared(
        sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            timeout=BUSY_SECONDS,
            check_same_thread=False,
        )
    )


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.row_factory = sqlite3.Row
    connection.execute("pragma foreign_keys = on")
    # Scratch space in memory: no sealed byte in a file elsewhere, no descriptor when there is none.
    connection.execute("pragma temp_store = memory")
    return connection


def make_private(path: Path) -> None:
    """Make the file of a database, if there is none, for its owner alone. Raises OSError."""
    # SQLite gives its log and shared memory the mode of the database itself.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))


def connect_to_write(path: Path, *, vault: Vault) -> sqlite3.Connection:
    """Create or upgrade the file and open it for writing.

    Raises ConfigInvalid when it is not ours, from a newer version, damaged, or sealed under another
    store key; sqlite3.Error and OSError when it cannot be opened at all.
    """
    make_private(path)
    connection = connect(path)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma secure_delete = on")
        migrate(connection, path=str(path))
        _settle_keys(connection, vault, path=path)
        _refuse_damage(connection, path)
        # What a process that died had deleted may still stand in the log.
        connection.execute("pragma wal_checkpoint(truncate)")
    except UnicodeDecodeError:  # what the library makes of a message that quotes a damaged schema
        connection.close()
        raise ConfigInvalid(damaged(path)) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _settle_keys(connection: sqlite3.Connection, vault: Vault, *, path: Path) -> None:
    connection.execute("begin immediate")
    try:
        proof = kept(connection, "store_key")
        if proof is not None and not vault.fits(proof):
            raise ConfigInvalid(
                f"{path}: was written under another store key than the one in this data "
                "directory; put the right key file back."
            )
        if proof is None:
            vault.new_mark_key()
            connection.execute(SQL["put_meta"], {"name": "store_key", "value": vault.prove()})
        mark_key = kept(connection, "mark_key")
        if mark_key is None:
            values = {"name": "mark_key", "value": vault.wrapped_mark_key()}
            connection.execute(SQL["put_meta"], values)
        else:
            vault.open_mark_key(mark_key)
    except StoreFailed:
        connection.execute("rollback")
        raise ConfigInvalid(damaged(path)) from None
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def kept(connection: sqlite3.Connection, name: str) -> bytes | None:
    """A value about the store itself."""
    row = connection.execute(SQL["get_meta"], {"name": name}).fetchone()
    return None if row is None else bytes(row["value"])


def _refuse_damage(connection: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size > CHECKED_BYTES:
        return
    found = connection.execute("pragma integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise ConfigInvalid(damaged(path))


def damaged(path: Path, *, why: str = "is damaged") -> str:
    """What an operator reads about a file that cannot be trusted, in one line."""
    return (
        f"{path}: {why}. `handrail db check` says what is wrong; to go on, put a backup back, or "
        f"move {path.name} and {path.name}-wal away to start empty."
    )


def cannot_open(path: Path, error: sqlite3.Error | OSError) -> ConfigInvalid:
    """Why the file cannot be opened; for a damaged one with the ways out."""
    why = f"cannot be opened as a run store: {error}"
    if isinstance(error, sqlite3.Error) and name_of(error).startswith(_DAMAGE):
        return ConfigInvalid(damaged(path, why=why))
    return ConfigInvalid(f"{path}: {why}.")
