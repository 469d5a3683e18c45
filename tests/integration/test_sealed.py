"""What only one account can read: nobody else is ever sent it, whatever else is wanted."""

from typing import Any

import openai
import pytest

from handrail.engine.clock import SystemClock
from tests.conftest import BACKGROUND, Scripted, Start, eventually
from tests.integration.test_accounts import ENVIRONMENT, THREE, Gate, reasoning
from tests.integration.test_lifecycle import finished
from tests.integration.test_targets import ALL, options, toml

DROP = '[accounts]\nwhen_maker_is_gone = "drop"\n'
SPLIT = ('model = "m"\ntargets = ["a"]', 'targets = ["b"]')


@pytest.fixture
def gate(upstream: Scripted) -> Gate:
    return Gate(upstream)


def sealed(upstream: Scripted) -> list[str]:
    """The encrypted contents in the last request."""
    items = upstream.last["input"]
    return [item["encrypted_content"] for item in items if "encrypted_content" in item]


def seal(output: list[dict[str, Any]]) -> str:
    """That of an output with one."""
    found: str = next(item["encrypted_content"] for item in output if "encrypted_content" in item)
    return found


async def compaction(client: openai.AsyncOpenAI) -> list[Any]:
    """A conversation that the upstream of the model `m` has made shorter."""
    made = await client.responses.compact(model="m", input="a long story")
    return [item.model_dump(exclude_none=True) for item in made.output]


@pytest.mark.parametrize("more", ["", DROP])
async def test_a_compaction_goes_to_no_other_target(
    start: Start, upstream: Scripted, gate: Gate, more: str
) -> None:
    async with (
        start(**options(toml(upstream, *SPLIT, more=more))) as gateway,
        gateway.client() as client,
    ):
        output = await compaction(client)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="other", input=output)
        assert caught.value.code == "encrypted_content_elsewhere"
        await client.responses.create(model="m", input=output)
    assert gate.asked == {"a": 1}


