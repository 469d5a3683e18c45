"""GET /v1/models: the upstream's own list, passed on."""

import re
from typing import Final
from urllib.parse import quote

from handrail.core import wire
from handrail.engine.dispatch import Dispatcher
from handrail.engine.reading import read_response
from handrail.errors import Code, RequestRejected
from handrail.server.exchange import Exchange
from handrail.settings.model import Caller, Settings

MAX_BYTES: Final = 8 << 20
_ID: Final = re.compile(r"[A-Za-z0-9._:@+\-]{1,128}(?:/[A-Za-z0-9._:@+\-]{1,128}){0,4}\Z")
_VERSION: Final = re.compile(r"[A-Za-z0-9.\-]{1,32}\Z")


class Models:
    """Handlers for the model list and for one model."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def list(self, exchange: Exchange, _: Caller, settings: Settings) -> None:
        """GET /v1/models. `client_version`, which Codex CLI sends, goes along."""
        version = exchange.query().get("client_version", "")
        suffix = f"?client_version={version}" if _VERSION.match(version) else ""
        await self._get(exchange, settings, f"/models{suffix}")

    async def one(self, exchange: Exchange, _: Caller, settings: Settings, *, model: str) -> None:
        """GET /v1/models/{id}; ids may hold slashes, as those of model hubs do."""
        segments = model.split("/")
        if not _ID.match(model) or "." in segments or ".." in segments:
            raise RequestRejected(
                Code.NOT_FOUND, f"The model '{model[:80]}' does not exist.", param="model"
            )
        await self._get(exchange, settings, f"/models/{quote(model, safe='/:@+')}")

    async def _get(self, exchange: Exchange, settings: Settings, path: str) -> None:
        body = await self._dispatcher.ask(settings.target, path, limit=MAX_BYTES)
        await exchange.reply(200, wire.encode(read_response(body)))
