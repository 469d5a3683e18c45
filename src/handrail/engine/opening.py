"""How a run begins, in the queue or under way: one place builds every beginning."""

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from handrail.core import events, items, responses, wire
from handrail.core.policy import Mode, OtherTarget, Plan
from handrail.core.wire import Body, CreateRequest
from handrail.settings.model import Target
from handrail.store.base import NewRun, Segment

MAX_ITEM_IDS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Whose run it is, for which target, and when. `now` is in unix seconds.

    `others` are the targets that may take its place.
    """

    id: str
    caller: str
    target: Target
    now: float
    others: tuple[Target, ...] = ()

    def run(self, request: CreateRequest, plan: Plan) -> NewRun:
        """The run for a create, to be kept."""
        response = responses.opening(
            request, plan=plan, response_id=self.id, created_at=int(self.now)
        )
        second = events.QUEUED
        if plan.mode is Mode.KEPT:  # its caller waits: it is never seen in a queue
            response, second = responses.in_progress(response), events.IN_PROGRESS
        others = tuple(OtherTarget(name=each.name, rules=each.rules) for each in self.others)
        return NewRun(
            id=self.id,
            caller=self.caller,
            created_at=self.now,
            target=self.target.name,
            plan=msgspec.json.encode(replace(plan, rules=self.target.rules, others=others)),
            request=wire.encode(request.body),
            response=wire.encode(response),
            opening=_segment(response, second),
            items=_item_ids(request),
            previous=request.previous_response_id,
            priority=plan.priority,
        )


def _segment(response: Body, second: str) -> Segment:
    first = events.lifecycle_event(events.CREATED, response, number=0)
    return Segment(
        first=0, frames=(first.frame, events.lifecycle_event(second, response, number=1).frame)
    )


def _item_ids(request: CreateRequest) -> tuple[str, ...]:
    value = request.body.get("input")
    if value is None or wire.kind_of(value) is not wire.Kind.ARRAY:
        return ()
    ids = (items.item_id(item) for item in items.as_items(value))
    return tuple(dict.fromkeys(item_id for item_id in ids if item_id))[:MAX_ITEM_IDS]
