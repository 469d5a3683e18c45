"""One gateway process: what it opens before it serves, its signals, its end."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from handrail.bootstrap.accounts import accounts_in, declare, pool_of, tell_unused
from handrail.bootstrap.data_dir import (
    DATABASE,
    LEDGER,
    admin_key_digest,
    note_address,
    open_shared,
    take_lock,
    with_caller_key,
)
from handrail.bootstrap.descriptors import make_room
from handrail.bootstrap.ids import new_request_id
from handrail.bootstrap.keys import caller_keys
from handrail.bootstrap.loops import running
from handrail.bootstrap.parts import Books, NewClient, Parts, build
from handrail.bootstrap.vault_keys import store_key
from handrail.core.quota import Quota
from handrail.engine.clock import Clock, SystemClock
from handrail.engine.meter import CallListener, unheard
from handrail.engine.targets import Targets
from handrail.engine.usage_report import UsageReport
from handrail.errors import ConfigInvalid, StoreFailed
from handrail.server.admin import Admin, Operation, Reloaded
from handrail.server.app import App, handlers_of
from handrail.server.callers import Callers
from handrail.server.listen import Listener, bind, guard_rules
from handrail.settings.model import Settings
from handrail.store.base import Store
from handrail.store.files import private_directory
from handrail.store.ledger import SqliteLedger
from handrail.store.sqlite import open_sqlite
from handrail.store.vault import Vault
from handrail.telemetry import get_logger
from handrail.upstream.client import AiohttpClient

Load = Callable[[], Settings]


class OpenStore(Protocol):
    """Opens the run store; raises ConfigInvalid when it cannot be used."""

    def __call__(
        self,
        path: Path,
        *,
        vault: Vault,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        quota: Callable[[], Quota],
    ) -> Store:
        """The store on the file at `path`. `now` is unix time, both clocks are in seconds."""


# Read once, at the start; a reload that changes one of these says so in the log.
NEED_RESTART: Final = (
    "data_dir",
    "vault.store_key",
    "vault.accounts_key",
    "server.host",
    "server.port",
    "server.allowed_hosts",
    "server.max_connections",
    "server.drain",
    "server.heartbeat",
    "log.level",
    "background.max_duration",
    "background.max_output_bytes",
)


_RELOAD_SECONDS: Final = 10.0
"""How long the end waits for a reload that is under way."""


class Gateway:
    """A gateway, from its data directory to its listening socket.

    Building it takes the directory's lock, opens the store and binds the socket, so whatever is
    wrong shows as ConfigInvalid before anything is served. Ports that are not given are the
    machine's clock, SQLite and aiohttp. `on_call` is told of every upstream call that is over.
    """

    def __init__(
        self,
        load: Load,
        *,
        clock: Clock | None = None,
        open_store: OpenStore = open_sqlite,
        new_client: NewClient = AiohttpClient,
        on_call: CallListener = unheard,
    ) -> None:
        self._load = load
        self._clock = clock or SystemClock()
        self._new_client = new_client
        self._on_call = on_call
        self._logger = get_logger()
        self.reload_problem: str | None = None
        self._reloads = asyncio.Lock()
        self._reloading: set[asyncio.Task[Reloaded]] = set()
        self.draining = False
        self.exit_status = 0
        settings = load()
        private_directory(settings.data_dir)
        with ExitStack() as undo:
            self._lock = take_lock(settings.data_dir)
            undo.callback(self._lock.release)
            self.settings = with_caller_key(settings)
            self._admin_digest = admin_key_digest(self.settings)
            self._targets = Targets(self.settings.targets.values())
            self.socket = bind(self.settings)
            undo.callback(self.socket.close)
            self._shared = open_shared(settings.data_dir)
            undo.callback(self._shared.close)
            self._keys = caller_keys(self._shared, clock=self._clock)
            database = settings.data_dir / DATABASE
            key = store_key(settings)
            self._store = open_store(
                database,
                vault=Vault(key),
                now=self._clock.now,
                quota=lambda: self.settings.quota,
                monotonic=self._clock.monotonic,
            )
            self._accounts = accounts_in(
                self._shared, settings.data_dir, place=settings.vault.accounts
            )
            declare(self._accounts, self.settings, now=self._clock.now())
            tell_unused(self._accounts, self.settings)
            note_address(settings.data_dir, self.url)
            self._usage = UsageReport(settings.data_dir / LEDGER, monotonic=self._clock.monotonic)
            undo.pop_all()

    @property
    def url(self) -> str:
        """The base URL for clients."""
        host, port = self.socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/v1"

    async def serve(self, *, started: Callable[[], None] = lambda: None) -> int:
        """Serve until SIGTERM or SIGINT; the process's exit status.

        A first signal drains: streams and runs may go on for the configured time. A second one
        ends at once. SIGHUP reloads the settings. `started` is called once connections are taken.
        """
        self._parts = await self._built()
        app = App(
            handlers=handlers_of(self._parts.responses, self._parts.models, self._parts.through),
            callers=Callers(self._keys),
            admin=self._admin(self._parts),
            settings=lambda: self.settings,
            ready=self.ready,
            running=lambda: self._running(self._parts),
            new_request_id=new_request_id,
        )
        self._listener = Listener(
            app,
            rules=guard_rules(self.settings, max_connections=self._connections()),
            # A second more than the runs get, for the readers of their terminal events.
            grace_seconds=self.settings.drain_seconds + 1.0,
        )
        self._stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self._reload_soon,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        drainer = asyncio.create_task(self._drain_when_stopping(), name="drain")
        try:
            await self._listener.serve(self.socket, started=started)
        finally:
            drainer.cancel()
            for number in handlers:
                loop.remove_signal_handler(number)
            self._lock.release()
        return self.exit_status

    def _admin(self, parts: Parts) -> Admin:
        return Admin(
            Operation(
                digest=lambda: self._admin_digest,
                keys=self._keys,
                accounts=self._accounts,
                pool=self._pool,
                store=self._store,
                background=parts.background,
                charging=parts.charging,
                usage=self._usage,
                clock=self._clock,
                reload=self.reload,
                problem=lambda: self.reload_problem,
            )
        )

    async def _built(self) -> Parts:
        self._pool = await pool_of(
            self._accounts, settings=lambda: self.settings, clock=self._clock
        )
        return build(
            lambda: self.settings,
            store=self._store,
            new_client=self._new_client,
            targets=self._targets,
            clock=self._clock,
            on_call=self._on_call,
            books=Books(
                accounts=self._pool,
                ledger=SqliteLedger(self.settings.data_dir / LEDGER),
            ),
        )

    def _connections(self) -> int:
        wanted = self.settings.max_connections
        admitted = make_room(wanted, runs=self.settings.max_running)
        if admitted < wanted:
            self._logger.warning("too_few_descriptors", wanted=wanted, connections=admitted)
        return admitted

    @asynccontextmanager
    async def _running(self, parts: Parts) -> AsyncIterator[None]:
        await self._keys.look()  # before the first request, or it would find no key
        self._tell_keyless()
        async with running(parts, broken=self._broken, beside={"keys": self._keys.loop}):
            yield
        if self._reloading:
            await asyncio.wait(self._reloading, timeout=_RELOAD_SECONDS)
        await self._keys.close()
        self._usage.close()
        await asyncio.to_thread(self._accounts.close)
        await self._store.close()

    def _broken(self) -> None:
        # It stops, says so by its exit status, and is started again by whoever watches it.
        self.exit_status = 1
        self.stop()

    # --- stopping --------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin to drain; called again, end at once."""
        if self.draining:
            self._listener.stop(now=True)
            return
        self._logger.info("draining", seconds=self.settings.drain_seconds)
        self.draining = True
        self._parts.responses.draining = True
        self._stopping.set()
        self._listener.stop()

    async def _drain_when_stopping(self) -> None:
        await self._stopping.wait()
        await self._parts.executor.drain(self.settings.drain_seconds)
        self._parts.tails.close()

    # --- reloading -------------------------------------------------------------------------

    def _reload_soon(self) -> None:
        # Kept, because a task that nobody refers to can be collected before it has run.
        self._hangup = asyncio.get_running_loop().create_task(self.reload(), name="hangup")

    async def reload(self) -> Reloaded:
        """Take a new snapshot for new requests; keep the old one if the new is invalid.

        Requests under way and waiting runs keep what was decided for them. Unfinished runs of
        callers who are gone are cancelled. The keys of callers are read again too.
        """
        # A task of its own: whoever asked may leave, and half a reload would be worse than none.
        task = asyncio.create_task(self._reload_in_turn(), name="reload")
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)
        return await asyncio.shield(task)

    async def _reload_in_turn(self) -> Reloaded:
        async with self._reloads:  # what was read later must not be overtaken
            return await self._reload()

    async def _reload(self) -> Reloaded:
        try:
            # Beside the loop: the accounts' file may be locked for a while, a keyring may ask.
            settings, admin_digest = await asyncio.to_thread(self._read)
        except (ConfigInvalid, OSError, StoreFailed) as error:
            self.reload_problem = str(error)
            self._logger.error("reload_failed", why=str(error))
            return Reloaded(problem=self.reload_problem)
        self.reload_problem = None
        changed = [
            path for path in NEED_RESTART if settings.values[path] != self.settings.values[path]
        ]
        for path in changed:
            self._logger.warning("setting_needs_restart", setting=path)
        if self._parts.ledger is not None:
            await self._parts.ledger.use(settings.accounting)
        self._targets.use(settings.targets.values())
        self.settings = settings
        self._admin_digest = admin_digest
        self._parts.executor.wake()
        await self._keys.look()
        self._tell_keyless()
        try:
            revoked = await self._parts.background.revoke_all_but(settings.callers)
        except StoreFailed as error:
            self._logger.error("revocation_failed", why=error.fault.code)
            self._parts.recovery.wake()
            revoked = 0
        self._logger.info("reloaded", callers=len(settings.callers), runs_revoked=revoked)
        return Reloaded(
            callers=len(settings.callers), runs_revoked=revoked, needs_restart=tuple(changed)
        )

    def _read(self) -> tuple[Settings, bytes]:
        """The settings as they are now, and the digest of the admin key."""
        settings = with_caller_key(self._load())
        admin_digest = admin_key_digest(replace(settings, data_dir=self.settings.data_dir))
        declare(self._accounts, settings, now=self._clock.now())
        tell_unused(self._accounts, settings)
        return settings, admin_digest

    def _tell_keyless(self) -> None:
        # Not an error, because the keys may be made next; but a caller without one cannot call.
        callers = self.settings.callers
        keyless = self._keys.without([n for n in callers if callers[n].digest is None])
        if keyless:
            self._logger.warning("callers_without_key", callers=keyless)

    async def ready(self) -> Mapping[str, Any]:
        """What /readyz says: whether to send requests here, and whether settings are stale.

        A sick store is told but does not make the gateway unready: stateless traffic goes on.
        """
        try:
            await self._store.counts()
            store = "ok" if self._store.broken is None else "broken"
        except StoreFailed as error:
            store = error.fault.code or "failed"
        return {
            "status": "draining" if self.draining else "ready",
            "store": store,
            "keys": "stale" if self._keys.stale else "current",
            "settings": "current" if self.reload_problem is None else "stale",
        }
