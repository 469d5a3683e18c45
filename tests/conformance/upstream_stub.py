"""An upstream that answers what a row says, behind the port that the real client stands behind."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from handrail.core import wire
from handrail.core.caller_policy import CallerPolicy
from handrail.core.catalogue import NO_OPTIONS
from handrail.core.policy import decide
from handrail.core.profiles import CODEX
from handrail.core.switch import Switch
from handrail.engine.dispatch import Dispatcher
from handrail.engine.foreground import Foreground, prepare
from handrail.engine.history import Conversation
from handrail.engine.meter import Attribution
from handrail.engine.ways import Place
from handrail.settings.catalogue import catalogue_of
from handrail.settings.model import Secret, Target
from handrail.upstream.client import UpstreamCall
from tests.conformance.recorded import NOW


@dataclass
class Reply:
    """One reply; a `silent` one has headers and never a byte of its body."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    silent: bool = False
    _read: bool = False

    async def read(self, *, limit: int, idle_seconds: float) -> bytes:
        """The whole body."""
        return self.body

    async def slice(self) -> bytes:
        """The whole body, then the end."""
        if self.silent:
            await asyncio.Event().wait()
        self._read, before = True, self._read
        return b"" if before else self.body

    async def finish(self) -> None:
        """Nothing is left over."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Upstream:
    """Answers every call with the same reply and remembers the calls."""

    reply: Reply
    calls: list[UpstreamCall] = field(default_factory=list)

    async def send(self, call: UpstreamCall) -> Reply:
        """The reply."""
        self.calls.append(call)
        return self.reply

    async def close(self) -> None:
        """Nothing is open."""


class StoppedClock:
    """The recordings' moment; its monotonic time passes an hour at every look."""

    def __init__(self, *, hours: bool = False) -> None:
        self._step = 3_600.0 if hours else 0.0
        self._monotonic = 0.0

    def now(self) -> float:
        """The moment of the recordings."""
        return NOW

    def monotonic(self) -> float:
        """The same moment for ever, or an hour later each time."""
        self._monotonic += self._step
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Nobody waits here."""


def target(key: str | None = "tok") -> Target:
    """The Codex backend, with that credential of the settings."""
    return Target(
        url="https://chatgpt.com/backend-api/codex",
        profile=CODEX,
        api_key=None if key is None else Secret(key),
        extra_fields=frozenset(),
        runs_background=False,
        model_fallbacks={},
        reply_seconds=60.0,
        idle_seconds=60.0,
        proxy=None,
        catalogue=catalogue_of(CODEX, own={}, defaults=NO_OPTIONS),
    )


async def answered(
    upstream: Upstream,
    *,
    key: str = "tok",
    headers: Mapping[str, str] | None = None,
    body: bytes = b'{"model":"m","input":"hi"}',
    dispatcher: Dispatcher | None = None,
    account: str | None = None,
) -> bytes:
    """A stateless create with this body, over this upstream, by the gateway's own engine.

    `account` is the one that the request demands of a `dispatcher` that has several.
    """
    clock = StoppedClock(hours=upstream.reply.silent)
    request = wire.read_create(body)
    switch = Switch(enabled=False, source="default", locked=False)
    call = prepare(
        Conversation.alone(request),
        plan=decide(request, switch=switch, caller=CallerPolicy(name="default")),
        places=[Place(target=target(key), headers=headers or {})],
        attribution=Attribution(
            caller="default", mode="stateless", response_id="resp_ours", account=account
        ),
        created_at=int(NOW),
    )
    made = dispatcher or Dispatcher(upstream, clock=clock)
    foreground = Foreground(made, clock=clock, heartbeat_seconds=15.0)
    answer, _ = await foreground.answer(call)
    return answer
