"""Puts the engine and the server together. Called inside the running event loop."""

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from handrail.bootstrap.ids import new_response_id, new_row_id
from handrail.engine.accounts import Pool
from handrail.engine.background import Background
from handrail.engine.budgets import Budgets
from handrail.engine.charging import Charging
from handrail.engine.clock import Clock
from handrail.engine.concurrency import Concurrency
from handrail.engine.dispatch import Dispatcher
from handrail.engine.execution import Execution
from handrail.engine.executors import LocalExecutor
from handrail.engine.foreground import Foreground
from handrail.engine.history import Histories
from handrail.engine.journal import Journal
from handrail.engine.kept import KeptForeground
from handrail.engine.ledger import LedgerKeeper
from handrail.engine.meter import CallListener, CallRecord, unheard
from handrail.engine.passing import Passing
from handrail.engine.rates import Rates
from handrail.engine.recovery import Recovery
from handrail.engine.retention import Retention
from handrail.engine.sending import Sender
from handrail.engine.single import Accounts, Single
from handrail.engine.tail import Tails
from handrail.engine.targets import Targets
from handrail.engine.upstream_runs import UpstreamRuns
from handrail.server.models import Models
from handrail.server.responses import Responses
from handrail.server.through import Through
from handrail.settings.model import Settings
from handrail.store.base import Store
from handrail.store.ledger import Ledger
from handrail.upstream.client import UpstreamClient

