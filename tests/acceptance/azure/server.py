"""Azure's own server library for this API, with a handler that says the input backwards.

Run by a Python that has `azure-ai-agentserver-responses` and `uvicorn`; it is no part of this
project's environment. Words in the input rule what happens: `slow` takes a minute.
"""

import asyncio
import contextlib
import socket
from typing import Any

import uvicorn  # type: ignore[import-not-found,unused-ignore]
from azure.ai.agentserver.responses import (  # type: ignore[import-not-found,unused-ignore]
    ResponsesAgentServerHost,
    TextResponse,
)

app: Any = ResponsesAgentServerHost()


async def answer(request: Any, context: Any, cancellation_signal: asyncio.Event) -> Any:
    """The input's text, backwards, in three pieces."""
    text = await context.get_input_text()

    async def pieces() -> Any:
        if "slow" in text:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(cancellation_signal.wait(), 60)
        for piece in (text[::-1], " ", f"by {request['model']}"):
            yield piece

    return TextResponse(context, request, text=pieces())


app.response_handler(answer)


def main() -> None:
    """Listen on a free port of this machine and say which."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"azure's server on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
