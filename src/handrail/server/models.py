"""GET /v1/models: the upstream's own list, in a form that every client can read."""

import re
from typing import Final
from urllib.parse import quote

from handrail.core import models, wire
from handrail.core.model_access import ANY_MODEL, may_use, unknown_model
from handrail.core.wire import Body
from handrail.engine.dispatch import Dispatcher
from handrail.engine.reading import read_response
from handrail.server.exchange import Exchange
from handrail.settings.model import Caller, Settings

MAX_BYTES: Final = 8 << 20
_ID: Final = re.compile(r"[A-Za-z0-9._:@+\-]{1,128}(?:/[A-Za-z0-9._:@+\-]{1,128}){0,4}\Z")
_VERSION: Final = re.compile(r"[A-Za-z0-9.\-]{1,32}\Z")


class Models:
    """Handlers for the model list and for one model."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def list(self, exchange: Exchange, caller: Caller, settings: Settings) -> None:
        """GET /v1/models: those that the caller may use.

        `client_version`, which Codex CLI sends, goes along.
        """
        body, globs = await self._all(exchange, caller, settings), caller.policy.models
        if globs != ANY_MODEL:
            body = models.only(body, lambda name: may_use(name, globs))
        await exchange.reply(200, wire.encode(body))

    async def one(
        self, exchange: Exchange, caller: Caller, settings: Settings, *, model: str
    ) -> None:
        """GET /v1/models/{id}; ids may hold slashes, as those of model hubs do.

        Looked up in the list where the upstream has no route for one model.
        """
        segments = model.split("/")
        possible = _ID.match(model) and "." not in segments and ".." not in segments
        if not possible or not may_use(model, caller.policy.models):
            raise unknown_model(model)
        if not settings.target.profile.lists_only:
            path = f"/models/{quote(model, safe='/:@+')}"
            return await exchange.reply(200, wire.encode(await self._get(caller, settings, path)))
        entry = models.find(await self._all(exchange, caller, settings), model)
        if entry is None:
            raise unknown_model(model)
        return await exchange.reply(200, bytes(entry))

    async def _all(self, exchange: Exchange, caller: Caller, settings: Settings) -> Body:
        version = exchange.query().get("client_version", "")
        suffix = f"?client_version={version}" if _VERSION.match(version) else ""
        return models.both_shapes(await self._get(caller, settings, f"/models{suffix}"))

    async def _get(self, caller: Caller, settings: Settings, path: str) -> Body:
        tags = caller.policy.account_tags
        said = await self._dispatcher.ask(settings.target, path, limit=MAX_BYTES, tags=tags)
        return read_response(said)
