"""The call to the upstream's `compact` endpoint before a create whose input would be trimmed.

Whatever comes of it, the create goes out: with the compaction in its input, or trimmed as it was
prepared. The call is made once and never repeated. It is part of its caller's request: leaving
closes it.
"""

import asyncio
from typing import Final

from handrail.core.compaction import Compaction
from handrail.core.profiles import Endpoint
from handrail.core.rewrite import UpstreamRequest
from handrail.core.wire import Body
from handrail.engine.dispatch import Dispatcher
from handrail.engine.meter import Attribution
from handrail.engine.reading import MAX_REPLY_BYTES, read_response
from handrail.engine.ways import Ways
from handrail.errors import HandrailError

INSTEAD: Final = "fast session: what would be left out is put in short"


class Compactor:
    """Asks for what a request wishes, through a dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def fulfilled(self, ways: Ways, *, attribution: Attribution) -> Ways:
        """The same with nothing left to wish for. Raises nothing that is the upstream's doing.

        The first target alone is asked, and the request in its form alone is shorter for it.
        """
        request = ways.request
        if request.compaction is None:
            return ways
        return ways.with_request(await self._compacted(ways, request.compaction, attribution))

    async def _compacted(
        self, ways: Ways, wish: Compaction, attribution: Attribution
    ) -> UpstreamRequest:
        request = ways.request
        first = Ways(target=ways.target, request=request.to_compact(wish), headers=ways.headers)
        try:
            async with asyncio.timeout(wish.seconds):
                answer = await self._ask(first, attribution=attribution)
            value = wish.input(answer)
        except TimeoutError:
            return request.compacted(None, reason=f"no answer within {wish.seconds:g} s")
        except HandrailError as error:
            why = error.fault.code or f"the upstream answered {error.fault.status}"
            return request.compacted(None, reason=why)
        if value is None:
            return request.compacted(None, reason="the answer holds no items")
        return request.compacted(value, reason=INSTEAD)

    async def _ask(self, ways: Ways, *, attribution: Attribution) -> Body:
        async with self._dispatcher.create(
            ways, attribution=attribution, path=Endpoint.COMPACT.path
        ) as answered:
            idle = answered.target.idle_seconds
            said = await answered.reply.read(limit=MAX_REPLY_BYTES, idle_seconds=idle)
            body = read_response(said)
            answered.meter.read(body)
            return body
