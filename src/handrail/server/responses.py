"""The routes under /v1/responses: parse, ask policy, hand to the engine, answer.

No decision is taken here. The order in `create` is the point: nothing at all happens between
parsing and `policy.decide`, nor, at the endpoints beside it, `policy.decide_endpoint`.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from handrail.core import wire
from handrail.core.endpoints import READERS
from handrail.core.idempotency import key_expired
from handrail.core.policy import Mode, Plan, decide, decide_endpoint
from handrail.core.prepare import decision
from handrail.core.profiles import Endpoint
from handrail.core.request_options import (
    RequestOptions,
    read_options,
    read_project,
    with_options,
)
from handrail.core.rewrite import endpoint_request
from handrail.core.shaping import Shaping
from handrail.core.wire import CreateRequest
from handrail.engine.background import Accepted, Background
from handrail.engine.charging import Charging
from handrail.engine.clock import Clock
from handrail.engine.foreground import EndpointCall, Foreground, StatelessCall, prepare
from handrail.engine.history import Conversation, Histories
from handrail.engine.kept import KeptCall, KeptForeground
from handrail.engine.meter import Attribution
from handrail.engine.relay import Relay
from handrail.engine.routing import routed, with_endpoint, with_targets
from handrail.engine.upstream_runs import UpstreamRun, UpstreamRuns
from handrail.engine.ways import ways_of
from handrail.errors import Code, HandrailError, RequestRejected, ResponseNotFound, fault
from handrail.server import queries
from handrail.server.exchange import Exchange, require_json
from handrail.server.passing import is_codex, places_of, reply_headers
from handrail.settings.model import Caller, Settings, Target
from handrail.store.base import Remote

_PARSE_INLINE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A create that may begin: what was decided of it, and for whom."""

    conversation: Conversation
    plan: Plan
    targets: Sequence[Target]
    attribution: Attribution
    caller: Caller
    settings: Settings


Work = tuple[Plan, StatelessCall | KeptCall | UpstreamRun | Accepted]


