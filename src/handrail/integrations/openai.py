"""The guardrails inside the openai SDK, for people who run no gateway.

    from openai import DefaultHttpxClient, OpenAI
    from handrail.integrations.openai import HandrailTransport

    client = OpenAI(http_client=DefaultHttpxClient(transport=HandrailTransport()))

A create is decided on and rewritten exactly as the gateway would, by the same code; a refusal is an
answer in OpenAI's envelope that no upstream has seen, so the SDK raises what it would raise against
the gateway. Stateless calls and background responses that the upstream itself runs are sent, to
the client's own base URL and with its own credential. Background responses that Handrail runs need
a store, so they are refused here with a text that names the gateway.

What is not done in this process: the events of half-compatible servers are not completed (profile
`compatible`), streams are passed on as they come, no call is repeated but one whose `include` was
ours or whose model has a fallback, and neither WebSocket connections of the SDK nor its other APIs,
such as batches, come past.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType, TracebackType
from typing import Final, Self

from handrail.core import prepare as pipeline
from handrail.core import wire
from handrail.core.collect import Collector
from handrail.core.endpoints import READERS, prepare_endpoint
from handrail.core.mending import mended
from handrail.core.policy import Mode
from handrail.core.prepare import Prepared
from handrail.core.profiles import Endpoint
from handrail.core.upstream_errors import refusal
from handrail.engine.clock import SystemClock
from handrail.errors import Code, Fault, HandrailError, RequestRejected, fault
from handrail.integrations.routes import Route, route_of
from handrail.settings.in_process import LibrarySettings

try:
    import httpx2
except ImportError as missing:
    raise ImportError(
        "handrail.integrations.openai needs the openai SDK and its HTTP client: "
        "pip install 'handrail[openai]'"
    ) from missing

__all__ = ["AsyncHandrailTransport", "HandrailTransport"]

# They describe the bytes of one body, and do not fit another one.
_OF_THE_BODY: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})

_ENDPOINTS: Final[Mapping[Route, Endpoint]] = MappingProxyType(
    {Route.COMPACT: Endpoint.COMPACT, Route.INPUT_TOKENS: Endpoint.INPUT_TOKENS}
)

_NEEDS_STORE: Final = (
    "This background response needs a store, and there is none inside the SDK. Run the gateway "
    "(handrail serve --background) and point base_url at it; or have the upstream run background "
    'responses, if it can ([background] executor = "upstream", here '
    'LibrarySettings(executor="upstream")): those need store=true.'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A request that may leave, and for a create what was decided."""

    request: httpx2.Request
    prepared: Prepared | None = None
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """What every reply says of the decision."""
        return {} if self.prepared is None else {"handrail-decision": self.prepared.decision}

    def may_mend(self, reply: httpx2.Response) -> bool:
        """Whether the error answer must be read to see if the call can be made otherwise."""
        if self.prepared is None or not reply.is_client_error:
            return False
        return self.prepared.request.added_include or bool(self.fallbacks)

    def mended(self, reply: httpx2.Response, said: bytes) -> "_Call | None":
        """The call without what we added, or to the next model, if that was refused (G7)."""
        error = refusal(reply.status_code, reply.headers, said, now=_now())
        if self.prepared is None:
            return None
        better = mended(self.prepared.request, error, fallbacks=self.fallbacks)
        if better is None:
            return None
        prepared = replace(self.prepared, request=better)
        return replace(self, request=_outgoing(self.request, prepared), prepared=prepared)

    def folds(self, reply: httpx2.Response) -> bool:
        """Whether a stream came for a caller who wants one JSON object (the Codex backend)."""
        stateless = self.prepared is not None and self.prepared.plan.mode is Mode.STATELESS
        wants_json = self.prepared is not None and not self.prepared.plan.stream
        is_stream = "event-stream" in reply.headers.get("content-type", "")
        return stateless and wants_json and reply.is_success and is_stream


@dataclass(frozen=True, slots=True)
class _Rules:
    """What both transports decide alike; no I/O."""

    settings: LibrarySettings
    caller: str | None

    def __post_init__(self) -> None:
        self.settings.caller(self.caller)  # a wrong name is told now and not with the first call

    def call(self, route: Route, request: httpx2.Request) -> _Call:
        """What leaves for a guarded call whose body has been read. Raises RequestRejected."""
        _require_json(request.headers)
        url = str(request.url.copy_with(query=None))
        if route in _ENDPOINTS:
            return self._endpoint_call(_ENDPOINTS[route], request, url=url)
        create = wire.read_create(request.content)
        prepared = pipeline.prepare(
            create,
            switch=self.settings.switch,
            caller=self.settings.caller(self.caller),
            executor=self.settings.executor,
            upstream=self.settings.upstream(url.removesuffix("/responses")),
            # One call is one call here: nothing is asked of `compact` before it.
            fast_session=replace(self.settings.fast_session, compact_seconds=0.0),
        )
        if prepared.plan.mode is Mode.BACKGROUND:
            raise RequestRejected(Code.BACKGROUND_NOT_SUPPORTED, _NEEDS_STORE, param="background")
        return _Call(
            request=_outgoing(request, prepared),
            prepared=prepared,
            fallbacks=self.settings.model_fallbacks,
        )

    def _endpoint_call(self, endpoint: Endpoint, request: httpx2.Request, *, url: str) -> _Call:
        upstream = self.settings.upstream(url.removesuffix(endpoint.path))
        _, outgoing = prepare_endpoint(
            READERS[endpoint](request.content),
            endpoint=endpoint,
            switch=self.settings.switch,
            caller=self.settings.caller(self.caller),
            profile=upstream.profile,
            extra_fields=upstream.extra_fields,
            catalogue=upstream.catalogue,
        )
        return _Call(request=_with_body(request, wire.encode(outgoing.body), {}))


