"""A gateway whose upstream client breaks as no client should.

`python -m tests.acceptance.breaking breaking` takes the arguments of `handrail serve`. What is
raised quotes the whole request, with its credential: a call for the model `break-send` raises it
at once, one for `break-read` while its answer is read, one for `break-thread` in a thread as well.
"""

import asyncio
import threading
from typing import Any

import click

from handrail import telemetry
from handrail.bootstrap.gateway import Gateway
from handrail.cli.main import cli, main
from handrail.cli.serve import load_settings, setting_flags
from handrail.upstream.client import AiohttpClient, AiohttpReply, UpstreamCall


def _quoted(call: UpstreamCall) -> ValueError:
    return ValueError(f"cannot make {call.url} {dict(call.headers)} {call.body!r}")


class BreakingReply(AiohttpReply):
    """A reply that breaks when it is read."""

    call: UpstreamCall

    async def slice(self) -> bytes:
        """See the port."""
        raise _quoted(self.call)


class BreakingClient(AiohttpClient):
    """See above."""

    async def send(self, call: UpstreamCall) -> AiohttpReply:
        """See the port."""
        body = call.body or b""
        if b"break-thread" in body:

            def burst() -> None:
                raise _quoted(call)

            thread = threading.Thread(target=burst)
            thread.start()
            thread.join()
        if b"break-send" in body:
            raise _quoted(call)
        reply = await super().send(call)
        if b"break-read" in body:
            reply.__class__ = BreakingReply
            vars(reply)["call"] = call
        return reply


@cli.command()
@setting_flags
def breaking(**parameters: Any) -> None:
    """Serve with that client; what ends the gateway quotes a credential as well."""
    settings = load_settings(parameters)
    telemetry.configure(settings.log_level)
    gateway = Gateway(lambda: load_settings(parameters), new_client=BreakingClient)
    started = f"Handrail listens on {gateway.url}"
    asyncio.run(gateway.serve(started=lambda: click.echo(started)))
    key = settings.target.api_key
    raise ValueError(f"no use for {key.reveal() if key else settings.target.accounts}")


if __name__ == "__main__":
    main()
