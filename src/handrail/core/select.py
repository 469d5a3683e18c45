"""Which account an upstream call is made with: one pure function over a snapshot, with its reasons.

The order is fixed: what the request is bound to (its pin, or the account that alone can read it),
then the operator's pin, then the account that the conversation used last, then the strategy. What
an upstream or the operator said holds. What we only guess (a breaker, a short pause after a
failure, a quota that is nearly used up) puts an account behind the others, and refuses nobody the
last one that is left (defect D-21 of the reference).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

MAX_WEIGHT: Final = 10.0

MAX_TAGS: Final = 16
"""Of one account, and in the rule of one caller."""


class Strategy(StrEnum):
    """How an account is chosen among those that may be used.

    `hybrid` takes the one with the most room: its weight, times the share of its quota that is
    left, over the calls that it has under way; in turns, so that each gets its share. `drain_first`
    takes the first by name until it may not be used any more. `round_robin` takes the one that was
    not used for longest. `least_used` takes the one that has made the fewest calls.
    """

    HYBRID = "hybrid"
    DRAIN_FIRST = "drain_first"
    ROUND_ROBIN = "round_robin"
    LEAST_USED = "least_used"


class State(StrEnum):
    """What the operator wants of an account, or what became of it.

    `draining` serves only what is bound to it. `ended` is over until somebody signs in again.
    """

    ACTIVE = "active"
    PAUSED = "paused"
    DRAINING = "draining"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why an account is not to be used, and until when (unix seconds; None: nobody knows).

    `guessed`: nobody but us said so.
    """

    reason: str
    until: float | None = None
    guessed: bool = False


