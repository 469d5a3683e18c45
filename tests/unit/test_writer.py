"""The writing thread when its disk fails, is locked, or does what nobody expected."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handrail.errors import Code, StoreFailed
from handrail.store.cleaning import LONGEST_SECONDS, QUIET_SECONDS, LogCleaner
from handrail.store.faults import VERDICTS, Verdict, store_failed, verdict
from handrail.store.reserve import Reserve
from handrail.store.writer import Writer


def failing(code: int, name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode, error.sqlite_errorname = code, name
    return error


class Faulty:
    """A real connection whose statements fail when a test says so; counts what it was asked."""

    def __init__(self, path: Path) -> None:
        self._real = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._real.execute("create table if not exists t (x)")
        self.fault: Callable[[str], Exception | None] = lambda statement: None
        self.asked: list[str] = []

    def execute(self, statement: str, *values: Any) -> Any:
        self.asked.append(statement)
        error = self.fault(statement)
        if error is not None:
            raise error
        return self._real.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def rows(self) -> list[int]:
        return [row[0] for row in self._real.execute("select x from t order by x")]


class Bench:
    """A writer on a faulty connection."""

    def __init__(self, path: Path) -> None:
        self.connection = Faulty(path / "w.db")
        self.writer = Writer(
            lambda: self.connection,  # type: ignore[arg-type, return-value]
            reserve=Reserve(path / "reserve", 65_536),
        )
        self.writer.start()

    async def insert(self, value: int, *, vital: bool = False) -> int:
        def work(connection: sqlite3.Connection) -> int:
            return connection.execute("insert into t values (?)", (value,)).rowcount

        rows: int = await self.writer.run(work, vital=vital)
        return rows

    def fails(self, statement: str, error: Exception) -> None:
        self.connection.fault = lambda asked: error if asked == statement else None


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


FATAL = [
    ("SQLITE_IOERR_FSYNC", 1034),
    ("SQLITE_IOERR_WRITE", 778),
    ("SQLITE_IOERR_SHORT_READ", 522),
    ("SQLITE_CORRUPT", 11),
    ("SQLITE_CORRUPT_INDEX", 779),
    ("SQLITE_NOTADB", 26),
    ("SQLITE_READONLY_DBMOVED", 1032),
]
PASSING = [
    ("SQLITE_FULL", 13),
    ("SQLITE_BUSY", 5),
    ("SQLITE_BUSY_SNAPSHOT", 517),
    ("SQLITE_LOCKED", 6),
    ("SQLITE_NOMEM", 7),
    ("SQLITE_CANTOPEN", 14),
    ("SQLITE_READONLY", 8),
    ("SQLITE_IOERR_NOMEM", 3082),
    ("SQLITE_IOERR_SHMSIZE", 4874),
    ("SQLITE_CONSTRAINT", 19),
    ("", 0),
]


@pytest.mark.parametrize(("name", "code"), FATAL)
def test_an_error_of_the_disk_or_the_file_is_for_good(name: str, code: int) -> None:
    error = failing(code, name)
    assert verdict(error) is Verdict.BROKEN
    assert (store_failed(error).final, store_failed(error).detail) == (True, name)


@pytest.mark.parametrize(("name", "code"), PASSING)
def test_other_errors_pass(name: str, code: int) -> None:
    error = failing(code, name)
    assert verdict(error) is Verdict.GOES_ON
    assert not store_failed(error).final
    full = name == "SQLITE_FULL"
    expected = Code.STORAGE_FULL if full else Code.STORE_UNAVAILABLE
    assert store_failed(error).fault.code == expected


def test_every_name_in_the_table_is_one_of_sqlites() -> None:
    assert {name for name in VERDICTS if not hasattr(sqlite3, name)} == set()


async def test_row_9_after_a_failed_flush_nothing_is_written_or_tried_again(bench: Bench) -> None:
    assert await bench.insert(1) == 1
    bench.fails("commit", failing(1034, "SQLITE_IOERR_FSYNC"))
    outcomes = await asyncio.gather(
        bench.insert(2), bench.insert(3), bench.insert(4, vital=True), return_exceptions=True
    )
    assert all(isinstance(o, StoreFailed) and o.final for o in outcomes)
    bench.connection.fault = lambda statement: None  # "fine", says the disk now
    asked = len(bench.connection.asked)
    with pytest.raises(StoreFailed) as error:
        await bench.insert(5, vital=True)
    assert (error.value.fault.code, error.value.detail) == (
        Code.STORE_UNAVAILABLE,
        "SQLITE_IOERR_FSYNC",
    )
    assert len(bench.connection.asked) == asked
    assert bench.connection.asked.count("commit") == 2
    assert bench.connection.rows() == [1]
    assert bench.writer.problem is not None
    bench.writer.close()


async def test_row_10_a_locked_store_is_waited_for_once_a_batch_and_not_once_a_write(
    bench: Bench,
) -> None:
    bench.fails("begin immediate", failing(5, "SQLITE_BUSY"))
    outcomes = await asyncio.gather(
        *(bench.insert(number) for number in range(50)), return_exceptions=True
    )
    assert all(isinstance(o, StoreFailed) and not o.final for o in outcomes)
    assert bench.connection.asked.count("begin immediate") <= 3
    bench.connection.fault = lambda statement: None
    assert await bench.insert(99) == 1
    assert bench.connection.rows() == [99]
    bench.writer.close()


async def test_a_defect_in_the_thread_is_told_to_everybody_who_waits(bench: Bench) -> None:
    bench.fails("begin immediate", MemoryError())
    for _ in range(2):
        with pytest.raises(StoreFailed) as error:
            await bench.insert(1)
        assert error.value.final
    bench.writer.close()


def test_whatever_goes_wrong_at_the_start_is_raised_there(tmp_path: Path) -> None:
    def connect() -> sqlite3.Connection:
        raise LookupError("unexpected")

    with pytest.raises(LookupError, match="unexpected"):
        Writer(connect, reserve=Reserve(tmp_path / "reserve", 65_536)).start()


async def test_the_reserve_is_taken_again_when_there_is_room(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    full = failing(13, "SQLITE_FULL")
    held = tmp_path / "reserve"
    bench.connection.fault = lambda s: full if s.startswith("insert") and held.exists() else None
    with pytest.raises(StoreFailed):
        await bench.insert(1)
    assert held.exists()
    assert await bench.insert(2, vital=True) == 1
    assert not held.exists()
    bench.connection.fault = lambda statement: None
    assert await bench.insert(3) == 1
    assert held.exists()
    bench.writer.close()


def test_a_reserve_larger_than_half_of_what_is_free_is_not_taken(tmp_path: Path) -> None:
    Reserve(tmp_path / "reserve", 1 << 60).hold()
    assert not (tmp_path / "reserve").exists()


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def patience_of(cleaner: LogCleaner) -> float | None:
    return cleaner.patience


def test_the_log_is_cleaned_when_it_is_quiet_or_at_least_once_a_second(tmp_path: Path) -> None:
    clock = Clock()
    cleaner = LogCleaner(monotonic=clock)
    assert patience_of(cleaner) is None
    assert not cleaner.overdue()
    cleaner.owe()
    assert cleaner.patience == QUIET_SECONDS
    clock.seconds += LONGEST_SECONDS
    assert cleaner.overdue()
    connection = sqlite3.connect(tmp_path / "c.db", isolation_level=None, timeout=3.0)
    connection.execute("pragma journal_mode = wal")
    connection.execute("create table t (x)")
    reader = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
    reader.execute("begin")
    reader.execute("select * from t").fetchall()
    cleaner.clean(connection)  # does not wait for the reader
    assert cleaner.patience == LONGEST_SECONDS
    assert not cleaner.overdue()
    assert connection.execute("pragma busy_timeout").fetchone() == (3000,)
    reader.close()
    clock.seconds += LONGEST_SECONDS
    assert cleaner.overdue()
    cleaner.clean(connection)
    assert patience_of(cleaner) is None
    assert (tmp_path / "c.db-wal").stat().st_size == 0
    connection.close()
