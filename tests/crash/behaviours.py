"""What clients do, as a table. A new kind of client is a function and a line in `MIX`."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from handrail.core.retry import MAX_ATTEMPTS
from tests.crash.client import Clients, Leave, ask_for, order_run, until_ended
from tests.crash.journal import Run
from tests.crash.orders import KINDS, draw
from tests.crash.wire import Broken

# What never ends by itself is for those who stop it.
ALL: Final = tuple(kind.name for kind in KINDS if kind.weight)
ENDING: Final = tuple(kind.name for kind in KINDS if kind.weight and not kind.endless)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One client's turn: whom it can ask, its own randomness, and names for what it creates."""

    clients: Clients
    chance: random.Random
    new_tag: Callable[[], str]

    def run(self, *, kinds: tuple[str, ...] = ENDING, key: bool = False, **more: Any) -> Run:
        """A run to create, of one of these kinds, of any caller."""
        tag = self.new_tag()
        caller = self.chance.choices(("ann", "bob", "brief"), (5, 4, 1))[0]
        order = draw(self.chance, names=kinds)
        run = order_run(tag, order, caller=more.pop("caller", caller), **more)
        if key:
            run.key = f"key-{tag}"
            self.clients.journal.by_key[run.key] = run
        return run

    async def wait(self, most: float) -> None:
        """A moment of random length, in seconds."""
        await asyncio.sleep(self.chance.uniform(0, most))


SDK_PAUSE: Final = (0.375, 0.5)

Act = Callable[[Visit], Awaitable[None]]


async def poll(visit: Visit) -> None:
    """Create, and poll to the end."""
    run = visit.run(key=visit.chance.random() < 0.3)
    if await visit.clients.create(run):
        await until_ended(visit.clients, run, pause=visit.chance.uniform(0.002, 0.03))


async def stream(visit: Visit) -> None:
    """Create with a stream, and read it to its end."""
    run = visit.run(streamed=True, key=visit.chance.random() < 0.3)
    await visit.clients.create(run)


async def leave(visit: Visit) -> None:
    """Create, follow, leave at a random byte, come back at the next number or an earlier one."""
    run = visit.run()
    if not await visit.clients.create(run):
        return
    after = -1
    for _ in range(visit.chance.randint(1, 4)):
        size = visit.chance.randint(1, 8_000)
        piece = await visit.clients.follow(run, after=after, leave=_read_so_much(size))
        if piece is None or piece.ended:
            return
        after = visit.chance.choice((piece.last, visit.chance.randint(-1, max(-1, piece.last))))
        await visit.wait(0.02)


async def cancel(visit: Visit) -> None:
    """Create, and cancel at a random moment; sometimes twice at once, sometimes somebody reads."""
    run = visit.run(kinds=ALL)
    if not await visit.clients.create(run):
        return
    await visit.wait(run.order.seconds * 1.3)
    work = [visit.clients.cancel(run) for _ in range(visit.chance.choice((1, 1, 2)))]
    if visit.chance.random() < 0.5:
        work.append(_read(visit, run))
    await _together(*work)
    await visit.clients.poll(run)


async def cancel_stream(visit: Visit) -> None:
    """Create with a stream, and cancel while it is read, sometimes when its end is near."""
    run = visit.run(kinds=ALL, streamed=True)
    reading = asyncio.create_task(visit.clients.create(run))
    late = visit.chance.random() < 0.5
    while run.id is None and not reading.done():
        await asyncio.sleep(0.001)
    if run.id is not None:
        least = 0.8 * run.order.seconds if late else 0.0
        await asyncio.sleep(visit.chance.uniform(least, 1.2 * run.order.seconds))
        await visit.clients.cancel(run)
        await visit.clients.poll(run)
    await reading


