"""The targets that one request may be sent to, in order, and what it looks like for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, Protocol, Self, TypeVar

from handrail.core.catalogue import Catalogue
from handrail.core.profiles import Profile
from handrail.core.rewrite import UpstreamRequest
from handrail.core.wire import CreateRequest
from handrail.engine.history import Conversation
from handrail.settings.model import Target

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One target, and the request in the form that it takes, with headers of the caller's.

    `request` builds the form at the moment when it is wanted; it raises RequestRejected for what
    the target cannot take.
    """

    target: Target
    headers: Mapping[str, str]
    request: Callable[[], UpstreamRequest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """The form for the first target, which is made, and the ways to the others.

    All of it lets the request live on: whoever streams for hours must not keep it for as long.
    """

    target: Target
    request: UpstreamRequest
    headers: Mapping[str, str] = field(default_factory=dict)
    others: tuple[Way, ...] = ()

    @classmethod
    def of(cls, *ways: Way) -> Self:
        """Of one way or more. Raises RequestRejected for what the first target cannot take."""
        first = ways[0]
        return cls(
            target=first.target,
            request=first.request(),
            headers=first.headers,
            others=ways[1:],
        )

    def with_request(self, request: UpstreamRequest) -> Self:
        """The same with another form for the first target."""
        return replace(self, request=request)

    def all(self) -> list[Way]:
        """All ways, the first one too."""
        first = Way(target=self.target, headers=self.headers, request=lambda: self.request)
        return [first, *self.others]


class Held(Generic[T]):
    """Something that is let go when it is taken: whoever streams for hours must not keep it."""

    __slots__ = ("_held",)

    def __init__(self, held: T) -> None:
        self._held: T | None = held

    def take(self) -> T:
        """What was held, once."""
        held, self._held = self._held, None
        if held is None:
            raise RuntimeError("a call is made once")
        return held


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A target that a request may go to, with those of its headers that may go along."""

    target: Target
    headers: Mapping[str, str] = field(default_factory=dict)


class Rewrite(Protocol):
    """A function of `core.rewrite`, told all but the target."""

    def __call__(
        self,
        request: CreateRequest,
        *,
        profile: Profile,
        extra_fields: frozenset[str],
        continues: str | None,
        catalogue: Catalogue,
    ) -> UpstreamRequest:
        """The form of `request` that a target takes. Raises RequestRejected."""


def ways_of(conversation: Conversation, places: Sequence[Place], rewrite: Rewrite) -> Ways:
    """The ways of a create; `continues` what one target keeps leads to that one alone.

    Raises RequestRejected for what the first target cannot take.
    """

    def way(place: Place) -> Way:
        target = place.target
        form = partial(
            rewrite,
            conversation.whole,
            profile=target.profile,
            extra_fields=target.extra_fields,
            continues=conversation.continues,
            catalogue=target.catalogue,
        )
        return Way(target=target, headers=place.headers, request=form)

    kept_by = conversation.kept_by
    return Ways.of(*(way(place) for place in places if kept_by in (None, place.target.name)))
