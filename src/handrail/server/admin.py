"""The routes under /admin: what an operator sees and does, as JSON, with a key of its own.

Nothing here shows a prompt, an output or a key, but for a new key in the reply that makes it.
"""

import asyncio
import contextlib
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import msgspec

from handrail.core.admin import check_query, read_new_key, read_nothing
from handrail.core.caller_keys import CallerKey, key_digest
from handrail.core.select import State
from handrail.engine import account_views
from handrail.engine.accounts import Pool
from handrail.engine.background import Background
from handrail.engine.caller_keys import CallerKeys
from handrail.engine.charging import Charging
from handrail.engine.clock import Clock
from handrail.engine.usage_report import UsageReport
from handrail.errors import Code, RequestRejected, StoreFailed
from handrail.server import queries
from handrail.server.callers import incorrect, offered_key
from handrail.server.exchange import Exchange, require_json
from handrail.server.spending import Spending
from handrail.settings.explained import explained, key_of
from handrail.settings.model import Settings
from handrail.store.accounts import Accounts
from handrail.store.base import Outline, Store

MAX_BODY: Final = 64 * 1024
_ROOT: Final = b"/admin"
_ONE: Final = re.compile(rb"/admin/(keys|runs|accounts)/([A-Za-z0-9_.\-]{1,128})/([a-z]{1,16})\Z")

# Every route: path, method, what serves it.
ADMIN_ROUTES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "/admin/accounts": {"GET": "accounts"},
        "/admin/accounts/{id}/pause": {"POST": "pause_account"},
        "/admin/accounts/{id}/drain": {"POST": "drain_account"},
        "/admin/accounts/{id}/resume": {"POST": "resume_account"},
        "/admin/why": {"GET": "why"},
        "/admin/budgets": {"GET": "budgets"},
        "/admin/callers": {"GET": "callers"},
        "/admin/keys": {"GET": "keys", "POST": "create_key"},
        "/admin/keys/{id}/revoke": {"POST": "revoke_key"},
        "/admin/limits": {"GET": "limits"},
        "/admin/runs": {"GET": "runs"},
        "/admin/runs/{id}/cancel": {"POST": "cancel_run"},
        "/admin/settings": {"GET": "settings"},
        "/admin/reload": {"POST": "reload"},
        "/admin/usage": {"GET": "usage"},
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What became of reading the settings again.

    `problem` says why the old ones stay in force, None when the new ones are. `needs_restart` are
    the settings that have changed without effect.
    """

    problem: str | None = None
    callers: int = 0
    runs_revoked: int = 0
    needs_restart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What the admin API works on. `digest` gives that of the admin key, never a caller's.

    `problem` says why the settings in force are not those of the file, None while they are.
    """

    digest: Callable[[], bytes]
    keys: CallerKeys
    accounts: Accounts
    pool: Pool
    store: Store
    background: Background
    charging: Charging
    usage: UsageReport
    clock: Clock
    reload: Callable[[], Awaitable[Reloaded]]
    problem: Callable[[], str | None]


def is_admin(raw_path: bytes) -> bool:
    """Whether a raw path is one that only the admin key opens, or would if it existed."""
    return raw_path == _ROOT or raw_path.startswith(_ROOT + b"/")


def match(raw_path: bytes) -> tuple[str, Mapping[str, str]]:
    """The route of a raw path, "" when there is none, and what its braces stand for."""
    path = raw_path.decode("latin-1")
    if path in ADMIN_ROUTES and "{" not in path:
        return path, {}
    found = _ONE.match(raw_path)
    if found is None:
        return "", {}
    kind, name, verb = (part.decode() for part in found.groups())
    route = f"/admin/{kind}/{{id}}/{verb}"
    return (route, {"name": name}) if route in ADMIN_ROUTES else ("", {})


