"""What of the settings decides about one request: all that a use without a server needs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self, TypeVar

from handrail.core.caller_policy import CallerPolicy, Executor
from handrail.core.catalogue import NO_OPTIONS, Catalogue, Entries, Options
from handrail.core.fast_session import NO_FAST_SESSION, FastSession
from handrail.core.prepare import Upstream
from handrail.core.profiles import CODEX, PROFILES, AddReasoning, ToolCleanUp
from handrail.core.switch import Switch
from handrail.errors import ConfigInvalid
from handrail.settings import readers
from handrail.settings.catalogue import catalogue_of, read_defaults, read_models
from handrail.settings.load import DEFAULT_CALLER, load
from handrail.settings.model import Settings, Target
from handrail.settings.target import base_url

W = TypeVar("W", bound=StrEnum)

OFF: Final = Switch(enabled=False, source="default", locked=False)
_ANYBODY: Final = MappingProxyType({DEFAULT_CALLER: CallerPolicy(name=DEFAULT_CALLER)})


@dataclass(frozen=True, slots=True, kw_only=True)
class LibrarySettings:
    """The rules for requests, without a credential, a data directory or a server.

    `profile` is the name of the upstream's kind, `base_url` None for the profile's own.
    `runs_background` is whether the upstream can run background responses itself, None for what
    the profile says; `extra_fields` are further fields that a server of the profile compatible
    takes; `encrypted_reasoning` is when that is asked for, None for what the profile says;
    `api_version` is a parameter of every URL; `clean_tools` is what is put right in tools, None for
    what the profile says; `model_fallbacks` are by model those to try when the upstream does not
    serve it; `fast_session` is what may be left out of a request, by default nothing. `callers`
    maps names to what they may. `models` and `defaults` are as in a settings file: by model its
    keys, and the options of all models. Raises ConfigInvalid when that makes no sense.
    """

    profile: str = "openai"
    base_url: str | None = None
    switch: Switch = OFF
    executor: Executor = Executor.GATEWAY
    runs_background: bool | None = None
    extra_fields: frozenset[str] = frozenset()
    encrypted_reasoning: AddReasoning | None = None
    api_version: str | None = None
    clean_tools: ToolCleanUp | None = None
    model_fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fast_session: FastSession = NO_FAST_SESSION
    callers: Mapping[str, CallerPolicy] = field(default_factory=lambda: _ANYBODY)
    models: Entries | Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    defaults: Options | Mapping[str, Any] = NO_OPTIONS
    _catalogue: Catalogue = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ConfigInvalid(f"profile: {self.profile!r} is none of {', '.join(PROFILES)}.")
        if self.base_url is not None:
            base_url(self.base_url, "base_url")
        if self.runs_background and self.profile == CODEX.name:
            raise ConfigInvalid("runs_background: the Codex backend runs nothing itself.")
        if self.api_version is not None:
            readers.version(self.api_version, "api_version")
        # A rule given as a plain word must mean what it says.
        own: dict[str, object] = {
            "executor": _word(Executor, self.executor, "executor"),
            "extra_fields": frozenset(self.extra_fields),
            "model_fallbacks": MappingProxyType(
                {model: tuple(chain) for model, chain in self.model_fallbacks.items()}
            ),
            "callers": MappingProxyType(dict(self.callers)),
        }
        if self.encrypted_reasoning is not None:
            word = _word(AddReasoning, self.encrypted_reasoning, "encrypted_reasoning")
            own["encrypted_reasoning"] = word
        if self.clean_tools is not None:
            own["clean_tools"] = _word(ToolCleanUp, self.clean_tools, "clean_tools")
        models, defaults = (
            read_models(self.models, "models"),
            read_defaults(self.defaults, "defaults"),
        )
        profile = PROFILES[self.profile]
        own |= {
            "models": models,
            "defaults": defaults,
            "_catalogue": catalogue_of(profile, own=models, defaults=defaults),
        }
        for name, value in own.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] | None = None,
        *,
        background: bool | None = None,
        profile: str | None = None,
        base_url: str | None = None,
    ) -> Self:
        """The rules that `handrail serve` would have if started here; keywords are its flags.

        Reads the environment (`os.environ`, if none is given) and the settings file that
        HANDRAIL_CONFIG names, or `handrail.toml` in the current directory if there is one.
        `background=False` is a lock, as `--no-background` is. Raises ConfigInvalid.
        """
        flags = {
            "background.enabled": background,
            "upstream.profile": profile,
            "upstream.url": base_url,
        }
        return cls.of(_loaded(flags, environment))

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        environment: Mapping[str, str] | None = None,
        background: bool | None = None,
    ) -> Self:
        """The same with this settings file; flag and environment are stronger than the file."""
        flags = {"config": os.fspath(path), "background.enabled": background}
        return cls.of(_loaded(flags, environment))

    @classmethod
    def of(cls, settings: Settings, *, target: Target | None = None) -> Self:
        """What of a gateway's settings decides about requests to a target, by default the first."""
        target = target or settings.target
        return cls(
            profile=target.profile.name,
            base_url=target.url,
            switch=settings.switch,
            executor=settings.executor,
            runs_background=target.runs_background,
            extra_fields=target.extra_fields,
            encrypted_reasoning=target.profile.add_reasoning,
            api_version=target.query.partition("=")[2] or None,
            clean_tools=target.profile.clean_tools,
            model_fallbacks=target.model_fallbacks,
            fast_session=settings.fast_session,
            callers=MappingProxyType({n: c.policy for n, c in settings.callers.items()}),
            models=settings.models,
            defaults=settings.defaults,
        )

    def for_profile(self, profile: str) -> Self:
        """The same rules for another kind of upstream, at its own base URL."""
        if profile == self.profile:
            return self
        return replace(
            self,
            profile=profile,
            base_url=None,
            runs_background=None,
            extra_fields=frozenset(),
            encrypted_reasoning=None,
            api_version=None,
            clean_tools=None,
            model_fallbacks={},
        )

    def caller(self, name: str | None) -> CallerPolicy:
        """What the caller of that name may, None for `default`. Raises ConfigInvalid."""
        found = self.callers.get(DEFAULT_CALLER if name is None else name)
        if found is None:
            known = ", ".join(sorted(self.callers)) or "none"
            said = "none was named" if name is None else f"{name[:64]!r} is not one of them"
            raise ConfigInvalid(f"caller: {said}; the settings have: {known}.")
        return found

    def upstream(self, url: str | None = None) -> Upstream:
        """The upstream, at `url` if one is given. Raises ConfigInvalid when it has no URL."""
        profile = PROFILES[self.profile]
        url = url or self.base_url or profile.base_url
        if url is None:
            raise ConfigInvalid(f"base_url: the profile {self.profile} needs one.")
        able = self.runs_background
        if self.encrypted_reasoning is not None:
            profile = replace(profile, add_reasoning=self.encrypted_reasoning)
        if self.clean_tools is not None:
            profile = replace(profile, clean_tools=self.clean_tools)
        return Upstream(
            url=url.rstrip("/"),
            profile=profile,
            extra_fields=self.extra_fields,
            runs_background=profile.runs_background if able is None else able,
            catalogue=self._catalogue,
            query=f"api-version={self.api_version}" if self.api_version else "",
        )


def _word(words: type[W], value: str, place: str) -> W:
    try:
        return words(value)
    except ValueError:
        raise ConfigInvalid(f"{place}: must be one of {', '.join(words)}.") from None


def _loaded(flags: Mapping[str, object], environment: Mapping[str, str] | None) -> Settings:
    given = os.environ if environment is None else environment
    return load(flags, given, default_data_dir=Path(), credentials=False)
