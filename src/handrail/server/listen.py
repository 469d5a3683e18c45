"""The listening server: uvicorn with the guard in front, told when to stop."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn

from handrail.errors import ConfigInvalid
from handrail.server.guard import IDLE_SECONDS, GuardRules
from handrail.settings.load import LOOPBACK_HOSTS
from handrail.settings.model import Settings

SWEEP_SECONDS: Final = 1.0
BACKLOG: Final = 2_048


class _Server(uvicorn.Server):
    on_started: Callable[[], None] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:
            # uvicorn leaves the application out then. It has no waiting in it, and closing the
            # store in order costs milliseconds.
            await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises the signal again after a clean drain, which ends in exit status -15.
        yield


class Listener:
    """One server on one socket."""

    def __init__(self, app: Any, *, rules: GuardRules, grace_seconds: float) -> None:
        protocol = rules.protocol()
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            loop="none",
            lifespan="on",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            backlog=BACKLOG,
            timeout_keep_alive=int(IDLE_SECONDS),
            timeout_graceful_shutdown=max(1, round(grace_seconds)),
        )
        config.load()
        if config.http_protocol_class is not protocol:  # HTTP/2 would bypass the guard
            raise RuntimeError("uvicorn did not take the guard's protocol")
        self._rules = rules
        self._server = _Server(config)

    async def serve(self, sock: socket.socket, *, started: Callable[[], None]) -> None:
        """Serve until `stop`, then let requests finish within the grace.

        `started` is called as soon as connections are accepted.
        """
        self._server.on_started = started
        sweeper = asyncio.create_task(self._sweep(), name="guard sweep")
        try:
            await self._server.serve(sockets=[sock])
        finally:
            sweeper.cancel()

    def stop(self, *, now: bool = False) -> None:
        """Take no more connections and come to an end; `now` waits for nothing."""
        self._server.should_exit = True
        self._server.force_exit = self._server.force_exit or now

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._rules.sweep(loop.time())


def bind(settings: Settings) -> socket.socket:
    """The listening socket. Raises ConfigInvalid when the address cannot be had."""
    try:
        [family, kind, proto, _, address] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        raise ConfigInvalid(
            f"{settings.host}:{settings.port}: cannot listen there: {error.strerror}."
        ) from None
    sock.setblocking(False)
    return sock


def guard_rules(settings: Settings, *, max_connections: int) -> GuardRules:
    """The guard's rules of a snapshot: loopback names, the bound host, and what is configured."""
    names = {*LOOPBACK_HOSTS, settings.host, *settings.allowed_hosts}
    return GuardRules(
        allowed_hosts=frozenset(name.lower().encode() for name in names),
        max_body_bytes=settings.max_body_bytes,
        max_connections=max_connections,
    )
