"""Whether what was read from the file can be what was written there.

Sealed values prove themselves. The columns beside them do not, and a flipped bit in one of them
must end in an error, not in a wrong answer or a defect somewhere above.
"""

import sqlite3
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NoReturn

from handrail.core.lifecycle import State, is_final
from handrail.errors import Code, StoreFailed

_STATES: Final[Mapping[str, State]] = MappingProxyType({state.value: state for state in State})
_NUMBERS: Final = ("attempt", "fence", "calls", "last_seq")


def state_of(row: sqlite3.Row) -> State:
    """The state in a row of `runs`. Raises StoreFailed when the row cannot be one."""
    state = _STATES.get(row["state"])
    if state is None or is_final(state) != (row["finished_at"] is not None):
        damaged(row["id"], "state")
    for name in _NUMBERS:
        if not isinstance(row[name], int) or row[name] < 0:
            damaged(row["id"], name)
    return state


def damaged(run_id: object, what: str) -> NoReturn:
    """Raise StoreFailed for a run that is not as it was written."""
    raise StoreFailed(
        Code.STORE_UNAVAILABLE, "A stored value is damaged or was moved.", detail=f"{run_id}/{what}"
    )
