"""`handrail db` below the command line: copies, checks, shrinking, a new store key."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from handrail.core.fold import Fold
from handrail.core.lifecycle import State
from handrail.core.quota import Quota
from handrail.engine.closing import closing
from handrail.errors import ConfigInvalid, RequestRejected
from handrail.store.base import Repeat, Segment
from handrail.store.check import Check
from handrail.store.opening import connect_to_write
from handrail.store.rotation import STEPS, pending_file, rotate, settle
from handrail.store.sqlite import SqliteStore
from handrail.store.upkeep import backup, vacuum
from handrail.store.vault import Vault, load_store_key
from tests.contract.runs import CANARY, Now, limits
from tests.unit.test_journal import new_run, opened


class Place:
    """A data directory with a store in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "handrail.db"
        self.key_file = directory / "store.key"

    def store(self) -> SqliteStore:
        """The store as a gateway opens it."""
        settle(self.key_file, database=self.database)
        key = load_store_key(self.key_file, database=self.database)
        store = SqliteStore(self.database, vault=Vault(key), now=Now(), quota=Quota)
        store.open()
        return store

    def key(self) -> bytes:
        return self.key_file.read_bytes()

    def problems(self, *, quick: bool = False) -> list[str]:
        check = Check(self.database, key=self.key(), quick=quick)
        return [str(problem) for problem in check.problems()]

    def spoil(self, statement: str, *values: object) -> None:
        connection = sqlite3.connect(self.database)
        with connection:
            connection.execute(statement, values)
        connection.close()


async def fill(store: SqliteStore, count: int = 3) -> None:
    """Runs as a gateway leaves them: two that wait, one under way, the others completed."""
    for number in range(count):
        run = replace(
            new_run(f"r{number}"),
            request=b'{"input":"' + CANARY + b'"}',
            repeat=Repeat(key=f"k{number}", digest=b"d", kept_seconds=1e9),
        )
        await store.accept(run, limits=limits())
    for number in range(count - 2):
        claimed = await store.claim(owner="me", limits=limits())
        assert claimed is not None
        begun = Segment(first=2, frames=(opened(2),))
        await store.begin(claimed.id, claimed.fence, now=1.0, segment=begun)
        if number:
            row = await store.get(claimed.id, caller="ann")
            assert row is not None
            end = closing(row, State.COMPLETED, fold=Fold(), now=Now().seconds)
            await store.finish(claimed.id, claimed.fence, end)


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    store = place.store()
    await fill(store, 6)
    await store.close()
    return place


async def states(place: Place) -> list[State]:
    store = place.store()
    try:
        runs = [await store.get(f"r{number}", caller="ann") for number in range(6)]
    finally:
        await store.close()
    assert all(run is not None and CANARY in run.request for run in runs)
    return [run.state for run in runs if run is not None]


# --- check -----------------------------------------------------------------------------------


def test_a_whole_store_has_no_problem(place: Place) -> None:
    check = Check(place.database, key=place.key())
    assert list(check.problems()) == []
    assert check.runs == 6


SPOILED = [
    ("update runs set request = zeroblob(60) where id = 'r1'", "run r1: its request is damaged"),
    ("update runs set response = zeroblob(60) where id = 'r1'", "run r1: its response is damaged"),
    ("update runs set wrapped_key = zeroblob(60) where id = 'r1'", "run r1: its key is damaged"),
    ("update segments set body = zeroblob(60) where run_id = 'r1' and first_seq = 2",
     "run r1: its events from 2 on are damaged"),
]  # fmt: skip
STRUCTURE = [
    ("update segments set last_seq = 3 where run_id = 'r1' and first_seq = 2",
     "run r1: event 4 is missing"),
    ("update runs set last_seq = 9 where id = 'r1'",
     "run r1: its last event should be 9 and is 3"),
    ("update runs set state = 'done' where id = 'r1'", "run r1: its state is none"),
    ("update runs set expires_at = null where id = 'r1'",
     "run r1: is completed and its end does not say when"),
    ("update usage set bytes = bytes + 1 where caller = 'ann'",
     "quota: the count of caller ann is wrong"),
    ("update usage set runs = 0, bytes = 0 where caller = ''", "quota: the count of all is wrong"),
    ("insert into items values ('ann', 'x', 'nobody')",
     "database: a row of items belongs to no run"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "problem"), [*SPOILED, *STRUCTURE])
