"""Locks that end with their process: whoever finds one free knows that its holder is gone.

A lease in a file outlives a process that was killed, and everybody would wait for its end. The
kernel takes a lock back at once.
"""

import contextlib
import threading
from pathlib import Path

from filelock import FileLock, Timeout


class ProcessLocks:
    """Locks by name, as files beside `path`. For any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[str, tuple[str, int, FileLock]] = {}
        self._mutex = threading.Lock()

    def _file(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.stem}.{name}.lock")

    def take(self, name: str, *, owner: str, version: int) -> bool:
        """Whether it is this owner's for this version: it was before, or was free.

        Raises OSError when nobody can tell.
        """
        with self._mutex:
            if name in self._held:
                return self._held[name][:2] == (owner, version)
            # Taken and given back by different threads.
            lock = FileLock(self._file(name), mode=0o600, thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout:  # an OSError too, but one that says who has it
                return False
            self._held[name] = (owner, version, lock)
            return True

    def give_back(self, name: str, *, owner: str | None = None, version: int | None = None) -> None:
        """Somebody else may have it; not if it is another owner's, or held for another version."""
        with self._mutex:
            held = self._held.get(name)
            if held is None or owner not in (None, held[0]) or version not in (None, held[1]):
                return
            del self._held[name]
            held[2].release()

    def forget(self, name: str) -> None:
        """There will be no more need for it."""
        self.give_back(name)
        with contextlib.suppress(OSError):
            self._file(name).unlink()

    def close(self) -> None:
        """Give everything back."""
        for name in list(self._held):
            self.give_back(name)
