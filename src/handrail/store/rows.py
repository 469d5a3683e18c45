"""What one transaction on runs is made of: room in the queue, keys, segments, items."""

import sqlite3
from collections.abc import Iterable
from typing import Final

import msgspec

from handrail.core import items as item_rules
from handrail.core import wire
from handrail.core.admission import Limits
from handrail.core.idempotency import key_expired
from handrail.errors import Code, RequestRejected
from handrail.store.base import NewRun, Run, Segment
from handrail.store.queries import load, parse
from handrail.store.vault import Sealer, Vault

SQL: Final = parse(load("queries.sql"))


def earlier_run(
    connection: sqlite3.Connection, run: NewRun, *, vault: Vault, now: float
) -> str | None:
    """The run that this create has made before; None when it is new, and its key is kept."""
    if run.repeat is None:
        return None
    values = {
        "caller": run.caller,
        "key": vault.mark(run.repeat.key.encode()),
        "body": vault.mark(run.repeat.digest),
        "run_id": run.id,
        "kept_until": run.repeat.kept_until,
        "now": now,
    }
    row = connection.execute(SQL["key_of_create"], values).fetchone()
    if row is None or (not row["alive"] and row["kept_until"] <= now):
        connection.execute(SQL["keep_key"], values)
        return None
    if row["body"] != values["body"]:
        raise RequestRejected(
            Code.IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key was used for another request. Give each request its own.",
            param="idempotency-key",
        )
    if not row["alive"]:
        raise key_expired()
    return str(row["run_id"])


def check_room(caller: str, *, of_caller: int, of_all: int, limits: Limits) -> None:
    """Raise RequestRejected when the queue of the caller, or of all, is full."""
    if of_caller >= limits.queued(caller):
        raise RequestRejected(
            Code.QUEUE_FULL,
            f"Your queue is full: {of_caller} background responses are waiting. Try again later.",
            param="background",
        )
    if of_all >= limits.max_queued:
        raise RequestRejected(
            Code.QUEUE_FULL,
            "The gateway's queue of background responses is full. Try again later.",
            param="background",
        )


def add_segment(
    connection: sqlite3.Connection, run_id: str, content: tuple[Sealer, Segment]
) -> None:
    """Write events of a run, sealed for their place."""
    sealer, segment = content
    body = sealer.seal(f"{run_id}/{segment.first}", b"".join(segment.frames))
    connection.execute(
        SQL["insert_segment"],
        {
            "run_id": run_id,
            "first_seq": segment.first,
            "last_seq": segment.last,
            "body": body,
        },
    )


def add_items(
    connection: sqlite3.Connection, caller: str, content: tuple[str, Iterable[str]]
) -> None:
    """Write down which items a run carries."""
    run_id, ids = content
    rows = [{"caller": caller, "item_id": item_id, "run_id": run_id} for item_id in ids]
    connection.executemany(SQL["insert_item"], rows)


def item_of(run: Run, item_id: str) -> bytes | None:
    """The kept item of a run that has this id, as JSON; None when there is none."""
    for source, field in ((run.response, "output"), (run.request, "input")):
        body = msgspec.json.decode(source, type=wire.Body)
        if not wire.is_set(body, field) or wire.kind_of(body[field]) is not wire.Kind.ARRAY:
            continue
        for item in wire.items(body[field]):
            if item_rules.item_id(item) == item_id:
                return wire.encode(item)
    return None