class Admin:
    """Handlers. Each takes the exchange and the settings of that moment."""

    def __init__(self, operation: Operation) -> None:
        self._at = operation
        self._spending = Spending(operation.charging, operation.usage, clock=operation.clock)
        self._inflating = asyncio.Semaphore(1)
        self.handlers: Mapping[str, Callable[..., Awaitable[None]]] = MappingProxyType(
            {
                "accounts": self._accounts,
                "pause_account": partial(self._set_account, State.PAUSED),
                "drain_account": partial(self._set_account, State.DRAINING),
                "resume_account": partial(self._set_account, State.ACTIVE),
                "why": self._why,
                "callers": self._callers,
                "keys": self._keys,
                "create_key": self._create_key,
                "revoke_key": self._revoke_key,
                "runs": self._runs,
                "cancel_run": self._cancel_run,
                "settings": self._settings,
                "reload": self._reload,
                "budgets": self._spending.budgets,
                "limits": self._spending.limits,
                "usage": self._spending.usage,
            }
        )

    def check_key(self, exchange: Exchange) -> None:
        """Raise RequestRejected (401) unless a header carries the admin key."""
        if not hmac.compare_digest(self._at.digest(), key_digest(offered_key(exchange))):
            raise incorrect()

    # --- accounts --------------------------------------------------------------------------

    async def _accounts(self, exchange: Exchange, _: Settings) -> None:
        """GET /admin/accounts."""
        check_query(exchange.query(), frozenset())
        pinned = await self._at.accounts.pinned()
        data = [
            {
                "object": "account",
                **account_views.told(self._at.pool, account, pinned=account.id == pinned),
            }
            for account in await self._at.accounts.all(now=self._at.clock.now())
        ]
        await _reply(exchange, {"object": "list", "data": data})

    async def _why(self, exchange: Exchange, settings: Settings) -> None:
        """GET /admin/why: who would serve a request now, by the choice that real requests get."""
        query = exchange.query()
        check_query(query, frozenset({"model", "account", "caller"}))
        asked = account_views.Asked(
            model=query.get("model", ""),
            account=query.get("account"),
            caller=query.get("caller"),
        )
        found = account_views.whys(self._at.pool, settings, asked)
        await _reply(exchange, {"object": "why", "targets": found})

    async def _set_account(
        self, state: State, exchange: Exchange, _: Settings, *, name: str
    ) -> None:
        """POST /admin/accounts/{name}/pause, drain and resume: in force with the reply."""
        await self._no_body(exchange)
        pinned = await self._at.accounts.pinned()
        for account in await self._at.accounts.all(now=self._at.clock.now()):
            if account.name == name:
                if not await self._at.accounts.put(account.id, state):
                    raise RequestRejected(
                        Code.INVALID_VALUE, "The account has ended; sign in again.", param="name"
                    )
                with contextlib.suppress(StoreFailed):  # it is done, and followed within a second
                    await self._at.pool.follow()
                changed = replace(account, state=state)
                return await _reply(
                    exchange,
                    {"object": "account", **changed.shown(pinned=account.id == pinned)},
                )
        raise RequestRejected(Code.NOT_FOUND, "There is no account of that name.", param="name")

    # --- callers and keys ------------------------------------------------------------------

    async def _callers(self, exchange: Exchange, settings: Settings) -> None:
        """GET /admin/callers."""
        check_query(exchange.query(), frozenset())
        now = self._at.clock.now()
        standings = [(key.caller, key.standing(now)) for key in await self._at.keys.listed()]
        shares = {share.caller: share for share in await self._at.store.shares()}
        data = []
        for name, caller in settings.callers.items():
            share = shares.get(name)
            data.append(
                {
                    "object": "caller",
                    "name": name,
                    "key": key_of(name, caller),
                    "keys": sum(entry == (name, "active") for entry in standings),
                    "waiting": share.waiting if share else 0,
                    "running": share.running if share else 0,
                    "kept": share.kept if share else 0,
                    "bytes": share.bytes if share else 0,
                    "policy": asdict(caller.policy),
                }
            )
        await _reply(exchange, {"object": "list", "data": data})

    async def _keys(self, exchange: Exchange, settings: Settings) -> None:
        """GET /admin/keys."""
        check_query(exchange.query(), frozenset())
        keys = await self._at.keys.listed()
        data = [self._shown(key, settings) for key in keys]
        await _reply(exchange, {"object": "list", "data": data})

    async def _create_key(self, exchange: Exchange, settings: Settings) -> None:
        """POST /admin/keys: the only reply that ever holds a key."""
        check_query(exchange.query(), frozenset())
        require_json(exchange)
        wish = read_new_key(await self._body(exchange))
        issued = await self._at.keys.create(wish, callers=settings.callers)
        with contextlib.suppress(StoreFailed):  # it is made, and only this reply can show it
            await self._at.keys.refresh()
        shown = self._shown(issued.key, settings)
        await _reply(exchange, {**shown, "key": issued.secret.reveal()})

    async def _revoke_key(self, exchange: Exchange, settings: Settings, *, name: str) -> None:
        """POST /admin/keys/{id}/revoke: it opens nothing from the reply on."""
        await self._no_body(exchange)
        key = await self._at.keys.revoke(name)
        await self._at.keys.refresh()
        await _reply(exchange, self._shown(key, settings))

    def _shown(self, key: CallerKey, settings: Settings) -> dict[str, Any]:
        return {
            "object": "key",
            "id": key.id,
            "caller": key.caller,
            "caller_known": key.caller in settings.callers,
            "label": key.label,
            "state": key.standing(self._at.clock.now()).value,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "revoked_at": key.revoked_at,
            "last_used_at": key.last_used_at,
        }

    # --- runs ------------------------------------------------------------------------------

    async def _runs(self, exchange: Exchange, _: Settings) -> None:
        """GET /admin/runs: how many there are, and a page of them without their content."""
        query = exchange.query()
        check_query(query, frozenset({"limit", "after"}))
        page = queries.page(query)
        found = await self._at.store.outlines(after=page.after, limit=page.limit + 1)
        if found is None:
            raise RequestRejected(
                Code.INVALID_VALUE, "'after' must be the id of a run that is kept.", param="after"
            )
        shares = await self._at.store.shares()
        data = [_outline(run) for run in found[: page.limit]]
        body = {
            "object": "list",
            "data": data,
            "has_more": len(found) > page.limit,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "counts": {
                name: sum(getattr(share, name) for share in shares)
                for name in ("waiting", "running", "kept", "bytes")
            },
        }
        await _reply(exchange, body)

    async def _cancel_run(self, exchange: Exchange, _: Settings, *, name: str) -> None:
        """POST /admin/runs/{id}/cancel; on return its upstream call is closed. Idempotent."""
        await self._no_body(exchange)
        run = await self._at.background.stop(name)
        outline = Outline(
            id=run.id,
            caller=run.caller,
            state=run.state,
            created_at=run.created_at,
            sent_at=run.sent_at,
            finished_at=run.finished_at,
            target=run.target,
            attempts=run.attempt,
            calls=run.calls,
        )
        await _reply(exchange, _outline(outline))

    # --- settings --------------------------------------------------------------------------

    async def _settings(self, exchange: Exchange, settings: Settings) -> None:
        """GET /admin/settings: what is in force and where each came from; secrets are masked."""
        check_query(exchange.query(), frozenset())
        problem = self._at.problem()
        shown = {
            path: {"value": value, "source": source} for path, value, source in explained(settings)
        }
        body = {
            "object": "settings",
            "file": str(settings.file) if settings.file else None,
            "state": "current" if problem is None else "stale",
            "problem": problem,
            "settings": shown,
        }
        await _reply(exchange, body)

    async def _reload(self, exchange: Exchange, _: Settings) -> None:
        """POST /admin/reload. Raises RequestRejected that says why the old ones stay in force."""
        await self._no_body(exchange)
        result = await self._at.reload()
        if result.problem is not None:
            raise RequestRejected(
                Code.SETTINGS_INVALID,
                f"The settings in force stay as they are. {result.problem}",
            )
        body = {
            "object": "reload",
            "callers": result.callers,
            "runs_revoked": result.runs_revoked,
            "needs_restart": result.needs_restart,
        }
        await _reply(exchange, body)

    # --- reading and writing ---------------------------------------------------------------

    async def _body(self, exchange: Exchange) -> bytes:
        return await exchange.body(limit=MAX_BODY, inflating=self._inflating)

    async def _no_body(self, exchange: Exchange) -> None:
        check_query(exchange.query(), frozenset())
        data = await self._body(exchange)
        if data:
            require_json(exchange)
        read_nothing(data)


def _outline(run: Outline) -> dict[str, Any]:
    shown = {"object": "run", **asdict(run)}
    return {**shown, "state": "damaged" if run.state is None else run.state.value}


async def _reply(exchange: Exchange, body: Mapping[str, Any]) -> None:
    await exchange.reply(200, msgspec.json.encode(body))
