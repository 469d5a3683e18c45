"""The usage ledger: a port with frozen rows, and its file `ledger.db`.

The gateway alone writes it, in batches; command lines read it beside. It is less strict than the
run store: a row that the power takes away is a few milliseconds of account-keeping, and no answer.
"""

import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Final, Protocol

from handrail.core.budgets import Charge, Totals, Work
from handrail.core.report import GROUPS, UsageSum
from handrail.errors import Code, ConfigInvalid, StoreFailed
from handrail.store.faults import name_of
from handrail.store.migrate import LEDGER, migrate
from handrail.store.opening import connect, connect_to_read, make_private
from handrail.store.queries import load, parse

PRUNED_AT_ONCE: Final = 1_000

_QUARTER: Final = 900
_ALL_TIME: Final = 1 << 40
"""In seconds: longer than any clock goes."""

_ASKED_EVERY: Final = 100_000
"""Steps of the database's machine, a few milliseconds."""

_SQL: Final = parse(load("ledger/queries.sql"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One upstream call that is over. Nothing of what was asked or answered is in it.

    Times in unix seconds, `cost` in nano-dollars; None is unknown. `counts` is False for what
    cannot have run, or costs nothing by its kind.
    """

    id: str
    started_at: float
    ended_at: float
    seconds: float
    caller: str
    project: str | None
    target: str
    account: str | None
    model: str
    sent_model: str
    mode: str
    endpoint: str
    response_id: str
    cause: str
    status: int | None
    outcome: str
    input: int | None
    cached: int | None
    output: int | None
    reasoning: int | None
    tier: str | None
    cost: int | None
    counts: bool

    @property
    def work(self) -> Work:
        """What budgets know it by."""
        return Work(
            caller=self.caller,
            project=self.project,
            models=(self.model, self.sent_model),
            account=self.account,
        )

    @property
    def charge(self) -> Charge | None:
        """What budgets count of it; None for nothing."""
        if not self.counts:
            return None
        told = None if self.input is None or self.output is None else self.input + self.output
        return Charge(
            work=self.work,
            known=Totals(cost=self.cost or 0, tokens=told or 0, requests=1),
            unpriced=int(self.cost is None),
            uncounted=int(told is None),
        )


class Ledger(Protocol):
    """Where rows are kept. Every method may block, and raises StoreFailed.

    Any other exception is a row's own defect: nothing of its batch is kept then.
    """

    def append(self, rows: Sequence[LedgerRow]) -> None:
        """Keep the rows; one that is there already changes nothing."""

    def spent(self, *, since: float) -> list[Charge]:
        """What counts of the calls that ended from `since` (unix time) on."""

    def prune(self, *, before: float) -> int:
        """Destroy a batch of rows that ended before; how many there were."""

    def close(self) -> None:
        """Close the file."""


_COLUMNS: Final = tuple(field.name for field in fields(LedgerRow))
_OF_ROW: Final = attrgetter(*_COLUMNS)


class SqliteLedger:
    """`Ledger` in one file. One thread at a time may use it.

    It is opened when first needed, and again after an error.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def append(self, rows: Sequence[LedgerRow]) -> None:
        """See the port."""
        with self._transaction() as connection:
            connection.executemany(_SQL["insert_call"], [_values(row) for row in rows])

    def spent(self, *, since: float) -> list[Charge]:
        """See the port."""
        with self._transaction() as connection:
            return _spent(connection, since=since)

    def prune(self, *, before: float) -> int:
        """See the port."""
        values = {"before": before, "limit": PRUNED_AT_ONCE}
        with self._transaction() as connection:
            return connection.execute(_SQL["prune"], values).rowcount

    def close(self) -> None:
        """See the port."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is None:
                self._connection = _connect_to_write(self._path)
            self._connection.execute("begin immediate")
            yield self._connection
            self._connection.execute("commit")
        except (sqlite3.Error, OSError, ConfigInvalid, UnicodeDecodeError) as error:
            self.close()  # what was begun is undone by that
            raise _failed(error) from error
        except BaseException:
            self.close()
            raise


def _connect_to_write(path: Path) -> sqlite3.Connection:
    make_private(path)
    connection = connect(path, any_thread=True)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = normal")
        migrate(connection, path=str(path), schema=LEDGER)
    except BaseException:
        connection.close()
        raise
    return connection


def _values(row: LedgerRow) -> dict[str, object]:
    return dict(zip(_COLUMNS, _OF_ROW(row), strict=True))


def _failed(error: Exception) -> StoreFailed:
    known = isinstance(error, sqlite3.Error | UnicodeDecodeError)
    detail = (name_of(error) if known else "") or f"{type(error).__name__}: {error}"  # type: ignore[arg-type]
    return StoreFailed(
        Code.LEDGER_UNAVAILABLE, "The gateway's usage ledger cannot be used now.", detail=detail
    )


def _spent(connection: sqlite3.Connection, *, since: float) -> list[Charge]:
    return [
        Charge(
            work=Work(
                caller=row["caller"],
                project=row["project"],
                models=(row["model"], row["sent_model"]),
                account=row["account"],
            ),
            known=Totals(cost=row["cost"], tokens=row["used"], requests=row["requests"]),
            unpriced=row["unpriced"],
            uncounted=row["uncounted"],
        )
        for row in connection.execute(_SQL["spent"], {"since": since})
    ]


def read_spent(path: Path, *, since: float) -> list[Charge]:
    """What counts of the calls that ended from `since` (unix time) on, also while it is written.

    Nothing where there is no file. Raises ConfigInvalid.
    """
    if not path.exists():
        return []
    try:
        with closing(connect_to_read(path)) as connection:
            return _spent(connection, since=since)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ConfigInvalid:
    return ConfigInvalid(f"{path}: cannot be read as a usage ledger: {error}.")


def _never() -> bool:
    return False


def read_usage(
    path: Path,
    *,
    since: float,
    until: float,
    by: Sequence[str] = GROUPS,
    expired: Callable[[], bool] = _never,
) -> Generator[UsageSum, None, None]:
    """The sums of a ledger's file, also while a gateway writes it; none where there is no file.

    They are told apart by the groups of `by`, of which others are left empty; without `day` they
    are of the whole time, as if it were one quarter. `expired` is asked now and then whether to
    give up. Raises ConfigInvalid.
    """
    if not path.exists():
        return
    values = {"since": since, "until": until, "step": _QUARTER if "day" in by else _ALL_TIME}
    values |= {f"by_{group}": group in by for group in GROUPS if group != "day"}
    try:
        with closing(connect_to_read(path)) as connection:
            connection.set_progress_handler(expired, _ASKED_EVERY)
            for row in connection.execute(_SQL["usage"], values):
                yield UsageSum(**dict(row))
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
