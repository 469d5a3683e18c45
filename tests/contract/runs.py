"""Runs as the contract suite makes them: short, by hand, with a clock that tests move."""

from collections.abc import Callable, Sequence

from handrail.core.admission import Limits
from handrail.core.lifecycle import State
from handrail.core.quota import Quota
from handrail.store.base import Closing, NewRun, Run, Segment, Store

CANARY = b"canary-of-what-nobody-may-read"


class Now:
    """A wall clock that tests move by hand."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


class Allowed:
    """The quota of the moment; tests set another."""

    def __init__(self) -> None:
        self.quota = Quota()


def limits(*, running: int = 100, queued: int = 100, each: int = 100, waiting: int = 100) -> Limits:
    callers = ("ann", "bob", "cyd")
    return Limits(
        max_running=running,
        max_queued=queued,
        caller_running=dict.fromkeys(callers, each),
        caller_queued=dict.fromkeys(callers, waiting),
    )


def frames(first: int, count: int = 1, text: str = "x") -> Segment:
    made = (f'event: e\ndata: {{"n":{n},"t":"{text}"}}\n\n'.encode() for n in range(count))
    return Segment(first=first, frames=tuple(made))


async def accept(
    store: Store,
    run_id: str,
    *,
    caller: str = "ann",
    within: Limits | None = None,
    items: tuple[str, ...] = (),
    previous: str | None = None,
) -> None:
    run = NewRun(
        id=run_id,
        caller=caller,
        created_at=1.0,
        target="openai http://x",
        plan=b"{}",
        request=b'{"input":[{"id":"msg_in","role":"user","content":"hi"}],"s":"' + CANARY + b'"}',
        response=b'{"output":[]}',
        opening=frames(0, 2, CANARY.decode()),
        items=items,
        previous=previous,
    )
    await store.accept(run, limits=within or limits())


def ending(first: int, state: State = State.COMPLETED, *, kept_seconds: float = 1e9) -> Closing:
    response = b'{"output":[{"id":"msg_out","type":"message","s":"' + CANARY + b'"}]}'
    return Closing(
        state=state,
        response=response,
        segment=frames(first, 1, CANARY.decode()),
        finished_at=2.0,
        kept_seconds=kept_seconds,
        items=("msg_out",),
    )


async def started(store: Store, run_id: str, *, caller: str = "ann") -> Run:
    """A run that is in progress, three events in."""
    await accept(store, run_id, caller=caller)
    run = await store.claim(owner="me", limits=limits())
    assert run is not None
    assert await store.begin(run.id, run.fence, now=1.5, segment=frames(2))
    return run


def close_as(state: State) -> Callable[[Run, Sequence[bytes]], Closing | None]:
    def close(run: Run, _: Sequence[bytes]) -> Closing | None:
        return ending(run.last_seq + 1, state) if run.finished_at is None else None

    return close