NewClient = Callable[[], UpstreamClient]
"""Makes the client for upstream calls, inside the running event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What runs in one process, by name."""

    owner: str
    client: UpstreamClient
    tails: Tails
    journal: Journal
    executor: LocalExecutor
    retention: Retention
    recovery: Recovery
    background: Background
    ledger: LedgerKeeper | None
    charging: Charging
    responses: Responses
    models: Models
    through: Through
    targets: Targets
    accounts: Pool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What is kept beside runs.

    Without `ledger` there are no budgets, without `accounts` only the credential of the settings.
    """

    accounts: Pool | None = None
    ledger: Ledger | None = None

    def called_with(self, clock: Clock) -> Accounts:
        """What upstream calls are made with."""
        return self.accounts or Single(now=clock.now)


NO_BOOKS: Final = Books()


def build(
    settings: Callable[[], Settings],
    *,
    store: Store,
    new_client: NewClient,
    targets: Targets,
    clock: Clock,
    on_call: CallListener = unheard,
    books: Books = NO_BOOKS,
) -> Parts:
    """Everything between the store and the routes.

    `settings` gives the snapshot of the moment: limits follow it, all else is that of the start.
    `on_call` gets a record of every upstream call, and so does the ledger of the `books`.
    """
    client = new_client()
    keeper = _keeper(settings, books.ledger, clock=clock)
    charging = _charging(settings, keeper, accounts=books.accounts, clock=clock)
    heard = _listener(charging, keeper, on_call)
    calling = _Calling(
        client=client, accounts=books.called_with(clock), listener=heard, clock=clock
    )
    base = calling.base(store, charging, targets, heartbeat_seconds=settings().heartbeat_seconds)
    tails = Tails(store, heartbeat_seconds=base.heartbeat_seconds)
    journal = Journal(store=store, tails=tails, clock=clock)
    execution = _execution(settings, base, journal=journal)
    executor = _executor(settings, base, execution=execution)
    background = _background(base, executor, tails=tails)
    kept = _kept(base, execution, executor, journal=journal, tails=tails)
    return Parts(
        owner=executor.owner,
        client=client,
        tails=tails,
        journal=journal,
        executor=executor,
        retention=Retention(store=store, clock=clock),
        recovery=_recovery(settings, background=background, owner=executor.owner, clock=clock),
        background=background,
        ledger=keeper,
        charging=charging,
        responses=_responses(base, background, kept),
        models=Models(base.dispatcher),
        through=Through(calling.passing(), charging=charging),
        targets=targets,
        accounts=books.accounts,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """What nearly every part needs."""

    store: Store
    dispatcher: Dispatcher
    charging: Charging
    targets: Targets
    clock: Clock
    heartbeat_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Calling:
    """What upstream calls are made with."""

    client: UpstreamClient
    accounts: Accounts
    listener: CallListener
    clock: Clock

    def passing(self) -> Passing:
        sender = Sender(self.client, clock=self.clock)
        return Passing(sender, accounts=self.accounts, listener=self.listener, clock=self.clock)

    def base(
        self, store: Store, charging: Charging, targets: Targets, *, heartbeat_seconds: int
    ) -> _Base:
        return _Base(
            store=store,
            dispatcher=Dispatcher(
                self.client, clock=self.clock, listener=self.listener, accounts=self.accounts
            ),
            charging=charging,
            targets=targets,
            clock=self.clock,
            heartbeat_seconds=float(heartbeat_seconds),
        )


def _background(base: _Base, executor: LocalExecutor, *, tails: Tails) -> Background:
    return Background(
        store=base.store,
        executor=executor,
        tails=tails,
        clock=base.clock,
        budgets=base.charging.budgets,
    )


def _keeper(
    settings: Callable[[], Settings], ledger: Ledger | None, *, clock: Clock
) -> LedgerKeeper | None:
    if ledger is None:
        return None
    return LedgerKeeper(
        ledger, accounting=lambda: settings().accounting, clock=clock, new_id=new_row_id
    )


def _listener(charging: Charging, keeper: LedgerKeeper | None, other: CallListener) -> CallListener:
    ledger = unheard if keeper is None else keeper.heard

    def each(record: CallRecord) -> None:
        ledger(record)
        charging.heard(record)
        other(record)

    return each


def _charging(
    settings: Callable[[], Settings],
    keeper: LedgerKeeper | None,
    *,
    accounts: Pool | None,
    clock: Clock,
) -> Charging:
    budgets = Budgets(now=clock.now) if keeper is None else keeper.budgets
    if accounts is not None:
        accounts.heed(budgets.of_account)

    def at_once(caller: str) -> int:
        known = settings().callers.get(caller)
        return 0 if known is None else known.policy.max_foreground

    return Charging(
        budgets,
        rates=Rates(limits=lambda: settings().accounting.limits, monotonic=clock.monotonic),
        concurrency=Concurrency(most=at_once),
        new_id=new_response_id,
    )


def _execution(settings: Callable[[], Settings], base: _Base, *, journal: Journal) -> Execution:
    first = settings()
    return Execution(
        dispatcher=base.dispatcher,
        journal=journal,
        store=base.store,
        targets=base.targets,
        clock=base.clock,
        max_seconds=first.max_run_seconds,
        max_bytes=first.max_output_bytes,
    )


def _executor(
    settings: Callable[[], Settings], base: _Base, *, execution: Execution
) -> LocalExecutor:
    return LocalExecutor(
        owner=secrets.token_hex(8),
        store=base.store,
        execute=execution.run,
        limits=lambda: settings().limits,
        ended=base.charging.budgets.release,
    )


def _kept(
    base: _Base,
    execution: Execution,
    executor: LocalExecutor,
    *,
    journal: Journal,
    tails: Tails,
) -> KeptForeground:
    return KeptForeground(
        store=base.store,
        execution=execution,
        executor=executor,
        journal=journal,
        tails=tails,
        clock=base.clock,
    )


def _responses(base: _Base, background: Background, kept: KeptForeground) -> Responses:
    return Responses(
        foreground=Foreground(
            base.dispatcher, clock=base.clock, heartbeat_seconds=base.heartbeat_seconds
        ),
        background=background,
        kept=kept,
        upstream_runs=UpstreamRuns(
            dispatcher=base.dispatcher,
            store=base.store,
            targets=base.targets,
            clock=base.clock,
            heartbeat_seconds=base.heartbeat_seconds,
        ),
        histories=Histories(base.store),
        charging=base.charging,
        clock=base.clock,
    )


def _recovery(
    settings: Callable[[], Settings], *, background: Background, owner: str, clock: Clock
) -> Recovery:
    def callers() -> Collection[str]:
        return settings().callers

    return Recovery(background, owner=owner, callers=callers, clock=clock)
