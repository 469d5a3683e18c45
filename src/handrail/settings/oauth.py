"""The OAuth issuer of the settings: who may grant accounts, and at which addresses."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from handrail.core.proxies import PROXY_VARIABLES
from handrail.errors import ConfigInvalid
from handrail.settings import readers
from handrail.settings.model import OAuthSettings
from handrail.settings.options import Option

DEFAULT_ISSUER: Final = "https://auth.openai.com"
DEFAULT_PORT: Final = 1455
"""The only one to which the default issuer sends a browser back."""

OAUTH_OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        path="issuer",
        read=readers.text,
        default=DEFAULT_ISSUER,
        meaning="Base address of the issuer; the addresses below are on it unless they are given.",
    ),
    Option(
        path="client_id",
        read=readers.text,
        default="app_EMoamEEZ73f0CkXaXp7hrann",
        meaning="As whom Handrail asks. By default the public id of Codex CLI, which is the one "
        "that the default issuer grants access to the Codex backend.",
    ),
    Option(
        path="originator",
        read=readers.text,
        default="codex_cli_rs",
        meaning="Which program the page of the issuer says that is signed in to.",
    ),
    Option(
        path="scopes",
        read=readers.texts,
        default=(
            "openid",
            "profile",
            "email",
            "offline_access",
            "api.connectors.read",
            "api.connectors.invoke",
        ),
        meaning="What is asked for; without offline_access there is nothing to refresh with.",
    ),
    Option(
        path="authorize_url",
        read=readers.text,
        default=None,
        meaning="Where a browser signs in. By default /oauth/authorize of the issuer.",
    ),
    Option(
        path="token_url",
        read=readers.text,
        default=None,
        meaning="Where codes and refresh credentials are exchanged. By default /oauth/token of "
        "the issuer.",
    ),
    Option(
        path="revoke_url",
        read=readers.text,
        default=None,
        meaning="Where a login is ended. By default /oauth/revoke of the issuer.",
    ),
    Option(
        path="device_url",
        read=readers.text,
        default=None,
        meaning="What /usercode and /token of the device flow are appended to. By default "
        "/api/accounts/deviceauth of the issuer.",
    ),
    Option(
        path="device_page",
        read=readers.text,
        default=None,
        meaning="Where a person types a device code in. By default /codex/device of the issuer.",
    ),
    Option(
        path="redirect_port",
        read=readers.integer(0, 65_535),
        default=None,
        meaning="The port of this machine to which the issuer sends a browser back; 0 takes a "
        "free one. By default 1455 for the default issuer, which allows no other, and 0 for "
        "others.",
    ),
    Option(
        path="redirect_host",
        read=readers.word("127.0.0.1", "localhost"),
        default="127.0.0.1",
        meaning="The name of this machine in that address. Codex CLI 0.169 says 127.0.0.1, as RFC "
        "8252 has it; older versions said localhost.",
    ),
)

_PATHS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "authorize_url": "/oauth/authorize",
        "token_url": "/oauth/token",
        "revoke_url": "/oauth/revoke",
        "device_url": "/api/accounts/deviceauth",
        "device_page": "/codex/device",
    }
)
_PLAIN: Final = re.compile(r"[\x21-\x7e]{1,200}")
_PLAIN_URL: Final = re.compile(r"[^\x00-\x20?#\x7f-\U0010ffff]+")
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def read_oauth(
    table: Any,
    environment: Mapping[str, str],
    *,
    file: str,
    values: dict[str, Any],
    sources: dict[str, str],
) -> OAuthSettings:
    """The issuer that a table `oauth` names. Raises ConfigInvalid.

    Puts each value, under `oauth.NAME`, into `values` and where it is from into `sources`.
    """
    if not isinstance(table, dict):
        raise ConfigInvalid(f"{file}: 'oauth' must be a table.")
    given = dict(table)
    found: dict[str, Any] = {}
    for option in OAUTH_OPTIONS:
        name, path = option.path, f"oauth.{option.path}"
        found[name], sources[path] = option.default, "default"
        if name in given:
            found[name], sources[path] = option.read(given.pop(name), f"{file}: {path}"), file
    if given:
        unknown = str(next(iter(given))).encode("unicode_escape").decode()[:60]
        raise ConfigInvalid(f"{file}: unknown setting 'oauth.{unknown}'.")
    _check_words(found, file)
    found["issuer"] = _address(found["issuer"], f"{file}: oauth.issuer")
    for name, path in _PATHS.items():
        address = found[name] or f"{found['issuer']}{path}"
        found[name] = _address(address, f"{file}: oauth.{name}")
    if found["redirect_port"] is None:
        found["redirect_port"] = DEFAULT_PORT if found["issuer"] == DEFAULT_ISSUER else 0
    values.update({f"oauth.{name}": value for name, value in found.items()})
    return OAuthSettings(**found, environment=_proxies(environment))


def _check_words(found: Mapping[str, Any], file: str) -> None:
    """Raise ConfigInvalid for what a header or a query could not carry as one word."""
    for name in ("client_id", "originator", "scopes"):
        words = found[name] if isinstance(found[name], tuple) else (found[name],)
        if not words or not all(_PLAIN.fullmatch(word) for word in words):
            raise ConfigInvalid(
                f"{file}: oauth.{name}: must be printable ASCII without spaces, up to 200 "
                "characters a word."
            )


def _proxies(environment: Mapping[str, str]) -> Mapping[str, str]:
    names = [spelled for name in PROXY_VARIABLES for spelled in (name.lower(), name)]
    return MappingProxyType({name: environment[name] for name in names if name in environment})


def _address(text: str, place: str) -> str:
    """An address without a slash at its end. Raises ConfigInvalid."""
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigInvalid(f"{place}: cannot be read as an address.") from None
    if not usable or parts.scheme not in ("http", "https"):
        raise ConfigInvalid(f"{place}: must be https:// with a host.")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        # Everything that goes there is a credential, or becomes one.
        raise ConfigInvalid(f"{place}: must be https://; http:// is for this machine alone.")
    if "@" in parts.netloc or not _PLAIN_URL.fullmatch(text):
        raise ConfigInvalid(
            f"{place}: must be plain ASCII without a login, spaces, a query or a fragment."
        )
    return text.rstrip("/")
