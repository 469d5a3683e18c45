"""What a gateway finds in its data directory, or makes there at its first start."""

import secrets
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from filelock import FileLock, Timeout

from handrail.errors import ConfigInvalid
from handrail.settings.load import DEFAULT_CALLER, key_digest
from handrail.settings.model import Settings
from handrail.store.files import read_private, replace_file

DATABASE: Final = "handrail.db"
LEDGER: Final = "ledger.db"
STORE_KEY: Final = "store.key"
CALLER_KEY: Final = "caller.key"
LOCK: Final = "gateway.lock"


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
    path = caller_key_file(settings)
    data = read_private(path)
    if data is None:
        data = f"hr_{secrets.token_urlsafe(32)}\n".encode()
        replace_file(path, data)
    key = data.decode("ascii", "replace").strip()
    if not key:
        raise ConfigInvalid(f"{path}: is empty; delete it to have a new key made.")
    filled = {**settings.callers, DEFAULT_CALLER: replace(caller, digest=key_digest(key))}
    return replace(settings, callers=MappingProxyType(filled))


def take_lock(data_dir: Path) -> FileLock:
    """The lock that says whose data directory it is; free again when the process dies.

    Raises ConfigInvalid when another gateway holds it.
    """
    lock = FileLock(data_dir / LOCK, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigInvalid(
            f"{data_dir}: another gateway is using this data directory; stop it, or give this "
            "one its own --data-dir."
        ) from None
    except OSError as error:
        raise ConfigInvalid(f"{data_dir}: cannot be used: {error.strerror}.") from None
    return lock
