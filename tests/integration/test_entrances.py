"""The same table against both entrances of the library: `handrail.prepare`, and the real SDK."""

import itertools
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from handrail import (
    BackgroundPolicy,
    CallerPolicy,
    Executor,
    LibrarySettings,
    Mode,
    RequestRejected,
    StoreFalsePolicy,
    StorePolicy,
    prepare,
)
from handrail.integrations.openai import AsyncHandrailTransport
from tests.conftest import UPSTREAM_KEY, Scripted
from tests.guardrails import ABSENT, EXECUTORS, Case, every_case, expected, switch_of

POLICIES = [
    (StorePolicy.LOWER, StoreFalsePolicy.REJECT),
    (StorePolicy.REFUSE, StoreFalsePolicy.GATEWAY),
    (StorePolicy.KEEP_ALL, StoreFalsePolicy.REJECT),
]


CASES = [case for case in every_case() if case.stream == ABSENT]


def foretold(case: Case, settings: LibrarySettings) -> tuple[Any, ...]:
    """What `handrail.prepare` makes of a case: an error's code and param, or mode and body."""
    try:
        result = prepare(case.fields(), settings=settings, caller="ann")
    except RequestRejected as error:
        return ("error", error.fault.code, error.fault.param)
    return (result.plan.mode, result.body, result.decision)


async def outcome(case: Case, client: AsyncOpenAI, upstream: Scripted) -> tuple[Any, ...]:
    """What the SDK gets for it, and what the upstream got."""
    body = case.fields()
    more = {name: value for name, value in body.items() if name not in ("model", "input")}
    calls = upstream.seen.calls
    try:
        raw = await client.responses.with_raw_response.create(
            model=body["model"], input=body["input"], extra_body=more
        )
    except openai.BadRequestError as error:
        assert upstream.seen.calls == calls, "what was refused has reached the upstream"
        return ("error", error.code, error.param)
    assert upstream.seen.calls == calls + 1
    header = raw.headers["handrail-decision"]
    return (Mode(header.partition(";")[0].removeprefix("mode=")), upstream.last, header)


@pytest.mark.parametrize("source", ["file on", "default", "flag off"])
@pytest.mark.parametrize("runs", EXECUTORS)
async def test_the_transport_does_what_prepare_foretells(
    upstream: Scripted, source: str, runs: tuple[Executor, bool]
) -> None:
    for background, (store, store_false) in itertools.product(BackgroundPolicy, POLICIES):
        caller = CallerPolicy(
            name="ann", background=background, store=store, store_false=store_false
        )
        settings = LibrarySettings(
            switch=switch_of(source),
            executor=runs[0],
            runs_background=runs[1],
            callers={"ann": caller},
        )
        transport = AsyncHandrailTransport(settings, caller="ann")
        async with AsyncOpenAI(
            base_url=upstream.base_url("vllm"),
            api_key=UPSTREAM_KEY,
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(transport=transport),
        ) as client:
            for case in CASES:
                wanted = foretold(case, settings)
                oracle = expected(case, source=source, caller=caller, runs=runs)
                assert wanted[:1] == oracle[:1]
                if wanted[0] is Mode.BACKGROUND:  # a run of Handrail's own needs a store
                    wanted = ("error", "background_not_supported", "background")
                elif wanted[0] == "error":
                    assert wanted == oracle
                assert await outcome(case, client, upstream) == wanted, case