BARRED: Final = Obstacle(reason="the caller may not use it: it has none of the caller's tags")
"""Nobody says until when, for it is no matter of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One account as it is at this moment.

    `obstacles` are those that apply to the model asked for, whether they are over or not.
    `left` is the share of its quota that is left, 0 to 1, 1 when nobody knows. `running` and
    `calls` count upstream calls, under way and in all. `credit` is what its room has earned it so
    far (`credits_after`). `used_at` is unix seconds, 0 for never.
    """

    id: str
    name: str
    state: State = State.ACTIVE
    obstacles: tuple[Obstacle, ...] = ()
    tags: frozenset[str] = frozenset()
    weight: float = 1.0
    left: float = 1.0
    running: int = 0
    calls: int = 0
    credit: float = 0.0
    used_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """What a request asks of its account.

    `pin` is the name that the request demands, `bound` the id of the only account that can serve
    it, `last` the id of the one that its conversation used. `tried` are those whose calls have
    failed already. `conversation` names the conversation, for whoever remembers its account. Of
    `tags` an account must have one, whatever else is wanted; none at all allow every account. A
    `question` is about the `bound` account itself, how much of its quota is used: no limit stands
    in its way, and its failure says nothing about calls.
    """

    pin: str | None = None
    bound: str | None = None
    last: str | None = None
    tried: frozenset[str] = frozenset()
    conversation: str | None = None
    tags: frozenset[str] = frozenset()
    question: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """One account in the answer to "why": `obstacle` is None for one that could be used."""

    id: str
    name: str
    score: float
    obstacle: Obstacle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The account to use, None when there is none, and why.

    Without one, `until` is the soonest moment at which somebody said that one may be used again.
    """

    account: str | None
    reason: str
    considered: tuple[Considered, ...] = field(repr=False, default=())
    until: float | None = None

    @property
    def barred(self) -> bool:
        """Whether the caller may use none of the accounts that were considered."""
        return bool(self.considered) and all(seen.obstacle == BARRED for seen in self.considered)


def choose(
    candidates: Sequence[Candidate],
    wants: Wants,
    *,
    strategy: Strategy,
    now: float,
    pinned: str | None = None,
) -> Choice:
    """The account for one call. `pinned` is the id that the operator pinned; `now` unix seconds."""
    demanded = _demanded(candidates, wants)
    if demanded is not None:
        found, why = demanded
        return _only(found, why, wants, now=now)
    if pinned is not None:
        found = [each for each in candidates if each.id == pinned]
        return _only(found, "the operator pinned it", wants, now=now)
    looked = tuple(_look(each, wants, now=now, bound=False) for each in candidates)
    free = [c for c, seen in zip(candidates, looked, strict=True) if seen.obstacle is None]
    if free:
        return _among(free, wants, strategy=strategy, looked=looked)
    return _last_resort(looked)


def _demanded(candidates: Sequence[Candidate], wants: Wants) -> tuple[list[Candidate], str] | None:
    if wants.pin is not None:
        return [c for c in candidates if c.name == wants.pin], "the request demands it"
    if wants.bound is not None:
        return [c for c in candidates if c.id == wants.bound], "only it can read what is sent back"
    return None


def _only(found: Sequence[Candidate], why: str, wants: Wants, *, now: float) -> Choice:
    if not found:
        return Choice(account=None, reason=f"{why}, but there is no such account")
    seen = _look(found[0], wants, now=now, bound=True)
    obstacle = seen.obstacle
    if obstacle is None or _is_passable(obstacle, found[0], wants):
        return Choice(account=seen.id, reason=why, considered=(seen,))
    reason = f"{why}, but it cannot be used: {obstacle.reason}"
    return Choice(account=None, reason=reason, considered=(seen,), until=obstacle.until)


def _is_passable(obstacle: Obstacle, candidate: Candidate, wants: Wants) -> bool:
    usable = candidate.state not in (State.PAUSED, State.ENDED) and obstacle is not BARRED
    return (obstacle.guessed or (wants.question and usable)) and candidate.id not in wants.tried


def _look(candidate: Candidate, wants: Wants, *, now: float, bound: bool) -> Considered:
    return Considered(
        id=candidate.id,
        name=candidate.name,
        score=score(candidate),
        obstacle=_obstacle(candidate, wants, now=now, bound=bound),
    )


def _obstacle(candidate: Candidate, wants: Wants, *, now: float, bound: bool) -> Obstacle | None:
    if wants.tags and not wants.tags & candidate.tags:
        return BARRED
    if candidate.state is State.DRAINING and not bound:
        return Obstacle(reason="draining")
    if candidate.state in (State.PAUSED, State.ENDED):
        return Obstacle(reason=candidate.state.value)
    standing = [o for o in candidate.obstacles if o.until is None or o.until > now]
    # What was said comes before what was guessed, and the longest of each decides.
    standing.sort(key=lambda o: (o.guessed, -(o.until if o.until is not None else now)))
    if standing and not standing[0].guessed:
        return standing[0]
    if candidate.id in wants.tried:
        return Obstacle(reason="its call has failed just now")
    return standing[0] if standing else None


def after_wait(first: Choice, later: Choice) -> Choice | None:
    """What remains of a choice whose account had to be waited for, by the snapshot of after that.

    None when the account may not be used any more. It need not be the best one still.
    """
    if later.account == first.account:
        return later
    if any(seen.id == first.account and seen.obstacle is None for seen in later.considered):
        return replace(later, account=first.account, reason=first.reason)
    return None


def credits_after(choice: Choice) -> dict[str, float]:
    """What each account's credit changes by when `choice` is used: shares by smooth turns.

    Everybody who could have been chosen earns his room, and the chosen one pays for all. That is
    the weighted round robin of nginx: shares are exact over a few calls, none comes in a row, and
    an account that comes back after a pause has nothing to catch up.
    """
    free = {seen.id: seen.score for seen in choice.considered if seen.obstacle is None}
    if choice.account not in free:
        return {}
    return {
        account: room - (sum(free.values()) if account == choice.account else 0.0)
        for account, room in free.items()
    }


def score(candidate: Candidate) -> float:
    """How much room an account has, for `hybrid`: 0 and more."""
    return candidate.weight * max(candidate.left, 0.001) / (1 + candidate.running)


def _among(
    free: Sequence[Candidate],
    wants: Wants,
    *,
    strategy: Strategy,
    looked: tuple[Considered, ...],
) -> Choice:
    last = next((each for each in free if each.id == wants.last), None)
    if last is not None:
        reason = "its conversation used it last"
        return Choice(account=last.id, reason=reason, considered=looked)
    best = min(free, key=lambda each: _rank(each, strategy))
    reason = f"{strategy}: {_WORDS[strategy]} of {len(free)}"
    if len(free) == 1:
        reason = "the only one that may be used"
    return Choice(account=best.id, reason=reason, considered=looked)


_WORDS: Final = {
    Strategy.HYBRID: "most room",
    Strategy.DRAIN_FIRST: "first by name",
    Strategy.ROUND_ROBIN: "longest unused",
    Strategy.LEAST_USED: "fewest calls",
}


def _rank(candidate: Candidate, strategy: Strategy) -> tuple[float, float, str]:
    if strategy is Strategy.HYBRID:
        # Of equals the longest unused, so that steady traffic spreads (defect D-32).
        return (-round(candidate.credit + score(candidate), 9), candidate.used_at, candidate.name)
    if strategy is Strategy.ROUND_ROBIN:
        return (candidate.used_at, 0.0, candidate.name)
    if strategy is Strategy.LEAST_USED:
        return (candidate.calls, candidate.used_at, candidate.name)
    return (0.0, 0.0, candidate.name)


def _last_resort(looked: tuple[Considered, ...]) -> Choice:
    """Nobody is free: the one whose obstacle we only guess, or none at all."""
    guessed = [(s, s.obstacle) for s in looked if s.obstacle is not None and s.obstacle.guessed]
    if guessed:
        seen, obstacle = min(guessed, key=lambda pair: (pair[1].until or 0.0, -pair[0].score))
        reason = f"the last one that may answer, although {obstacle.reason}"
        return Choice(account=seen.id, reason=reason, considered=looked)
    ends = [s.obstacle.until for s in looked if s.obstacle is not None and s.obstacle.until]
    reason = "there is no account" if not looked else "no account may be used now"
    if looked and all(seen.obstacle == BARRED for seen in looked):
        reason = "no account has one of the caller's tags"
    return Choice(account=None, reason=reason, considered=looked, until=min(ends, default=None))
