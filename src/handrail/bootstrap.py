"""The composition root: the only place where concrete classes meet."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from filelock import FileLock, Timeout

from handrail.engine.background import Background
from handrail.engine.clock import Clock, SystemClock
from handrail.engine.dispatch import Dispatcher
from handrail.engine.execution import Execution
from handrail.engine.executors import LocalExecutor
from handrail.engine.foreground import Foreground
from handrail.engine.journal import Journal
from handrail.engine.retention import Retention
from handrail.engine.tail import Tails
from handrail.engine.targets import Targets
from handrail.errors import ConfigInvalid, StoreFailed
from handrail.server.app import App
from handrail.server.listen import Listener, bind, guard_rules
from handrail.server.models import Models
from handrail.server.responses import Responses
from handrail.settings.load import DEFAULT_CALLER, key_digest
from handrail.settings.model import Settings
from handrail.store.files import private_directory, read_private, replace_file
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault, load_store_key
from handrail.telemetry import get_logger
from handrail.upstream.client import AiohttpClient

DATABASE: Final = "handrail.db"
STORE_KEY: Final = "store.key"
CALLER_KEY: Final = "caller.key"
LOCK: Final = "gateway.lock"
_KEEP_ALIVE_SECONDS: Final = {"compatible": 4.0}  # uvicorn-based servers close at 5 s

Load = Callable[[], Settings]


def caller_key_file(settings: Settings) -> Path:
    """Where the generated caller key is, or will be."""
    return settings.data_dir / CALLER_KEY


def with_caller_key(settings: Settings) -> Settings:
    """The settings with the generated key of the default caller filled in, made if missing.

    Raises ConfigInvalid when the key file is not private or empty.
    """
    caller = settings.callers.get(DEFAULT_CALLER)
    if caller is None or caller.digest is not None:
        return settings
    path = caller_key_file(settings)
    data = read_private(path)
    if data is None:
        data = f"hr_{secrets.token_urlsafe(32)}\n".encode()
        replace_file(path, data)
    key = data.decode("ascii", "replace").strip()
    if not key:
        raise ConfigInvalid(f"{path}: is empty; delete it to have a new key made.")
    filled = {**settings.callers, DEFAULT_CALLER: replace(caller, digest=key_digest(key))}
    return replace(settings, callers=MappingProxyType(filled))


class Gateway:
    """Everything that runs, built from one snapshot of settings.

    Building it takes the data directory's lock, opens the store and binds the socket, so whatever
    is wrong shows as ConfigInvalid before anything is served.
    """

    def __init__(self, load: Load, *, clock: Clock | None = None) -> None:
        self._load = load
        self._clock = clock or SystemClock()
        self._logger = get_logger()
        self.reload_problem: str | None = None
        self.draining = False
        self.exit_status = 0
        settings = load()
        private_directory(settings.data_dir)
        with ExitStack() as undo:
            self._lock = _take_lock(settings.data_dir)
            undo.callback(self._lock.release)
            self.settings = with_caller_key(settings)
            self._targets = Targets(self.settings.target)
            self.socket = bind(self.settings)
            undo.callback(self.socket.close)
            database = settings.data_dir / DATABASE
            key = load_store_key(settings.data_dir / STORE_KEY, database=database)
            self._store = SqliteStore(database, vault=Vault(key), now=self._clock.now)
            self._store.open()
            undo.pop_all()

    @property
    def url(self) -> str:
        """The base URL for clients."""
        host, port = self.socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/v1"

    # --- the life of the process -----------------------------------------------------------

    async def serve(self, *, started: Callable[[], None] = lambda: None) -> int:
        """Serve until SIGTERM or SIGINT; the process's exit status.

        A first signal drains: streams and runs may go on for the configured time. A second one
        ends at once. SIGHUP reloads the settings.
        """
        self._build()
        grace = self.settings.drain_seconds + 1.0
        self._listener = Listener(self._app, rules=guard_rules(self.settings), grace_seconds=grace)
        self._stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        drainer = asyncio.create_task(self._drain_when_stopping(), name="drain")
        try:
            await self._listener.serve(self.socket, started=started)
        finally:
            drainer.cancel()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            self._lock.release()
        return self.exit_status

    def _build(self) -> None:
        store, clock = self._store, self._clock
        self._client = AiohttpClient(
            idle_seconds=_KEEP_ALIVE_SECONDS.get(self.settings.target.profile.name, 15.0)
        )
        dispatcher = Dispatcher(self._client, clock=clock)
        heartbeat = float(self.settings.heartbeat_seconds)
        self._tails = Tails(store, heartbeat_seconds=heartbeat)
        self._journal = Journal(store=store, tails=self._tails, clock=clock)
        execution = Execution(
            dispatcher=dispatcher,
            journal=self._journal,
            store=store,
            targets=self._targets,
            clock=clock,
            max_seconds=self.settings.max_run_seconds,
            max_bytes=self.settings.max_output_bytes,
        )
        self._owner = secrets.token_hex(8)
        self._executor = LocalExecutor(
            owner=self._owner,
            store=store,
            execute=execution.run,
            limits=lambda: self.settings.limits,
        )
        self._background = Background(
            store=store,
            executor=self._executor,
            tails=self._tails,
            clock=clock,
            new_id=new_response_id,
        )
        self._responses = Responses(
            foreground=Foreground(dispatcher, clock=clock, heartbeat_seconds=heartbeat),
            background=self._background,
            targets=self._targets,
            clock=clock,
            new_id=new_response_id,
        )
        self._app = App(
            responses=self._responses,
            models=Models(dispatcher),
            settings=lambda: self.settings,
            ready=self.ready,
            running=self._running,
            new_request_id=lambda: f"req_{secrets.token_hex(16)}",
        )

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        retention = Retention(store=self._store, clock=self._clock)
        loops = {
            "journal": self._journal.loop,
            "executor": self._executor.start,
            "retention": retention.loop,
            "recovery": self._take_over,
        }
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._supervised(name, loop), name=name)
                for name, loop in loops.items()
            ]
            yield
            self._tails.close()
            for task in tasks:
                task.cancel()
        await self._client.close()
        await self._store.close()

    async def _supervised(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        # A gateway whose journal or executor has died must not go on answering as if all were
        # well: it stops, says so, and is started again by whoever watches it.
        try:
            await loop()
        except Exception as error:
            self._logger.error("loop_broke", loop=name, exc_info=error)
            self.exit_status = 1
            self.stop()

    async def _take_over(self) -> None:
        try:
            await self._background.recover(owner=self._owner)
            await self._background.revoke_all_but(self.settings.callers)
        except StoreFailed as error:
            self._logger.error("recovery_failed", why=error.fault.code)

    # --- stopping --------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin to drain; called again, end at once."""
        if self.draining:
            self._listener.stop(now=True)
            return
        self._logger.info("draining", seconds=self.settings.drain_seconds)
        self.draining = True
        self._responses.draining = True
        self._stopping.set()
        self._listener.stop()

    async def _drain_when_stopping(self) -> None:
        await self._stopping.wait()
        await self._executor.drain(self.settings.drain_seconds)
        self._tails.close()

    # --- reloading -------------------------------------------------------------------------

    def _reload_soon(self) -> None:
        self._reloading = asyncio.get_running_loop().create_task(self.reload(), name="reload")

    async def reload(self) -> None:
        """Take a new snapshot for new requests; keep the old one if the new is invalid.

        Requests under way and waiting runs keep what was decided for them. Unfinished runs of
        callers who are gone are cancelled.
        """
        try:
            settings = with_caller_key(self._load())
        except (ConfigInvalid, OSError) as error:
            self.reload_problem = str(error)
            self._logger.error("reload_failed", why=str(error))
            return
        self.reload_problem = None
        for path in ("server.host", "server.port", "data_dir", "server.max_connections"):
            if settings.values[path] != self.settings.values[path]:
                self._logger.warning("setting_needs_restart", setting=path)
        self._targets.use(settings.target)
        self.settings = settings
        self._executor.wake()
        revoked = await self._background.revoke_all_but(settings.callers)
        self._logger.info("reloaded", callers=len(settings.callers), runs_revoked=revoked)

    async def ready(self) -> Mapping[str, Any]:
        """What /readyz says: whether to send requests here, and whether settings are stale."""
        status = "draining" if self.draining else "ready"
        runs: Mapping[str, int] = {}
        try:
            runs = await self._store.counts()
            store = "ok"
        except StoreFailed as error:
            store = error.fault.code or "failed"
        settings = "current" if self.reload_problem is None else "stale"
        return {"status": status, "store": store, "settings": settings, "runs": runs}


def new_response_id() -> str:
    """An id that cannot be guessed: 192 random bits."""
    return f"resp_{secrets.token_hex(24)}"


def _take_lock(data_dir: Path) -> FileLock:
    lock = FileLock(data_dir / LOCK, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigInvalid(
            f"{data_dir}: another gateway is using this data directory; stop it, or give this "
            "one its own --data-dir."
        ) from None
    except OSError as error:
        raise ConfigInvalid(f"{data_dir}: cannot be used: {error.strerror}.") from None
    return lock
