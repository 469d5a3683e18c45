"""Disk quotas: what is kept is counted by the database itself, exactly; here it is judged.

Nothing is thrown out early to make room, because its retention was promised. What is refused is
the new: a create before anything of it is kept, and the next events of a run under way, which then
ends. The end of a run may always be written, also beyond a quota.
"""

import sqlite3
from collections.abc import Callable
from typing import Final

from handrail.core.quota import Exceeded, Quota
from handrail.errors import Code, HandrailError, RequestRejected, StoreFailed
from handrail.store.rows import SQL

_FULL: Final = (
    "The gateway keeps as many bytes of responses as it may (background.max_stored_bytes): "
    "nothing new can be kept now."
)


class Quotas:
    """Judges after a write, inside its transaction: raising takes the write back."""

    def __init__(self, quota: Callable[[], Quota]) -> None:
        self._quota = quota

    def check_new(self, connection: sqlite3.Connection, caller: str) -> None:
        """Whether a create of `caller` may be kept.

        Raises RequestRejected for the caller's own quota and StoreFailed for the gateway's.
        """
        of_caller, of_all = connection.execute(SQL["usage"], {"caller": caller}).fetchone()
        exceeded = self._quota().exceeded(caller, of_caller=of_caller, of_all=of_all)
        if exceeded is Exceeded.CALLER:
            raise RequestRejected(
                Code.STORAGE_QUOTA_EXCEEDED,
                "This response would exceed what the gateway keeps for you "
                f"({self._quota().caller_bytes[caller]} bytes). DELETE responses that you no "
                "longer need, or wait until their retention is over.",
                param="background",
            )
        if exceeded is Exceeded.GATEWAY:
            raise _full(_FULL)

    def check_growth(self, connection: sqlite3.Connection, run_id: str) -> None:
        """Whether a run under way may go on. Raises StoreFailed with the code `storage_full`."""
        row = connection.execute(SQL["usage_of_run"], {"id": run_id}).fetchone()
        exceeded = self._quota().exceeded(row[0], of_caller=row[1], of_all=row[2])
        if exceeded is Exceeded.CALLER:
            raise _full("The response would exceed what the gateway keeps for this caller.")
        if exceeded is Exceeded.GATEWAY:
            raise _full(_FULL)


def _full(message: str) -> HandrailError:
    return StoreFailed(Code.STORAGE_FULL, message, detail="quota")
