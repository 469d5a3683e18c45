"""The keys of callers for a command line, also while a gateway runs on the same directory."""

from collections.abc import Iterator
from contextlib import contextmanager

from handrail.bootstrap.data_dir import new_key, new_key_id, open_shared
from handrail.engine.caller_keys import CallerKeys
from handrail.engine.clock import Clock, SystemClock
from handrail.settings.model import Settings
from handrail.store.callers import SqliteKeys
from handrail.store.files import private_directory
from handrail.store.shared import SharedFile


def caller_keys(file: SharedFile, *, clock: Clock) -> CallerKeys:
    """The keys that are kept in an open file."""
    return CallerKeys(SqliteKeys(file), clock=clock, new_secret=new_key, new_id=new_key_id)


@contextmanager
def opened(settings: Settings) -> Iterator[CallerKeys]:
    """The keys of a data directory, which is made if missing. Raises ConfigInvalid."""
    private_directory(settings.data_dir)
    file = open_shared(settings.data_dir)
    try:
        yield caller_keys(file, clock=SystemClock())
    finally:
        file.close()
