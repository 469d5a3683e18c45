"""The edges: URLs, headers, switches, and what is masked in a log."""

import asyncio
import json
from typing import Any, Final
from urllib.parse import urlsplit

from handrail import telemetry
from handrail.core.oauth import Grant
from handrail.core.profiles import CODEX
from handrail.core.proxies import proxy_for
from handrail.core.redact import scrub
from handrail.core.switch import parse_boolean, resolve_switch
from handrail.engine.dispatch import Dispatcher
from handrail.errors import ConfigInvalid
from handrail.server.app import ROUTES, match
from handrail.settings.load import load
from tests.conformance.accounts import house
from tests.conformance.bodies import encoded
from tests.conformance.recorded import FOLDER, Json, Outcome, Row
from tests.conformance.upstream_stub import Reply, Upstream, answered

SWITCH: Final = "CODEX_AUTH_BACKGROUND_RESPONSES"

_UPSTREAM: Final = CODEX.base_url


def rewrite_url_for_codex(row: Row) -> Outcome:
    """Where a create to this URL ends up. Ours knows its own paths and its one upstream."""
    recorded: Json = {"outcome": "refused"} if row.error else {"outcome": row.result}
    try:
        parts = urlsplit(row.args[0])
    except ValueError:
        return Outcome(recorded=recorded, ours={"outcome": "refused"})
    if not parts.scheme:
        return Outcome(recorded=recorded, ours={"outcome": "refused"})
    route, _ = match(parts.path.encode())
    names = ROUTES.get(route, {})
    if "create" in names.values():
        return Outcome(recorded=recorded, ours={"outcome": f"{_UPSTREAM}/responses"})
    if route.startswith("/v1/responses/"):
        return Outcome(recorded=recorded, ours={"outcome": "answered from the store"})
    return Outcome(recorded=recorded, ours={"outcome": "404"})


def create_codex_headers(row: Row) -> Outcome:
    """The headers of an upstream call, but for those that HTTP itself needs."""
    _, account, key, *options = row.args
    cache_key = (options[0] if options else {}).get("promptCacheKey")
    recorded: Json = {"outcome": "refused"} if row.error else {"outcome": "sent", **row.result}
    if not key:
        return Outcome(recorded=recorded, ours={"outcome": _start_without_key()})
    done = {"type": "response.completed", "response": {"id": "resp_1", "output": []}}
    reply = Reply(
        headers={"content-type": "text/event-stream"}, body=f"data: {json.dumps(done)}\n\n".encode()
    )
    upstream = Upstream(reply)
    body = {"model": "m", "input": "hi", "prompt_cache_key": cache_key}
    grant = Grant(access=key, refresh="refresh", account_id=account)
    asyncio.run(_with_login(upstream, grant, encoded(body)))
    (call,) = upstream.calls
    assert json.loads(call.body or b"")["prompt_cache_key"] == cache_key
    plain = ("accept-encoding", "content-type", "user-agent")
    ours = {name: value for name, value in call.headers.items() if name not in plain}
    return Outcome(recorded=recorded, ours={"outcome": "sent", **ours})


async def _with_login(upstream: Upstream, grant: Grant, body: bytes) -> None:
    """One call, made with that login."""
    async with house(1, grant=grant) as found:
        dispatcher = Dispatcher(upstream, clock=found.clock, accounts=found.pool)
        await answered(upstream, body=body, dispatcher=dispatcher)


def _start_without_key() -> str:
    try:
        load({"upstream.profile": "codex"}, {}, default_data_dir=FOLDER)
    except ConfigInvalid:
        return "refused"
    return "started"


def resolve_proxy_url_for_request(row: Row) -> Outcome:
    """Through which proxy a URL is called, by the environment."""
    url, environment = row.args
    return Outcome(recorded={"proxy": row.result}, ours={"proxy": proxy_for(url, environment)})


def parse_boolean_env(row: Row) -> Outcome:
    """One boolean of the environment; None is unset."""
    return Outcome(recorded={"outcome": row.result}, ours={"outcome": _boolean(row.args[0] or "")})


def _boolean(text: str) -> bool | str | None:
    try:
        return parse_boolean(text, name=SWITCH)
    except ConfigInvalid as error:
        return "the start stops" if SWITCH in str(error) else "unnamed"


def get_background_responses(row: Row) -> Outcome:
    """Whether background mode is on, by file and environment."""
    file = row.args[0].get("backgroundResponses")
    return Outcome(recorded={"outcome": row.result}, ours={"outcome": _switch(row, file)})


def _switch(row: Row, file: bool | None) -> bool | str:
    try:
        return resolve_switch(flag=None, environment=row.env, file=file).enabled
    except ConfigInvalid as error:
        return "the start stops" if SWITCH in str(error) else "unnamed"


def redaction(row: Row) -> Outcome:
    """Whether anything of the value is hidden before it is written to a log."""
    kind, value = row.args
    recorded = {"masked": row.result != value}
    if kind == "maskString":
        return Outcome(recorded=recorded, ours={"masked": scrub(value) != value})
    return Outcome(recorded=recorded, ours={"masked": _logged(dict(value)) != value})


def _logged(entry: Json) -> Any:
    return telemetry.redact(None, "info", entry)
