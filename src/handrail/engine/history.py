"""Finds what a create goes on from: kept items by their ids, kept responses by their chain."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import msgspec

from handrail.core import items, wire
from handrail.core.history import History, not_found
from handrail.core.policy import Mode, Plan
from handrail.core.wire import Body, CreateRequest
from handrail.settings.model import Target
from handrail.store.base import Run, Store

_JOIN_INLINE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A create, and all that it stands for.

    `given` is what the caller sent, `own` the same with each `item_reference` replaced by its item:
    what is kept of it. `whole` has the conversation since its beginning as its input: what leaves.
    `continues` is the response before that beginning, if an upstream keeps one, and `kept_by` the
    name of that target.
    """

    given: CreateRequest
    own: CreateRequest
    whole: CreateRequest
    continues: str | None = None
    kept_by: str | None = None

    @classmethod
    def alone(cls, request: CreateRequest) -> Self:
        """A create that goes on from nothing."""
        return cls(given=request, own=request, whole=request)


class Histories:
    """Reads conversations from the store; another caller's are not there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(
        self,
        request: CreateRequest,
        *,
        plan: Plan,
        caller: str,
        targets: Sequence[Target],
        max_bytes: int | None = None,
    ) -> Conversation:
        """The conversation that `request` goes on with at one of `targets`.

        Its history has `max_bytes` at most.
        Raises RequestRejected for a reference or a previous response that is not kept, and for a
        conversation that cannot be continued now; StoreFailed when the store cannot be read.
        """
        own = request
        if plan.mode is not Mode.UPSTREAM:  # there, references are the upstream's own (G6)
            own = await self._with_references(request, caller)
        return await self.before(
            Conversation(given=request, own=own, whole=own),
            caller=caller,
            targets=targets,
            max_bytes=max_bytes,
        )

    async def before(
        self,
        conversation: Conversation,
        *,
        caller: str,
        targets: Sequence[Target],
        max_bytes: int | None = None,
    ) -> Conversation:
        """`conversation` with what was said before, and with the response that a target keeps.

        Raises as `of` does.
        """
        request = conversation.own
        previous = request.previous_response_id
        if previous is None:
            return conversation
        history = History(max_bytes=max_bytes)

        def take(run: Run) -> None:
            history.take(run.id, run.state, request=run.request, response=run.response)

        missing = await self._store.ancestry(previous, caller=caller, visit=take)
        kept_by = None
        if missing is not None:
            remote = await self._store.locate(missing, caller=caller)
            if remote is None or all(remote.target != target.name for target in targets):
                raise not_found(missing, previous=previous)
            kept_by = remote.target
        # Whoever minds them takes them out of what is sent; who needs them could not get them back.
        strips_ids = all(target.profile.strips_ids for target in targets)
        if history.size > _JOIN_INLINE:  # megabytes take time that other streams would feel
            whole = await asyncio.to_thread(history.before, request, strips_ids=strips_ids)
        else:
            whole = history.before(request, strips_ids=strips_ids)
        return replace(conversation, whole=whole, continues=missing, kept_by=kept_by)

    async def _with_references(self, request: CreateRequest, caller: str) -> CreateRequest:
        value = request.body.get("input")
        if value is None or wire.kind_of(value) is not wire.Kind.ARRAY:
            return request
        given = items.as_items(value)
        wanted = items.references(given)
        if not wanted:
            return request
        found = await self._store.find_items(caller, frozenset(wanted))
        kept = {item_id: msgspec.json.decode(item, type=Body) for item_id, item in found.items()}
        whole = items.resolve_references(given, kept)
        return replace(request, body={**request.body, "input": wire.raw(whole)})
