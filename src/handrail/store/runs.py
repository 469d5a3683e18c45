"""Every transaction on runs, as a function of an open connection: no thread, no waiting.

Whoever calls decides what one transaction is; here nothing begins one, and nothing commits.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Final

from handrail.core.admission import PLACES, Limits, Queue, next_start
from handrail.core.history import not_found
from handrail.core.lifecycle import LAST_OPENING, may_follow
from handrail.core.retry import Cause
from handrail.errors import StoreFailed
from handrail.store.base import Call, Close, Closing, NewRun, Run, Segment, Slice, Visit
from handrail.store.kept_time import KeptTime
from handrail.store.keys import DataKeys
from handrail.store.quota import Quotas
from handrail.store.rows import (
    SQL,
    add_items,
    add_segment,
    check_room,
    earlier_run,
    expect_reply,
    item_of,
    unanswered_run,
)
from handrail.store.soundness import damaged, state_of
from handrail.telemetry import get_logger

SLICE_BYTES: Final = 512 * 1024
_ROUNDS: Final = 10


class Runs:
    """The tables of runs, their events and their items. `time` decides what has expired."""

    def __init__(self, keys: DataKeys, *, time: KeptTime, quotas: Quotas) -> None:
        self._keys = keys
        self._time = time
        self._quotas = quotas

    # --- writing ---------------------------------------------------------------------------

    def accept(self, connection: sqlite3.Connection, run: NewRun, *, limits: Limits) -> str:
        """See `Store.accept`."""
        alive = partial(self._is_there, connection, run.caller)
        vault = self._keys.vault
        earlier = earlier_run(connection, run, vault=vault, time=self._time, alive=alive)
        earlier = earlier or unanswered_run(connection, run, vault=vault, time=self._time)
        if earlier is not None:
            return earlier
        row = connection.execute(SQL["count_waiting"], {"caller": run.caller}).fetchone()
        self._check_previous(connection, run)
        check_room(run.caller, of_caller=row[0], of_all=row[1], limits=limits)
        self._quotas.check_new(connection, run.caller)  # before the work of sealing a large one
        self._insert(connection, run, query="insert_run", values={})
        expect_reply(connection, run, vault=vault, time=self._time)
        return run.id

    def keep(self, connection: sqlite3.Connection, run: NewRun, *, owner: str) -> Run:
        """See `Store.keep`."""
        self._check_previous(connection, run)
        self._quotas.check_new(connection, run.caller)
        self._insert(connection, run, query="insert_kept", values={"owner": owner})
        call = {"id": run.id, "now": run.created_at, "cause": Cause.FIRST}
        connection.execute(SQL["add_call"], call)
        return self._run(connection, connection.execute(SQL["run"], {"id": run.id}).fetchone())

    def _insert(
        self,
        connection: sqlite3.Connection,
        run: NewRun,
        *,
        query: str,
        values: Mapping[str, object],
    ) -> None:
        sealer, wrapped = self._keys.new(run.id)
        connection.execute(
            SQL[query],
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
                "previous": run.previous,
                "priority": PLACES[run.priority],
                **values,
            },
        )
        add_segment(connection, run.id, (sealer, run.opening))
        add_items(connection, run.caller, (run.id, run.items))
        self._quotas.check_new(connection, run.caller)

    def _check_previous(self, connection: sqlite3.Connection, run: NewRun) -> None:
        # It was there when it was read, but a sweep or a deletion may have come in between.
        if run.previous is None or self._is_there(connection, run.caller, run.previous):
            return
        values = {"id": run.previous, "caller": run.caller, "now": self._time.now()}
        if connection.execute(SQL["locate"], values).fetchone() is None:
            raise not_found(run.previous, previous=run.previous)

    def claim(self, connection: sqlite3.Connection, *, owner: str, limits: Limits) -> Run | None:
        """See `Store.claim`."""
        while True:
            queues = [Queue(**dict(row)) for row in connection.execute(SQL["queues"])]
            start = next_start(queues, limits=limits)
            if start is None:
                return None
            values = {**asdict(start), "owner": owner}
            try:
                run = self._run(connection, connection.execute(SQL["run_at"], values).fetchone())
            except StoreFailed as damage:
                # It can neither be run nor be ended, and would hold up everybody behind it.
                get_logger().error("run_set_aside", detail=damage.detail)
                connection.execute(SQL["set_aside"], values)
                continue
            connection.execute(SQL["take_turn"], values)
            return replace(run, fence=connection.execute(SQL["claim"], values).fetchone()["fence"])

    def begin(
        self,
        connection: sqlite3.Connection,
        run_id: str,
        fence: int,
        *,
        now: float,
        segment: Segment,
    ) -> bool:
        """See `Store.begin`."""
        values = {"id": run_id, "fence": fence, "now": now, "cause": Cause.FIRST}
        if not self.extend(connection, "begin", values, segment=segment):
            return False
        connection.execute(SQL["add_call"], values)
        return True

    def call_again(
        self, connection: sqlite3.Connection, run_id: str, fence: int, *, now: float, cause: Cause
    ) -> bool:
        """See `Store.call_again`."""
        values = {"id": run_id, "fence": fence, "now": now, "cause": cause}
        if connection.execute(SQL["call_again"], values).rowcount == 0:
            return False
        connection.execute(SQL["add_call"], values)
        return True

    def begin_again(
        self, connection: sqlite3.Connection, run_id: str, fence: int, *, now: float, cause: Cause
    ) -> int | None:
        """See `Store.begin_again`."""
        values = {"id": run_id, "fence": fence, "last_opening": LAST_OPENING}
        row = connection.execute(SQL["begin_again"], values).fetchone()
        if row is None:
            return None
        connection.execute(SQL["add_call"], {"id": run_id, "now": now, "cause": cause})
        return int(row["fence"])

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
        self._quotas.check_growth(connection, run_id)
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
        frames = self._frames(connection, row, after=-1) if events else []
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
        if not may_follow(state_of(row), closing.state):
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
            "expires_at": self._time.now() + closing.kept_seconds,
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
        values = {"now": self._time.now(), "limit": limit}
        connection.execute(SQL["forget_expired"], values)
        connection.execute(SQL["drop_keys"], values)
        connection.execute(SQL["defer_keys"], values)
        connection.execute(SQL["drop_replies"], values)
        swept = 0
        for _ in range(_ROUNDS):
            due = connection.execute(SQL["due"], {**values, "limit": limit - swept}).fetchall()
            for row in due:
                swept += self._sweep_from(connection, row, limit=limit - swept)
            if not due or swept >= limit:
                break
        return swept

    def _sweep_from(self, connection: sqlite3.Connection, row: sqlite3.Row, *, limit: int) -> int:
        """Destroy a run that is due, then what was kept for it alone; how many there were."""
        count = 0
        due: sqlite3.Row | None = row
        while due is not None and count < limit:
            if connection.execute(SQL["is_continued"], {"id": due["id"]}).fetchone()[0]:
                connection.execute(SQL["hold"], {"id": due["id"]})
                break
            count += self._destroy(connection, due["id"], due["caller"])
            values = {"id": due["previous"], "now": self._time.now()}
            due = connection.execute(SQL["due_too"], values).fetchone()
        return count

    def _destroy(self, connection: sqlite3.Connection, run_id: str, caller: str) -> bool:
        values = {"id": run_id, "caller": caller}
        connection.execute(SQL["destroy_key"], values)
        self._keys.forget(run_id)
        gone = connection.execute(SQL["delete_run"], values).fetchone()
        if gone is not None and gone["previous"] is not None:
            connection.execute(SQL["let_go"], {"id": gone["previous"]})
        return gone is not None

    # --- reading ---------------------------------------------------------------------------

    def get(self, connection: sqlite3.Connection, run_id: str, *, caller: str) -> Run | None:
        """See `Store.get`."""
        row = self.row(connection, run_id, caller)
        return None if row is None else self._run(connection, row)

    def calls(self, connection: sqlite3.Connection, run_id: str, *, caller: str) -> Sequence[Call]:
        """See `Store.calls`."""
        if self.row(connection, run_id, caller) is None:
            return []
        rows = connection.execute(SQL["calls"], {"id": run_id})
        return [Call(**{**dict(row), "cause": Cause(row["cause"])}) for row in rows]

    def read(
        self, connection: sqlite3.Connection, run_id: str, *, after: int, caller: str
    ) -> Slice | None:
        """See `Store.read`."""
        row = self.row(connection, run_id, caller)
        if row is None:
            return None
        state = state_of(row)
        frames = tuple(self._frames(connection, row, after=after, bound=SLICE_BYTES))
        return Slice(frames=frames, state=state, last_seq=row["last_seq"])

    def ancestry(
        self, connection: sqlite3.Connection, run_id: str, *, caller: str, visit: Visit
    ) -> str | None:
        """See `Store.ancestry`."""
        row = self.row(connection, run_id, caller)
        at: str | None = run_id
        while row is not None:
            visit(self._run(connection, row))
            at = row["previous"]
            if at is None:
                return None
            values = {"id": at, "caller": caller, "before": row["ord"]}
            row = connection.execute(SQL["ancestor"], values).fetchone()
        return at

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
            values = {"id": run_id, "caller": caller, "now": self._time.now()}
            row = connection.execute(SQL["run_of_caller"], values).fetchone()
            if row is None:
                row = connection.execute(SQL["kept_for_another"], values).fetchone()
        return row if isinstance(row, sqlite3.Row) else None

    def _is_there(self, connection: sqlite3.Connection, caller: str, run_id: str) -> bool:
        return self.row(connection, run_id, caller) is not None

    def ids(self, connection: sqlite3.Connection, query: str, **values: object) -> Sequence[str]:
        """The ids that a query gives."""
        return [row["id"] for row in connection.execute(SQL[query], values)]

    def _run(self, connection: sqlite3.Connection, row: sqlite3.Row) -> Run:
        sealer = self._keys.of(connection, row["id"])
        return Run(
            id=row["id"],
            caller=row["caller"],
            state=state_of(row),
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
            previous=row["previous"],
        )

    def _frames(
        self,
        connection: sqlite3.Connection,
        run: sqlite3.Row,
        *,
        after: int,
        bound: int | None = None,
    ) -> Iterable[bytes]:
        run_id = run["id"]
        sealer = self._keys.of(connection, run_id)
        size = 0
        number: int | None = None
        for row in connection.execute(SQL["segments_after"], {"run_id": run_id, "after": after}):
            first = row["first_seq"]
            body = sealer.open(f"{run_id}/{first}", row["body"])
            # JSON holds no raw line feed, so a blank line ends a frame and nothing else.
            frames = [frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]]
            begins = first <= after + 1 if number is None else first == number
            number = first + len(frames)
            if not begins or number != row["last_seq"] + 1:
                damaged(run_id, "events")
            yield from frames[max(0, after + 1 - first) :]
            size += len(body)
            if bound is not None and size >= bound:
                return
        # All were read: what the row says of them must be so.
        if after < run["last_seq"] if number is None else number - 1 != run["last_seq"]:
            damaged(run_id, "events")
