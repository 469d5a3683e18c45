"""What this process remembers of accounts between calls, over a real store and a clock in hand."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from handrail import telemetry
from handrail.bootstrap.accounts import open_accounts
from handrail.core.credentials import KEY, OAUTH, pack
from handrail.core.oauth import Grant
from handrail.core.select import Choice, Obstacle, State, Strategy, Wants
from handrail.core.upstream_errors import refusal
from handrail.engine.accounts import Pool
from handrail.engine.dispatch import Dispatcher
from handrail.engine.refresh import Exchange, Refresher, RefreshFailed
from handrail.engine.single import NoAccount, Taken
from handrail.engine.standing import MAX_COOLDOWNS
from handrail.errors import Code, HandrailError, StoreFailed, UpstreamFailed
from handrail.settings.model import Target
from handrail.store.accounts import NewAccount, Renewal
from handrail.store.sqlite_accounts import SqliteAccounts
from tests.clocks import HandClock, OutOfTurns
from tests.conformance.upstream_stub import Reply, Upstream, answered, target
from tests.conftest import eventually
from tests.unit.sick_accounts import SickAccounts

LOST = UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "no", sent=True)
UNTOLD = refusal(429, {}, b'{"error":{"message":"slow down"}}', now=0.0)
WITHDRAWN = refusal(401, {}, b'{"error":{"message":"x","code":"token_revoked"}}', now=0.0)
OVERLOADED = refusal(503, {}, b'{"error":{"message":"busy"}}', now=0.0)
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
        self.sick = SickAccounts(self.store)
        self.pool = self.pool_with(no_issuer)

    def pool_with(self, exchange: Exchange) -> Pool:
        """Another pool, which asks this issuer."""
        return Pool(
            self.sick,
            Refresher(self.sick, exchange, clock=self.clock, owner="test"),
            clock=self.clock,
            strategy=lambda: Strategy.HYBRID,
            spread=lambda: 0.5,
        )

    def login(self, name: str) -> None:
        """A login that ends in a second."""
        now = self.clock.now()
        grant = Grant(access=name, refresh=f"r-{name}", expires_at=now + 1)
        account = NewAccount(
            name=name,
            target=self.target.label,
            kind=OAUTH,
            credential=pack(grant),
            expires_at=grant.expires_at,
        )
        self.other.keep(account, now=now - 3_600)

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

    def state(self, name: str) -> State:
        return next(each.state for each in self.pool.known() if each.name == name)

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


# --- resumed by the operator ----------------------------------------------------------------------


async def test_a_resumed_account_has_no_past_in_any_process(house: House) -> None:
    await house.with_keys("a", "b")
    (account, *_) = house.pool.known()
    for _ in range(3):
        await house.fail("a", LOST)
        await house.fail("a", UNTOLD)
    assert house.wait("a") > 0
    await house.pool.settle()
    house.other.set_state(account.id, State.ACTIVE)
    await house.pool.follow()
    assert house.obstacle("a") is None
    await house.fail("a", UNTOLD)
    assert house.wait("a") == 2.0


async def test_a_new_credential_gives_an_account_a_new_start(house: House) -> None:
    await house.with_keys("a", "b")
    for _ in range(3):
        await house.fail("a", LOST)
    await house.with_keys("a")
    assert house.obstacle("a") is None


async def test_pauses_of_very_many_models_take_bounded_memory(house: House) -> None:
    await house.with_keys("a", "b")
    for number in range(500):
        taken = await house.take("a")
        house.pool.done(taken, None)
        await house.pool.failed(taken, UNTOLD, target=house.target, model=f"m-{number}")
    standing = house.pool._live[str(taken.account)]
    assert len(standing.cooldowns) == MAX_COOLDOWNS
    house.clock.passes(3_600)
    await house.fail("a", UNTOLD)
    assert list(standing.cooldowns) == ["m"]


# --- a sick store ---------------------------------------------------------------------------------


async def test_an_account_that_was_ended_while_the_store_is_sick_is_not_used_again(
    house: House,
) -> None:
    await house.with_keys("a", "b")
    taken = await house.take("a")
    house.pool.done(taken, None)
    house.sick.sick = True
    means = await house.pool.failed(taken, WITHDRAWN, target=house.target, model="m")
    assert means.ended
    assert house.state("a") is State.ENDED
    with pytest.raises(NoAccount):
        await house.take("a")
    assert house.other.listed(now=0.0)[0].state is State.ACTIVE
    house.sick.sick = False
    await house.pool.settle()
    await house.pool.follow()
    assert house.other.listed(now=0.0)[0].state is State.ENDED
    assert house.state("a") is State.ENDED


async def test_a_new_sign_in_brings_back_what_was_ended_in_memory_only(house: House) -> None:
    await house.with_keys("a", "b")
    taken = await house.take("a")
    house.pool.done(taken, None)
    house.sick.sick = True
    await house.pool.failed(taken, WITHDRAWN, target=house.target, model="m")
    house.sick.sick = False
    await house.with_keys("a")
    assert house.state("a") is State.ACTIVE
    assert (await house.take("a")).name == "a"
    assert house.other.listed(now=0.0)[0].state is State.ACTIVE


async def test_a_login_that_the_issuer_ends_while_the_store_is_sick_is_asked_for_once(
    house: House,
) -> None:
    asked = []

    async def ended(credential: bytes) -> Renewal:
        asked.append(credential)
        house.sick.sick = True  # the lease was given; the end cannot be written
        raise RefreshFailed("it has been revoked", permanent=True)

    pool = house.pool_with(ended)
    house.login("login")
    await pool.follow()
    for _ in range(3):
        with pytest.raises(NoAccount):
            await pool.take(house.target, Wants(), model="m")
    assert len(asked) == 1
    house.sick.sick = False
    await pool.follow()
    assert [each.why_ended for each in pool.known()] == ["it has been revoked"]


async def test_while_the_store_is_sick_credentials_that_were_read_before_serve(
    house: House,
) -> None:
    await house.with_keys("a", "b")
    house.pool.done(await house.take("b"), None)
    house.sick.sick = True
    taken = await house.pool.take(house.target, Wants(), model="m")
    assert taken.name == "b"
    with pytest.raises(StoreFailed):
        await house.take("a")


@pytest.fixture
def logged() -> io.StringIO:
    """What is logged by whatever is made after this."""
    lines = io.StringIO()
    telemetry.configure("error", stream=lines)
    return lines


async def test_a_defect_does_not_end_the_loop(logged: io.StringIO, tmp_path: Path) -> None:
    house = House(tmp_path / "data")
    house.sick.defect = KeyError("a bug")
    house.clock.turns = 3
    with pytest.raises(OutOfTurns):
        await house.pool.loop()
    assert logged.getvalue().count("accounts_loop_broke") == 3
    assert "KeyError" in logged.getvalue()
    house.store.close()
    house.other.close()


async def test_a_defect_with_one_login_does_not_keep_the_others_from_being_refreshed(
    logged: io.StringIO, tmp_path: Path
) -> None:
    house = House(tmp_path / "data")
    asked = []

    async def broken(credential: bytes) -> Renewal:
        asked.append(credential)
        raise ZeroDivisionError

    pool = house.pool_with(broken)
    house.login("one")
    house.login("two")
    loop = asyncio.create_task(pool.loop())
    await eventually(lambda: logged.getvalue().count("refresh_broke") == 2)
    loop.cancel()
    await asyncio.wait([loop])
    assert len(asked) == 2
    assert logged.getvalue().count("refresh_broke") == 2
    assert [each.id in logged.getvalue() for each in pool.known()] == [True, True]
    house.store.close()
    house.other.close()


# --- limits inside streams, and waits -------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "wait", "guessed"),
    [
        (
            b'{"type":"response.failed","response":{"id":"r","status":"failed","error":'
            b'{"code":"rate_limit_exceeded","message":"Please try again in 90s."},"output":[]}}',
            90.0,
            False,
        ),
        (
            b'{"type":"error","error":{"type":"usage_limit_reached","resets_in_seconds":900}}',
            900.0,
            False,
        ),
        (b'{"type":"error","code":"rate_limit_exceeded","message":"slow down"}', 2.0, True),
    ],
)
async def test_a_limit_inside_a_stream_holds_the_account_back(
    house: House, event: bytes, wait: float, *, guessed: bool
) -> None:
    await house.with_keys("a", "b")
    await house.call("a", body=b"data: %b\n\n" % event)
    found = house.obstacle("a")
    assert found is not None
    assert (house.wait("a"), found.guessed) == (wait, guessed)
    assert house.obstacle("b") is None
    await house.pool.settle()
    kept = house.other.listed(now=house.clock.now())[0].cooldowns
    assert len(kept) == (0 if guessed else 1)


async def test_limits_inside_streams_lengthen_the_guess_like_others(house: House) -> None:
    await house.with_keys("a", "b")
    body = b'data: {"type":"error","code":"rate_limit_exceeded","message":"slow"}\n\n'
    for wait in (2.0, 4.0, 8.0):
        await house.call("a", body=body)
        assert house.wait("a") == wait


@pytest.mark.parametrize(("error", "wait"), [(OVERLOADED, 4.0), (UNTOLD, 2.0)])
async def test_a_refusal_that_is_passed_on_says_how_long_to_wait(
    house: House, error: HandrailError, wait: float
) -> None:
    await house.with_keys("a", "b")
    assert error.fault.retry_after is None
    for name in ("a", "b"):
        await house.fail(name, error)
    shown = house.pool.shown(error, house.target, model="m", tags=frozenset())
    assert shown.fault == replace(error.fault, retry_after=wait)


async def test_a_refusal_says_so_too_when_an_account_is_free_or_there_is_but_one(
    house: House,
) -> None:
    await house.with_keys("a")
    assert (
        house.pool.shown(OVERLOADED, house.target, model="m", tags=frozenset()).fault.retry_after
        == 5.0
    )
    await house.fail("a", OVERLOADED)
    assert (
        house.pool.shown(OVERLOADED, house.target, model="m", tags=frozenset()).fault.retry_after
        == 4.0
    )
    assert house.pool.shown(LOST, house.target, model="m", tags=frozenset()) is LOST


async def test_a_limit_on_questions_says_nothing_about_calls(house: House) -> None:
    await house.with_keys("a", "b")
    (account, *_) = house.pool.known()
    asking = Wants(bound=account.id, question=True)
    taken = await house.pool.take(house.target, asking, model="")
    house.pool.done(taken, None)
    await house.pool.failed(taken, OVERLOADED, target=house.target, model="")
    assert house.obstacle("a") is None
