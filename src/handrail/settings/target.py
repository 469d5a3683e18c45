"""One target of the settings: its base URL, credential, proxy and abilities."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from handrail.core.catalogue import Catalogue
from handrail.core.profiles import CODEX, OPENAI, PROFILES, AddReasoning, Auth, Profile, ToolCleanUp
from handrail.core.proxies import proxy_variable
from handrail.errors import ConfigInvalid
from handrail.settings.account_table import account_keys
from handrail.settings.model import Proxy, Secret, Target
from handrail.settings.options import API_KEY_VARIABLE, OPENAI_KEY_VARIABLE
from handrail.settings.proxy import proxy_of

ONLY_TARGET: Final = "upstream"
"""What the only target is called, which needs no name."""

_PLAIN_URL: Final = re.compile(r"[^\x00-\x20?#\x7f-\U0010ffff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """What holds for all targets of the settings; `only`: there is but one."""

    drops_reasoning: bool
    also_after: frozenset[int]
    only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the settings say of one target: its part of all values and sources, by plain names.

    `place` is where that stands, `upstream` or `targets.NAME`. What is derived is written back, so
    that it can be shown.
    """

    place: str
    values: dict[str, Any]
    sources: dict[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[f"{self.place}.{name}"]

    def __setitem__(self, name: str, value: Any) -> None:
        self.values[f"{self.place}.{name}"] = value

    def put(self, name: str, value: Any, *, source: str) -> None:
        """A value and where it is from."""
        self[name] = value
        self.sources[f"{self.place}.{name}"] = source

    def at(self, name: str) -> str:
        """Where a value is from, and what it is called: how an error about it begins."""
        path = f"{self.place}.{name}"
        return f"{self.sources[path]}: {path}"


def place_of(target: Target) -> str:
    """Where the settings describe it."""
    return ONLY_TARGET if target.label == ONLY_TARGET else f"targets.{target.label}"


def read_target(
    said: Said,
    environment: Mapping[str, str],
    *,
    missing: dict[str, str],
    catalogue: Catalogue,
    manner: Manner,
) -> Target:
    """The target that the settings describe, where `catalogue` is known about models.

    `manner` is what they say of all targets. `missing` gets what a credential lacks. Raises
    ConfigInvalid.
    """
    profile = PROFILES[said["profile"]]
    url = _url(profile, said)
    if said["extra_fields"] and profile.takes is None:
        raise ConfigInvalid(
            f"{said.at('extra_fields')} has a meaning only for the profile compatible; the others "
            "take unknown fields anyway."
        )
    runs_background = _runs_background(profile, said)
    said["encrypted_reasoning"] = adds = said["encrypted_reasoning"] or profile.add_reasoning
    said["clean_tools"] = cleans = said["clean_tools"] or profile.clean_tools
    version = said["api_version"]
    return Target(
        url=url,
        profile=replace(profile, add_reasoning=AddReasoning(adds), clean_tools=ToolCleanUp(cleans)),
        api_key=_api_key(profile, said, environment=environment, missing=missing),
        extra_fields=frozenset(said["extra_fields"]),
        runs_background=runs_background,
        model_fallbacks=said["model_fallbacks"],
        reply_seconds=said["reply_timeout"],
        idle_seconds=said["idle_timeout"],
        proxy=_proxy(url, said, environment),
        catalogue=catalogue,
        auth=_auth(profile, said),
        bearer_command=said["bearer_command"],
        bearer_seconds=said["bearer_lifetime"],
        query="" if version is None else f"api-version={version}",
        label=said.place.removeprefix("targets."),
        accounts=account_keys(
            said["accounts"], environment, place=f"{said.place}.accounts", missing=missing
        ),
        account_table=said["accounts"],
        drops_reasoning=manner.drops_reasoning,
        also_after=manner.also_after,
        pass_through=_pass_through(profile, said),
        only=manner.only,
    )


def _url(profile: Profile, said: Said) -> str:
    named = said.place != ONLY_TARGET
    if said["url"] is None:
        if profile.base_url is None:
            ways = "" if named else f" (--upstream, HANDRAIL_UPSTREAM_URL or {said.place}.url)"
            raise ConfigInvalid(
                f"{f'{said.place}.url' if named else '--upstream'}: the profile {profile.name} "
                f"needs the base URL of a server{ways}."
            )
        said.put("url", profile.base_url, source=f"profile {profile.name}")
    source = said.sources[f"{said.place}.url"]
    return base_url(said["url"], said.at("url") if named else source)


def _auth(profile: Profile, said: Said) -> Auth:
    by_default = Auth.BEARER if said["bearer_command"] else profile.auth
    said["auth"] = said["auth"] or by_default
    return Auth(said["auth"])


def _proxy(url: str, said: Said, environment: Mapping[str, str]) -> Proxy | None:
    # Chosen here once and for all, and not by the HTTP client with each call: what is in force can
    # be shown, and a proxy that cannot be used stops the start.
    said.put("proxy", None, source="not set")
    proxy = proxy_of(url, environment)
    if proxy is not None:
        said.put("proxy", proxy.url, source=f"environment {proxy_variable(url, environment)}")
    return proxy


def _runs_background(profile: Profile, said: Said) -> bool:
    able: bool | None = said["runs_background"]
    if able and profile is CODEX:
        raise ConfigInvalid(
            f"{said.at('runs_background')}: the Codex backend stores nothing and runs nothing in "
            "the background."
        )
    said["runs_background"] = profile.runs_background if able is None else able
    return bool(said["runs_background"])


def _pass_through(profile: Profile, said: Said) -> tuple[str, ...]:
    entries: tuple[str, ...] = said["pass_through"]
    if entries and profile is CODEX:
        raise ConfigInvalid(
            f"{said.at('pass_through')}: the Codex backend has no routes for callers but its own."
        )
    return entries


def base_url(text: str, source: str) -> str:
    """A base URL without a slash at its end. Raises ConfigInvalid that names the source."""

    def refuse(why: str) -> ConfigInvalid:
        return ConfigInvalid(f"{source}: the upstream's base URL {why}.")

    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise refuse("cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise refuse("must be http:// or https:// with a host")
    if parts.username is not None or parts.password is not None:
        raise refuse("must not hold a user name or password")
    if not _PLAIN_URL.fullmatch(text):
        raise refuse("must be plain ASCII without spaces, a query or a fragment")
    if parts.path.rstrip("/").endswith("/responses"):
        raise refuse("must be given without /responses, which is appended")
    return text.rstrip("/")


def _api_key(
    profile: Profile, said: Said, *, environment: Mapping[str, str], missing: dict[str, str]
) -> Secret | None:
    named = said["api_key_env"]
    if said["bearer_command"]:
        _check_no_key(said, environment)
        said.put("api_key", None, source=f"{said.place}.bearer_command")
        return None
    candidates = _key_variables(profile, said)
    for variable in candidates:
        key = environment.get(variable, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise ConfigInvalid(f"{variable}: must be printable ASCII.")
        if key:
            found = Secret(key)
            said.put("api_key", found, source=variable)
            return found
    said.put("api_key", None, source="not set")
    path = f"{said.place}.api_key"
    if named:
        missing[path] = f"{said.place}.api_key_env: the variable {named} is not set."
    elif profile.needs_credential and not said["accounts"]:
        where = candidates[-1] if candidates else f"{path}_env"
        missing[path] = (
            f"{where}: is not set, and an upstream of the profile {profile.name} needs a "
            "credential."
        )
    return None


def _key_variables(profile: Profile, said: Said) -> list[str]:
    """The variables that may hold the credential, the strongest first."""
    only = said.place == ONLY_TARGET
    found = [API_KEY_VARIABLE] if only else []
    if said["api_key_env"]:
        return [*found, said["api_key_env"]]
    # Of several targets, only OpenAI's own address is meant by a variable that nobody named.
    openai = profile.name == OPENAI.name and (only or said["url"] == OPENAI.base_url)
    return [*found, OPENAI_KEY_VARIABLE] if openai else found


def _check_no_key(said: Said, environment: Mapping[str, str]) -> None:
    """Raise ConfigInvalid when a key is given beside the command."""
    variable = API_KEY_VARIABLE if said.place == ONLY_TARGET else ""
    if said["api_key_env"] or environment.get(variable, "").strip():
        other = f"{said.place}.api_key_env" if said["api_key_env"] else variable
        source = said.sources[f"{said.place}.bearer_command"]
        raise ConfigInvalid(f"{source}: give {said.place}.bearer_command or {other}, not both.")
