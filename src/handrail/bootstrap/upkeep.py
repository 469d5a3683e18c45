"""What `handrail db` does to a data directory; the work itself is in `store`."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from handrail.bootstrap.data_dir import DATABASE, LOCK, STORE_KEY, take_lock
from handrail.bootstrap.vault_keys import key_at
from handrail.errors import ConfigInvalid, StoreFailed
from handrail.settings.model import KeyPlace, Settings
from handrail.store.check import Check
from handrail.store.opening import cannot_open, connect_to_write
from handrail.store.rotation import fitting_key, rotate, settle
from handrail.store.upkeep import backup, vacuum
from handrail.store.vault import Vault, load_store_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The store of a data directory: its database and its key. Raises ConfigInvalid for none.

    `place` is where the key stands if not in the directory.
    """

    directory: Path
    place: KeyPlace | None = None

    def __post_init__(self) -> None:
        if not self.database.is_file():
            raise ConfigInvalid(f"{self.directory}: there is no run store ({DATABASE}).")

    @property
    def database(self) -> Path:
        """The file of the runs."""
        return self.directory / DATABASE

    @property
    def key_file(self) -> Path:
        """The file of the store key."""
        return self.directory / STORE_KEY

    @property
    def key_is_in(self) -> str:
        """Where the store key stands, for people."""
        return str(self.key_file) if self.place is None else self.place.place

    def check(self, *, quick: bool) -> Check:
        """A look at the store, also while a gateway runs."""
        try:
            given = None
            if self.place is not None:
                given = key_at(self.place, file=self.key_file, needed_by=self.database)
            key = fitting_key(self.key_file, database=self.database, given=given)
        except ConfigInvalid:  # not to be read at all: the check itself says so
            key = None
        return Check(self.database, key=key, quick=quick)

    def backup(self, target: Path) -> int:
        """See `store.upkeep.backup`."""
        return backup(self.database, target)

    def vacuum(self) -> tuple[int, int]:
        """See `store.upkeep.vacuum`."""
        with self._alone():
            return vacuum(self.database)

    def rotate_key(self) -> int:
        """Seal every run under a new store key; how many there are."""
        if self.place is not None:
            raise ConfigInvalid(
                f"{self.place.setting}: the store key stands in {self.place.place}, and only one "
                "in its file can be changed: put it there, change it, and put the new one back."
            )
        with self._alone():
            settle(self.key_file, database=self.database)
            vault = Vault(load_store_key(self.key_file, database=self.database))
            try:
                connection = connect_to_write(self.database, vault=vault)
                try:
                    return rotate(connection, key_file=self.key_file, vault=vault)
                finally:
                    connection.close()
            except StoreFailed as error:
                raise ConfigInvalid(
                    f"{self.database}: a run's key is damaged ({error.detail}); nothing has been "
                    "changed. `handrail db check` says which runs to delete."
                ) from None
            except (sqlite3.Error, OSError) as error:
                raise cannot_open(self.database, error) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            lock = take_lock(self.directory)
        except ConfigInvalid:
            raise ConfigInvalid(
                f"{self.directory}: a gateway is running on this store (it holds {LOCK}); stop it "
                "for this, and start it again afterwards."
            ) from None
        try:
            yield
        finally:
            lock.release()


def kept(settings: Settings) -> Kept:
    """The store that a gateway with these settings would use."""
    return Kept(directory=settings.data_dir, place=settings.vault.store)
