"""The whole way from a create to what leaves for the upstream, as one pure function and one value.

`handrail.prepare`, `handrail explain` and the transport for the openai SDK are thin shells around
`prepare`; the gateway takes the same steps one by one, because it stores or streams in between.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Raw

from handrail.core import wire
from handrail.core.caller_policy import CallerPolicy, Executor
from handrail.core.catalogue import NOTHING_KNOWN, Catalogue
from handrail.core.fast_session import NO_FAST_SESSION, FastSession
from handrail.core.policy import Mode, Plan, decide
from handrail.core.profiles import Profile
from handrail.core.rewrite import UpstreamRequest, upstream_request, upstream_run_request
from handrail.core.shaping import UNSHAPED, Shaping
from handrail.core.steps import Step, steps_header
from handrail.core.switch import Switch
from handrail.core.wire import CreateRequest

VERSION: Final = 1
"""Of the shape of Prepared and of what `explain --json` prints; raised when a name changes."""

_TOP: Final = re.compile(r"[^.\[]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Where a request is to go: base URL without a slash at its end, and what is true of it.

    `catalogue` is what is known about models there. `query` is a part of every URL, "" for none.
    """

    url: str
    profile: Profile
    extra_fields: frozenset[str] = frozenset()
    runs_background: bool = False
    catalogue: Catalogue = field(default=NOTHING_KNOWN, repr=False)
    query: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A step, and the top-level field that it is about, before and after all steps.

    The values are raw JSON, None where the field is absent. They are content of the request: a
    Change is for whoever sent it, and never for a log.
    """

    step: Step
    before: Raw | None
    after: Raw | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One create, decided and rewritten: everything about the call but its credential.

    `plan` is what was decided, with its reasons. `request` is the body that leaves, with its steps;
    in gateway-run background mode that is the stateless copy which the gateway's run sends. `url`
    and `headers` are where and how it is posted. `given` is the caller's own body.
    """

    plan: Plan
    request: UpstreamRequest = field(repr=False)
    url: str
    headers: Mapping[str, str]
    given: Mapping[str, Raw] = field(repr=False)
    version: int = VERSION

    @property
    def content(self) -> bytes:
        """The body that leaves, as JSON."""
        return wire.encode(self.request.body)

    @property
    def body(self) -> dict[str, Any]:
        """The body that leaves, decoded anew with each call."""
        decoded: dict[str, Any] = msgspec.json.decode(self.content)
        return decoded

    @property
    def decision(self) -> str:
        """What was decided and done, as the `handrail-decision` reply header tells it."""
        return decision(self.plan, self.steps)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What was changed and why; holds no content of the request."""
        return self.request.steps

    def changes(self) -> tuple[Change, ...]:
        """The steps with the fields that they are about, before and after."""
        return tuple(self._change(step) for step in self.steps)

    def _change(self, step: Step) -> Change:
        top = top_level(step.field)
        return Change(step=step, before=self.given.get(top), after=self.request.body.get(top))


def decision(plan: Plan, steps: Sequence[Step]) -> str:
    """What was decided and done, as the `handrail-decision` reply header tells it."""
    told = steps_header(steps)
    return f"{plan.header()}; steps={told}" if told else plan.header()


def top_level(path: str) -> str:
    """The field of the body that a path such as `input[0].id` or `reasoning.effort` is in."""
    found = _TOP.match(path)
    return path if found is None else found.group()


def prepare(
    request: CreateRequest,
    *,
    switch: Switch,
    caller: CallerPolicy,
    executor: Executor,
    upstream: Upstream,
    has_store: bool = False,
    fast_session: FastSession = NO_FAST_SESSION,
) -> Prepared:
    """Decide on `request` and rewrite it. Raises RequestRejected, and nothing else.

    `has_store`: as where there is a store. What that would add is not known here, so `request` then
    leaves with its own part of the conversation alone.
    """
    plan = decide(
        request,
        switch=switch,
        caller=caller,
        executor=executor,
        able=upstream.runs_background,
        has_store=has_store,
    )
    shaping = UNSHAPED
    if plan.mode is Mode.STATELESS:  # what is kept is kept whole
        shaping = Shaping(fast=fast_session.under(caller.fast_session))
    outgoing = _rewritten(request, plan, upstream=upstream, shaping=shaping)
    if (caller.executor or executor) is Executor.GATEWAY:
        outgoing = outgoing.without_previous()
    accept = "text/event-stream" if outgoing.streams else "application/json"
    return Prepared(
        plan=plan,
        request=outgoing,
        url=f"{upstream.url}/responses" + (f"?{upstream.query}" if upstream.query else ""),
        headers=MappingProxyType({"content-type": "application/json", "accept": accept}),
        given=MappingProxyType(dict(request.body)),
    )


def _rewritten(
    request: CreateRequest, plan: Plan, *, upstream: Upstream, shaping: Shaping
) -> UpstreamRequest:
    rewrite = upstream_run_request if plan.mode is Mode.UPSTREAM else upstream_request
    return rewrite(
        request,
        profile=upstream.profile,
        # What the gateway keeps it reads as a stream, whatever the caller wants to see of it.
        stream=plan.stream or plan.mode in (Mode.BACKGROUND, Mode.KEPT),
        extra_fields=upstream.extra_fields,
        continues=plan.continues,
        catalogue=upstream.catalogue,
        shaping=shaping,
    )