async def cancel_and_leave(visit: Visit) -> None:
    """Create, and send a cancel without waiting for its answer."""
    run = visit.run(kinds=ALL)
    if not await visit.clients.create(run):
        return
    await visit.wait(run.order.seconds)
    await visit.clients.cancel_and_leave(run)
    await visit.clients.poll(run)
    if run.rank < 2 and run.order.kind.endless:  # the cancel may never have been read
        await visit.clients.cancel(run)


async def cancel_or_delete(visit: Visit) -> None:
    """Create, and cancel and delete at once."""
    run = visit.run(kinds=ALL)
    if not await visit.clients.create(run):
        return
    await visit.wait(run.order.seconds)
    await _together(visit.clients.cancel(run), visit.clients.delete(run))
    await visit.clients.poll(run)


async def delete(visit: Visit) -> None:
    """Create, perhaps under a key, and delete at a random moment, perhaps while somebody reads."""
    run = visit.run(kinds=ALL, key=visit.chance.random() < 0.5)
    if not await visit.clients.create(run):
        return
    reading = visit.chance.random() < 0.5
    await _together(
        _after(visit.chance.uniform(0, run.order.seconds * 1.3), visit.clients.delete(run)),
        *([_read(visit, run)] if reading else []),
    )
    await visit.clients.poll(run)


async def twins(visit: Visit) -> None:
    """The same create twice at once, under one key: one run."""
    run = visit.run(key=True)
    await _together(visit.clients.create(run), visit.clients.create(run))


async def stranger(visit: Visit) -> None:
    """Create, and let another caller try the id."""
    run = visit.run()
    if await visit.clients.create(run):
        await visit.clients.stranger(run, visit.chance)


async def refer(visit: Visit) -> None:
    """Let a model answer, and give the item back by its id in the next create."""
    run = visit.run(kinds=("words",), caller="ann")
    if not await visit.clients.create(run):
        return
    body = await until_ended(visit.clients, run)
    if body is None or body["status"] != "completed":
        return
    then = visit.run(kinds=("words",), caller="ann")
    given = json.loads(then.body)
    question = {"role": "user", "content": given["input"]}
    given["input"] = [{"type": "item_reference", "id": body["output"][0]["id"]}, question]
    then.body = json.dumps(given).encode()
    await visit.clients.create(then)


async def long_stream(visit: Visit) -> None:
    """A background stream of up to some seconds, read to its end."""
    run = visit.run(kinds=("words",), caller=visit.chance.choice(("ann", "bob")), streamed=True)
    _lengthen(visit, run)
    await visit.clients.create(run)


async def long_foreground(visit: Visit) -> None:
    """The same without background: nobody keeps it, but it has an end too."""
    run = visit.run(kinds=("words",), caller=visit.chance.choice(("ann", "bob")), streamed=True)
    _lengthen(visit, run)
    await visit.clients.pass_through(run)


def _lengthen(visit: Visit, run: Run) -> None:
    words = visit.chance.randint(5, 45)
    ask_for(run, replace(run.order, words=words, delay=visit.chance.choice((0.02, 0.05, 0.1))))


async def go_on(visit: Visit) -> None:
    """Let a model answer, and go on from it."""
    run = visit.run(kinds=("words", "tool", "reasoning", "incomplete"), caller="ann")
    if await visit.clients.create(run):
        await until_ended(visit.clients, run)
        await go_on_from(visit, run)


async def go_on_from(visit: Visit, run: Run) -> None:
    """Create what goes on from a run, if that has ended so that one can."""
    if run.status in ("completed", "incomplete") and not run.doomed:
        then = visit.run(kinds=("words",), caller=run.caller)
        body = {**json.loads(then.body), "previous_response_id": run.id}
        then.body = json.dumps(body).encode()
        await visit.clients.create(then)


async def insist(visit: Visit) -> None:
    """Create under the crash policy that allows further attempts, and read it to the end."""
    run = visit.run(kinds=(visit.chance.choice(("flaky", "slow to answer", "words")),))
    run.headers["handrail-crash-policy"] = "retry"
    run.attempts_allowed = MAX_ATTEMPTS
    if await visit.clients.create(run):
        await visit.clients.follow(run)


