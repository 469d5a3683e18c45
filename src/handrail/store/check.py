"""Looks whether a store is whole: the file, the keys, and every run in it.

Reads only, one value at a time. What it says names runs, tables and numbers, never content.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from handrail.core.lifecycle import TERMINAL_EVENT, State, is_final
from handrail.errors import StoreFailed
from handrail.store.faults import name_of
from handrail.store.opening import connect_to_read, kept
from handrail.store.rows import SQL
from handrail.store.vault import Sealer, Vault

_MOST_PROBLEMS: Final = 100
"""How many problems of one kind the database itself lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: where (`run resp_…`, `database`, …) and what."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


class Check:
    """One look at a store. `runs` counts the runs that were looked at.

    `key` is the store key, None when none fits. `quick` opens no value.
    """

    def __init__(self, path: Path, *, key: bytes | None, quick: bool = False) -> None:
        self._path = path
        self._vault = None if key is None else Vault(key)
        self._quick = quick
        self.runs = 0

    def problems(self) -> Iterator[Problem]:
        """Everything that is wrong, as it is found."""
        parts = (self._of_database, self._of_keys, self._of_counts, self._of_runs)
        try:
            connection = connect_to_read(self._path)
            connection.execute("begin")  # one moment, whatever the gateway writes meanwhile
        except sqlite3.Error as error:
            yield _unreadable(error)
            return
        for part in parts:
            try:
                yield from part(connection)
            except sqlite3.Error as error:
                yield _unreadable(error)
        connection.close()

    def _of_database(self, connection: sqlite3.Connection) -> Iterator[Problem]:
        for row in connection.execute(f"pragma integrity_check({_MOST_PROBLEMS})"):
            if row[0] != "ok":
                for line in str(row[0]).splitlines():
                    yield Problem(place="database", what=line)
        for number, row in enumerate(connection.execute("pragma foreign_key_check")):
            if number == _MOST_PROBLEMS:
                break
            yield Problem(place="database", what=f"a row of {row[0]} belongs to no run")

    def _of_keys(self, connection: sqlite3.Connection) -> Iterator[Problem]:
        proof, mark_key = kept(connection, "store_key"), kept(connection, "mark_key")
        if self._vault is None or proof is None or not self._vault.fits(proof):
            self._vault = None
            yield Problem(place="store key", what="does not fit; no value can be opened")
            return
        try:
            if mark_key is not None:
                self._vault.open_mark_key(mark_key)
        except StoreFailed:
            yield Problem(place="store", what="the key of its marks is damaged")

    def _of_counts(self, connection: sqlite3.Connection) -> Iterator[Problem]:
        counted = {row[0]: row[1:] for row in connection.execute(SQL["counted"])}
        for caller, *numbers in connection.execute(SQL["recount"]):
            if counted.pop(caller, None) != tuple(numbers):
                yield _miscounted(caller)
        for caller in counted:
            yield _miscounted(caller)

    def _of_runs(self, connection: sqlite3.Connection) -> Iterator[Problem]:
        for row in connection.execute(SQL["all_runs"]):
            self.runs += 1
            try:
                for what in self._of_run(connection, row):
                    yield Problem(place=f"run {row['id']}", what=what)
            except StoreFailed as error:
                value = (error.detail or "a value").rpartition("/")[2]
                what = f"its {value} is damaged" if not value.isdigit() else _damaged_events(value)
                yield Problem(place=f"run {row['id']}", what=what)

    def _of_run(self, connection: sqlite3.Connection, row: sqlite3.Row) -> Iterator[str]:
        if row["state"] not in set(State):
            yield "its state is none"
            return
        state = State(row["state"])
        if is_final(state) != (row["finished_at"] is not None and row["expires_at"] is not None):
            yield f"is {state} and its end does not say when"
        sealer = None
        if self._vault is not None and not self._quick:
            sealer = self._vault.unwrap(row["id"], row["wrapped_key"])
            self._open(connection, sealer, row["id"])
        yield from self._of_events(connection, row, sealer)

    def _open(self, connection: sqlite3.Connection, sealer: Sealer, run_id: str) -> None:
        values = connection.execute(SQL["run"], {"id": run_id}).fetchone()
        for name in ("request", "response"):
            sealer.open(f"{run_id}/{name}", values[name])

    def _of_events(
        self, connection: sqlite3.Connection, row: sqlite3.Row, sealer: Sealer | None
    ) -> Iterator[str]:
        number, last = 0, b""
        for first, end, body in connection.execute(SQL["all_segments"], {"run_id": row["id"]}):
            if first != number or end < first:
                yield f"event {number} is missing"
                return
            number = end + 1
            if sealer is not None:
                frames = sealer.open(f"{row['id']}/{first}", body).split(b"\n\n")[:-1]
                if len(frames) != end + 1 - first:
                    yield f"events {first} to {end} are not as many as they should be"
                last = frames[-1] if frames else b""
        if number != row["last_seq"] + 1:
            yield f"its last event should be {row['last_seq']} and is {number - 1}"
        elif sealer is not None:
            yield from _of_end(State(row["state"]), last)


def _of_end(state: State, frame: bytes) -> Iterator[str]:
    named = frame.partition(b"\n")[0].removeprefix(b"event: ").decode("ascii", "replace")
    if is_final(state) and named != TERMINAL_EVENT[state]:
        yield f"is {state} and does not end with {TERMINAL_EVENT[state]}"
    if not is_final(state) and named in TERMINAL_EVENT.values():
        yield f"is {state} and ends with {named}"


def _unreadable(error: sqlite3.Error) -> Problem:
    return Problem(place="database", what=f"cannot be read on: {name_of(error) or error}")


def _miscounted(caller: str) -> Problem:
    who = f"of caller {caller}" if caller else "of all"
    return Problem(place="quota", what=f"the count {who} is wrong")


def _damaged_events(first: str) -> str:
    return f"its events from {first} on are damaged"
