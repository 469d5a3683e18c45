"""An upstream's reply without the credential that it was asked with."""

from collections.abc import Mapping

from multidict import CIMultiDict

from handrail.core.masking import Mask
from handrail.upstream.client import UpstreamReply


class MaskedReply:
    """`UpstreamReply` over another one, whose headers and body pass through `mask`."""

    def __init__(self, reply: UpstreamReply, mask: Mask) -> None:
        self._reply = reply
        self._mask = mask
        self.status = reply.status
        self.headers = _clean(reply.headers, mask)

    async def read(self, *, limit: int, idle_seconds: float) -> bytes:
        """See the port."""
        return self._mask.whole(await self._reply.read(limit=limit, idle_seconds=idle_seconds))

    async def slice(self) -> bytes:
        """See the port."""
        while data := await self._reply.slice():
            shown = self._mask.slice(data)
            if shown:  # nothing at all would mean the end
                return shown
        return self._mask.rest()

    async def finish(self) -> None:
        """See the port."""
        await self._reply.finish()

    def close(self) -> None:
        """See the port."""
        self._reply.close()


def _clean(headers: Mapping[str, str], mask: Mask) -> Mapping[str, str]:
    if all(mask.text(value) == value for value in headers.values()):
        return headers
    return CIMultiDict((name, mask.text(value)) for name, value in headers.items())