async def repeat(visit: Visit) -> None:
    """Create, leave before or while it is answered, and send the same again as an SDK does."""
    run = visit.run(caller=visit.chance.choice(("ann", "bob")))
    await visit.clients.create_and_leave(run, visit.chance.uniform(0.0005, 0.02))
    if run.id is None:
        # No SDK repeats sooner. At once, the repeat could overtake the news that the client left.
        await asyncio.sleep(visit.chance.uniform(*SDK_PAUSE))
        await visit.clients.create_again(run)


async def kept(visit: Visit) -> None:
    """A foreground create that is kept, without a stream: the reply is the end."""
    kinds = ("words", "tool", "reasoning", "incomplete", "slow to answer")
    caller = visit.chance.choice(("ann", "bob"))
    run = visit.run(kinds=kinds, caller=caller, foreground=True)
    if await visit.clients.create(run):
        await visit.clients.poll(run)


async def kept_stream(visit: Visit) -> None:
    """The same with a stream, which is read, left at a random byte, or cancelled from outside."""
    kinds = ("words", "large", "tool", "reasoning", "incomplete", "error", "dropped", "malformed")
    caller = visit.chance.choice(("ann", "bob"))
    run = visit.run(kinds=kinds, caller=caller, foreground=True, streamed=True)
    sort = visit.chance.choice(("read", "leave", "cancel"))
    if sort == "leave":
        await visit.clients.create(run, leave=_read_so_much(visit.chance.randint(1, 8_000)))
    else:
        await _together(
            visit.clients.create(run), *([_cancel_later(visit, run)] if sort == "cancel" else [])
        )
    if run.id is not None:
        await visit.clients.poll(run)


async def _cancel_later(visit: Visit, run: Run) -> None:
    await visit.wait(run.order.seconds * 1.3)
    if run.id is not None:
        await visit.clients.cancel(run)


async def ready(visit: Visit) -> None:
    """Ask for readiness, as whoever watches the process does."""
    await visit.clients.ready()
    await visit.wait(0.05)


async def remote(visit: Visit) -> None:
    """A response that the upstream keeps: create, poll, sometimes delete."""
    run = visit.run(kinds=("words",), remote=True)
    if not await visit.clients.create(run):
        return
    await visit.clients.poll(run)
    if visit.chance.random() < 0.5:
        await visit.clients.delete(run)
        await visit.clients.poll(run)


Mix = tuple[tuple[Act, int], ...]

# What a client does next, and how often.
MIX: Final[Mix] = (
    (poll, 6),
    (stream, 8),
    (leave, 4),
    (cancel, 4),
    (cancel_and_leave, 1),
    (cancel_or_delete, 1),
    (delete, 3),
    (twins, 2),
    (stranger, 1),
    (refer, 1),
    (go_on, 2),
    (insist, 3),
    (kept, 1),
    (kept_stream, 3),
    (repeat, 1),
    (ready, 1),
)
CANCELS: Final[Mix] = (
    (cancel, 6),
    (cancel_stream, 4),
    (cancel_and_leave, 2),
    (cancel_or_delete, 2),
    (delete, 1),
)
# Under other settings, or for a point that needs it.
MIXES: Final[Mapping[str, Mix]] = {
    "remote": ((remote, 1),),
    "insist": (*MIX, (insist, 120)),
    "wide": ((long_stream, 3), (long_foreground, 1)),
}


def _read_so_much(size: int) -> Leave:
    return lambda piece: len(piece.data) > size


async def _read(visit: Visit, run: Run) -> None:
    await visit.clients.follow(run)


async def _after(seconds: float, work: Awaitable[None]) -> None:
    await asyncio.sleep(seconds)
    await work


async def _together(*work: Awaitable[Any]) -> None:
    # All to their end: a reader beside a request that broke has a journal of its own.
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Broken):
            raise outcome
    if any(isinstance(outcome, Broken) for outcome in outcomes):
        raise Broken("one of them")
