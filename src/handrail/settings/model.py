"""The settings as one frozen value."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from handrail.core.admission import Limits
from handrail.core.callback_url import CALLBACK_PATH
from handrail.core.caller_policy import CallerPolicy, Executor
from handrail.core.catalogue import Catalogue, Entries, Options
from handrail.core.fast_session import FastSession
from handrail.core.profiles import Auth, Profile
from handrail.core.quota import Quota
from handrail.core.redact import masked
from handrail.core.routes import Route, route
from handrail.core.select import Strategy
from handrail.core.switch import Switch
from handrail.settings.accounting import Accounting


class Secret:
    """A text that does not show in a log, a traceback or a repr."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself; call it only where it is put into a header."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({masked(self._value)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """The proxy that a target is called through.

    `url` holds no credential and may be shown; `authorization` is the value of the header that
    does, None without any.
    """

    url: str
    authorization: Secret | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlace:
    """Where the key of a vault stands instead of its file: by which setting, and what is there.

    `secret` is what the variable holds; None for an empty one, and for a keyring, which is read
    when the key is needed.
    """

    setting: str
    place: str
    secret: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultPlaces:
    """Those of the run store and of the accounts; None for a file of the data directory."""

    store: KeyPlace | None = None
    accounts: KeyPlace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEntry:
    """What the settings say of an account: where its key stands, its tags, its weight if any."""

    place: str
    tags: tuple[str, ...] = ()
    weight: float | None = None

    def __str__(self) -> str:
        weight = "" if self.weight is None else f" weight {self.weight:g}"
        return f"{self.place}{' tags ' + ' '.join(self.tags) if self.tags else ''}{weight}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A configured upstream. Timeouts in seconds. `proxy` is None for direct calls.

    `catalogue` is what is known about models there. `auth` says how the credential is shown, which
    is `api_key` or what `bearer_command` prints, kept for `bearer_seconds` if it does not say when
    it ends. `query` is a part of every URL, "" for none. `label` is what
    accounts call it, `accounts` are the keys of the settings by the names of theirs, and
    `account_table` is what the settings say of these, also of one whose key is not there;
    `drops_reasoning` is what becomes of reasoning whose account cannot be used, `also_after` has
    further statuses after which another account or target is asked. `only`: the
    settings have no other target. `pass_through` lists the other routes that callers may use
    there. `rules` names
    what decides how a request to it is written: equal rules have equal names.
    """

    url: str
    profile: Profile
    api_key: Secret | None
    extra_fields: frozenset[str]
    runs_background: bool
    model_fallbacks: Mapping[str, tuple[str, ...]]
    reply_seconds: float
    idle_seconds: float
    proxy: Proxy | None
    catalogue: Catalogue = field(repr=False)
    auth: Auth = Auth.BEARER
    bearer_command: tuple[str, ...] = ()
    bearer_seconds: float = 300.0
    query: str = ""
    label: str = "upstream"
    accounts: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    account_table: Mapping[str, AccountEntry] = field(default_factory=dict)
    drops_reasoning: bool = False
    also_after: frozenset[int] = frozenset()
    pass_through: tuple[str, ...] = ()
    only: bool = True
    rules: str = field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", _digest(self))

    def address(self, path: str) -> str:
        """The URL of a path below the base URL; it may have a query of its own."""
        url = self.url + path
        return f"{url}{'&' if '?' in path else '?'}{self.query}" if self.query else url

    @property
    def name(self) -> str:
        """What a run remembers, to find the same upstream again; holds no secret."""
        place = f"{self.profile.name} {self.url}"
        return place if self.label == "upstream" else f"{self.label}: {place}"


def _digest(target: Target) -> str:
    profile, known = target.profile, target.catalogue
    parts = (
        (profile.name, profile.add_reasoning, profile.clean_tools),
        target.extra_fields,
        dict(target.model_fallbacks),
        (dict(known.entries), dict(known.aliases), dict(known.sends), known.defaults),
    )
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthSettings:
    """An issuer of accounts, and as whom it is asked. `redirect_port` 0 is any free one.

    `environment` holds the proxy variables alone: they are looked at when the issuer is called, so
    that a proxy which serves nobody else stops no start.
    """

    issuer: str
    client_id: str
    originator: str
    scopes: tuple[str, ...]
    authorize_url: str
    token_url: str
    revoke_url: str
    device_url: str
    device_page: str
    redirect_host: str
    redirect_port: int
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def redirect_uri(self, port: int) -> str:
        """Where the issuer sends a browser back to, on this machine."""
        return f"http://{self.redirect_host}:{port}{CALLBACK_PATH}"

    @property
    def device_redirect(self) -> str:
        """What the exchange of a device's code names as its redirect."""
        return f"{self.issuer}/deviceauth/callback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Someone who may call: the SHA-256 of the key that the settings give, and the policy.

    `digest` is None where they give none: the caller `default` has a generated key then, and any
    caller may have keys in the data directory.
    """

    policy: CallerPolicy
    digest: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One immutable snapshot. `sources` says where each value came from, by its path.

    Durations in seconds, sizes in bytes. `models` and `defaults` are the operator's own tables.
    """

    host: str
    port: int
    allowed_hosts: tuple[str, ...]
    max_body_bytes: int
    max_connections: int
    drain_seconds: int
    heartbeat_seconds: int
    log_level: str
    data_dir: Path
    targets: Mapping[str, Target]
    routes: tuple[Route, ...]
    oauth: OAuthSettings
    switch: Switch
    executor: Executor
    fast_session: FastSession
    callers: Mapping[str, Caller]
    models: Entries
    defaults: Options
    accounting: Accounting
    max_running: int
    max_queued: int
    max_run_seconds: int
    max_output_bytes: int
    max_stored_bytes: int
    max_history_bytes: int
    account_strategy: Strategy
    file: Path | None
    values: Mapping[str, Any]
    sources: Mapping[str, str]
    vault: VaultPlaces = VaultPlaces()

    @property
    def target(self) -> Target:
        """The first target: the only one, unless there is a table of them."""
        return next(iter(self.targets.values()))

    def targets_for(self, model: str, caller: CallerPolicy) -> tuple[Target, ...]:
        """The targets for a model, "" for none, that the caller may use, the first to be asked.

        () when no route leads to one.
        """
        return tuple(self.targets[name] for name in route(model, self.routes, caller.targets))

    @property
    def limits(self) -> Limits:
        """The limits on runs, of this snapshot."""
        return Limits(
            max_running=self.max_running,
            max_queued=self.max_queued,
            caller_running={n: c.policy.max_running for n, c in self.callers.items()},
            caller_queued={n: c.policy.max_queued for n, c in self.callers.items()},
            weights={n: c.policy.weight for n, c in self.callers.items()},
        )

    @property
    def quota(self) -> Quota:
        """How much may be kept, of this snapshot."""
        return Quota(
            max_bytes=self.max_stored_bytes,
            caller_bytes={n: c.policy.max_stored_bytes for n, c in self.callers.items()},
        )