class HandrailTransport(httpx2.BaseTransport):
    """Guards the calls of a synchronous client; what is sent goes through `transport`.

    Without `settings` they are those of `LibrarySettings.from_environment()`. `caller` is the name
    of the caller whose rules hold. Raises ConfigInvalid.
    """

    def __init__(
        self,
        settings: LibrarySettings | None = None,
        *,
        caller: str | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._rules = _Rules(settings or LibrarySettings.from_environment(), caller)
        self._transport = transport or httpx2.HTTPTransport()

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._transport.__exit__(exc_type, exc_value, traceback)

    def close(self) -> None:
        """Close the transport underneath."""
        self._transport.close()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Pass on, rewrite, or answer with a refusal."""
        try:
            route = _route(request)
            if route is Route.PASS:
                return self._transport.handle_request(request)
            request.read()
            return self._send(self._rules.call(route, request))
        except HandrailError as error:
            return _refusal(error.fault)

    def _send(self, call: _Call) -> httpx2.Response:
        reply = self._transport.handle_request(call.request)
        try:
            if call.may_mend(reply):
                said = reply.read()
                again = call.mended(reply, said)
                return _replaced(reply, said, call.headers) if again is None else self._send(again)
            _refuse_redirect(reply)
            if call.folds(reply):
                collector = Collector()
                for chunk in reply.iter_bytes():
                    if collector.feed(chunk):
                        break
                body = wire.encode(collector.response(now=_now()))
                reply.close()
                return _replaced(reply, body, {**call.headers, **_JSON})
        except BaseException:
            reply.close()
            raise
        reply.headers.update(call.headers)
        return reply


class AsyncHandrailTransport(httpx2.AsyncBaseTransport):
    """The same for an asynchronous client."""

    def __init__(
        self,
        settings: LibrarySettings | None = None,
        *,
        caller: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._rules = _Rules(settings or LibrarySettings.from_environment(), caller)
        self._transport = transport or httpx2.AsyncHTTPTransport()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        """Close the transport underneath."""
        await self._transport.aclose()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Pass on, rewrite, or answer with a refusal."""
        try:
            route = _route(request)
            if route is Route.PASS:
                return await self._transport.handle_async_request(request)
            await request.aread()
            return await self._send(self._rules.call(route, request))
        except HandrailError as error:
            return _refusal(error.fault)

    async def _send(self, call: _Call) -> httpx2.Response:
        reply = await self._transport.handle_async_request(call.request)
        try:
            if call.may_mend(reply):
                said = await reply.aread()
                again = call.mended(reply, said)
                if again is None:
                    return _replaced(reply, said, call.headers)
                return await self._send(again)
            _refuse_redirect(reply)
            if call.folds(reply):
                collector = Collector()
                async for chunk in reply.aiter_bytes():
                    if collector.feed(chunk):
                        break
                body = wire.encode(collector.response(now=_now()))
                await reply.aclose()
                return _replaced(reply, body, {**call.headers, **_JSON})
        except BaseException:
            await reply.aclose()
            raise
        reply.headers.update(call.headers)
        return reply


_JSON: Final = {"content-type": "application/json"}


def _now() -> float:
    return SystemClock().now()


def _route(request: httpx2.Request) -> Route:
    path = request.url.raw_path.partition(b"?")[0].decode("ascii", "replace")
    return route_of(request.method, path, upgrade="upgrade" in request.headers)


def _require_json(headers: Mapping[str, str]) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" or headers.get("content-encoding", "identity") != "identity":
        raise RequestRejected(
            Code.UNSUPPORTED_MEDIA_TYPE,
            "Content-Type must be application/json, without a Content-Encoding.",
            param="content-type",
        )


def _outgoing(request: httpx2.Request, prepared: Prepared) -> httpx2.Request:
    return _with_body(request, prepared.content, prepared.headers)


def _with_body(
    request: httpx2.Request, content: bytes, headers: Mapping[str, str]
) -> httpx2.Request:
    # The URL is the client's own: its credential goes nowhere else.
    kept = [(n, v) for n, v in request.headers.multi_items() if n.lower() not in _OF_THE_BODY]
    outgoing = httpx2.Headers(kept)
    outgoing.update(headers)
    return httpx2.Request(
        request.method,
        request.url,
        headers=outgoing,
        content=content,
        extensions=request.extensions,
    )


def _replaced(reply: httpx2.Response, body: bytes, headers: Mapping[str, str]) -> httpx2.Response:
    """The reply with a body that has been read, and decoded if it came compressed."""
    kept = [(n, v) for n, v in reply.headers.multi_items() if n.lower() not in _OF_THE_BODY]
    shown = httpx2.Headers(kept)
    shown.update(headers)
    return httpx2.Response(reply.status_code, headers=shown, content=body)


def _refuse_redirect(reply: httpx2.Response) -> None:
    # The client would send the caller's own body along, unguarded, wherever it is told to.
    if reply.has_redirect_location:
        message = f"The upstream answered {reply.status_code}, and redirects are not followed."
        problem = fault(Code.UPSTREAM_PROTOCOL_ERROR, message)
        raise HandrailError(replace(problem, should_retry=False))


def _refusal(problem: Fault) -> httpx2.Response:
    headers = {**_JSON, **problem.headers}
    if problem.retry_after is not None:
        headers["retry-after"] = str(math.ceil(problem.retry_after))
    if problem.should_retry is not None:
        headers["x-should-retry"] = str(problem.should_retry).lower()
    return httpx2.Response(problem.status, headers=headers, content=wire.encode(problem.body()))
