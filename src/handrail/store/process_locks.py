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
        self._held: dict[str, tuple[str, FileLock]] = {}
        self._mutex = threading.Lock()

    def _file(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.stem}.{name}.lock")

    def take(self, name: str, *, owner: str) -> bool:
        """Whether it is `owner`'s: it was before, or was free."""
        with self._mutex:
            if name in self._held:
                return self._held[name][0] == owner
            lock = FileLock(self._file(name), mode=0o600)
            try:
                lock.acquire(timeout=0)
            except (Timeout, OSError):
                return False
            self._held[name] = (owner, lock)
            return True

    def give_back(self, name: str) -> None:
        """Somebody else may have it."""
        with self._mutex:
            held = self._held.pop(name, None)
        if held is not None:
            held[1].release()

    def forget(self, name: str) -> None:
        """There will be no more need for it."""
        self.give_back(name)
        with contextlib.suppress(OSError):
            self._file(name).unlink()

    def close(self) -> None:
        """Give everything back."""
        for name in list(self._held):
            self.give_back(name)
