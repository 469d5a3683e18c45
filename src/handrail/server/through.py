"""Other routes of upstreams, passed through where the settings list them (`pass_through`).

Who may call, limits, budgets and the ledger are those of every route; bodies go out as they came
and come back as they are.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final

import msgspec

from handrail.core import sse, wire
from handrail.core.caller_policy import CallerPolicy, StorePolicy
from handrail.core.model_access import check_model
from handrail.core.passing import METHODS, listed
from handrail.core.request_options import read_options, read_project
from handrail.core.routes import no_route
from handrail.core.usage import Usage, read_other_usage
from handrail.engine.charging import Charging
from handrail.engine.meter import Attribution
from handrail.engine.passing import PassedBack, PassedCall, Passing
from handrail.engine.reading import MAX_REPLY_BYTES
from handrail.engine.sending import JSON, SSE, Outgoing
from handrail.engine.ways import Held
from handrail.errors import Code, MethodNotAllowed, RequestRejected, UpstreamFailed
from handrail.server.exchange import Exchange
from handrail.server.passing import forwarded, passed_headers
from handrail.settings.model import Caller, Settings, Target

TARGET: Final = "handrail-target"
MODE: Final = "passed-through"

_BASE: Final = b"/v1"
_MAX_EVENT: Final = 1 << 20
_PLAIN: Final = re.compile(r"[\x20-\x7e]{1,256}")
_KINDS: Final = (JSON, "multipart/form-data")
_FIELDS: Final = {
    "model": (wire.Kind.STRING,),
    "store": (wire.Kind.BOOLEAN,),
    "background": (wire.Kind.BOOLEAN,),
}
_USAGE: Final = b'"usage"'


def path_of(raw_path: bytes) -> str:
    """What a raw path asks for below a base URL, "" for what is not below /v1."""
    return raw_path.removeprefix(_BASE).decode("latin-1") if raw_path.startswith(_BASE) else ""


def is_passed(raw_path: bytes, settings: Settings) -> bool:
    """Whether any target's list has the path."""
    path = path_of(raw_path)
    return any(listed(path, target.pass_through) for target in settings.targets.values())


class Through:
    """The handler of these routes."""

    def __init__(self, passing: Passing, *, charging: Charging) -> None:
        self._passing = passing
        self._charging = charging
        self._inflating = asyncio.Semaphore(1)

    async def handle(self, exchange: Exchange, caller: Caller, settings: Settings) -> None:
        """Any method of METHODS, on any path that a target of the caller lists."""
        if exchange.method not in METHODS:
            raise MethodNotAllowed(exchange.method, allow=METHODS)
        exchange.require_streaming()  # how long the answer will be, nobody knows beforehand
        path, policy = path_of(exchange.path), caller.policy
        body = await exchange.body(limit=settings.max_body_bytes, inflating=self._inflating)
        model = _model(exchange, body, policy)
        if exchange.method == "POST":
            check_model(model, policy.models)
        target = _target(exchange, settings, path=path, model=model, policy=policy)
        call = PassedCall(
            target=target,
            path=path,
            outgoing=Held(_outgoing(exchange, target, path=path, body=body)),
            attribution=self._attribution(exchange, policy),
            model=model,
            counts=exchange.method == "POST",
        )
        del body
        if call.counts:
            exchange.admitted(self._charging.admit(call.attribution, model=model, targets=[target]))
        try:
            async with self._passing.open(call) as passed:
                await _answer(exchange, passed, target)
        finally:
            self._charging.release(call.attribution)

    def _attribution(self, exchange: Exchange, policy: CallerPolicy) -> Attribution:
        def header(name: str) -> str:
            return exchange.header(name.encode())

        charged = self._charging.attribution(policy.name, mode=MODE, project=read_project(header))
        account = read_options(header).account
        return replace(charged, account=account, account_tags=policy.account_tags)


def _model(exchange: Exchange, body: bytes, policy: CallerPolicy) -> str:
    """The model that a body names, "" for none. Raises RequestRejected for what may not leave."""
    if exchange.method != "POST" or not body:
        return ""
    kind = exchange.header(b"content-type").partition(";")[0].strip().lower()
    if kind not in _KINDS:
        raise RequestRejected(
            Code.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type must be one of {', '.join(_KINDS)}.",
            param="content-type",
        )
    if kind != JSON:
        return ""
    given = wire.parse_object(body)
    wire.check_kinds(given, _FIELDS)
    _check_promises(given, policy)
    return wire.string(given, "model") or ""


