"""A new store key, without a moment at which a crash could lose the old and the new one.

The new key is written beside the old file; one transaction seals every data key under it; then it
takes the old one's place. Whatever step a crash comes after, the database fits one of the two
files, and `settle` finds out which.
"""

import os
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from handrail.store.files import flush_directory, read_private, replace_file
from handrail.store.opening import cannot_open, connect_to_read, kept
from handrail.store.rows import SQL
from handrail.store.vault import KEY_BYTES, Vault

_BATCH: Final = 1_000

STEPS: Final = ("written", "half wrapped", "wrapped", "committed", "moved", "scrubbed")
"""What `rotate` reports, in this order."""


def pending_file(key_file: Path) -> Path:
    """Where the new key waits until the database fits it."""
    return key_file.with_name(key_file.name + ".next")


def rotate(
    connection: sqlite3.Connection,
    *,
    key_file: Path,
    vault: Vault,
    reached: Callable[[str], None] = lambda step: None,
) -> int:
    """Seal everything under a new store key and put that in `key_file`; how many runs there are.

    `connection` is the only one that writes, `vault` has the present key. `reached` is told each of
    STEPS. Raises StoreFailed when a data key does not open: nothing has changed then.
    """
    key = secrets.token_bytes(KEY_BYTES)
    pending = pending_file(key_file)
    replace_file(pending, key)
    reached("written")
    connection.execute("begin immediate")
    try:
        runs = _rewrap(connection, old=vault, new=Vault(key), reached=reached)
    except BaseException:
        connection.execute("rollback")
        pending.unlink()
        raise
    connection.execute("commit")
    reached("committed")
    _take_place(pending, key_file)
    reached("moved")
    # The keys as the old store key had sealed them still stand in the log.
    connection.execute("pragma wal_checkpoint(truncate)")
    reached("scrubbed")
    return runs


def _rewrap(
    connection: sqlite3.Connection, *, old: Vault, new: Vault, reached: Callable[[str], None]
) -> int:
    last, runs = 0, 0
    while rows := connection.execute(
        SQL["wrapped_keys"], {"after": last, "limit": _BATCH}
    ).fetchall():
        values = [
            {"ord": row["ord"], "key": old.rewrap(row["id"], row["wrapped_key"], under=new)}
            for row in rows
        ]
        connection.executemany(SQL["replace_key"], values)
        if not runs:
            reached("half wrapped")
        last, runs = rows[-1]["ord"], runs + len(rows)
    old.share_mark_key(new)
    for name, value in (("mark_key", new.wrapped_mark_key()), ("store_key", new.prove())):
        connection.execute(SQL["replace_meta"], {"name": name, "value": value})
    reached("wrapped")
    return runs


def settle(key_file: Path, *, database: Path) -> None:
    """Finish or forget a rotation that was interrupted. Only for who has the directory's lock.

    Raises ConfigInvalid when the database cannot be read.
    """
    pending = pending_file(key_file)
    new = read_private(pending)
    if new is None:
        return
    proof = _proof(database)
    if _fits(new, proof):
        _take_place(pending, key_file)
    elif proof is None or _fits(read_private(key_file) or b"", proof):
        pending.unlink()


def fitting_key(key_file: Path, *, database: Path, given: bytes | None = None) -> bytes | None:
    """The key that the database fits, of the key file and of one that waits; None for neither.

    Where the key stands elsewhere, it is `given`, and the only one that is tried.
    """
    proof = _proof(database)
    files = (read_private(path) for path in (key_file, pending_file(key_file)))
    keys = files if given is None else iter([given])
    return next((key for key in keys if key is not None and _fits(key, proof)), None)


def _fits(key: bytes, proof: bytes | None) -> bool:
    return proof is not None and len(key) == KEY_BYTES and Vault(key).fits(proof)


def _proof(database: Path) -> bytes | None:
    if not database.exists():
        return None
    try:
        connection = connect_to_read(database)
        try:
            return kept(connection, "store_key")
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise cannot_open(database, error) from None
    except sqlite3.Error as error:
        raise cannot_open(database, error) from None


def _take_place(pending: Path, key_file: Path) -> None:
    os.replace(pending, key_file)
    flush_directory(key_file.parent)
