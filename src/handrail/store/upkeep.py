"""What an operator does with a store besides running it: copy it and make it small."""

import os
import secrets
import sqlite3
from pathlib import Path

from handrail.errors import ConfigInvalid
from handrail.store.files import flush_directory
from handrail.store.opening import cannot_open, connect, connect_to_read


def backup(database: Path, target: Path) -> int:
    """Copy a store, as it is at one moment, into a new file of mode 0600; its size in bytes.

    Works while a gateway writes. The copy appears under its name when it is whole. Raises
    ConfigInvalid when `target` exists or either file cannot be used.
    """
    beside = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise ConfigInvalid(f"{target}: cannot be written: {error.strerror}.") from None
    try:
        _copy(database, beside)
        os.link(beside, target)  # unlike a rename, it takes nobody's place
    except FileExistsError:
        raise ConfigInvalid(f"{target}: exists; name a new file.") from None
    except sqlite3.Error as error:
        raise ConfigInvalid(f"{database}: could not be copied: {error}.") from None
    except OSError as error:
        raise ConfigInvalid(f"{target}: cannot be written: {error.strerror}.") from None
    finally:
        beside.unlink(missing_ok=True)
    flush_directory(target.parent)
    return target.stat().st_size


def _copy(database: Path, target: Path) -> None:
    source = connect_to_read(database)
    try:
        copy = sqlite3.connect(target)
        try:
            copy.execute("pragma synchronous = full")
            source.backup(copy)  # in one step: one moment, and nothing starts over
            copy.execute("pragma journal_mode = delete")  # all of it in the one file
        finally:
            copy.close()
    finally:
        source.close()


def vacuum(database: Path) -> tuple[int, int]:
    """Write the file anew without its free pages; bytes before and after, the log included.

    Only for who has the directory's lock. Raises ConfigInvalid when it cannot be done; the file is
    then as it was.
    """
    before = _size(database)
    try:
        connection = connect(database)
        try:
            connection.execute("pragma temp_store = file")  # as large as the database
            connection.execute("vacuum")
            connection.execute("pragma wal_checkpoint(truncate)")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise cannot_open(database, error) from None
    return before, _size(database)


def _size(database: Path) -> int:
    files = (database, database.with_name(database.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
