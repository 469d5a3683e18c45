"""A mock issuer of one test, the client for it, and what no text may hold."""

import json
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

from handrail.core.oauth import Grant, read_grant
from handrail.engine.clock import SystemClock
from handrail.settings.model import OAuthSettings
from handrail.settings.oauth import read_oauth
from handrail.upstream.oauth import Issuer as Client
from tests import issuer as mock
from tests.issuer import Issuer

CANARY = "canary"
"""A part of every credential, code, verifier, e-mail address and account id of the mock issuer."""


def settings_of(
    origin: str, environment: Mapping[str, str] = MappingProxyType({}), **table: Any
) -> OAuthSettings:
    """Settings read the ordinary way, of an issuer at `origin`."""
    given = {"issuer": origin, **table}
    return read_oauth(given, environment, file="test", values={}, sources={})


def client_of(settings: OAuthSettings, **options: Any) -> Client:
    """A client with this machine's clock."""
    return Client(settings, now=SystemClock().now, **options)


@asynccontextmanager
async def running() -> AsyncIterator[Issuer]:
    """A mock issuer on a real socket, until the block is left."""
    runner, issuer = await mock.start()
    try:
        yield issuer
    finally:
        await runner.cleanup()


def granted(issuer: Issuer) -> Grant:
    """A grant that somebody has got before."""
    login = issuer.book.login("ann.canary@example.com", "acct-canary-1", "plus")
    return read_grant(json.dumps(issuer.book.grant(login)).encode(), now=issuer.book.now())


def told(error: BaseException) -> str:
    """Everything that an exception would show, with its causes, as a crash prints it."""
    return "".join([*traceback.format_exception(error), str(error), repr(error)])