class Responses:
    """Handlers. Each takes the exchange, who calls, and the settings of that moment."""

    def __init__(
        self,
        *,
        foreground: Foreground,
        background: Background,
        kept: KeptForeground,
        upstream_runs: UpstreamRuns,
        histories: Histories,
        charging: Charging,
        clock: Clock,
    ) -> None:
        self._foreground = foreground
        self._background = background
        self._kept = kept
        self._upstream_runs = upstream_runs
        self._histories = histories
        self._charging = charging
        self._clock = clock
        self.draining = False
        # One at a time: ten small bombs at once would otherwise take ten large bodies' memory.
        self._inflating = asyncio.Semaphore(1)

    async def create(self, exchange: Exchange, caller: Caller, settings: Settings) -> None:
        """POST /v1/responses."""
        plan, work = await self._accept(exchange, caller, settings)
        # From here on nobody holds the request: what follows may stream for hours.
        if isinstance(work, StatelessCall | UpstreamRun):
            try:
                if isinstance(work, StatelessCall):
                    return await self._answer_stateless(exchange, plan, work)
                return await self._answer_upstream(exchange, plan, work)
            finally:
                self._charging.release(work.attribution)
        if isinstance(work, KeptCall):
            return await self._answer_kept(exchange, work)
        return await self._answer_background(exchange, plan, work, caller=caller.policy.name)

    async def _accept(self, exchange: Exchange, caller: Caller, settings: Settings) -> Work:
        """Read and decide: a call to make, or a kept run."""
        require_json(exchange)
        data = await exchange.body(limit=settings.max_body_bytes, inflating=self._inflating)
        request = await _parsed(data, wire.read_create)
        targets = settings.targets_for(request.model, caller.policy)
        plan = decide(
            request,
            switch=settings.switch,
            caller=caller.policy,
            executor=settings.executor,
            able=not targets or any(target.runs_background for target in targets),
            has_store=True,
        )
        targets = routed(request.model, targets, upstream_runs=plan.mode is Mode.UPSTREAM)
        options = read_options(lambda header: exchange.header(header.encode()))
        plan = with_options(plan, options, highest=caller.policy.max_priority)
        plan = with_targets(plan, targets)
        if plan.stream:
            exchange.require_streaming()
        attribution = self._attribution(exchange, plan, caller)
        if attribution.project is not None:
            plan = replace(plan, project=attribution.project)
        conversation = await self._histories.of(
            request,
            plan=plan,
            caller=caller.policy.name,
            targets=targets,
            max_bytes=settings.max_history_bytes,
        )
        exchange.admitted(self._charging.admit(attribution, model=request.model, targets=targets))
        try:
            return plan, await self._begun(
                exchange,
                Decided(
                    conversation=conversation,
                    plan=plan,
                    targets=targets,
                    attribution=attribution,
                    caller=caller,
                    settings=settings,
                ),
                options,
            )
        except BaseException:  # nobody else will
            self._charging.release(attribution)
            raise

    async def _begun(
        self, exchange: Exchange, decided: Decided, options: RequestOptions
    ) -> StatelessCall | KeptCall | UpstreamRun | Accepted:
        if decided.plan.mode is not Mode.BACKGROUND:
            return self._call(exchange, decided)
        self._refuse_while_draining()
        attribution = decided.attribution
        accepted = await self._background.submit(
            decided.conversation,
            plan=decided.plan,
            caller=attribution.caller,
            targets=decided.targets,
            limits=decided.settings.limits,
            options=options,
            response_id=attribution.response_id,
        )
        if accepted.repeated:  # the run that it found has a reservation of its own
            self._charging.release(attribution)
        return accepted

    def _call(self, exchange: Exchange, decided: Decided) -> StatelessCall | KeptCall | UpstreamRun:
        conversation, plan, settings = decided.conversation, decided.plan, decided.settings
        attribution = decided.attribution
        places = places_of(exchange, decided.targets)
        if plan.mode is Mode.UPSTREAM:
            return self._upstream_runs.prepare(
                conversation, plan=plan, attribution=attribution, places=places
            )
        if plan.mode is Mode.KEPT:
            self._refuse_while_draining()
            return self._kept.prepare(
                conversation,
                plan=plan,
                attribution=attribution,
                places=places,
                limits=settings.limits,
                numbered_heartbeat=is_codex(exchange),
            )
        call = prepare(
            conversation,
            plan=plan,
            places=places,
            attribution=attribution,
            created_at=int(self._clock.now()),
            shaping=Shaping(fast=settings.fast_session.under(decided.caller.policy.fast_session)),
        )
        if is_codex(exchange):
            call.number_heartbeats()
        return call

    def _attribution(self, exchange: Exchange, plan: Plan, caller: Caller) -> Attribution:
        project = read_project(lambda header: exchange.header(header.encode()))
        charged = self._charging.attribution(caller.policy.name, mode=plan.mode, project=project)
        return replace(charged, account=plan.account, account_tags=plan.account_tags)

    async def _answer_background(
        self, exchange: Exchange, plan: Plan, work: Accepted, *, caller: str
    ) -> None:
        headers = {"handrail-decision": decision(plan, work.steps)}
        if work.repeated:
            headers["idempotent-replayed"] = "true"
        written: Callable[[], None] = _nothing
        if work.resendable:
            note = partial(self._background.replies.note, work.id)
            written = partial(note, answered=True)
            exchange.connection.on_reset = partial(note, answered=False)
        if plan.stream:
            chunks = await self._events(work, caller=caller)
            return await exchange.stream(_noting(chunks, written), headers=headers)
        await exchange.reply(200, work.response, headers=headers)
        return written()

    async def _events(self, work: Accepted, *, caller: str) -> AsyncGenerator[bytes, None]:
        if not work.repeated:
            return self._background.stream(work, caller=caller)
        try:
            return await self._background.follow(work.id, caller=caller, after=-1)
        except ResponseNotFound:  # it went just now
            raise key_expired() from None

    def _refuse_while_draining(self) -> None:
        if self.draining:
            raise HandrailError(fault(Code.SHUTTING_DOWN, "The gateway is shutting down."))

    async def _answer_stateless(self, exchange: Exchange, plan: Plan, call: StatelessCall) -> None:
        if not plan.stream:
            body, said = await self._foreground.answer(call)
            return await exchange.reply(200, body, headers=reply_headers(plan, said))
        async with self._foreground.stream(call) as (relay, said):
            await self._relay(exchange, relay, reply_headers(plan, said))
        return None

    async def _answer_kept(self, exchange: Exchange, call: KeptCall) -> None:
        async with self._kept.open(call, left=lambda: exchange.left) as answer:
            headers = reply_headers(call.plan, answer.said)
            if answer.response is not None:
                return await exchange.reply(200, answer.response, headers=headers)
            return await exchange.stream(self._kept.events(call), headers=headers)

    async def _answer_upstream(self, exchange: Exchange, plan: Plan, run: UpstreamRun) -> None:
        if not plan.stream:
            body, said = await self._upstream_runs.create(run)
            return await exchange.reply(200, body, headers=reply_headers(plan, said))
        async with self._upstream_runs.stream(run) as (events, said):
            await exchange.stream(events, headers=reply_headers(plan, said))
        return None

    async def _relay(self, exchange: Exchange, relay: Relay, headers: Mapping[str, str]) -> None:
        try:
            await exchange.stream(relay.chunks(), headers=headers)
        except asyncio.CancelledError:
            if exchange.started and not exchange.left:
                # The drain is over. The caller is still there and shall see an end.
                stop = HandrailError(fault(Code.SHUTTING_DOWN, "The gateway is shutting down."))
                await exchange.finish(relay.end(stop))
            raise

    async def compact(self, exchange: Exchange, caller: Caller, settings: Settings) -> None:
        """POST /v1/responses/compact."""
        await self._pass_on(exchange, caller, settings, endpoint=Endpoint.COMPACT)

    async def input_tokens(self, exchange: Exchange, caller: Caller, settings: Settings) -> None:
        """POST /v1/responses/input_tokens."""
        await self._pass_on(exchange, caller, settings, endpoint=Endpoint.INPUT_TOKENS)

    async def _pass_on(
        self, exchange: Exchange, caller: Caller, settings: Settings, *, endpoint: Endpoint
    ) -> None:
        with_endpoint(tuple(settings.targets.values()), endpoint)  # nobody else can change that
        require_json(exchange)
        data = await exchange.body(limit=settings.max_body_bytes, inflating=self._inflating)
        request = await _parsed(data, READERS[endpoint])
        plan = decide_endpoint(
            request,
            endpoint=endpoint,
            switch=settings.switch,
            caller=caller.policy,
            has_store=True,
        )
        targets = routed(request.model, settings.targets_for(request.model, caller.policy))
        targets = with_endpoint(targets, endpoint)
        plan = with_targets(plan, targets)
        conversation = await self._histories.of(
            request,
            plan=plan,
            caller=caller.policy.name,
            targets=targets,
            max_bytes=settings.max_history_bytes,
        )
        attribution = self._attribution(exchange, plan, caller)
        rewrite = partial(endpoint_request, endpoint=endpoint)
        call = EndpointCall(
            ways=ways_of(conversation, places_of(exchange, targets), rewrite),
            attribution=attribution,
            path=endpoint.path,
        )
        if endpoint is not Endpoint.INPUT_TOKENS:  # which costs nothing
            exchange.admitted(
                self._charging.admit(attribution, model=request.model, targets=targets)
            )
        try:
            body, said = await self._foreground.pass_on(call)
        finally:
            self._charging.release(attribution)
        await exchange.reply(200, body, headers=reply_headers(plan, said))

    async def retrieve(
        self, exchange: Exchange, caller: Caller, _: Settings, *, response_id: str
    ) -> None:
        """GET /v1/responses/{id}, also with stream and starting_after."""
        query = exchange.query()
        name = caller.policy.name
        if queries.flag(query, "stream", default=False):
            return await self._resume(exchange, caller=name, response_id=response_id)
        if "starting_after" in query:
            raise RequestRejected(
                Code.INVALID_VALUE,
                "'starting_after' has a meaning only with stream=true.",
                param="starting_after",
            )
        try:
            kept = await self._background.retrieve(response_id, caller=name)
        except ResponseNotFound:
            remote = await self._upstream_runs.locate(response_id, caller=name)
            body = await self._upstream_runs.retrieve(remote, queries.passed_on(exchange))
            return await exchange.reply(200, body)
        return await exchange.reply(
            200, kept.body, headers={"handrail-attempts": str(kept.attempts)}
        )

    async def _either(
        self,
        kept: Awaitable[bytes],
        elsewhere: Callable[[Remote], Awaitable[bytes]],
        *,
        caller: str,
    ) -> bytes:
        """What the gateway's own store says, or else what the upstream says that has it."""
        try:
            return await kept
        except ResponseNotFound as error:
            return await elsewhere(await self._upstream_runs.locate(error.id, caller=caller))

    async def _resume(self, exchange: Exchange, *, caller: str, response_id: str) -> None:
        exchange.require_streaming()
        query = exchange.query()
        after = queries.cursor(query)
        obfuscation = queries.flag(query, "include_obfuscation", default=True)
        try:
            chunks = await self._background.follow(
                response_id, caller=caller, after=after, obfuscation=obfuscation
            )
        except ResponseNotFound:
            remote = await self._upstream_runs.locate(response_id, caller=caller)
            async with self._upstream_runs.follow(remote, queries.passed_on(exchange)) as events:
                return await exchange.stream(events)
        return await exchange.stream(chunks)

    async def cancel(
        self, exchange: Exchange, caller: Caller, settings: Settings, *, response_id: str
    ) -> None:
        """POST /v1/responses/{id}/cancel."""
        await exchange.body(limit=settings.max_body_bytes, inflating=self._inflating)
        name = caller.policy.name
        kept = self._background.cancel(response_id, caller=name)
        body = await self._either(kept, self._upstream_runs.cancel, caller=name)
        await exchange.reply(200, body)

    async def delete(
        self, exchange: Exchange, caller: Caller, _: Settings, *, response_id: str
    ) -> None:
        """DELETE /v1/responses/{id}."""
        name = caller.policy.name
        kept = self._background.delete(response_id, caller=name)
        body = await self._either(kept, self._upstream_runs.delete, caller=name)
        await exchange.reply(200, body)

    async def input_items(
        self, exchange: Exchange, caller: Caller, _: Settings, *, response_id: str
    ) -> None:
        """GET /v1/responses/{id}/input_items."""
        page = queries.page(exchange.query())
        name = caller.policy.name
        body = await self._either(
            self._background.input_items(response_id, caller=name, page=page),
            lambda remote: self._upstream_runs.input_items(remote, queries.passed_on(exchange)),
            caller=name,
        )
        await exchange.reply(200, body)


def _nothing() -> None:
    return None


async def _noting(
    chunks: AsyncGenerator[bytes, None], written: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    """The same chunks; `written` is called once the first of them is out."""
    async with aclosing(chunks):
        first = True
        async for chunk in chunks:
            yield chunk
            del chunk
            if first:
                written()
                first = False


async def _parsed(data: bytes, read: Callable[[bytes], CreateRequest]) -> CreateRequest:
    # Tens of megabytes take tens of milliseconds, which other streams would feel.
    if len(data) > _PARSE_INLINE:
        return await asyncio.to_thread(read, data)
    return read(data)
