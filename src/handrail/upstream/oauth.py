"""Talks to an OAuth issuer: refresh, exchange of codes, device codes, revocation.

One request a call, never a second: a refresh credential works once, and an issuer that sees it
twice takes it for stolen and ends the whole login. So whoever calls is told whether a request that
failed can have arrived. No connection is kept, because one that the issuer is just closing would
leave exactly that doubt.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Self, TypeVar
from urllib.parse import urlencode

import msgspec

from handrail.core.device_code import (
    Approval,
    DeviceCode,
    is_pending,
    read_approval,
    read_device_code,
)
from handrail.core.oauth import (
    Asking,
    Grant,
    UnusableReply,
    authorize_url,
    code_form,
    read_grant,
    read_refreshed,
    refresh_body,
    revoke_body,
)
from handrail.core.oauth_refusals import IssuerRefused, refusal_of
from handrail.errors import IssuerFailed, UpstreamFailed
from handrail.settings.model import OAuthSettings
from handrail.settings.proxy import proxy_of
from handrail.upstream.client import AiohttpClient, UpstreamCall, UpstreamClient, UpstreamReply

MAX_REPLY: Final = 256 * 1024
"""Bytes. A grant has a few kilobytes."""

REPLY_SECONDS: Final = 20.0
WHOLE_SECONDS: Final = 25.0
"""Of one call. A refresh and its repeat have to be over before the lease for them is."""

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"

T = TypeVar("T")


class Issuer:
    """An issuer, as `settings` name it; `now` tells unix seconds.

    Every call raises IssuerRefused when the issuer says no, and IssuerFailed when there is no
    answer that is of use; both messages are for the operator and hold no secret. Build it inside
    the running event loop, and close it. `reply_seconds` bounds the wait for a reply's headers,
    `whole_seconds` a whole call. Raises ConfigInvalid for a proxy that cannot be used.
    """

    def __init__(
        self,
        settings: OAuthSettings,
        *,
        now: Callable[[], float],
        client: UpstreamClient | None = None,
        reply_seconds: float = REPLY_SECONDS,
        whole_seconds: float = WHOLE_SECONDS,
    ) -> None:
        self._settings = settings
        self._now = now
        self._reply_seconds = reply_seconds
        self._whole_seconds = whole_seconds
        self._usercode_url = f"{settings.device_url}/usercode"
        self._poll_url = f"{settings.device_url}/token"
        urls = (settings.token_url, settings.revoke_url, self._usercode_url, self._poll_url)
        self._proxies = {url: proxy_of(url, settings.environment) for url in urls}
        self._client = client or AiohttpClient()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def refresh(self, grant: Grant) -> Grant:
        """The grant that follows; the one given may not be used again once this was sent.

        A cancelled call may have been sent as well: let it finish and be kept.
        """
        body = refresh_body(grant, client_id=self._settings.client_id)
        answer = await self._granted(self._settings.token_url, _json(body), _JSON)
        return _read(answer, lambda data: read_refreshed(data, grant, now=self._now()))

    def sign_in_url(
        self, *, redirect_uri: str, state: str, challenge: str, workspace: str | None = None
    ) -> str:
        """The address at which a person signs in, to that workspace if one is named."""
        settings = self._settings
        asking = Asking(
            client_id=settings.client_id,
            redirect_uri=redirect_uri,
            scopes=settings.scopes,
            originator=settings.originator,
            state=state,
            challenge=challenge,
            workspace=workspace,
        )
        return authorize_url(settings.authorize_url, asking)

    async def exchange(self, code: str, *, verifier: str, redirect_uri: str) -> Grant:
        """The grant for an authorization code and the verifier that it was asked for with."""
        form = code_form(
            code,
            verifier=verifier,
            client_id=self._settings.client_id,
            redirect_uri=redirect_uri,
        )
        answer = await self._granted(self._settings.token_url, urlencode(form).encode(), _FORM)
        return _read(answer, lambda data: read_grant(data, now=self._now()))

    async def start_device(self) -> DeviceCode:
        """A code for somebody to type in at `device_page`."""
        body = {"client_id": self._settings.client_id}
        return _read(await self._granted(self._usercode_url, _json(body), _JSON), read_device_code)

    async def poll_device(self, device: DeviceCode) -> Approval | None:
        """What to exchange once the code was typed in, None while it was not."""
        body = {"device_auth_id": device.device_id, "user_code": device.user_code}
        status, headers, answer = await self._post(self._poll_url, _json(body), _JSON)
        if status != 200 and is_pending(status, answer):
            return None
        return _read(self._accepted(status, headers, answer), read_approval)

    async def approved(self, approval: Approval) -> Grant:
        """The grant for a code that was typed in."""
        return await self.exchange(
            approval.code,
            verifier=approval.verifier,
            redirect_uri=self._settings.device_redirect,
        )

    async def revoke(self, grant: Grant) -> None:
        """End a grant at the issuer, for everybody who has it."""
        body = revoke_body(grant, client_id=self._settings.client_id)
        await self._granted(self._settings.revoke_url, _json(body), _JSON)

    async def _granted(self, url: str, body: bytes, kind: str) -> bytes:
        return self._accepted(*await self._post(url, body, kind))

    def _accepted(self, status: int, headers: Mapping[str, str], body: bytes) -> bytes:
        if status != 200:
            raise IssuerRefused(refusal_of(status, body, headers=headers, now=self._now()))
        return body

    async def _post(self, url: str, body: bytes, kind: str) -> tuple[int, Mapping[str, str], bytes]:
        headers = {
            "accept": _JSON,
            "accept-encoding": "identity",
            "connection": "close",
            "content-type": kind,
            "user-agent": "handrail",
        }
        call = UpstreamCall(
            method="POST",
            url=url,
            headers=headers,
            body=body,
            reply_seconds=self._reply_seconds,
            proxy=self._proxies[url],
            called="issuer",
        )
        try:
            async with asyncio.timeout(self._whole_seconds):
                reply = await self._client.send(call)
                try:
                    return await self._whole(reply)
                finally:
                    reply.close()
        except UpstreamFailed as error:
            raise IssuerFailed(error.fault.message, sent=error.sent) from error
        except TimeoutError as error:
            raise IssuerFailed(
                f"The issuer took longer than {self._whole_seconds:.0f} s."
            ) from error

    async def _whole(self, reply: UpstreamReply) -> tuple[int, Mapping[str, str], bytes]:
        headers = {name.lower(): value for name, value in reply.headers.items()}
        body = await reply.read(limit=MAX_REPLY, idle_seconds=self._reply_seconds)
        return reply.status, headers, body


def _json(body: Mapping[str, str]) -> bytes:
    return msgspec.json.encode(body)


def _read(body: bytes, reader: Callable[[bytes], T]) -> T:
    try:
        return reader(body)
    except UnusableReply as error:
        raise IssuerFailed(f"The issuer's answer cannot be used: {error}.") from None
