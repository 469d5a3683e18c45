"""Every transaction on runs, as a function of an open connection: no thread, no waiting.

Whoever calls decides what one transaction is; here nothing begins one, and nothing commits.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from handrail.core.admission import Limits, next_caller
from handrail.core.lifecycle import State, may_follow
from handrail.store.base import Close, Closing, NewRun, Run, Segment, Slice
from handrail.store.keys import DataKeys
from handrail.store.rows import SQL, add_items, add_segment, check_room, earlier_run, item_of

SLICE_BYTES: Final = 512 * 1024


class Runs:
    """The tables of runs, their events and their items. `now` is unix time in seconds."""

    def __init__(self, keys: DataKeys, *, now: Callable[[], float]) -> None:
        self._keys = keys
        self._now = now

    # --- writing ---------------------------------------------------------------------------

    def accept(self, connection: sqlite3.Connection, run: NewRun, *, limits: Limits) -> str:
        """See `Store.accept`."""
        earlier = earlier_run(connection, run, vault=self._keys.vault, now=self._now())
        if earlier is not None:
            return earlier
        row = connection.execute(SQL["count_waiting"], {"caller": run.caller}).fetchone()
        check_room(run.caller, of_caller=row[0], of_all=row[1], limits=limits)
        sealer, wrapped = self._keys.new(run.id)
        connection.execute(
            SQL["insert_run"],
            {
                "id": run.id,
                "caller": run.caller,
                "created_at": run.created_at,
                "target": run.target,
                "plan": run.plan,
                "wrapped_key": wrapped,
                "request": sealer.seal(f"{run.id}/request", run.request),
                "response": sealer.seal(f"{run.id}/response", run.response),
                "last_seq": run.opening.last,
            },
        )
        add_segment(connection, run.id, (sealer, run.opening))
        add_items(connection, run.caller, (run.id, run.items))
        return run.id

    def claim(self, connection: sqlite3.Connection, *, owner: str, limits: Limits) -> Run | None:
        """See `Store.claim`."""
        waiting = {row[0]: row[1] for row in connection.execute(SQL["waiting"])}
        if not waiting:
            return None
        running = {row[0]: row[1] for row in connection.execute(SQL["running"])}
        caller = next_caller(waiting, running, limits=limits)
        if caller is None:
            return None
        values = {"ord": waiting[caller], "owner": owner}
        return self._run(connection, connection.execute(SQL["claim"], values).fetchone())

    def extend(
        self,
        connection: sqlite3.Connection,
        query: str,
        values: Mapping[str, object],
        *,
        segment: Segment,
    ) -> bool:
        """Add events by `query`, which moves the run on if its fence holds. False when fenced."""
        places = {"first_seq": segment.first, "last_seq": segment.last}
        if connection.execute(SQL[query], {**values, **places}).rowcount == 0:
            return False
        run_id = str(values["id"])
        add_segment(connection, run_id, (self._keys.of(connection, run_id), segment))
        return True

    def finish(
        self, connection: sqlite3.Connection, run_id: str, fence: int, *, closing: Closing
    ) -> bool:
        """See `Store.finish`."""
        row = connection.execute(SQL["run"], {"id": run_id}).fetchone()
        return row is not None and self._end(connection, row, closing, query="finish", fence=fence)

    def conclude(
        self,
        connection: sqlite3.Connection,
        run_id: str,
        *,
        caller: str | None,
        close: Close,
        events: bool,
    ) -> Run | None:
        """See `Store.conclude`."""
        row = self.row(connection, run_id, caller)
        if row is None:
            return None
        run = self._run(connection, row)
        frames = self._frames(connection, run_id, after=-1) if events else []
        closing = close(run, list(frames))
        if closing is None:
            return run
        self._end(connection, row, closing, query="conclude", fence=run.fence)
        return self._run(connection, connection.execute(SQL["run"], {"id": run_id}).fetchone())

    def _end(
        self,
        connection: sqlite3.Connection,
        row: sqlite3.Row,
        closing: Closing,
        *,
        query: str,
        fence: int,
    ) -> bool:
        run_id = row["id"]
        if not may_follow(State(row["state"]), closing.state):
            return False
        sealer = self._keys.of(connection, run_id)
        values = {
            "id": run_id,
            "fence": fence,
            "state": closing.state,
            "response": sealer.seal(f"{run_id}/response", closing.response),
            "first_seq": closing.segment.first,
            "last_seq": closing.segment.last,
            "finished_at": closing.finished_at,
            "expires_at": closing.expires_at,
        }
        if connection.execute(SQL[query], values).rowcount == 0:
            return False
        add_segment(connection, run_id, (sealer, closing.segment))
        add_items(connection, row["caller"], (run_id, closing.items))
        return True

    def delete(self, connection: sqlite3.Connection, run_id: str, *, caller: str) -> bool:
        """See `Store.delete`."""
        # Also when its retention has ended a moment ago: what was asked for is that it is gone.
        return self._destroy(connection, run_id, caller)

    def sweep(self, connection: sqlite3.Connection, *, limit: int) -> int:
        """See `Store.sweep`."""
        values = {"now": self._now(), "limit": limit}
        connection.execute(SQL["forget_expired"], values)
        connection.execute(SQL["drop_keys"], values)
        rows = connection.execute(SQL["expired"], values).fetchall()
        return sum(self._destroy(connection, row["id"], row["caller"]) for row in rows)

    def _destroy(self, connection: sqlite3.Connection, run_id: str, caller: str) -> bool:
        values = {"id": run_id, "caller": caller}
        connection.execute(SQL["destroy_key"], values)
        self._keys.forget(run_id)
        return connection.execute(SQL["delete_run"], values).rowcount > 0

    # --- reading ---------------------------------------------------------------------------

    def get(self, connection: sqlite3.Connection, run_id: str, *, caller: str) -> Run | None:
        """See `Store.get`."""
        row = self.row(connection, run_id, caller)
        return None if row is None else self._run(connection, row)

    def read(
        self, connection: sqlite3.Connection, run_id: str, *, after: int, caller: str
    ) -> Slice | None:
        """See `Store.read`."""
        row = self.row(connection, run_id, caller)
        if row is None:
            return None
        frames = tuple(self._frames(connection, run_id, after=after, bound=SLICE_BYTES))
        return Slice(frames=frames, state=State(row["state"]), last_seq=row["last_seq"])

    def find_items(
        self, connection: sqlite3.Connection, caller: str, ids: Collection[str]
    ) -> Mapping[str, bytes]:
        """See `Store.find_items`."""
        found: dict[str, bytes] = {}
        for item_id in ids:
            values = {"caller": caller, "item_id": item_id}
            place = connection.execute(SQL["find_item"], values).fetchone()
            row = None if place is None else self.row(connection, place["run_id"], caller)
            item = None if row is None else item_of(self._run(connection, row), item_id)
            if item is not None:
                found[item_id] = item
        return found

    def row(
        self, connection: sqlite3.Connection, run_id: str, caller: str | None
    ) -> sqlite3.Row | None:
        """The row of a run that `caller` may see (None: of anyone's)."""
        if caller is None:
            row = connection.execute(SQL["run"], {"id": run_id}).fetchone()
        else:
            values = {"id": run_id, "caller": caller, "now": self._now()}
            row = connection.execute(SQL["run_of_caller"], values).fetchone()
        return row if isinstance(row, sqlite3.Row) else None

    def ids(self, connection: sqlite3.Connection, query: str, **values: object) -> Sequence[str]:
        """The ids that a query gives."""
        return [row["id"] for row in connection.execute(SQL[query], values)]

    def _run(self, connection: sqlite3.Connection, row: sqlite3.Row) -> Run:
        sealer = self._keys.of(connection, row["id"])
        return Run(
            id=row["id"],
            caller=row["caller"],
            state=State(row["state"]),
            created_at=row["created_at"],
            target=row["target"],
            plan=row["plan"],
            request=sealer.open(f"{row['id']}/request", row["request"]),
            response=sealer.open(f"{row['id']}/response", row["response"]),
            attempt=row["attempt"],
            fence=row["fence"],
            calls=row["calls"],
            last_seq=row["last_seq"],
            sent_at=row["sent_at"],
            finished_at=row["finished_at"],
        )

    def _frames(
        self, connection: sqlite3.Connection, run_id: str, *, after: int, bound: int | None = None
    ) -> Iterable[bytes]:
        sealer = self._keys.of(connection, run_id)
        size = 0
        for row in connection.execute(SQL["segments_after"], {"run_id": run_id, "after": after}):
            first = row["first_seq"]
            body = sealer.open(f"{run_id}/{first}", row["body"])
            # JSON holds no raw line feed, so a blank line ends a frame and nothing else.
            frames = [frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]]
            yield from frames[max(0, after + 1 - first) :]
            size += len(body)
            if bound is not None and size >= bound:
                return
