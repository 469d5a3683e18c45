"""How a run ends, from inside its execution or from outside: one place builds every end."""

from collections.abc import Sequence
from typing import Final

import msgspec

from handrail.core import events, responses, wire
from handrail.core.fold import Fold
from handrail.core.items import item_id
from handrail.core.lifecycle import TERMINAL_EVENT, State
from handrail.core.policy import Plan
from handrail.core.responses import RunError
from handrail.core.sse import parse_frame
from handrail.store.base import Closing, Run, Segment

_PLAN: Final = msgspec.json.Decoder(Plan)


def plan_of(run: Run) -> Plan:
    """The plan that was stored with the run."""
    return _PLAN.decode(run.plan)


def object_of(run: Run) -> wire.Body:
    """The response object of a run as it is now."""
    body: wire.Body = msgspec.json.decode(run.response, type=wire.Body)
    return {**body, "status": wire.raw(run.state)}


def fold_frames(frames: Sequence[bytes]) -> Fold:
    """What stored frames say; the gateway's own opening events are folded like any other."""
    fold = Fold()
    for frame in frames:
        event = events.read(parse_frame(frame))
        if event is not None and event.type not in events.OPENING:
            fold.apply(event)
    return fold


def closing(
    run: Run,
    state: State,
    *,
    fold: Fold,
    now: float,
    pending: Segment | None = None,
    error: RunError | None = None,
) -> Closing:
    """The end of `run` in `state`. `pending` are numbered events that are not yet appended."""
    base: wire.Body = msgspec.json.decode(run.response, type=wire.Body)
    response = responses.closed(base, fold=fold, state=state, now=int(now), error=error)
    first = pending.first if pending else run.last_seq + 1
    before = pending.frames if pending else ()
    number = first + len(before)
    terminal = events.lifecycle_event(TERMINAL_EVENT[state], response, number=number)
    ids = [item_id(item) for item in wire.items(response["output"], param="output")]
    return Closing(
        state=state,
        response=wire.encode(response),
        segment=Segment(first=first, frames=(*before, terminal.frame)),
        finished_at=now,
        kept_seconds=plan_of(run).retention_seconds,
        items=tuple(id_ for id_ in ids if id_ is not None),
    )
