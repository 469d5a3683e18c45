"""What this process remembers of accounts between calls, over a real store and a clock in hand."""

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from handrail.bootstrap.accounts import open_accounts
from handrail.core.credentials import KEY
from handrail.core.select import Choice, Obstacle, Strategy, Wants
from handrail.core.upstream_errors import refusal
from handrail.engine.accounts import Pool
from handrail.engine.dispatch import Dispatcher
from handrail.engine.refresh import Refresher, RefreshFailed
from handrail.engine.single import Taken
from handrail.errors import Code, HandrailError, UpstreamFailed
from handrail.settings.model import Target
from handrail.store.accounts import NewAccount, Renewal
from handrail.store.sqlite_accounts import SqliteAccounts
from tests.clocks import HandClock
from tests.conformance.upstream_stub import Reply, Upstream, answered, target

LOST = UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "no", sent=True)
UNTOLD = refusal(429, {}, b'{"error":{"message":"slow down"}}', now=0.0)
DONE = b'data: {"type":"response.completed","response":{"id":"r","output":[]}}\n\n'


async def no_issuer(credential: bytes) -> Renewal:
    assert credential
    raise RefreshFailed("nobody is there")


class House:
    """A pool of API keys, and its store as another process has it open."""

    def __init__(self, directory: Path) -> None:
        self.clock = HandClock()
        self.store: SqliteAccounts = open_accounts(directory)
        self.other: SqliteAccounts = open_accounts(directory)
        self.target: Target = target()
        refresher = Refresher(self.store, no_issuer, clock=self.clock, owner="test")
        self.pool = Pool(
            self.store,
            refresher,
            clock=self.clock,
            strategy=lambda: Strategy.HYBRID,
            spread=lambda: 0.5,
        )

    async def with_keys(self, *names: str) -> None:
        """These accounts, and no others."""
        for name in names:
            account = NewAccount(
                name=name, target=self.target.label, kind=KEY, credential=f"sk-{name}".encode()
            )
            self.other.keep(account, now=self.clock.now())
        await self.pool.follow()

    def choice(self) -> Choice:
        return self.pool.choice(self.target, Wants(), model="m")

    def obstacle(self, name: str) -> Obstacle | None:
        return next(seen.obstacle for seen in self.choice().considered if seen.name == name)

    def wait(self, name: str) -> float:
        """Seconds for which that account is held back, 0 for not at all."""
        found = self.obstacle(name)
        return 0.0 if found is None or found.until is None else found.until - self.clock.now()

    async def take(self, name: str) -> Taken:
        return await self.pool.take(self.target, Wants(pin=name), model="m")

    async def fail(self, name: str, error: HandrailError) -> None:
        """One call with that account, which ends so."""
        taken = await self.take(name)
        self.pool.done(taken, None)
        await self.pool.failed(taken, error, target=self.target, model="m")

    async def call(self, name: str | None = None, *, body: bytes = DONE) -> None:
        """One call through the engine, with that account if it is named."""
        reply = Reply(headers={"content-type": "text/event-stream"}, body=body)
        upstream = Upstream(reply)
        dispatcher = Dispatcher(upstream, clock=self.clock, accounts=self.pool)
        with suppress(HandrailError):
            await answered(upstream, dispatcher=dispatcher, account=name)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    found = House(tmp_path / "data")
    yield found
    await found.pool.settle()
    found.store.close()
    found.other.close()


async def test_a_guessed_wait_grows_with_each_limit_and_a_success_ends_that(house: House) -> None:
    await house.with_keys("a", "b")
    waits = []
    for _ in range(3):
        await house.fail("a", UNTOLD)
        waits.append(house.wait("a"))
    assert waits == [2.0, 4.0, 8.0]
    await house.call("a")
    await house.fail("a", UNTOLD)
    assert house.wait("a") == 2.0


async def test_a_limit_of_one_account_lengthens_no_wait_of_another(house: House) -> None:
    await house.with_keys("a", "b")
    for _ in range(3):
        await house.fail("a", UNTOLD)
    await house.fail("b", UNTOLD)
    assert house.wait("b") == 2.0


async def test_a_success_empties_what_the_breaker_counts(house: House) -> None:
    await house.with_keys("a", "b")
    for _ in range(2):
        await house.fail("a", LOST)
    await house.call("a")
    await house.fail("a", LOST)
    assert house.obstacle("a") is None
    for _ in range(2):
        await house.fail("a", LOST)
    assert house.wait("a") == 30.0


async def test_a_stream_that_fails_is_no_success_and_one_that_breaks_off_is_a_failure(
    house: House,
) -> None:
    await house.with_keys("a", "b")
    failed = DONE.replace(b"completed", b"failed")
    for _ in range(2):
        await house.fail("a", LOST)
    await house.call("a", body=failed)
    assert house.obstacle("a") is None
    await house.call("a", body=b'data: {"type":"response.created","response":{"id":"r"}}\n\n')
    found = house.obstacle("a")
    assert found is not None
    assert found.reason == "its last calls have failed"


async def test_what_is_known_of_an_account_stays_with_it_when_another_is_removed(
    house: House,
) -> None:
    await house.with_keys("a", "b", "c")
    under_way = [await house.take(name) for name in ("a", "b", "c")]
    for _ in range(3):
        await house.fail("b", LOST)
    house.other.remove(str(under_way[0].account))
    await house.pool.follow()
    for taken in under_way:  # also the one that is gone
        house.pool.done(taken, None)
    assert [seen.name for seen in house.choice().considered] == ["b", "c"]
    assert house.wait("b") == 30.0
    assert house.obstacle("c") is None
    assert (await house.pool.take(house.target, Wants(), model="m")).name == "c"


async def test_a_burst_of_one_account_is_never_refused(house: House) -> None:
    await house.with_keys("a")
    taken = [await house.pool.take(house.target, Wants(), model="m") for _ in range(200)]
    assert {each.name for each in taken} == {"a"}


async def test_an_account_that_was_used_just_now_has_no_advantage(house: House) -> None:
    await house.with_keys("a", "b", "c")
    used = []
    for _ in range(9):
        taken = await house.pool.take(house.target, Wants(), model="m")
        house.pool.done(taken, None)
        used.append(taken.name)
        house.clock.passes(20.0)
    assert used == ["a", "b", "c"] * 3
