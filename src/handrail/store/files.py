"""Files that must be whole and private: written beside, flushed, and moved into place."""

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from handrail.errors import ConfigInvalid

# What a virus scanner or an indexer holding the file makes a rename fail with, mostly on Windows;
# it passes within moments (the reference's users hit this, libuv retries the same two).
_BUSY: Final = frozenset({errno.EBUSY, errno.EPERM, errno.EACCES})
_ATTEMPTS: Final = 8
_FIRST_PAUSE: Final = 0.01


def replace_file(
    path: Path,
    data: bytes,
    *,
    move: Callable[[Path, Path], None] = os.replace,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Make `path` hold exactly `data`, mode 0600: afterwards it is the old file or the new one.

    The move is tried up to 8 times over about 2.5 s when it fails with EBUSY, EPERM or EACCES.
    Raises OSError when it still fails; the old file is then untouched.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        _write_new(beside, data)
        _move(beside, path, move=move, pause=pause)
        flush_directory(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes) -> None:
    # O_EXCL and O_NOFOLLOW: a planted link can neither redirect nor pre-open what we write.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move(
    source: Path,
    target: Path,
    *,
    move: Callable[[Path, Path], None],
    pause: Callable[[float], None],
) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            return move(source, target)
        except OSError as error:
            if error.errno not in _BUSY or attempt == _ATTEMPTS - 1:
                raise
            pause(_FIRST_PAUSE * 2**attempt)


def flush_directory(path: Path) -> None:
    """Make durable which names the files in `path` have."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_private(path: Path) -> bytes | None:
    """The content of a file that only its owner may read; None when there is none.

    Raises ConfigInvalid for a link, anything but a regular file, and permissions wider than 0600.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigInvalid(f"{path}: cannot be read: {error.strerror}.") from None
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise ConfigInvalid(f"{path}: is not a regular file.")
        if state.st_mode & 0o077:
            raise ConfigInvalid(
                f"{path}: others can read it (mode {stat.S_IMODE(state.st_mode):04o}); "
                "make it 0600."
            )
        return file.read(65_536)


def private_directory(path: Path) -> None:
    """Make `path` a directory of mode 0700 unless it exists. Raises ConfigInvalid if it cannot."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigInvalid(f"{path}: cannot be made: {error.strerror}.") from None
