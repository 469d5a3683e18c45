"""What one transaction on runs is made of: room in the queue, keys, segments, items."""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from handrail.core import items as item_rules
from handrail.core import wire
from handrail.core.admission import Limits
from handrail.core.idempotency import key_expired
from handrail.errors import Code, RequestRejected
from handrail.store.base import NewRun, Run, Segment
from handrail.store.kept_time import KeptTime
from handrail.store.queries import load, parse
from handrail.store.vault import Sealer, Vault

SQL: Final = parse(load("queries.sql"))


def earlier_run(
    connection: sqlite3.Connection,
    run: NewRun,
    *,
    vault: Vault,
    time: KeptTime,
    alive: Callable[[str], bool],
) -> str | None:
    """The run that this create has made before; None when it is new, and its key is kept.

    `alive` says whether a run of this caller is still there.
    """
    if run.repeat is None:
        return None
    now = time.now()
    values = {
        "caller": run.caller,
        "key": vault.mark(run.repeat.key.encode()),
        "body": vault.mark(run.repeat.digest),
        "run_id": run.id,
        "kept_until": now + run.repeat.kept_seconds,
        "now": now,
    }
    row = connection.execute(SQL["key_of_create"], values).fetchone()
    there = row is not None and alive(row["run_id"])
    if row is None or (not there and row["kept_until"] <= now):
        connection.execute(SQL["keep_key"], values)
        return None
    if row["body"] != values["body"]:
        raise RequestRejected(
            Code.IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key was used for another request. Give each request its own.",
            param="idempotency-key",
        )
    if not there:
        raise key_expired()
    return str(row["run_id"])


def unanswered_run(
    connection: sqlite3.Connection, run: NewRun, *, vault: Vault, time: KeptTime
) -> str | None:
    """The run that this create, sent again, has made before; None when there is none."""
    if run.resend is None or not run.resend.again:
        return None
    values = {"caller": run.caller, "body": vault.mark(run.resend.digest), "now": time.now()}
    row = connection.execute(SQL["missing_reply"], values).fetchone()
    return None if row is None else str(row["run_id"])


def expect_reply(
    connection: sqlite3.Connection, run: NewRun, *, vault: Vault, time: KeptTime
) -> None:
    """Write down that the create of a new run has yet to be answered, if it may come again."""
    if run.resend is not None:
        values = {
            "run_id": run.id,
            "caller": run.caller,
            "body": vault.mark(run.resend.digest),
            "kept_until": time.now() + run.resend.kept_seconds,
        }
        connection.execute(SQL["expect_reply"], values)


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
