"""A backend of the library keyring that needs no desktop: secrets in the JSON file KEYRING_FILE.

Chosen as any backend is: `PYTHON_KEYRING_BACKEND=tests.keyring_file.FileKeyring`. A file that says
`"locked"` is a keyring that nobody unlocks.
"""

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

NAME = f"{__name__}.FileKeyring"


class FileKeyring(KeyringBackend):
    """See above."""

    priority = 1.0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def _file(self) -> Path:
        return Path(os.environ["KEYRING_FILE"])

    def _secrets(self) -> dict[str, str]:
        if not self._file.exists():
            return {}
        said = json.loads(self._file.read_text())
        if said == "locked":
            raise KeyringLocked("of the canary")
        secrets: dict[str, str] = said
        return secrets

    def get_password(self, service: str, username: str) -> str | None:
        """See the library."""
        return self._secrets().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        """See the library."""
        kept = {**self._secrets(), f"{service}/{username}": password}
        self._file.write_text(json.dumps(kept))
