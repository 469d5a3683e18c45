"""The upstream of the settings: its base URL, credential, proxy and abilities."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from handrail.core.catalogue import Catalogue
from handrail.core.profiles import CODEX, PROFILES, AddReasoning, Auth, Profile, ToolCleanUp
from handrail.core.proxies import proxy_variable
from handrail.errors import ConfigInvalid
from handrail.settings.account_table import account_keys
from handrail.settings.model import Proxy, Secret, Target
from handrail.settings.options import API_KEY_VARIABLE, OPENAI_KEY_VARIABLE, WhenMakerIsGone
from handrail.settings.proxy import proxy_of

_PLAIN_URL: Final = re.compile(r"[^\x00-\x20?#\x7f-\U0010ffff]+")


def read_target(
    values: dict[str, Any],
    sources: dict[str, str],
    environment: Mapping[str, str],
    *,
    missing: dict[str, str],
    catalogue: Catalogue,
) -> Target:
    """The target that the settings' values name, where `catalogue` is known about models.

    Completes `values` and `sources` with what was derived; `missing` gets what a credential lacks.
    Raises ConfigInvalid.
    """
    profile = PROFILES[values["upstream.profile"]]
    url = _url(profile, values, sources)
    if values["upstream.extra_fields"] and profile.takes is None:
        raise ConfigInvalid(
            f"{sources['upstream.extra_fields']}: upstream.extra_fields has a meaning only for "
            "the profile compatible; the others take unknown fields anyway."
        )
    version = values["upstream.api_version"]
    runs_background = _runs_background(profile, values, sources)
    adds = values["upstream.encrypted_reasoning"] or profile.add_reasoning
    values["upstream.encrypted_reasoning"] = adds
    cleans = values["upstream.clean_tools"] or profile.clean_tools
    values["upstream.clean_tools"] = cleans
    return Target(
        url=url,
        profile=replace(profile, add_reasoning=AddReasoning(adds), clean_tools=ToolCleanUp(cleans)),
        api_key=_api_key(
            profile, values, environment=environment, sources=sources, missing=missing
        ),
        extra_fields=frozenset(values["upstream.extra_fields"]),
        runs_background=runs_background,
        model_fallbacks=values["upstream.model_fallbacks"],
        reply_seconds=values["upstream.reply_timeout"],
        idle_seconds=values["upstream.idle_timeout"],
        proxy=_proxy(url, values, environment=environment, sources=sources),
        catalogue=catalogue,
        auth=_auth(profile, values),
        bearer_command=values["upstream.bearer_command"],
        bearer_seconds=values["upstream.bearer_lifetime"],
        query="" if version is None else f"api-version={version}",
        accounts=account_keys(values["upstream.accounts"], environment, missing=missing),
        account_table=values["upstream.accounts"],
        drops_reasoning=values["accounts.when_maker_is_gone"] == WhenMakerIsGone.DROP,
    )


def _url(profile: Profile, values: dict[str, Any], sources: dict[str, str]) -> str:
    if values["upstream.url"] is None:
        if profile.base_url is None:
            raise ConfigInvalid(
                f"--upstream: the profile {profile.name} needs the base URL of a server "
                "(--upstream, HANDRAIL_UPSTREAM_URL or upstream.url)."
            )
        values["upstream.url"] = profile.base_url
        sources["upstream.url"] = f"profile {profile.name}"
    return base_url(values["upstream.url"], sources["upstream.url"])


def _auth(profile: Profile, values: dict[str, Any]) -> Auth:
    by_default = Auth.BEARER if values["upstream.bearer_command"] else profile.auth
    values["upstream.auth"] = values["upstream.auth"] or by_default
    return Auth(values["upstream.auth"])


def _proxy(
    url: str,
    values: dict[str, Any],
    *,
    environment: Mapping[str, str],
    sources: dict[str, str],
) -> Proxy | None:
    # Chosen here once and for all, and not by the HTTP client with each call: what is in force can
    # be shown, and a proxy that cannot be used stops the start.
    values["upstream.proxy"], sources["upstream.proxy"] = None, "not set"
    proxy = proxy_of(url, environment)
    if proxy is not None:
        values["upstream.proxy"] = proxy.url
        sources["upstream.proxy"] = f"environment {proxy_variable(url, environment)}"
    return proxy


def _runs_background(profile: Profile, values: dict[str, Any], sources: Mapping[str, str]) -> bool:
    said: bool | None = values["upstream.runs_background"]
    if said and profile is CODEX:
        raise ConfigInvalid(
            f"{sources['upstream.runs_background']}: upstream.runs_background: the Codex backend "
            "stores nothing and runs nothing in the background."
        )
    values["upstream.runs_background"] = profile.runs_background if said is None else said
    return bool(values["upstream.runs_background"])


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
    profile: Profile,
    values: dict[str, Any],
    *,
    environment: Mapping[str, str],
    sources: dict[str, str],
    missing: dict[str, str],
) -> Secret | None:
    named = values["upstream.api_key_env"]
    if values["upstream.bearer_command"]:
        _check_no_key(values, environment=environment, sources=sources)
        values["upstream.api_key"], sources["upstream.api_key"] = None, "upstream.bearer_command"
        return None
    candidates = [API_KEY_VARIABLE]
    if named:
        candidates.append(named)
    elif profile.name == "openai":
        candidates.append(OPENAI_KEY_VARIABLE)
    for variable in candidates:
        key = environment.get(variable, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise ConfigInvalid(f"{variable}: must be printable ASCII.")
        if key:
            values["upstream.api_key"], sources["upstream.api_key"] = Secret(key), variable
            return values["upstream.api_key"]  # type: ignore[no-any-return]
    values["upstream.api_key"], sources["upstream.api_key"] = None, "not set"
    if named:
        missing["upstream.api_key"] = f"upstream.api_key_env: the variable {named} is not set."
    elif profile.needs_credential and not values["upstream.accounts"]:
        missing["upstream.api_key"] = (
            f"{candidates[-1]}: is not set, and an upstream of the profile {profile.name} needs a "
            "credential."
        )
    return None


def _check_no_key(
    values: dict[str, Any], *, environment: Mapping[str, str], sources: dict[str, str]
) -> None:
    """Raise ConfigInvalid when a key is given beside the command."""
    given = values["upstream.api_key_env"] or environment.get(API_KEY_VARIABLE, "").strip()
    if given:
        other = "upstream.api_key_env" if values["upstream.api_key_env"] else API_KEY_VARIABLE
        raise ConfigInvalid(
            f"{sources['upstream.bearer_command']}: give upstream.bearer_command or {other}, "
            "not both."
        )