async def test_a_run_with_a_compaction_waits_for_its_maker(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    text = toml(upstream, ALL, more=DROP)
    async with start(**options(text, background=True)) as gateway, gateway.client() as client:
        output = await compaction(client)
        gate.refuse("a", status=429, retry_after="1")
        run = await client.responses.create(model="m", input=output, background=True)
        await eventually(lambda: gate.asked["a"] == 1)
        gate.answers.clear()
        assert (await finished(client, run.id)).status == "completed"
    assert gate.asked == {"a": 2}


async def test_of_a_history_of_several_makers_the_newest_gets_its_own(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    async with (
        start(toml=THREE + DROP, environment=ENVIRONMENT) as gateway,
        gateway.client() as client,
    ):
        first: Any = await reasoning(client)
        (maker,) = gate.asked
        gate.refuse(maker, status=429, retry_after="60")
        second: Any = await reasoning(client)
        gate.answers.clear()
        history = [*first, {"role": "user", "content": "and"}, *second]
        gate.asked.clear()
        answer = await client.responses.with_raw_response.create(model="m", input=history)
        assert "1 reasoning items left out" in answer.headers["handrail-decision"]
    assert sealed(upstream) == [seal(second)]
    assert maker not in gate.asked


async def test_a_history_of_several_makers_is_refused_where_nothing_may_be_dropped(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    async with start(toml=THREE, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        first: Any = await reasoning(client)
        (maker,) = gate.asked
        gate.refuse(maker, status=429, retry_after="60")
        second: Any = await reasoning(client)
        asked = gate.asked.total()
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="m", input=[*first, *second])
        assert caught.value.code == "encrypted_content_elsewhere"
        assert "another account" in str(caught.value)
    assert gate.asked.total() == asked


@pytest.mark.parametrize("drops", [False, True])
async def test_a_demanded_account_gets_nothing_that_another_has_made(
    start: Start, upstream: Scripted, gate: Gate, *, drops: bool
) -> None:
    text = THREE + (DROP if drops else "")
    async with start(toml=text, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        output: Any = await reasoning(client)
        (maker,) = gate.asked
        other = next(name for name in "abc" if name != maker)
        demand: Any = {"extra_headers": {"handrail-account": other}}
        if drops:
            await client.responses.create(model="m", input=output, **demand)
            assert sealed(upstream) == []
            assert gate.asked[other] == 1
        else:
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(model="m", input=output, **demand)
            assert caught.value.code == "encrypted_content_elsewhere"
            assert gate.asked == {maker: 1}
        await client.responses.create(
            model="m", input=output, extra_headers={"handrail-account": maker}
        )
    assert sealed(upstream) == [seal(output)]


async def test_what_an_account_has_made_that_is_gone_goes_nowhere(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    async with start(toml=THREE, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        store: Any = gateway.gateway._accounts
        output: Any = await reasoning(client)
        (maker,) = gate.asked
        pool: Any = gateway.gateway._pool
        await pool.settle()  # what was learnt is on the disk
        store.remove(next(row.id for row in store.listed(now=0.0) if row.name == maker))
        await pool.load()
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="m", input=output)
        assert "an account that is no longer here" in str(caught.value)
    assert gate.asked == {maker: 1}


async def test_what_an_upstreams_own_run_has_sealed_goes_back_there(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    gate.refuse("a", status=503)
    executor = '[background]\nexecutor = "upstream"\n'
    text = toml(upstream, ALL, more=executor, a="storing", b="storing")
    async with start(**options(text, background=True)) as gateway, gateway.client() as client:
        include: Any = ["reasoning.encrypted_content"]
        run = await client.responses.create(
            model="m", input="[[reasoning]]", background=True, include=include
        )
        done = await finished(client, run.id)
        output: Any = [item.model_dump(exclude_none=True) for item in done.output]
        assert seal(output)
        gate.answers.clear()
        gate.asked.clear()
        await client.responses.create(model="m", input=output)
    assert gate.asked == {"b": 1}


async def test_a_compaction_that_was_asked_for_goes_out_with_the_account_that_made_it(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    shaping = 'fast_session.strategy = "always"\nfast_session.max_input_items = 8\n'
    shaping += 'fast_session.compact_timeout = "30s"\n'
    talk: list[Any] = [{"role": "user", "content": f"part {number}"} for number in range(20)]
    async with (
        start(toml=shaping + THREE, environment=ENVIRONMENT) as gateway,
        gateway.client() as client,
    ):
        for number in range(6):
            await client.responses.create(
                model="m", input=[*talk, {"role": "user", "content": f"{number}"}]
            )
    calls = upstream.seen.requests
    shown = [call["headers"]["Authorization"] for call in calls]
    assert [call["path"].rpartition("/")[2] for call in calls[:2]] == ["compact", "responses"]
    assert shown[::2] == shown[1::2]


async def test_a_run_waits_for_the_target_that_is_free_first(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    gate.refuse("a", status=429, retry_after="1")
    lasting = {"message": "no", "type": "insufficient_quota", "code": "insufficient_quota"}
    gate.refuse("b", status=429, error=lasting)
    text = toml(upstream, 'targets = ["a", "b"]')
    async with start(**options(text, background=True)) as gateway, gateway.client() as client:
        run = await client.responses.create(model="m", input="hi", background=True)
        await eventually(lambda: gate.asked["b"] == 1)
        del gate.answers["a"]
        assert (await finished(client, run.id)).status == "completed"
    assert gate.asked["a"] == 2


class Hurried(SystemClock):
    """Waits that are over at once, nearly."""

    async def sleep(self, seconds: float) -> None:
        """See the port."""
        await super().sleep(min(seconds, 0.01))


async def test_what_fails_before_anything_is_sent_has_an_end(start: Start) -> None:
    toml = '[upstream]\nbearer_command = ["false"]\n'
    environment = {"HANDRAIL_UPSTREAM_API_KEY": ""}
    async with (
        start(toml=toml, environment=environment, clock=Hurried(), **BACKGROUND) as gateway,
        gateway.client() as client,
    ):
        run = await client.responses.create(model="m", input="hi", background=True)
        done = await finished(client, run.id)
    assert done.status == "failed"


async def test_what_an_account_has_made_that_is_gone_does_not_go_to_the_last_one_left(
    start: Start, upstream: Scripted, gate: Gate
) -> None:
    two = THREE.rpartition("c = ")[0]
    async with start(toml=two, environment=ENVIRONMENT) as gateway, gateway.client() as client:
        store: Any = gateway.gateway._accounts
        output: Any = await reasoning(client)
        (maker,) = gate.asked
        pool: Any = gateway.gateway._pool
        await pool.settle()  # what was learnt is on the disk
        store.remove(next(row.id for row in store.listed(now=0.0) if row.name == maker))
        await pool.load()
        assert len(pool.known()) == 1
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="m", input=output)
        assert caught.value.code == "encrypted_content_elsewhere"
    assert gate.asked == {maker: 1}
