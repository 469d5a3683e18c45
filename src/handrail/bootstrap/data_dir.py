"""What a gateway finds in its data directory, or makes there at its first start."""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from filelock import FileLock, Timeout

from handrail.core.caller_keys import key_digest
from handrail.errors import ConfigInvalid
from handrail.settings.load import ACCOUNTS_FILE, DEFAULT_CALLER
from handrail.settings.model import Settings
from handrail.store.files import read_private, replace_file
from handrail.store.migrate import ACCOUNTS
from handrail.store.shared import SharedFile

DATABASE: Final = "handrail.db"
LEDGER: Final = "ledger.db"
STORE_KEY: Final = "store.key"
CALLER_KEY: Final = "caller.key"
ADMIN_KEY: Final = "admin.key"
LOCK: Final = "gateway.lock"
ADDRESS: Final = "gateway.url"

_LOOK_SECONDS: Final = 0.5
"""How long a start waits for the lock: a command line that looks at it has it for a moment."""


def caller_key_file(settings: Settings) -> Path:
    """Where the generated caller key is, or will be."""
    return settings.data_dir / CALLER_KEY


def with_caller_key(settings: Settings) -> Settings:
    """The settings with the generated key of the default caller filled in, made if missing.

    Raises ConfigInvalid when the key file is not private or is empty.
    """
    caller = settings.callers.get(DEFAULT_CALLER)
    if caller is None or caller.digest is not None:
        return settings
    digest = _digest_of(caller_key_file(settings), new_key)
    filled = {**settings.callers, DEFAULT_CALLER: replace(caller, digest=digest)}
    return replace(settings, callers=MappingProxyType(filled))


def new_key() -> str:
    """A key of a caller: 256 random bits that nobody can guess."""
    return f"hr_{secrets.token_urlsafe(32)}"


def new_key_id() -> str:
    """The public name of such a key."""
    return f"key_{secrets.token_hex(8)}"


def admin_key_file(settings: Settings) -> Path:
    """Where the key of the admin API is, or will be."""
    return settings.data_dir / ADMIN_KEY


def admin_key_digest(settings: Settings) -> bytes:
    """The digest of the admin key, which is made if missing.

    Raises ConfigInvalid when its file is not private or is empty, and when a caller has the same
    key: who may call must not be able to administer.
    """
    path = admin_key_file(settings)
    digest = _digest_of(path, lambda: f"hr_admin_{secrets.token_urlsafe(32)}")
    for name, caller in settings.callers.items():
        if caller.digest is not None and hmac.compare_digest(caller.digest, digest):
            raise ConfigInvalid(f"{path}: is also the key of the caller '{name}'; give it another.")
    return digest


def _digest_of(path: Path, new: Callable[[], str]) -> bytes:
    data = read_private(path)
    if data is None:
        data = f"{new()}\n".encode()
        replace_file(path, data)
    key = data.decode("ascii", "replace").strip()
    if not key:
        raise ConfigInvalid(f"{path}: is empty; delete it to have a new key made.")
    return key_digest(key)


def open_shared(data_dir: Path) -> SharedFile:
    """The file of what several processes change, open. Raises ConfigInvalid."""
    file = SharedFile(data_dir / ACCOUNTS_FILE, schema=ACCOUNTS)
    file.open()
    return file


def take_lock(data_dir: Path) -> FileLock:
    """The lock that says whose data directory it is; free again when the process dies.

    Raises ConfigInvalid when another gateway holds it.
    """
    lock = FileLock(data_dir / LOCK, mode=0o600)
    try:
        lock.acquire(timeout=_LOOK_SECONDS)
        # Of a gateway before: what listens there now must not be told the admin key.
        (data_dir / ADDRESS).unlink(missing_ok=True)
    except Timeout:
        raise ConfigInvalid(
            f"{data_dir}: another gateway is using this data directory; stop it, or give this "
            "one its own --data-dir."
        ) from None
    except OSError as error:
        raise ConfigInvalid(f"{data_dir}: cannot be used: {error.strerror}.") from None
    return lock


def note_address(data_dir: Path, url: str) -> None:
    """Let command lines find the gateway that has the lock, at its base URL `url`."""
    replace_file(data_dir / ADDRESS, f"{url}\n".encode())


def is_held(data_dir: Path) -> bool | None:
    """Whether a gateway, or what wants to be alone, has the lock; None when nobody can tell."""
    path = data_dir / LOCK
    if not path.exists():
        return False
    lock = FileLock(path, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return None
    lock.release()
    return False
