"""Ids that cannot be guessed, from random bytes that are fetched many at once.

A call of the operating system for each id costs more than most of what else a small request does.
"""

import os
import threading
from typing import Final

_FETCHED: Final = 8_192


class RandomHex:
    """Random digits; none is given out twice, also not by a process that was forked."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0
        self._mutex = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._bytes, self._at = b"", 0
        self._mutex = threading.Lock()

    def digits(self, size: int) -> str:
        """So many random bytes (at most 8,192), as hexadecimal digits."""
        with self._mutex:
            if len(self._bytes) - self._at < size:
                self._bytes, self._at = os.urandom(_FETCHED), 0
            start, self._at = self._at, self._at + size
            return self._bytes[start : self._at].hex()


_RANDOM: Final = RandomHex()


def new_response_id() -> str:
    """An id that cannot be guessed: 192 random bits."""
    return f"resp_{_RANDOM.digits(24)}"


def new_request_id() -> str:
    """What an operator finds in the log and a caller in `x-request-id`."""
    return f"req_{_RANDOM.digits(16)}"


def new_row_id() -> str:
    """An id of a row of the ledger."""
    return _RANDOM.digits(12)
