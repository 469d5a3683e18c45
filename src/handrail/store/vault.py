"""Keeps what is stored unreadable to whoever gets a copy of the database.

Every run has a random data key, sealed by the store key; what the run holds is AES-256-GCM under
the data key with its place as associated data, so that nothing can be moved or swapped. Destroying
the sealed key destroys the run. It protects copies, not a stolen disk that also holds the store
key: THREAT_MODEL.md says so.
"""

import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from handrail.errors import Code, ConfigInvalid, StoreFailed
from handrail.store.files import read_private, replace_file

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Sealer:
    """Seals and opens under one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, place: str, plain: bytes) -> bytes:
        """`plain`, encrypted for `place` only."""
        # 96 random bits a message: a run writes far fewer than the 2**32 that NIST SP 800-38D
        # allows under one key.
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, place.encode())

    def open(self, place: str, sealed: bytes) -> bytes:
        """What was sealed for `place`. Raises StoreFailed when it was not, or has changed."""
        try:
            return self._cipher.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode()
            )
        except (InvalidTag, ValueError):
            raise StoreFailed(
                Code.STORE_UNAVAILABLE, "A stored value is damaged or was moved.", detail=place
            ) from None


class Vault:
    """Makes and opens the data keys of runs.

    Marks are made under a key of their own that the store keeps wrapped, so that they outlive a
    change of the store key. Until `open_mark_key` or `new_mark_key` it is the one that stores
    without a kept mark key have used: derived from the store key.
    """

    def __init__(self, store_key: bytes) -> None:
        self._sealer = Sealer(store_key)
        self._mark = hmac.digest(store_key, b"handrail/mark", "sha256")

    def new_mark_key(self) -> None:
        """Make marks under a fresh key from now on: for a store that has none yet."""
        self._mark = secrets.token_bytes(KEY_BYTES)

    def wrapped_mark_key(self) -> bytes:
        """The key of the marks, sealed to be kept."""
        return self._sealer.seal("mark", self._mark)

    def open_mark_key(self, wrapped: bytes) -> None:
        """Make marks under a kept key. Raises StoreFailed when it does not open."""
        self._mark = self._sealer.open("mark", wrapped)

    def rewrap(self, run_id: str, wrapped: bytes, *, under: "Vault") -> bytes:
        """The data key of a run, sealed by another store key. Raises StoreFailed like `unwrap`."""
        place = f"{run_id}/key"
        return under._sealer.seal(place, self._sealer.open(place, wrapped))

    def share_mark_key(self, other: "Vault") -> None:
        """Let `other` make the same marks."""
        other._mark = self._mark

    def new_key(self, run_id: str) -> tuple[Sealer, bytes]:
        """A fresh data key for a run: ready to use, and sealed to be kept."""
        key = secrets.token_bytes(KEY_BYTES)
        return Sealer(key), self._sealer.seal(f"{run_id}/key", key)

    def unwrap(self, run_id: str, wrapped: bytes) -> Sealer:
        """The data key of a run. Raises StoreFailed when it was destroyed or is another's."""
        return Sealer(self._sealer.open(f"{run_id}/key", wrapped))

    def mark(self, value: bytes) -> bytes:
        """A digest that only this store gives: equal values can be found, not guessed."""
        return hmac.digest(self._mark, value, "sha256")

    def prove(self) -> bytes:
        """A value that only the same store key can open."""
        return self._sealer.seal("proof", b"handrail")

    def fits(self, proof: bytes) -> bool:
        """Whether `proof` was made with this store key."""
        try:
            return self._sealer.open("proof", proof) == b"handrail"
        except StoreFailed:
            return False


def load_store_key(path: Path, *, database: Path) -> bytes:
    """The store key in `path`, made at the first start.

    Raises ConfigInvalid when the file is not private or not a key, and when it is missing although
    the database exists: making a new one would make everything kept unreadable for good.
    """
    key = read_private(path)
    if key is None:
        if os.path.lexists(database):
            raise ConfigInvalid(
                f"{path}: the store key is missing but {database.name} exists; restore the key "
                "file, or move the database away to start empty."
            )
        key = secrets.token_bytes(KEY_BYTES)
        replace_file(path, key)
    if len(key) != KEY_BYTES:
        raise ConfigInvalid(f"{path}: is not a store key of {KEY_BYTES} bytes.")
    return key
