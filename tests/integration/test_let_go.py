"""While an answer streams, nobody keeps the request: it may be large, and the stream long."""

import gc
from typing import Any

import pytest

from handrail.core.rewrite import UpstreamRequest
from handrail.engine.ways import Ways
from tests.conftest import Scripted, Start, eventually


def alive() -> list[object]:
    """The requests, in the form that leaves, that somebody still refers to."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, UpstreamRequest | Ways)]


@pytest.mark.parametrize(
    ("toml", "rest", "manners"),
    [
        ("", {}, "openai"),
        ('[callers.default]\nstore = "keep_all"\n', {}, "openai"),
        ("[background]\nenabled = true\n", {"background": True}, "openai"),
        (
            '[background]\nenabled = true\nexecutor = "upstream"\n',
            {"background": True},
            "storing",
        ),
    ],
    ids=["stateless", "kept", "background", "upstream"],
)
async def test_a_stream_keeps_no_request_alive(
    start: Start, upstream: Scripted, toml: str, rest: dict[str, Any], manners: str
) -> None:
    async with (
        start(toml=toml, manners=manners, profile="openai") as gateway,
        gateway.client() as client,
    ):
        stream: Any = await client.responses.create(
            model="m", input=f"[[stall=2]] {'x' * 10_000}", stream=True, **rest
        )
        async for event in stream:
            if event.type == "response.in_progress":
                break
        await eventually(lambda: upstream.seen.open == 1)
        await eventually(lambda: alive() == [])
        await stream.close()
