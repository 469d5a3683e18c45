"""The data keys of runs, unwrapped: the latest ones stay in memory, so a run's is unsealed once."""

import sqlite3
import threading
from collections import OrderedDict
from typing import Final

from handrail.store.rows import SQL
from handrail.store.vault import Sealer, Vault

_KEYS: Final = 1_024


class DataKeys:
    """Safe to use from the writing and the reading threads at once."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self._keys: OrderedDict[str, Sealer] = OrderedDict()
        self._lock = threading.Lock()

    def new(self, run_id: str) -> tuple[Sealer, bytes]:
        """A fresh key for a run: ready to use, and wrapped to be kept."""
        sealer, wrapped = self.vault.new_key(run_id)
        self._remember(run_id, sealer)
        return sealer, wrapped

    def of(self, connection: sqlite3.Connection, run_id: str) -> Sealer:
        """The key of a kept run. Raises StoreFailed when it was destroyed."""
        with self._lock:
            known = self._keys.get(run_id)
            if known is not None:
                self._keys.move_to_end(run_id)
                return known
        row = connection.execute(SQL["run_key"], {"id": run_id}).fetchone()
        sealer = self.vault.unwrap(run_id, row["wrapped_key"])
        self._remember(run_id, sealer)
        return sealer

    def forget(self, run_id: str) -> None:
        """The run is gone."""
        with self._lock:
            self._keys.pop(run_id, None)

    def _remember(self, run_id: str, sealer: Sealer) -> None:
        with self._lock:
            self._keys[run_id] = sealer
            while len(self._keys) > _KEYS:
                self._keys.popitem(last=False)
