"""Names and options of models through every entrance, with the real SDK and a real upstream."""

from typing import Any

import openai
import pytest

from handrail import LibrarySettings
from handrail.core.catalogue import NO_OPTIONS
from handrail.core.profiles import PROFILES
from handrail.settings.catalogue import catalogue_of, shipped
from tests.conftest import Scripted, Start, eventually
from tests.integration.sdk_clients import Either
from tests.integration.test_upstream_runs import storing

ENCRYPTED = "reasoning.encrypted_content"
OPTIONS = """
[defaults]
verbosity = "low"
[models."gpt-5.5"]
aliases = ["main"]
include = ["message.output_text.logprobs"]
[models."gpt-5.5".variants.deep]
effort = "xhigh"
summary = "detailed"
"""


def families() -> dict[str, str]:
    """One name of each family, an alias where there is one."""
    found: dict[str, str] = {}
    for name, entry in shipped().items():
        found.setdefault(entry.family or "", (*entry.aliases, name)[0])
    return found


@pytest.mark.parametrize("family", families())
@pytest.mark.parametrize("profile", ["codex", "openai"])
async def test_each_family_arrives_under_the_upstreams_name(
    start: Start, upstream: Scripted, profile: str, family: str
) -> None:
    name = f"{families()[family]}-high"
    known = catalogue_of(PROFILES[profile], own={}, defaults=NO_OPTIONS).find(name)
    assert known is not None
    async with start(manners=profile) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(model=name, input="hi [[words=2]]")
        assert raw.parse().output_text
        assert f"model: changed to {known.sends}" in raw.headers["handrail-decision"]
        assert "reasoning.effort: set to high" in raw.headers["handrail-decision"]
    assert upstream.last["model"] == known.sends
    assert upstream.last["reasoning"] == {"effort": "high"}
    assert upstream.last["include"] == [ENCRYPTED]


async def test_an_unknown_model_arrives_as_it_was_sent(start: Start, upstream: Scripted) -> None:
    for manners in ("codex", "openai", "vllm"):
        async with start(manners=manners, name=manners) as gateway, gateway.client() as client:
            await client.responses.create(
                model="my-own-high", input="hi", reasoning={"effort": "minimal"}
            )
        assert upstream.last["model"] == "my-own-high"
        assert upstream.last["reasoning"] == {"effort": "minimal"}


async def test_a_stream_is_asked_for_with_the_same_options(
    start: Start, upstream: Scripted
) -> None:
    async with start(manners="codex", toml=OPTIONS) as gateway, gateway.client() as client:
        async with client.responses.stream(model="main-deep", input="hi [[words=2]]") as stream:
            events = [event.type async for event in stream]
        assert events[-1] == "response.completed"
    last = upstream.last
    assert last["model"] == "gpt-5.5"
    assert last["reasoning"] == {"effort": "xhigh", "summary": "detailed"}
    assert last["text"] == {"verbosity": "low"}
    assert last["include"] == ["message.output_text.logprobs", ENCRYPTED]


async def test_a_background_response_of_the_gateway_is_asked_for_alike(
    start: Start, upstream: Scripted
) -> None:
    toml = f"{OPTIONS}\n[background]\nenabled = true"
    async with start(manners="codex", toml=toml) as gateway, gateway.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="main-deep", input="hi [[words=2]]", background=True
        )
        response = raw.parse()
        assert "model: changed to gpt-5.5" in raw.headers["handrail-decision"]
        await eventually(lambda: bool(upstream.seen.requests))
        async with client.responses.stream(response_id=response.id, starting_after=0) as stream:
            assert [event.type async for event in stream][-1] == "response.completed"
        items = await client.responses.input_items.list(response.id)
        assert "hi [[words=2]]" in items.data[0].to_json()
    last = upstream.last
    assert (last["model"], last["store"]) == ("gpt-5.5", False)
    assert last["reasoning"] == {"effort": "xhigh", "summary": "detailed"}
    assert last["include"] == ["message.output_text.logprobs", ENCRYPTED]


async def test_a_background_response_of_the_upstream_too_and_nothing_is_appended(
    start: Start, upstream: Scripted
) -> None:
    toml = f'{OPTIONS}\n[background]\nenabled = true\nexecutor = "upstream"'
    async with storing(start, toml) as gateway, gateway.client() as client:
        await client.responses.create(model="main-deep", input="hi", background=True)
    last = upstream.last
    assert (last["model"], last["store"], last["background"]) == ("gpt-5.5", True, True)
    assert last["reasoning"] == {"effort": "xhigh", "summary": "detailed"}
    assert last["include"] == ["message.output_text.logprobs"]


async def test_an_endpoint_beside_create_gets_the_name_alone(
    start: Start, upstream: Scripted
) -> None:
    async with (
        start(manners="codex", toml=OPTIONS) as gateway,
        gateway.client(_strict_response_validation=False) as client,
    ):
        await client.responses.compact(model="main-deep", input="hi")
    last: Any = upstream.last
    assert last["model"] == "gpt-5.5"
    assert {"reasoning", "text", "include"} & last.keys() == set()


async def test_the_sdk_with_the_guardrails_inside_names_models_alike(
    upstream: Scripted, either: Either
) -> None:
    settings = LibrarySettings(profile="codex", defaults={"verbosity": "low"})
    _, headers = await either.create(
        upstream.base_url("codex"), settings, model="gpt-5-codex-high", input="hi [[words=2]]"
    )
    assert "model: changed to gpt-5.3-codex" in headers["handrail-decision"]
    last = upstream.last
    assert last["model"] == "gpt-5.3-codex"
    assert last["reasoning"] == {"effort": "high"}
    assert last["text"] == {"verbosity": "low"}


async def test_a_wrong_effort_is_a_400_before_anything_is_sent(
    start: Start, upstream: Scripted
) -> None:
    async with start(manners="codex") as gateway, gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(
                model="gpt-5.5", input="hi", extra_body={"reasoning": {"effort": 5}}
            )
    assert (caught.value.code, caught.value.param) == ("invalid_type", "reasoning.effort")
    assert upstream.seen.requests == []
