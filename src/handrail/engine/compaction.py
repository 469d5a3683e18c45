"""The call to the upstream's `compact` endpoint before a create whose input would be trimmed.

Whatever comes of it, the create goes out: with the compaction in its input, or trimmed as it was
prepared. The call is made once and never repeated. It is part of its caller's request: leaving
closes it.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from handrail.core.profiles import Endpoint
from handrail.core.rewrite import UpstreamRequest
from handrail.core.wire import Body
from handrail.engine.dispatch import Dispatcher
from handrail.engine.meter import Attribution
from handrail.engine.reading import MAX_REPLY_BYTES, read_response
from handrail.errors import HandrailError
from handrail.settings.model import Target

INSTEAD: Final = "fast session: what would be left out is put in short"


class Compactor:
    """Asks for what a request wishes, through a dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def fulfilled(
        self,
        target: Target,
        request: UpstreamRequest,
        *,
        headers: Mapping[str, str],
        attribution: Attribution,
    ) -> UpstreamRequest:
        """`request` with nothing left to wish for. Raises nothing that is the upstream's doing."""
        wish = request.compaction
        if wish is None:
            return request
        try:
            async with asyncio.timeout(wish.seconds):
                answer = await self._ask(
                    target, request.to_compact(wish), headers=headers, attribution=attribution
                )
            value = wish.input(answer)
        except TimeoutError:
            return request.compacted(None, reason=f"no answer within {wish.seconds:g} s")
        except HandrailError as error:
            why = error.fault.code or f"the upstream answered {error.fault.status}"
            return request.compacted(None, reason=why)
        if value is None:
            return request.compacted(None, reason="the answer holds no items")
        return request.compacted(value, reason=INSTEAD)

    async def _ask(
        self,
        target: Target,
        request: UpstreamRequest,
        *,
        headers: Mapping[str, str],
        attribution: Attribution,
    ) -> Body:
        async with self._dispatcher.create(
            target,
            request,
            headers=headers,
            attribution=attribution,
            path=Endpoint.COMPACT.path,
        ) as answered:
            idle = target.idle_seconds
            said = await answered.reply.read(limit=MAX_REPLY_BYTES, idle_seconds=idle)
            body = read_response(said)
            answered.meter.read(body)
            return body
