"""The call to compact before a create: what may go wrong with it, and that nothing else does."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from handrail.core import wire
from handrail.core.catalogue import NOTHING_KNOWN
from handrail.core.fast_session import FastSession, Strategy
from handrail.core.profiles import OPENAI
from handrail.core.rewrite import UpstreamRequest, upstream_request
from handrail.core.shaping import Shaping
from handrail.engine.clock import SystemClock
from handrail.engine.compaction import Compactor
from handrail.engine.dispatch import Dispatcher
from handrail.engine.meter import Attribution
from handrail.engine.ways import Ways
from handrail.errors import Code, UpstreamFailed
from handrail.settings.model import Target
from handrail.upstream.client import UpstreamCall
from tests.conformance.upstream_stub import Reply

Json = dict[str, Any]
TARGET = Target(
    url="http://up.example/v1",
    profile=OPENAI,
    api_key=None,
    extra_fields=frozenset(),
    runs_background=False,
    catalogue=NOTHING_KNOWN,
    model_fallbacks={"m": ("n",)},
    reply_seconds=60.0,
    idle_seconds=60.0,
    proxy=None,
)
TALK = [{"type": "message", "role": "assistant", "content": "a"}] * 20
CHARGED = Attribution(caller="ann", mode="stateless", response_id="resp_1")
LAST = {"type": "message", "role": "user", "content": "and\nnow"}
SEALED = {"type": "compaction", "encrypted_content": "x"}


@dataclass
class Upstream:
    """Answers each call with the next reply, fails with an exception, or never answers (None)."""

    replies: list[Reply | Exception | None]
    calls: list[UpstreamCall] = field(default_factory=list)

    async def send(self, call: UpstreamCall) -> Reply:
        """The next reply."""
        self.calls.append(call)
        reply = self.replies.pop(0)
        if reply is None:
            await asyncio.Event().wait()
        if isinstance(reply, Exception):
            raise reply
        assert reply is not None
        return reply

    async def close(self) -> None:
        """Nothing is open."""


def request(seconds: float = 60.0, given: list[Any] | None = None) -> UpstreamRequest:
    """A create that wishes for a compaction."""
    fast = FastSession(strategy=Strategy.ALWAYS, max_items=8, compact_seconds=seconds)
    body = {"model": "m", "input": [*TALK, LAST] if given is None else given}
    return upstream_request(
        wire.read_create(json.dumps(body).encode()),
        profile=OPENAI,
        stream=True,
        shaping=Shaping(fast=fast),
    )


async def fulfilled(
    *replies: Reply | Exception | None, seconds: float = 60.0
) -> tuple[UpstreamRequest, Upstream]:
    """What becomes of it over these replies."""
    upstream = Upstream(list(replies))
    compactor = Compactor(Dispatcher(upstream, clock=SystemClock()))
    ways = Ways(target=TARGET, request=request(seconds), headers={"x-of": "caller"})
    done = (await compactor.fulfilled(ways, attribution=CHARGED)).request
    assert done.compaction is None
    return done, upstream


def reply(answer: Any, status: int = 200) -> Reply:
    """A JSON reply."""
    return Reply(status=status, body=json.dumps(answer).encode())


def input_of(made: UpstreamRequest) -> list[Json]:
    """The items that leave."""
    found: list[Json] = json.loads(bytes(made.body["input"]))
    return found


async def test_a_request_without_a_wish_costs_no_call() -> None:
    upstream = Upstream([])
    compactor = Compactor(Dispatcher(upstream, clock=SystemClock()))
    plain = Ways(target=TARGET, request=request(given=[LAST]))
    assert await compactor.fulfilled(plain, attribution=CHARGED) is plain
    assert upstream.calls == []


async def test_the_answer_takes_the_place_of_what_was_asked() -> None:
    done, upstream = await fulfilled(reply({"output": [SEALED]}))
    assert input_of(done) == [SEALED, LAST]
    assert done.steps[-1].action == "compacted by the upstream instead"
    assert done.streams
    (call,) = upstream.calls
    assert (call.method, call.url) == ("POST", "http://up.example/v1/responses/compact")
    assert (call.headers["accept"], call.headers["x-of"]) == ("application/json", "caller")
    assert json.loads(call.body or b"") == {"model": "m", "input": TALK}


REFUSED = {"error": {"message": "no", "type": "server_error", "param": None, "code": "overloaded"}}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply(REFUSED, 500), "overloaded"),
        (reply({"error": {"message": "no", "type": "t"}}, 400), "the upstream answered 400"),
        (reply({"output": []}), "the answer holds no items"),
        (reply([]), "upstream_protocol_error"),
        (
            UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "gone", sent=False),
            "upstream_unreachable",
        ),
    ],
)
async def test_what_fails_leaves_the_input_trimmed_and_says_why(
    answer: Reply | Exception, reason: str
) -> None:
    done, upstream = await fulfilled(answer)
    assert input_of(done) == [*TALK[:7], LAST]
    assert (done.steps[-1].action, done.steps[-1].reason) == ("not compacted", reason)
    assert len(upstream.calls) == 1


async def test_an_answer_that_takes_too_long_is_not_waited_for() -> None:
    done, _ = await fulfilled(None, seconds=0.01)
    assert input_of(done) == [*TALK[:7], LAST]
    assert done.steps[-1].reason == "no answer within 0.01 s"


async def test_a_defect_of_ours_is_not_mistaken_for_the_upstreams() -> None:
    with pytest.raises(ZeroDivisionError):
        await fulfilled(ZeroDivisionError())


async def test_a_model_that_is_not_served_is_looked_for_as_in_a_create() -> None:
    words = "The 'm' model is not supported when using Codex with a ChatGPT account."
    refused = {"error": {"message": words, "type": "t", "param": "model", "code": None}}
    done, upstream = await fulfilled(reply(refused, 400), reply({"output": [SEALED]}))
    assert input_of(done) == [SEALED, LAST]
    assert [json.loads(call.body or b"")["model"] for call in upstream.calls] == ["m", "n"]
    assert json.loads(bytes(replace(done).body["model"])) == "m"