def _check_promises(given: wire.Body, policy: CallerPolicy) -> None:
    """What the rules of responses forbid is not to be had under another address."""
    if wire.boolean(given, "background"):
        raise RequestRejected(
            Code.UNSUPPORTED_PARAMETER,
            "Unsupported parameter: 'background'. Background mode is a matter of /v1/responses.",
            param="background",
        )
    if wire.boolean(given, "store") and policy.store is StorePolicy.REFUSE:
        raise RequestRejected(
            Code.STORE_NOT_ALLOWED,
            f"store=true is refused for the caller '{policy.name}' "
            f'(callers.{policy.name}.store = "refuse").',
            param="store",
        )


def _target(
    exchange: Exchange, settings: Settings, *, path: str, model: str, policy: CallerPolicy
) -> Target:
    able = [
        target
        for name, target in settings.targets.items()
        if listed(path, target.pass_through) and (policy.targets is None or name in policy.targets)
    ]
    named = exchange.header(TARGET.encode()).strip()
    if named:
        able = [target for target in able if target.label == named]
        if not able:
            raise RequestRejected(
                Code.INVALID_VALUE,
                f"'{TARGET}' names no target that has this route for this caller.",
                param=TARGET,
            )
    if model:
        labels = {target.label for target in able}
        able = [each for each in settings.targets_for(model, policy) if each.label in labels]
        if not able:
            raise no_route(model)
    if not able:
        raise RequestRejected(Code.NOT_FOUND, "There is no such route.")
    return able[0]


def _outgoing(exchange: Exchange, target: Target, *, path: str, body: bytes) -> Outgoing:
    kind, accept = exchange.header(b"content-type"), exchange.header(b"accept")
    query = exchange.query_string.decode("latin-1")
    exchange.query_pairs()  # which says what is wrong with it
    return Outgoing(
        method=exchange.method,
        path=f"{path}?{query}" if query else path,
        headers=forwarded(exchange, target.profile.headers),
        body=body or None if exchange.method == "POST" else None,
        kind=kind,
        accept=accept if _PLAIN.fullmatch(accept) else "*/*",
    )


async def _answer(exchange: Exchange, passed: PassedBack, target: Target) -> None:
    reply = passed.reply
    kind = reply.headers.get("content-type", "")
    headers = passed_headers(reply.headers) | {"handrail-decision": f"mode={MODE}"}
    if not target.only:
        headers["handrail-decision"] += f"; target={target.label}"
    if kind.partition(";")[0].strip().lower() == JSON:
        said = await reply.read(limit=MAX_REPLY_BYTES, idle_seconds=target.idle_seconds)
        passed.meter.counted(_used(said))
        return await exchange.reply(reply.status, said, headers=headers)
    for name in ("content-type", "content-disposition"):
        if name in reply.headers:
            headers[name] = reply.headers[name]
    chunks = _chunks(passed, target, events=kind.startswith(SSE))
    return await exchange.through(reply.status, chunks, headers=headers)


async def _chunks(
    passed: PassedBack, target: Target, *, events: bool
) -> AsyncGenerator[bytes, None]:
    """The body as it comes; usage is looked for in events, where a client has asked for it."""
    decoder = sse.Decoder(limit=_MAX_EVENT) if events else None
    usage: Usage | None = None
    while True:
        try:
            async with asyncio.timeout(target.idle_seconds):
                chunk = await passed.reply.slice()
        except TimeoutError:
            raise UpstreamFailed(
                Code.UPSTREAM_STALLED, f"The upstream was silent for {target.idle_seconds:.0f} s."
            ) from None
        if not chunk:
            passed.meter.counted(usage)
            return
        if decoder is not None:
            try:
                frames = decoder.feed(chunk)
            except sse.FrameTooLarge:
                decoder, frames = None, []
            for frame in frames:
                if _USAGE in frame.data:
                    usage = _used(frame.data) or usage
        yield chunk


def _used(said: bytes) -> Usage | None:
    try:
        return read_other_usage(wire.parse_object(said))
    except (RequestRejected, msgspec.DecodeError, RecursionError):
        return None
