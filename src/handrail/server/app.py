"""The ASGI application: who may come in, which handler, and what becomes of an error.

Plain ASGI, because a framework's streaming reply forgets its upstream call when the client leaves
before the first byte. Paths are matched on their raw bytes, exactly: a percent-encoded or doubled
spelling of a route is not that route.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final
from urllib.parse import unquote

from handrail.core import wire
from handrail.errors import Code, Fault, HandrailError, RequestRejected, fault
from handrail.server.callers import identify
from handrail.server.exchange import Exchange, Receive, Scope, Send
from handrail.server.models import Models
from handrail.server.responses import Responses
from handrail.settings.model import Settings
from handrail.telemetry import get_logger

Handler = Callable[..., Awaitable[None]]
Routes = Mapping[str, Handler]

_RESPONSE: Final = re.compile(rb"/v1/responses/([A-Za-z0-9_\-]{1,128})(/cancel|/input_items)?\Z")
_MODEL: Final = b"/v1/models/"


class App:
    """`settings` gives the snapshot of the moment; `running` is open while the server is up."""

    def __init__(
        self,
        *,
        responses: Responses,
        models: Models,
        settings: Callable[[], Settings],
        ready: Callable[[], Awaitable[Mapping[str, Any]]],
        running: Callable[[], AbstractAsyncContextManager[None]],
        new_request_id: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._ready = ready
        self._running = running
        self._new_request_id = new_request_id
        self._logger = get_logger()
        self._fixed: Mapping[bytes, Routes] = {
            b"/v1/responses": {"POST": responses.create},
            b"/v1/models": {"GET": models.list},
        }
        self._of_response: Mapping[bytes, Routes] = {
            b"": {"GET": responses.retrieve, "DELETE": responses.delete},
            b"/cancel": {"POST": responses.cancel},
            b"/input_items": {"GET": responses.input_items},
        }
        self._of_model: Routes = {"GET": models.one}

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

    async def _answer(self, exchange: Exchange) -> None:
        problem: Fault
        try:
            return await self._route(exchange)
        except HandrailError as error:
            problem = error.fault
            if problem.status >= 500:
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
        if exchange.path in (b"/healthz", b"/readyz"):
            return await self._health(exchange)
        settings = self._settings()
        caller = identify(exchange, settings)
        _refuse_upgrade(exchange)
        handler, arguments = self._find(exchange)
        await handler(exchange, caller, settings, **arguments)
        self._logger.debug(
            "served",
            request=exchange.request_id,
            caller=caller.policy.name,
            method=exchange.method,
        )
        return None

    def _find(self, exchange: Exchange) -> tuple[Handler, Mapping[str, str]]:
        path = exchange.path
        if path in self._fixed:
            return _of_method(exchange, self._fixed[path]), {}
        match = _RESPONSE.match(path)
        if match is not None:
            routes = self._of_response[match[2] or b""]
            return _of_method(exchange, routes), {"response_id": match[1].decode()}
        if path.startswith(_MODEL) and len(path) > len(_MODEL):
            model = unquote(path[len(_MODEL) :].decode("latin-1"))
            return _of_method(exchange, self._of_model), {"model": model}
        raise RequestRejected(
            Code.NOT_FOUND,
            "There is no such route. The base URL of this gateway ends in /v1; see "
            "docs/reference/routes.md.",
        )

    async def _health(self, exchange: Exchange) -> None:
        if exchange.method != "GET":
            raise RequestRejected(Code.METHOD_NOT_ALLOWED, "Only GET is allowed here.")
        if exchange.path == b"/healthz":
            return await exchange.reply(200, b'{"status":"ok"}')
        state = await self._ready()
        status = 200 if state["status"] == "ready" else 503
        return await exchange.reply(status, wire.encode(state))


def _of_method(exchange: Exchange, routes: Routes) -> Handler:
    handler = routes.get(exchange.method)
    if handler is None:
        allowed = ", ".join(routes)
        raise RequestRejected(
            Code.METHOD_NOT_ALLOWED, f"{exchange.method} is not allowed here, only {allowed}."
        )
    return handler


def _refuse_browsers(exchange: Exchange) -> None:
    # No web page has business here, so no Origin is right, and no CORS header is ever sent:
    # a page must not spend the operator's credential (openai/codex#17648).
    site = exchange.header(b"sec-fetch-site")
    if exchange.header(b"origin") or site not in ("", "none", "same-origin"):
        raise RequestRejected(
            Code.ORIGIN_NOT_ALLOWED, "Requests from web pages are not served.", param="origin"
        )


def _refuse_upgrade(exchange: Exchange) -> None:
    # 426 makes Codex CLI fall back to HTTP at once; 404 or 403 costs it seven attempts.
    if exchange.header(b"upgrade").lower() == "websocket":
        raise RequestRejected(
            Code.UPGRADE_REQUIRED, "WebSocket is not spoken here yet; use HTTP.", param="upgrade"
        )
