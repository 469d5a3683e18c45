"""Puts the engine and the server together. Called inside the running event loop."""

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from handrail.engine.accounts import Pool
from handrail.engine.background import Background
from handrail.engine.clock import Clock
from handrail.engine.dispatch import Dispatcher
from handrail.engine.execution import Execution
from handrail.engine.executors import LocalExecutor
from handrail.engine.foreground import Foreground
from handrail.engine.history import Histories
from handrail.engine.journal import Journal
from handrail.engine.kept import KeptForeground
from handrail.engine.meter import CallListener, unheard
from handrail.engine.recovery import Recovery
from handrail.engine.retention import Retention
from handrail.engine.tail import Tails
from handrail.engine.targets import Targets
from handrail.engine.upstream_runs import UpstreamRuns
from handrail.server.models import Models
from handrail.server.responses import Responses
from handrail.settings.model import Settings
from handrail.store.base import Store
from handrail.upstream.client import UpstreamClient

# How long an idle upstream connection is kept. uvicorn-based servers close theirs after 5 s, and a
# request on a connection that is just being closed is lost.
_KEEP_ALIVE_SECONDS: Final = {"compatible": 4.0}


class NewClient(Protocol):
    """Makes the client for upstream calls, inside the running event loop."""

    def __call__(self, *, idle_seconds: float) -> UpstreamClient:
        """A client that keeps an unused connection for `idle_seconds`."""


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
    responses: Responses
    models: Models
    accounts: Pool | None = None


def build(
    settings: Callable[[], Settings],
    *,
    store: Store,
    new_client: NewClient,
    targets: Targets,
    clock: Clock,
    on_call: CallListener = unheard,
    accounts: Pool | None = None,
) -> Parts:
    """Everything between the store and the routes.

    `settings` gives the snapshot of the moment: limits follow it, all else is that of the start.
    `on_call` gets a record of every upstream call. Without `accounts` there is the credential of
    the settings alone.
    """
    heartbeat = float(settings().heartbeat_seconds)
    client = new_client(idle_seconds=_KEEP_ALIVE_SECONDS.get(targets.current.profile.name, 15.0))
    dispatcher = Dispatcher(client, clock=clock, listener=on_call, accounts=accounts)
    tails = Tails(store, heartbeat_seconds=heartbeat)
    journal = Journal(store=store, tails=tails, clock=clock)
    execution, executor = _execution(
        settings, store=store, dispatcher=dispatcher, journal=journal, targets=targets, clock=clock
    )
    background = Background(
        store=store, executor=executor, tails=tails, clock=clock, new_id=new_response_id
    )
    responses = Responses(
        foreground=Foreground(dispatcher, clock=clock, heartbeat_seconds=heartbeat),
        background=background,
        kept=_kept(execution, executor, store=store, journal=journal, tails=tails, clock=clock),
        upstream_runs=_upstream_runs(
            dispatcher, store=store, targets=targets, heartbeat=heartbeat, clock=clock
        ),
        histories=Histories(store),
        clock=clock,
        new_id=new_response_id,
    )
    return Parts(
        owner=executor.owner,
        client=client,
        tails=tails,
        journal=journal,
        executor=executor,
        retention=Retention(store=store, clock=clock),
        recovery=_recovery(settings, background=background, owner=executor.owner, clock=clock),
        background=background,
        responses=responses,
        models=Models(dispatcher),
        accounts=accounts,
    )


def _execution(
    settings: Callable[[], Settings],
    *,
    store: Store,
    dispatcher: Dispatcher,
    journal: Journal,
    targets: Targets,
    clock: Clock,
) -> tuple[Execution, LocalExecutor]:
    first = settings()
    execution = Execution(
        dispatcher=dispatcher,
        journal=journal,
        store=store,
        targets=targets,
        clock=clock,
        max_seconds=first.max_run_seconds,
        max_bytes=first.max_output_bytes,
    )
    executor = LocalExecutor(
        owner=secrets.token_hex(8),
        store=store,
        execute=execution.run,
        limits=lambda: settings().limits,
    )
    return execution, executor


def _kept(
    execution: Execution,
    executor: LocalExecutor,
    *,
    store: Store,
    journal: Journal,
    tails: Tails,
    clock: Clock,
) -> KeptForeground:
    return KeptForeground(
        store=store,
        execution=execution,
        executor=executor,
        journal=journal,
        tails=tails,
        clock=clock,
        new_id=new_response_id,
    )


def _upstream_runs(
    dispatcher: Dispatcher, *, store: Store, targets: Targets, clock: Clock, heartbeat: float
) -> UpstreamRuns:
    return UpstreamRuns(
        dispatcher=dispatcher,
        store=store,
        targets=targets,
        clock=clock,
        heartbeat_seconds=heartbeat,
    )


def _recovery(
    settings: Callable[[], Settings], *, background: Background, owner: str, clock: Clock
) -> Recovery:
    def callers() -> Collection[str]:
        return settings().callers

    return Recovery(background, owner=owner, callers=callers, clock=clock)


def new_response_id() -> str:
    """An id that cannot be guessed: 192 random bits."""
    return f"resp_{secrets.token_hex(24)}"


def new_request_id() -> str:
    """What an operator finds in the log and a caller in `x-request-id`."""
    return f"req_{secrets.token_hex(16)}"
