"""Room kept aside on the disk, so that the ends of runs can be written when there is no other."""

import os
from pathlib import Path


class Reserve:
    """A file that is only there to be deleted: room for the ends of runs on a full disk."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._held = False

    def hold(self) -> None:
        """Take the room unless it is held. Called at the start and before every write.

        Once it has been given up it is taken again only where there is plenty: whoever has just
        made a little room on the disk wants it for other things.
        """
        if self._held:
            return
        try:
            if not self._path.exists():
                if _free_bytes(self._path.parent) < 2 * self._size:
                    return
                with self._path.open("wb") as file:
                    for _ in range(self._size // 65_536):
                        file.write(bytes(65_536))
            self._held = True
        except OSError:
            self._path.unlink(missing_ok=True)

    def give_up(self) -> bool:
        """Free the room. False when there was none left to free."""
        self._held = False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


def _free_bytes(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize
