"""Accounts: who is chosen, what a failure means for one, and how long it is held back.

Rules stand as pure functions, so most rows go there. What has a memory (a breaker, a quota that was
seen, a refresh that failed) goes through the pool of the gateway, over a real store, with a clock
that the row moves. "Held back" is seen from beside: there is another account, and it is taken.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from handrail.bootstrap.accounts import open_accounts
from handrail.core.credentials import OAUTH, pack
from handrail.core.failover import Consequence, consequence
from handrail.core.limits import ALL, read_windows
from handrail.core.model_access import check_model
from handrail.core.oauth import Grant
from handrail.core.request_options import ACCOUNT, read_options
from handrail.core.select import Candidate, Choice, Obstacle, State, Strategy, Wants, choose
from handrail.engine.accounts import Pool
from handrail.engine.dispatch import Dispatcher
from handrail.engine.refresh import Refresher, RefreshFailed
from handrail.engine.single import Taken
from handrail.errors import Code, RequestRejected, UpstreamFailed
from handrail.settings.model import Target
from handrail.store.accounts import NewAccount, Renewal
from tests.clocks import HandClock
from tests.conformance.answers import refused
from tests.conformance.recorded import NOW, Json, Outcome, Row
from tests.conformance.upstream_stub import Reply, Upstream, answered, target

_LOST: Final = UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "no answer", sent=True)
_UNREACHED: Final = UpstreamFailed(Code.UPSTREAM_UNREACHABLE, "no connection", sent=False)
_BREAKS: Final = "its last calls have failed"


async def _no_issuer(credential: bytes) -> Renewal:
    assert credential
    raise RefreshFailed("nobody is there")


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Accounts called a0, a1, …, in a pool whose clock stands at the recordings' moment."""

    pool: Pool
    clock: HandClock
    target: Target

    def choice(self) -> Choice:
        """Who would be asked now, and why not the others."""
        return self.pool.choice(self.target, Wants(), model="m")

    def held(self, name: str) -> Obstacle | None:
        """What holds that account back now."""
        return next(s.obstacle for s in self.choice().considered if s.name == name)

    def wait(self, name: str) -> float:
        """For how many seconds; 0 when nothing does."""
        found = self.held(name)
        return 0.0 if found is None or found.until is None else found.until - self.clock.now()

    async def take(self, name: str | None = None) -> Taken:
        """An account for a call, that one if it is named."""
        return await self.pool.take(self.target, Wants(pin=name), model="m")


@asynccontextmanager
async def house(
    count: int, *, ended: frozenset[int] = frozenset(), grant: Grant | None = None
) -> AsyncIterator[House]:
    """So many logins, of that `grant` if one is given; the access of those `ended` is over."""
    clock = HandClock()
    clock.wall = NOW
    with tempfile.TemporaryDirectory(prefix="handrail-conformance-") as folder:
        store = open_accounts(Path(folder) / "data")
        for number in range(count):
            store.keep(_login(number, grant, over=number in ended), now=NOW)
        refresher = Refresher(store, _no_issuer, clock=clock, owner="test")
        pool = Pool(
            store, refresher, clock=clock, strategy=lambda: Strategy.HYBRID, spread=lambda: 0.5
        )
        await pool.load()
        try:
            yield House(pool=pool, clock=clock, target=target())
        finally:
            await pool.settle()
            store.close()


def _login(number: int, grant: Grant | None, *, over: bool) -> NewAccount:
    grant = grant or Grant(access=f"access-{number}", refresh=f"refresh-{number}")
    ends = NOW - 1 if over else NOW + 1e9
    return NewAccount(
        name=f"a{number}",
        target=target().label,
        kind=OAUTH,
        credential=pack(grant),
        expires_at=ends,
    )


# --- failures -------------------------------------------------------------------------------------


def circuit_breaker(row: Row) -> Outcome:
    """Calls of one account that fail or not, and whether it is asked while there is another."""
    return Outcome(recorded={"told": row.result}, ours={"told": asyncio.run(_broken(row.args[0]))})


async def _broken(steps: list[str | int]) -> list[Any]:
    told: list[Any] = []
    async with house(2) as found:
        for step in steps:
            if step == "fail":
                await found.pool.failed(
                    await found.take("a0"), _LOST, target=found.target, model="m"
                )
            elif step == "ok":
                await _succeeded(found)
            elif isinstance(step, int):
                found.clock.passes(step / 1_000)
            else:
                told.append(_BREAKER[step](found))
    return told


async def _succeeded(found: House) -> None:
    """One call of a0 that ends well, through the engine and its meter."""
    done = b'data: {"type":"response.completed","response":{"id":"r","output":[]}}\n\n'
    upstream = Upstream(Reply(headers={"content-type": "text/event-stream"}, body=done))
    dispatcher = Dispatcher(upstream, clock=found.clock, accounts=found.pool)
    await answered(upstream, dispatcher=dispatcher, account="a0")


_BREAKER: Final[Mapping[str | int, Callable[[House], Any]]] = {
    "state": lambda found: "open" if found.held("a0") else "closed",
    "avail": lambda found: found.held("a0") is None,
    "wait": lambda found: int(found.wait("a0") * 1_000),
    "exec": lambda found: "Circuit is open" if found.held("a0") else True,
}


def attempt_budget(row: Row) -> Outcome:
    """The most upstream calls of one request, where every account is overloaded."""
    count = row.args[0]["accountCount"]
    return Outcome(recorded={"calls": row.result}, ours={"calls": asyncio.run(_attempts(count))})


async def _attempts(count: int) -> int:
    upstream = Upstream(Reply(status=503, body=b"x"))
    async with house(count) as found:
        dispatcher = Dispatcher(upstream, clock=found.clock, accounts=found.pool)
        try:
            await answered(upstream, dispatcher=dispatcher)
        except Exception:
            return len(upstream.calls)
    raise AssertionError("a 503 was an answer")


def failure_policy(row: Row) -> Outcome:
    """What one kind of failure means for the account, and for the call.

    The reference has one rule for all failures of a kind; ours differ by whether the call can have
    run, so both cases of a kind are held against it.
    """
    kind, said = row.args[0]["kind"], row.result
    if kind == "auth-refresh":
        return asyncio.run(_refresh(row))
    recorded: Json = {}
    ours: Json = {}
    for case, means in _CASES.get(kind, {"unknown": consequence(_STRANGE, model="m")}).items():
        recorded |= {
            f"{case}: another account": said["rotateAccount"],
            f"{case}: the same again": said["retrySameAccount"],
            f"{case}: held back": said.get("cooldownMs", 0) / 1_000,
            f"{case}: counts": said["recordFailure"],
        }
        ours |= {
            f"{case}: another account": means.again,
            f"{case}: the same again": means.renew,
            f"{case}: held back": means.seconds,
            f"{case}: counts": means.fails,
        }
    return Outcome(recorded=recorded, ours=ours)


_STRANGE: Final = RequestRejected(Code.INVALID_VALUE, "not of the upstream")
_CASES: Final[Mapping[str, Mapping[str, Consequence]]] = {
    "network": {
        "unreached": consequence(_UNREACHED, model="m"),
        "lost": consequence(_LOST, model="m"),
    },
    "server": {
        "503": consequence(refused(503, "x"), model="m"),
        "500": consequence(refused(500, "x"), model="m"),
    },
    "empty-response": {"empty": consequence(_LOST, model="m")},
}


async def _refresh(row: Row) -> Outcome:
    """The issuer of a login cannot be reached, so often in a row."""
    times = row.args[0].get("consecutiveAuthFailures", 1)
    async with house(2, ended=frozenset({0})) as found:
        for _ in range(times):
            taken = await found.take()
            held = found.wait("a0")
            found.pool.done(taken, None)
            found.clock.passes(60.0)
        (first, *_) = found.pool.of(found.target)
    recorded = {
        "another account": row.result["rotateAccount"],
        "held back": row.result["cooldownMs"] / 1_000,
        "over": row.result["removeAccount"],
    }
    ours = {
        "another account": taken.name == "a1",
        "held back": held,
        "over": first.state is State.ENDED,
    }
    return Outcome(recorded=recorded, ours=ours)


# --- limits and quotas ----------------------------------------------------------------------------


def quota_deferral(row: Row) -> Outcome:
    """After each look: whether another account comes first, and for how long."""
    found = asyncio.run(_looked(row.args[1]))
    told = [{"held back": each["defer"], "seconds": each["waitMs"] / 1_000} for each in row.result]
    return Outcome(recorded={"looks": told}, ours={"looks": found})


async def _looked(steps: list[Json]) -> list[Json]:
    told: list[Json] = []
    async with house(2) as found:
        for step in steps:
            if "advanceMs" in step:
                found.clock.passes(step["advanceMs"] / 1_000)
            elif "update" in step:
                found.pool.answered(await found.take("a0"), _quota_headers(step["update"]))
            elif "limit" in step:
                error = refused(429, {}, {"retry-after-ms": str(step["limit"])})
                await found.pool.failed(
                    await found.take("a0"), error, target=found.target, model="m"
                )
            else:
                wait = round(found.wait("a0"), 3)
                told.append({"held back": found.held("a0") is not None, "seconds": wait})
    return told


def _quota_headers(windows: Json) -> dict[str, str]:
    found = {}
    for name, window in windows.items():
        found[f"x-codex-{name}-used-percent"] = str(window["usedPercent"])
        found[f"x-codex-{name}-reset-at"] = str(window["resetAtMs"])
    return found


def quota_headers(row: Row) -> Outcome:
    """The quota windows that the headers of a reply tell."""
    windows = row.result["snapshot"] or {}
    recorded = {name: windows[name] for name in ("primary", "secondary") if windows.get(name)}
    ours = {
        window.name.removeprefix("codex-"): {
            "usedPercent": window.used_percent,
            "resetAtMs": None if window.resets_at is None else round(window.resets_at * 1_000),
        }
        for window in read_windows(row.args[0], now=NOW)
    }
    return Outcome(recorded={"windows": recorded}, ours={"windows": ours})


def rate_limit_backoff(row: Row) -> Outcome:
    """Seconds that each of several 429 in a row holds its account back."""
    ours = []
    for number, step in enumerate(row.args[0]):
        error = {"error": {"message": "slow down", "code": step.get("reason")}}
        limit = refused(429, error, {"retry-after-ms": str(step["retryAfterMs"])})
        ours.append(consequence(limit, model="m", limited=number).seconds)
    recorded = [step["delayMs"] / 1_000 for step in row.result]
    return Outcome(recorded={"seconds": recorded}, ours={"seconds": ours})


def limit_scope(row: Row) -> Outcome:
    """Whether a 429 with this code is one of the model that was asked for, or of all."""
    limit = refused(429, {"error": {"message": "m", "code": row.args[1]}})
    recorded = "the model" if row.result in ("tokens", "concurrent") else "all models"
    ours = "all models" if consequence(limit, model="m").scope == ALL else "the model"
    return Outcome(recorded={"limits": recorded}, ours={"limits": ours})


# --- the choice -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Seat:
    """An account of a selection row, as its operations leave it."""

    calls: int = 0
    used_at: float = 0.0
    obstacles: list[Obstacle] = field(default_factory=list)


def select_hybrid(row: Row) -> Outcome:
    """The account that is chosen.

    What is taken from the reference's bucket is a call that was made; a boost is a weight.
    """
    (given,) = row.args
    now = NOW
    seats = {account["index"]: _Seat() for account in given["accounts"]}
    for op in given["ops"]:
        now += op.get("advanceMs", 0) / 1_000
        if "op" not in op or op["op"] == "refund":
            continue
        seat = seats[op["i"]]
        seat.calls, seat.used_at = seat.calls + op.get("n", 1), now
        if op["op"] == "rl":
            means = consequence(refused(429, {}), model="m")
            seat.obstacles.append(
                Obstacle(reason=means.reason, until=now + means.seconds, guessed=True)
            )
    boosts = given["options"].get("scoreBoostByAccount", {})
    candidates = []
    for account in given["accounts"]:
        seat = seats[account["index"]]
        said = [] if account["isAvailable"] else [Obstacle(reason="limited")]
        candidates.append(
            Candidate(
                id=str(account["index"]),
                name=f"a{account['index']}",
                weight=1.0 + boosts.get(str(account["index"]), 0) / 2,
                obstacles=(*seat.obstacles, *said),
                calls=seat.calls,
                used_at=seat.used_at,
            )
        )
    choice = choose(candidates, Wants(), strategy=Strategy.HYBRID, now=now)
    chosen = None if choice.account is None else int(choice.account)
    return Outcome(recorded={"chosen": row.result["selectedIndex"]}, ours={"chosen": chosen})


def runtime_policy(row: Row) -> Outcome:
    """Who is left out and why, who comes first, and whether the model may be asked for.

    Weights of a project are weights of the accounts here, and its models those of a caller.
    """
    (given,) = row.args
    profile = given["state"]["project"]["profile"] or {}
    policies = list(given["state"]["accountPolicies"]["accounts"].items())
    result = row.result
    weights = profile.get("accountWeightByKey", {})
    candidates = []
    for number, account in enumerate(given["accounts"]):
        # The reference names accounts by digests; a row has one at most, whose index it tells.
        mine = [p for _, p in policies if str(number) in _meant(result)]
        own = list(weights.values()) if str(number) in _meant(result) else []
        candidates.append(
            Candidate(
                id=str(number),
                name=account["accountId"],
                weight=float((own or [p["weight"] for p in mine] or [1.0])[0]),
                state=_state(mine),
            )
        )
    choice = choose(candidates, Wants(), strategy=Strategy.HYBRID, now=NOW)
    left_out = {
        each.id: each.obstacle.reason for each in choice.considered if each.obstacle is not None
    }
    refusal = _refusal(given["model"], profile.get("modelAllowlist") or ["*"])
    reasons = result["blockedAccountReasons"].items()
    return Outcome(
        recorded={
            "status": None if result["allowed"] else result["statusCode"],
            "left out": {index: _STATES[reason] for index, reason in reasons},
            "preferred": _recorded_preferred(result),
        },
        ours={"status": refusal, "left out": left_out, "preferred": _preferred(candidates)},
    )


def _refusal(model: str, globs: list[str]) -> int | None:
    try:
        check_model(model, globs)
    except RequestRejected as error:
        return error.fault.status
    return None


def _preferred(candidates: list[Candidate]) -> list[str]:
    """Those that are chosen although they were used last."""
    found = []
    for one in candidates:
        used = [replace(each, used_at=NOW if each is one else 0.0) for each in candidates]
        choice = choose(used, Wants(), strategy=Strategy.HYBRID, now=NOW)
        if choice.account == one.id:
            found.append(one.id)
    return found


_STATES: Final = {"policy: drained": "draining", "policy: paused": "paused"}


def _meant(result: Json) -> set[str]:
    boosts = result["scoreBoostByAccount"]
    return {index for index, boost in boosts.items() if boost}


def _state(policies: list[Json]) -> State:
    if any(policy["paused"] for policy in policies):
        return State.PAUSED
    return State.DRAINING if any(policy["drained"] for policy in policies) else State.ACTIVE


def _recorded_preferred(result: Json) -> list[str]:
    left = {
        index: boost
        for index, boost in result["scoreBoostByAccount"].items()
        if int(index) not in result["blockedAccountIndexes"]
    }
    best = [index for index, boost in left.items() if boost == max(left.values())]
    return best if len(best) == 1 else []


def forced_account(row: Row) -> Outcome:
    """The account that a request demands: a number there, a name here."""
    said = row.args[1]
    text = "" if said is None else str(said)
    recorded: Json = {"outcome": "read", "demanded": row.result and str(row.result)}
    try:
        found = read_options(lambda name: text if name == ACCOUNT else "").account
    except RequestRejected as error:
        return Outcome(recorded=recorded, ours={"outcome": f"400 {error.fault.param}"})
    return Outcome(recorded=recorded, ours={"outcome": "read", "demanded": found})
