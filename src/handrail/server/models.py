"""GET /v1/models: the upstreams' own lists as one, in a form that every client can read."""

import asyncio
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from handrail.core import models, wire
from handrail.core.caller_policy import CallerPolicy
from handrail.core.model_access import ANY_MODEL, may_use, unknown_model
from handrail.core.routes import EVERYTHING, route
from handrail.core.wire import Body
from handrail.engine.dispatch import Dispatcher
from handrail.engine.reading import read_response
from handrail.errors import HandrailError
from handrail.server.exchange import Exchange
from handrail.settings.model import Caller, Settings, Target
from handrail.telemetry import get_logger

MAX_BYTES: Final = 8 << 20
_ID: Final = re.compile(r"[A-Za-z0-9._:@+\-]{1,128}(?:/[A-Za-z0-9._:@+\-]{1,128}){0,4}\Z")
_VERSION: Final = re.compile(r"[A-Za-z0-9.\-]{1,32}\Z")


class Models:
    """Handlers for the model list and for one model."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._logger = get_logger()

    async def list(self, exchange: Exchange, caller: Caller, settings: Settings) -> None:
        """GET /v1/models: those that the caller may use, of all targets that it may use.

        `client_version`, which Codex CLI sends, goes along.
        """
        body = await self._all(exchange, caller, settings)
        await exchange.reply(200, wire.encode(body))

    async def one(
        self, exchange: Exchange, caller: Caller, settings: Settings, *, model: str
    ) -> None:
        """GET /v1/models/{id}; ids may hold slashes, as those of model hubs do.

        Looked up in the list where the upstream has no route for one model.
        """
        segments = model.split("/")
        possible = _ID.match(model) and "." not in segments and ".." not in segments
        targets = settings.targets_for(model, caller.policy)
        if not possible or not targets or not may_use(model, caller.policy.models):
            raise unknown_model(model)
        if len(targets) == 1 and not targets[0].profile.lists_only:
            path = f"/models/{quote(model, safe='/:@+')}"
            found = await self._get(targets[0], path, caller.policy)
            return await exchange.reply(200, wire.encode(found))
        entry = models.find(await self._all(exchange, caller, settings), model)
        if entry is None:
            raise unknown_model(model)
        return await exchange.reply(200, bytes(entry))

    async def _all(self, exchange: Exchange, caller: Caller, settings: Settings) -> Body:
        version = exchange.query().get("client_version", "")
        path = f"/models?client_version={version}" if _VERSION.match(version) else "/models"
        names = caller.policy.targets
        targets = [t for name, t in settings.targets.items() if names is None or name in names]
        lists = []
        problem: HandrailError | None = None
        asked = (self._listed(target, path, caller.policy) for target in targets)
        for target, found in zip(targets, await asyncio.gather(*asked), strict=True):
            if isinstance(found, HandrailError):
                self._logger.warning("models_not_listed", target=target.label, why=found.fault.code)
                problem = problem or found
            else:
                wanted = _wanted(target, caller.policy, settings)
                lists.append(found if wanted is None else models.only(found, wanted))
        if problem is not None and not lists:
            raise problem
        return models.union(lists)

    async def _listed(
        self, target: Target, path: str, policy: CallerPolicy
    ) -> Body | HandrailError:
        try:
            return models.both_shapes(await self._get(target, path, policy))
        except HandrailError as error:  # one that is down must not hide the others
            return error

    async def _get(self, target: Target, path: str, policy: CallerPolicy) -> Body:
        tags = policy.account_tags
        return read_response(await self._dispatcher.ask(target, path, limit=MAX_BYTES, tags=tags))


def _wanted(
    target: Target, policy: CallerPolicy, settings: Settings
) -> Callable[[str], bool] | None:
    """Which of a target's models a caller's requests would get there; None for all of them."""
    if target.only and settings.routes[0].model == EVERYTHING and policy.models == ANY_MODEL:
        return None

    def wanted(name: str) -> bool:
        return may_use(name, policy.models) and target.label in route(
            name, settings.routes, policy.targets
        )

    return wanted