def test_each_kind_of_damage_is_named_in_one_line(
    place: Place, statement: str, problem: str
) -> None:
    place.spoil(statement)
    found = place.problems()
    assert problem in found
    assert not any(CANARY.decode() in line or "\n" in line for line in found)


@pytest.mark.parametrize(("statement", "problem"), STRUCTURE)
def test_a_quick_check_finds_what_needs_no_value(
    place: Place, statement: str, problem: str
) -> None:
    place.spoil(statement)
    assert problem in place.problems(quick=True)


def test_a_run_that_is_said_to_have_ended_and_has_no_end_is_found(place: Place) -> None:
    place.spoil("update runs set state = 'failed' where id = 'r1'")
    assert place.problems() == ["run r1: is failed and does not end with response.failed"]


def test_another_store_key_is_the_problem_and_not_every_run(place: Place) -> None:
    check = Check(place.database, key=bytes(32))
    assert [str(p) for p in check.problems()] == ["store key: does not fit; no value can be opened"]


def test_a_file_that_is_cut_short_is_a_problem_and_no_traceback(place: Place) -> None:
    data = place.database.read_bytes()
    place.database.write_bytes(data[: len(data) // 2])
    assert place.problems() != []
    place.database.write_bytes(b"no database at all" * 1000)
    assert "database: cannot be read on: SQLITE_NOTADB" in place.problems()


# --- backup ----------------------------------------------------------------------------------


async def test_a_backup_taken_while_a_store_is_open_is_whole_and_private(tmp_path: Path) -> None:
    place = Place(tmp_path)
    store = place.store()
    await fill(store, 6)
    target = tmp_path / "copies" / "handrail.db"
    target.parent.mkdir()
    size = backup(place.database, target)
    await fill_more(store)
    await store.close()
    assert target.stat().st_size == size
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [file.name for file in target.parent.iterdir()] == ["handrail.db"]
    assert CANARY not in target.read_bytes()
    check = Check(target, key=place.key())
    assert list(check.problems()) == []
    assert check.runs == 6
    restored = Place(target.parent)
    restored.key_file.write_bytes(place.key())
    restored.key_file.chmod(0o600)
    assert State.COMPLETED in await states(restored)


async def fill_more(store: SqliteStore) -> None:
    for number in range(6, 9):
        await store.accept(new_run(f"r{number}"), limits=limits())


def test_a_backup_takes_no_files_place_and_leaves_nothing_when_it_fails(place: Place) -> None:
    taken = place.directory / "taken"
    taken.write_text("mine")
    with pytest.raises(ConfigInvalid, match="exists; name a new file"):
        backup(place.database, taken)
    assert taken.read_text() == "mine"
    with pytest.raises(ConfigInvalid, match="cannot be written"):
        backup(place.database, place.directory / "no such directory" / "copy")
    place.database.write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigInvalid, match="could not be copied"):
        backup(place.database, place.directory / "copy")
    assert not (place.directory / "copy").exists()
    assert not list(place.directory.glob(".*tmp*"))


# --- vacuum ----------------------------------------------------------------------------------


async def test_vacuum_gives_the_room_of_deleted_runs_back(place: Place) -> None:
    store = place.store()
    for number in range(20):
        big = replace(new_run(f"big{number}"), request=b'"' + b"x" * 100_000 + b'"')
        await store.accept(big, limits=limits())
    for number in range(20):
        await store.delete(f"big{number}", caller="ann")
    await store.close()
    before, after = vacuum(place.database)
    assert before > 2_000_000
    assert after == place.database.stat().st_size < 200_000
    assert place.problems() == []


# --- rotate-key ------------------------------------------------------------------------------


def rotated(place: Place) -> int:
    vault = Vault(place.key())
    connection = connect_to_write(place.database, vault=vault)
    try:
        return rotate(connection, key_file=place.key_file, vault=vault)
    finally:
        connection.close()


async def test_after_a_rotation_only_the_new_key_opens_the_store(place: Place) -> None:
    old, before = place.key(), await states(place)
    with sqlite3.connect(place.database) as connection:
        wrapped = [bytes(row[0]) for row in connection.execute("select wrapped_key from runs")]
    connection.close()
    assert rotated(place) == 6
    assert place.key() != old
    assert stat.S_IMODE(place.key_file.stat().st_mode) == 0o600
    assert not pending_file(place.key_file).exists()
    assert place.problems() == []
    assert await states(place) == before
    left = b"".join(file.read_bytes() for file in place.directory.iterdir())
    assert not any(key in left for key in [*wrapped, old])
    place.key_file.write_bytes(old)
    with pytest.raises(ConfigInvalid, match="another store key"):
        place.store()


async def test_an_idempotency_key_is_known_after_a_rotation(place: Place) -> None:
    rotated(place)
    store = place.store()
    again = replace(new_run("new"), repeat=Repeat(key="k3", digest=b"d", kept_seconds=1e9))
    assert await store.accept(again, limits=limits()) == "r3"
    other = replace(again, repeat=Repeat(key="k3", digest=b"e", kept_seconds=1e9))
    with pytest.raises(RequestRejected, match="another request"):
        await store.accept(other, limits=limits())
    await store.close()


async def test_a_store_from_before_marks_had_a_key_of_their_own_knows_its_keys_too(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    key = load_store_key(place.key_file, database=place.database)
    store = place.store()
    await store.close()
    derived = Vault(key)  # as such a store made its marks
    connection = sqlite3.connect(place.database)
    with connection:
        connection.execute("delete from meta where name = 'mark_key'")
        connection.execute(
            "insert into idempotency values ('ann', ?, ?, 'gone', 2e9)",
            (derived.mark(b"k"), derived.mark(b"d")),
        )
    connection.close()
    for change in (lambda: None, lambda: rotated(place)):
        change()
        store = place.store()
        again = replace(new_run("new"), repeat=Repeat(key="k", digest=b"d", kept_seconds=1e9))
        with pytest.raises(RequestRejected, match="no longer kept"):
            await store.accept(again, limits=limits())
        await store.close()


ROTATE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from handrail.store.opening import connect_to_write
from handrail.store.rotation import rotate
from handrail.store.vault import Vault
folder, step = Path(sys.argv[1]), sys.argv[2]
def reached(name):
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)
vault = Vault((folder / "store.key").read_bytes())
connection = connect_to_write(folder / "handrail.db", vault=vault)
rotate(connection, key_file=folder / "store.key", vault=vault, reached=reached)
"""


def killed_at(step: str, directory: Path) -> int:
    """The exit status of a process that rotates and kills itself at a step."""
    command = [sys.executable, "-c", ROTATE_AND_DIE, str(directory), step]
    return subprocess.run(command, check=False).returncode


@pytest.mark.parametrize("step", STEPS)
async def test_a_rotation_killed_at_any_step_leaves_a_store_that_opens(
    place: Place, step: str
) -> None:
    old, before = place.key(), await states(place)
    assert killed_at(step, place.directory) == -signal.SIGKILL
    assert await states(place) == before
    assert place.problems() == []
    assert not pending_file(place.key_file).exists()
    late = STEPS.index(step) >= STEPS.index("committed")
    assert (place.key() != old) == late


def test_a_damaged_data_key_stops_a_rotation_and_nothing_has_changed(place: Place) -> None:
    old = place.key()
    place.spoil("update runs set wrapped_key = zeroblob(60) where id = 'r5'")
    with pytest.raises(Exception, match="damaged"):
        rotated(place)
    assert place.key() == old
    assert place.problems() == ["run r5: its key is damaged"]


def test_keys_that_both_do_not_fit_are_left_alone(place: Place) -> None:
    pending = pending_file(place.key_file)
    for path in (pending, place.key_file):
        path.write_bytes(os.urandom(32))
        path.chmod(0o600)
    with pytest.raises(ConfigInvalid, match="another store key"):
        place.store()
    assert pending.exists()
