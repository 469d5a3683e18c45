"""Sends one request to a target with an account's credential; error answers become errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from handrail.core.masking import Mask
from handrail.core.profiles import Auth
from handrail.core.upstream_errors import refusal
from handrail.engine.clock import Clock
from handrail.engine.single import Taken
from handrail.settings.model import Target
from handrail.upstream.client import UpstreamCall, UpstreamClient, UpstreamReply
from handrail.upstream.masked import MaskedReply

MAX_ERROR_BYTES: Final = 256 * 1024
ERROR_SECONDS: Final = 10.0
JSON: Final = "application/json"
SSE: Final = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """What is sent: method, path below the base URL, headers of the caller's, and the body.

    `kind` is the content type of the body, `accept` what is wanted in return.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    kind: str = JSON
    accept: str = JSON


class Sender:
    """Sends through a client."""

    def __init__(self, client: UpstreamClient, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def send(self, target: Target, outgoing: Outgoing, taken: Taken) -> UpstreamReply:
        """The reply to a request that the target has taken, its body unread.

        The credential is masked wherever the reply repeats it. Raises UpstreamRefused and
        UpstreamFailed.
        """
        headers = {
            **outgoing.headers,
            "accept-encoding": "identity",
            "user-agent": "handrail",
            "accept": outgoing.accept,
        }
        if outgoing.body is not None:
            headers["content-type"] = outgoing.kind
        secrets = []
        if taken.shown is not None:
            secrets = [taken.shown.secret, *taken.shown.headers.values()]
            plain = target.auth is Auth.API_KEY
            name, value = ("api-key", "") if plain else ("authorization", "Bearer ")
            headers |= taken.shown.headers
            headers[name] = value + secrets[0]
        reply: UpstreamReply = await self._client.send(
            UpstreamCall(
                method=outgoing.method,
                url=target.address(outgoing.path),
                headers=headers,
                body=outgoing.body,
                reply_seconds=target.reply_seconds,
                proxy=target.proxy,
                keep_seconds=target.profile.keep_seconds,
            )
        )
        mask = Mask(secrets)
        if mask:
            reply = MaskedReply(reply, mask)
        if 200 <= reply.status < 300:
            return reply
        try:
            said = await reply.read(limit=MAX_ERROR_BYTES, idle_seconds=ERROR_SECONDS)
        finally:
            reply.close()
        raise refusal(reply.status, reply.headers, said, now=self._clock.now(), secrets=secrets)
