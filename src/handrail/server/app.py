"""The ASGI application: who may come in, which handler, and what becomes of an error.

Plain ASGI, because a framework's streaming reply forgets its upstream call when the client leaves
before the first byte. Paths are matched on their raw bytes, exactly: a percent-encoded or doubled
spelling of a route is not that route.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

from handrail.core import wire
from handrail.errors import (
    Code,
    Fault,
    HandrailError,
    MethodNotAllowed,
    RequestRejected,
    StoreFailed,
    fault,
)
from handrail.server import admin as administration
from handrail.server.admin import ADMIN_ROUTES, Admin
from handrail.server.callers import Callers
from handrail.server.exchange import Exchange, Receive, Scope, Send
from handrail.server.models import Models
from handrail.server.responses import Responses
from handrail.server.through import Through, is_passed
from handrail.settings.model import Settings
from handrail.telemetry import get_logger

Handler = Callable[..., Awaitable[None]]

# Every route: path, method, what serves it. `{id}` is a response's id, `{model}` may hold slashes.
ROUTES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "/v1/responses": {"POST": "create"},
        "/v1/responses/compact": {"POST": "compact"},
        "/v1/responses/input_tokens": {"POST": "input_tokens"},
        "/v1/responses/{id}": {"GET": "retrieve", "DELETE": "delete"},
        "/v1/responses/{id}/cancel": {"POST": "cancel"},
        "/v1/responses/{id}/input_items": {"GET": "input_items"},
        "/v1/models": {"GET": "list_models"},
        "/v1/models/{model}": {"GET": "one_model"},
        "/healthz": {"GET": "health"},
        "/readyz": {"GET": "readiness"},
    }
)
# Served before anybody has to say who they are.
OPEN: Final = frozenset({"/healthz", "/readyz"})

_RESPONSE: Final = re.compile(rb"/v1/responses/([A-Za-z0-9_\-]{1,128})(/cancel|/input_items)?\Z")
_MODEL: Final = b"/v1/models/"


class App:
    """`settings` gives the snapshot of the moment; `running` is open while the server is up.

    `handlers` serve the routes of callers by name, `callers` tells who calls. Without `admin` there
    is nothing under /admin.
    """

    def __init__(
        self,
        *,
        handlers: Mapping[str, Handler],
        callers: Callers,
        admin: Admin | None = None,
        settings: Callable[[], Settings],
        ready: Callable[[], Awaitable[Mapping[str, Any]]],
        running: Callable[[], AbstractAsyncContextManager[None]],
        new_request_id: Callable[[], str],
    ) -> None:
        self._callers = callers
        self._admin = admin
        self._settings = settings
        self._ready = ready
        self._running = running
        self._new_request_id = new_request_id
        self._logger = get_logger()
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            exchange = Exchange(scope, receive, send, request_id=self._new_request_id())
            await self._serve(exchange)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._running():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, exchange: Exchange) -> None:
        # The client's leaving cancels this task, in whatever phase: that is what closes the
        # upstream call, also before its first byte.
        task = asyncio.current_task()

        def left() -> None:
            exchange.left = True
            if task is not None:
                task.cancel()

        exchange.connection.on_lost = left
        try:
            await self._answer(exchange)
        except asyncio.CancelledError:
            if not exchange.left and not exchange.started:
                await exchange.fail(fault(Code.SHUTTING_DOWN, "The gateway is shutting down."))
        finally:
            exchange.connection.on_lost = None
            exchange.over()

    async def _answer(self, exchange: Exchange) -> None:
        problem: Fault
        try:
            return await self._route(exchange)
        except StoreFailed as error:
            problem = error.fault
            self._logger.error(
                "request_failed", request=exchange.request_id, code=problem.code, why=error.detail
            )
        except HandrailError as error:
            problem = error.fault
            if problem.type == "server_error":
                self._log_problem(exchange, problem.code, error.__cause__)
        except Exception as error:
            self._log_problem(exchange, Code.INTERNAL_ERROR, error)
            problem = fault(
                Code.INTERNAL_ERROR,
                f"The gateway failed on this request; its id is {exchange.request_id}.",
            )
        if exchange.started:
            exchange.connection.drop()  # a second reply inside the first would be worse
            return None
        self._logger.debug(
            "refused", request=exchange.request_id, status=problem.status, code=problem.code
        )
        return await exchange.fail(problem)

    def _log_problem(
        self, exchange: Exchange, code: str | None, error: BaseException | None
    ) -> None:
        self._logger.error("request_failed", request=exchange.request_id, code=code, exc_info=error)

    async def _route(self, exchange: Exchange) -> None:
        _refuse_browsers(exchange)
        if self._admin is not None and administration.is_admin(exchange.path):
            return await self._administer(exchange, self._admin)
        path, arguments = match(exchange.path)
        if path in OPEN:
            return await self._health(exchange, _of_method(exchange, ROUTES.get(path)))
        settings = self._settings()
        caller = self._callers.identify(exchange, settings)
        _refuse_upgrade(exchange)
        if not path and is_passed(exchange.path, settings):
            handler = self._handlers["through"]
        else:
            handler = self._handlers[_of_method(exchange, ROUTES.get(path))]
        await handler(exchange, caller, settings, **arguments)
        self._logger.debug(
            "served",
            request=exchange.request_id,
            caller=caller.policy.name,
            method=exchange.method,
        )
        return None

    async def _administer(self, exchange: Exchange, admin: Admin) -> None:
        admin.check_key(exchange)
        _refuse_upgrade(exchange)
        path, arguments = administration.match(exchange.path)
        name = _of_method(exchange, ADMIN_ROUTES.get(path))
        await admin.handlers[name](exchange, self._settings(), **arguments)
        self._logger.info("administered", request=exchange.request_id, what=name)

    async def _health(self, exchange: Exchange, name: str) -> None:
        if name == "health":
            return await exchange.reply(200, b'{"status":"ok"}')
        state = await self._ready()
        status = 200 if state["status"] == "ready" else 503
        return await exchange.reply(status, wire.encode(state))


def handlers_of(responses: Responses, models: Models, through: Through) -> Mapping[str, Handler]:
    """What serves the routes of callers, by the names in ROUTES; `through` serves other ones."""
    return {
        "create": responses.create,
        "compact": responses.compact,
        "input_tokens": responses.input_tokens,
        "retrieve": responses.retrieve,
        "delete": responses.delete,
        "cancel": responses.cancel,
        "input_items": responses.input_items,
        "list_models": models.list,
        "one_model": models.one,
        "through": through.handle,
    }


def match(raw_path: bytes) -> tuple[str, Mapping[str, str]]:
    """The route of a raw path, "" when there is none, and what its braces stand for."""
    path = raw_path.decode("latin-1")
    if path in ROUTES and "{" not in path:
        return path, {}  # first: "compact" has the form of an id
    found = _RESPONSE.match(raw_path)
    if found is not None:
        suffix = (found[2] or b"").decode()
        return f"/v1/responses/{{id}}{suffix}", {"response_id": found[1].decode()}
    if raw_path.startswith(_MODEL) and len(raw_path) > len(_MODEL):
        return "/v1/models/{model}", {"model": unquote(path[len(_MODEL) :])}
    return "", {}


def _of_method(exchange: Exchange, methods: Mapping[str, str] | None) -> str:
    if methods is None:
        raise RequestRejected(
            Code.NOT_FOUND,
            "There is no such route. The base URL of this gateway ends in /v1; see "
            "docs/reference/routes.md.",
        )
    if exchange.method not in methods:
        raise MethodNotAllowed(exchange.method, allow=tuple(methods))
    return methods[exchange.method]


def _refuse_browsers(exchange: Exchange) -> None:
    # No web page has business here, so no Origin is right, and no CORS header is ever sent:
    # a page must not spend the operator's credential (openai/codex#17648).
    site = exchange.header(b"sec-fetch-site")
    if exchange.has_header(b"origin") or site not in ("", "none", "same-origin"):
        raise RequestRejected(
            Code.ORIGIN_NOT_ALLOWED, "Requests from web pages are not served.", param="origin"
        )


def _refuse_upgrade(exchange: Exchange) -> None:
    # 426 makes Codex CLI fall back to HTTP at once; 404 or 403 costs it seven attempts.
    if exchange.header(b"upgrade").lower() == "websocket":
        raise RequestRejected(
            Code.UPGRADE_REQUIRED, "WebSocket is not spoken here yet; use HTTP.", param="upgrade"
        )
