"""What an operator sees of the runs of all callers: nothing of it is sealed."""

import contextlib
import sqlite3
from collections.abc import Sequence

from handrail.errors import StoreFailed
from handrail.store.base import Outline, Share
from handrail.store.rows import SQL
from handrail.store.soundness import state_of


def outlines(
    connection: sqlite3.Connection, *, after: str | None, limit: int
) -> Sequence[Outline] | None:
    """See `Store.outlines`."""
    before = None
    if after is not None:
        row = connection.execute(SQL["place_of_run"], {"id": after}).fetchone()
        if row is None:
            return None
        before = row["ord"]
    values = {"before": before, "limit": limit}
    query = SQL["newest_runs"] if before is None else SQL["runs_before"]
    return [_outline(row) for row in connection.execute(query, values)]


def _outline(row: sqlite3.Row) -> Outline:
    state = None
    with contextlib.suppress(StoreFailed):  # one damaged run must not hide all the others
        state = state_of(row)
    return Outline(
        id=row["id"],
        caller=row["caller"],
        state=state,
        created_at=row["created_at"],
        sent_at=row["sent_at"],
        finished_at=row["finished_at"],
        target=row["target"],
        attempts=row["attempt"],
        calls=row["calls"],
    )


def shares(connection: sqlite3.Connection) -> Sequence[Share]:
    """See `Store.shares`."""
    return [Share(**dict(row)) for row in connection.execute(SQL["shares"])]
